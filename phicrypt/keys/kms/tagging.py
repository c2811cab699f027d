"""Marks AWS calls as phicrypt's own: user agent, correlation id, and every attempt's request id.

CloudTrail records the user agent, so a call's correlation id joins the local audit trail to
CloudTrail. A client that phicrypt was handed is never changed: the tag lives in a private shallow
clone with an event emitter of its own, which shares connections, credentials and retry quota with
the original.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from phicrypt._version import __version__
from phicrypt.core.primitives import random_bytes
from phicrypt.errors import ConfigurationError
from phicrypt.keys.kms.redaction import redact_kms_logs

_TAG_ATTRIBUTE: Final = "_phicrypt_tag"
_CONTEXT_NAME: Final = "phicrypt_call"
_APPLICATION: Final = re.compile(r"[A-Za-z0-9!$%&'*+.^_`|~-]{1,50}")


@dataclass(slots=True)
class TaggedCall:
    """One call in flight.

    Attributes:
        correlation_id: 32 hexadecimal digits, new for each call, the same for its retries.
        request_ids: AWS's request id of each attempt that was answered, in order.
        attempts: how many requests were made.
    """

    correlation_id: str = field(default_factory=lambda: random_bytes(16).hex())
    request_ids: list[str] = field(default_factory=list)
    attempts: int = 0

    @property
    def unanswered_attempts(self) -> int:
        """Attempts without a request id: they may have reached AWS all the same."""
        return max(0, self.attempts - len(self.request_ids))


_current_call: ContextVar[TaggedCall | None] = ContextVar("phicrypt_call", default=None)


@contextmanager
def tagged_call() -> Iterator[TaggedCall]:
    """Calls made through a tagged client inside the block carry this call's id and report their attempts."""
    call = TaggedCall()
    token = _current_call.set(call)
    try:
        yield call
    finally:
        _current_call.reset(token)


def check_application(application: str | None) -> str | None:
    """The application's name for the user agent: 1 to 50 characters of an HTTP token."""
    if application is not None and not _APPLICATION.fullmatch(application):
        raise ConfigurationError(
            "application= names the program in CloudTrail's user agent: 1 to 50 letters, digits or -_.!$%&'*+^`|~"
        )
    return application


def tagged(client: Any, application: str | None = None, *, own_connections: bool = False) -> Any:
    """A private clone of a boto3 client whose calls say ``phicrypt/<version>`` and a correlation id.

    The user agent begins (so that CloudTrail's cut at 1 KB leaves it whole) with::

        phicrypt/<version> phicrypt-id/<correlation id> [phicrypt-app/<application>]

    The handed client is not changed; hooks that are added to it later do not reach the clone. An
    object without botocore's internals (a fake) is returned as it is, and so is a clone made here.

    Args:
        own_connections: give the clone a connection pool of its own; needed after a fork, where the
            parent's sockets and locks are shared.
    """
    check_application(application)
    if not has_botocore_internals(client):
        return client
    present: _UserAgentTag | None = client.__dict__.get(_TAG_ATTRIBUTE)
    tag = present if present and application in (None, present.application) else _UserAgentTag(application)
    if tag is present and not own_connections:
        return client
    emitter = copy.copy(client.meta.events)
    if present is not None:
        present.leave(emitter)
    tag.join(emitter)
    if client.meta.service_model.service_name == "kms":
        redact_kms_logs()
    meta = copy.copy(client.meta)
    meta.events = emitter
    endpoint = copy.copy(client._endpoint)
    endpoint._event_emitter = emitter
    if own_connections:
        endpoint.http_session = _with_own_pool(endpoint.http_session)
    clone = object.__new__(type(client))
    clone.__dict__.update(client.__dict__)
    clone.meta = meta
    clone._endpoint = endpoint
    clone.__dict__[_TAG_ATTRIBUTE] = tag
    return clone


class _UserAgentTag:
    """Event handlers of one clone; the state of a call travels in botocore's request context."""

    def __init__(self, application: str | None) -> None:
        self.application = application
        self._suffix = f" phicrypt-app/{application}" if application else ""

    def join(self, emitter: Any) -> None:
        for event, handler in self._handlers():
            emitter.register_last(event, handler)

    def leave(self, emitter: Any) -> None:
        for event, handler in self._handlers():
            emitter.unregister(event, handler)

    def _handlers(self) -> tuple[tuple[str, Callable[..., None]], ...]:
        return (
            ("before-call", self.remember_call),
            # The root of the event tree runs last, after botocore rebuilt its user agent for the attempt.
            ("request-created", self.set_user_agent),
            ("response-received", self.remember_attempt),
        )

    def remember_call(self, context: dict[str, Any], **_: object) -> None:
        context[_CONTEXT_NAME] = _current_call.get() or TaggedCall()

    def set_user_agent(self, request: Any, **_: object) -> None:
        call = request.context.get(_CONTEXT_NAME)
        botocores = request.headers.get("User-Agent", "")
        if isinstance(botocores, bytes):
            botocores = botocores.decode("latin-1")
        identifier = ""
        if call is not None:
            call.attempts += 1
            identifier = f" phicrypt-id/{call.correlation_id}"
        del request.headers["User-Agent"]
        request.headers["User-Agent"] = f"phicrypt/{__version__}{identifier}{self._suffix} {botocores}".rstrip()

    def remember_attempt(self, context: dict[str, Any], parsed_response: Any, **_: object) -> None:
        call = context.get(_CONTEXT_NAME)
        if call is None or not isinstance(parsed_response, dict):
            return
        request_id = parsed_response.get("ResponseMetadata", {}).get("RequestId")
        if request_id:
            call.request_ids.append(str(request_id))


def has_botocore_internals(client: Any) -> bool:
    """Whether this is a boto3 client and no fake."""
    attributes = getattr(client, "__dict__", {})
    meta, endpoint = attributes.get("meta"), attributes.get("_endpoint")
    return hasattr(meta, "events") and hasattr(meta, "service_model") and hasattr(endpoint, "_event_emitter")


def _with_own_pool(http_session: Any) -> Any:
    """The same settings with fresh connections; a session of another make is kept."""
    if not hasattr(http_session, "_get_pool_manager_kwargs") or not hasattr(http_session, "_manager"):
        return http_session
    from urllib3 import PoolManager

    own = copy.copy(http_session)
    own._proxy_managers = {}
    own._manager = PoolManager(**own._get_pool_manager_kwargs())
    own._manager.pool_classes_by_scheme = http_session._manager.pool_classes_by_scheme
    return own
