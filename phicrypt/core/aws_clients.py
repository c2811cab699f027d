"""Which AWS clients a synchronous entry works with (rules 33 and 41).

Only a client of a class that botocore made is certain to print through the loggers that are redacted
here, and to carry the tag by which CloudTrail's records are joined to ours. What stands around one (a
proxy, a wrapper, a subclass) may print, keep or send on plaintext data keys, and cannot be tagged.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from typing import Any, Final, TypeVar, overload

from phicrypt.core.log_redaction import redact_kms_logs
from phicrypt.errors import ConfigurationError

T = TypeVar("T")

_BOTOCORE: Final = "botocore.client"

_doubles: set[int] = set()
"""Of each marked object or class its ``id``, as long as it lives."""


def check_client(client: object, parameter: str = "client=", *, service: str | None = None) -> None:
    """``check_client(client, "kms_client=")``: redact botocore's logs, then judge what was handed.

    Args:
        client: what a caller or a caller's factory gave.
        parameter: as the caller knows it, for the error.
        service: boto3's name of the service that a botocore client must be of.

    Judged by ``type(client)``, because proxies and ``Mock(spec=…)`` answer for what they stand around.
    Tracers that patch botocore's own classes change nothing here. Raises ConfigurationError for
    anything but a client that botocore made or a double that :func:`mark_as_double` marked, and for a
    client whose methods are coroutines.
    """
    redact_kms_logs()
    made = type(client)
    # Also of a class that botocore made: a hook of it may have put another base into the class.
    has_coroutines = any(
        inspect.iscoroutinefunction(member) for one in made.__mro__ for member in vars(one).values()
    )
    if is_botocore_client(client) and not has_coroutines:
        found = client.meta.service_model.service_name  # type: ignore[attr-defined]
        if service not in (None, found):
            raise ConfigurationError(f"{parameter} takes a client of {service}, and one of {found} came")
        return
    name = f"{made.__module__}.{made.__qualname__}"
    if has_coroutines:
        raise ConfigurationError(
            f"{parameter} takes a synchronous boto3 client, and {name} came, whose methods are coroutines: give "
            "what boto3.client() makes"
        )
    if not is_double(client):
        raise ConfigurationError(
            f"{parameter} takes a client that boto3 made, and {name} came, through which neither redacted logs "
            "nor tagged calls are certain: give the boto3 client that the proxy, wrapper or subclass stands "
            "around; for a test's double say phicrypt.testing.mark_as_double(client)"
        )


def is_botocore_client(client: object) -> bool:
    """Whether the object's class is one that botocore made: no subclass of one, no proxy, no double."""
    botocore = sys.modules.get(_BOTOCORE)
    made = type(client)
    # botocore makes a class for each service in this module; whoever derives from one does so in another.
    return botocore is not None and made.__module__ == _BOTOCORE and botocore.BaseClient in made.__mro__


@overload
def mark_as_double(double: type[T]) -> type[T]: ...


@overload
def mark_as_double(double: object) -> Any: ...  # a double passes for whatever client a parameter takes


def mark_as_double(double: object) -> object:
    """``client = mark_as_double(FakeKms())``: the same object, now accepted where a client is taken.

    For tests only: a double's calls are neither tagged nor redacted. A class may be marked as well, and
    its instances are doubles then. What stands around a double is none itself.
    """
    try:
        weakref.finalize(double, _doubles.discard, id(double)).atexit = False
    except TypeError:
        _kept.append(double)
    _doubles.add(id(double))
    return double


_kept: list[Any] = []
"""Marked objects that cannot be watched: they live on, so that no other object gets their ``id``."""


def is_double(client: object) -> bool:
    """Whether this very object, or its class, was marked."""
    return any(id(one) in _doubles for one in (client, *type(client).__mro__))
