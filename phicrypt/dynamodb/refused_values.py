"""Errors that boto3 makes of a call's own values, without the values (rule 32).

botocore's ParamValidationError prints the value that it refuses, and so does the TypeError of boto3's
resource. Both come out of the one method that every call of a client passes; it is wrapped here, per client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from weakref import ref

from phicrypt.errors import ConfigurationError

_OF_BOTO3: Final = ("boto3.", "botocore.")


def hide_refused_values(client: Any) -> None:
    """Make the client's calls raise ConfigurationError where boto3 refuses a value, and shows it.

    The client is changed from here on. Tracers that replace the method on botocore's class go on working.
    """
    from botocore.exceptions import ParamValidationError

    reference = ref(client)  # so that the client does not hold itself alive
    own = vars(client).get("_make_api_call")  # of a tracer that put it on this client alone

    def call(operation: str, parameters: Mapping[str, Any]) -> Any:
        owner: Any = reference()
        try:
            return own(operation, parameters) if own else type(owner)._make_api_call(owner, operation, parameters)
        except ParamValidationError:
            pass
        except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            if not _is_of_boto3(error):
                raise
        # Not in the handlers: boto3's error shows the value, and would stay with ours as its context.
        raise ConfigurationError(
            f"{operation}: a parameter is not of the type that boto3 takes there, so nothing was sent. Its client "
            'takes values such as {"S": "text"}, its resource Python\'s own without floats (Decimal is meant). '
            "boto3's own words are left out because they show the value"
        )

    client._make_api_call = call


def _is_of_boto3(error: BaseException) -> bool:
    """Whether boto3's code raised it, and not a handler of somebody else that it called."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and str(traceback.tb_frame.f_globals.get("__name__", "")).startswith(_OF_BOTO3)
