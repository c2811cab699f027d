"""What DynamoDB, the network and their answers refuse of a key store's table, as errors that say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

from phicrypt.core.answers import NO_ANSWER, UNEXPECTED_ANSWER
from phicrypt.errors import KeyAccessError
from phicrypt.keys.kms.errors import about_the_answer

_ADVICE: Final = {
    "ResourceNotFoundException": "there is no such table in this account and Region: see create_table()",
    "ValidationException": "the table has another key schema than branch-key-id and type, both S, or the call is "
    "not valid for it",
    "AccessDeniedException": "the caller may not do this to the table: allow it in the identity policy",
    "ProvisionedThroughputExceededException": "the table's capacity was passed beyond the retries",
    "TransactionConflict": "another write to the same rows was under way: try again",
}
_RETRYABLE: Final = frozenset(
    (
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ThrottlingException",
        "TransactionConflict",
        "TransactionInProgressException",
    )
)


class ConditionFailed(Exception):  # noqa: N818  (an outcome that the callers tell apart, not an error that leaves)
    """A transaction was refused by a condition.

    Attributes:
        failed: for each item of the transaction, whether its condition failed.
    """

    def __init__(self, failed: tuple[bool, ...]) -> None:
        super().__init__()
        self.failed = failed


def refusal_of(error: Any, method: str, table_name: str) -> KeyAccessError | ConditionFailed:
    """What a ClientError of boto3 stands for."""
    code = str(error.response.get("Error", {}).get("Code", "Unknown"))
    given = error.response.get("CancellationReasons")
    reasons = [one.get("Code") for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
    if "ConditionalCheckFailed" in reasons:
        return ConditionFailed(tuple(reason == "ConditionalCheckFailed" for reason in reasons))
    if "TransactionConflict" in reasons:
        code = "TransactionConflict"
    metadata = error.response.get("ResponseMetadata", {})
    is_outage = (metadata.get("HTTPStatusCode") or 0) >= 500
    if code in (NO_ANSWER, UNEXPECTED_ANSWER):
        advice = about_the_answer(error.response)
    else:
        advice = "the service failed: try again" if is_outage else _ADVICE.get(code, "AWS refused the call")
    return _error(method, table_name, code, advice, is_outage=is_outage, request_id=metadata.get("RequestId"))


def no_answer(error: Exception, method: str, table_name: str) -> KeyAccessError:
    """What another error of botocore stands for."""
    from botocore.exceptions import ConnectionError as BotocoreConnectionError
    from botocore.exceptions import HTTPClientError, SSLError

    is_outage = isinstance(error, BotocoreConnectionError | HTTPClientError) and not isinstance(error, SSLError)
    advice = (
        "the endpoint did not answer: check the Region, the network path and DNS"
        if is_outage
        else "the call could not be made; see the credentials and the client's settings"
    )
    return _error(method, table_name, type(error).__name__, advice, is_outage=is_outage)


def refusal_of_waiter(error: Any, table_name: str) -> KeyAccessError | ConditionFailed:
    """What a WaiterError stands for: waiters swallow the service's error and keep its answer."""
    last = error.last_response if isinstance(error.last_response, Mapping) else {}
    if "Error" not in last:
        return _error("describe_table", table_name, "WaiterError", "the table is not active yet", is_outage=False)
    return refusal_of(SimpleNamespace(response=last), "describe_table", table_name)


def unexpected_table_answer(method: str, table_name: str, what: str) -> KeyAccessError:
    """The error for a whole answer that DynamoDB would not give."""
    return _error(method, table_name, UNEXPECTED_ANSWER, f"{what}; nothing of it was used", is_outage=False)


def _error(
    method: str, table_name: str, code: str, advice: str, *, is_outage: bool, request_id: str | None = None
) -> KeyAccessError:
    operation = "".join(word.capitalize() for word in method.split("_"))
    return KeyAccessError(
        f"{operation} on the branch key store {table_name!r} failed with {code}: {advice}",
        operation=operation,
        code=code,
        key_arn=table_name,
        request_id=request_id,
        is_retryable=is_outage or code in _RETRYABLE,
        is_outage=is_outage,
    )


def shredded() -> KeyAccessError:
    """The error for whatever is asked of a branch key that was shredded."""
    return KeyAccessError(
        "this branch key was shredded: what it protected cannot be opened, and its id is not used again",
        operation="GetItem",
        code="BranchKeyShredded",
    )
