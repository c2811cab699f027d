"""Marks AWS calls as phicrypt's own: user agent, correlation id, and every attempt's request id; has them judged.

CloudTrail records the user agent, so a call's correlation id joins the local audit trail to
CloudTrail. The tag lives in a private shallow clone of the client with an event emitter of its own,
which shares connections, credentials and retry quota with the original. The clone marks the context of
its requests; two handlers on the original's events act on requests so marked and on no others, so that
the caller's own calls stay as they were. All of it goes through botocore's public event system.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from phicrypt._version import __version__
from phicrypt.core.aws_clients import check_client, is_botocore_client, is_double
from phicrypt.core.deadlines import current_course
from phicrypt.core.judged_clients import changing_events, judge_answers
from phicrypt.core.primitives import random_bytes
from phicrypt.errors import ConfigurationError

T = TypeVar("T")

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
    course = current_course.get()
    if course is not None:
        course.tagged_call = call  # whoever waits for it no longer can say which call it was
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


def tagged(client: T, application: str | None = None, *, own_connections: bool = False) -> T:
    """A private clone of a boto3 client whose calls say ``phicrypt/<version>`` and a correlation id.

    The user agent begins (so that CloudTrail's cut at 1 KB leaves it whole) with::

        phicrypt/<version> phicrypt-id/<correlation id> [phicrypt-app/<application>]

    The handed client's own calls are not changed. A marked double is returned as it is, and so is a
    clone made here.

    Args:
        own_connections: give the clone a connection pool of its own; needed after a fork, where the
            parent's sockets and locks are shared.

    Raises ConfigurationError for anything that :func:`~phicrypt.core.aws_clients.check_client` refuses.
    """
    check_application(application)
    check_client(client)
    if not is_botocore_client(client):
        return client
    handed: Any = client
    present: _Tag | None = vars(handed).get(_TAG_ATTRIBUTE)
    tag = present
    if tag is None or application not in (None, tag.application):
        is_a_double = present.is_double if present else is_double(client)
        tag = _Tag(present.handed_events if present else handed.meta.events, application, is_a_double)
    if tag is present and not own_connections:
        return client
    clone: Any = object.__new__(type(handed))
    vars(clone).update(vars(handed))
    clone.meta = copy.copy(handed.meta)
    clone.meta.events = tag.events()
    setattr(clone, _TAG_ATTRIBUTE, tag)
    if own_connections:
        _give_own_connections(clone)
    made: T = clone
    return made


class _Tag:
    """What one clone's calls say, and the events of the client that it was made from."""

    def __init__(self, handed_events: Any, application: str | None, is_a_double: bool) -> None:
        self.application = application
        self.is_double = is_a_double
        self.handed_events = handed_events
        self._suffix = f" phicrypt-app/{application}" if application else ""

    def events(self) -> Any:
        """An emitter for the clone: the handed client's hooks, and one that marks requests as ours."""
        # One at a time: botocore's emitter cannot be copied while another thread registers with it.
        with changing_events():
            own = copy.copy(self.handed_events)
            # The root of the event tree runs last, after botocore rebuilt its user agent for the attempt.
            self.handed_events.register_last("request-created", _set_user_agent, unique_id="phicrypt-user-agent")
            self.handed_events.register_last("response-received", _remember_attempt, unique_id="phicrypt-attempts")
        judge_answers(self.handed_events, own, is_double=self.is_double)
        own.register_last("before-call", self.mark_request)
        return own

    def mark_request(self, context: dict[str, Any], **_: object) -> None:
        context[_CONTEXT_NAME] = (_current_call.get() or TaggedCall(), self._suffix)


def _set_user_agent(request: Any, **_: object) -> None:
    marked = request.context.get(_CONTEXT_NAME)
    if marked is None:
        return
    call, suffix = marked
    call.attempts += 1
    botocores = request.headers.get("User-Agent", "")
    if isinstance(botocores, bytes):
        botocores = botocores.decode("latin-1")
    ours = f"phicrypt/{__version__} phicrypt-id/{call.correlation_id}{suffix}"
    del request.headers["User-Agent"]
    request.headers["User-Agent"] = f"{ours} {botocores}".rstrip()


def _remember_attempt(context: dict[str, Any], parsed_response: Any, **_: object) -> None:
    marked = context.get(_CONTEXT_NAME)
    if marked is None or not isinstance(parsed_response, dict):
        return
    request_id = parsed_response.get("ResponseMetadata", {}).get("RequestId")
    if request_id:
        marked[0].request_ids.append(str(request_id))


def _give_own_connections(clone: Any) -> None:
    """The same settings with fresh connections; an HTTP session of another make is kept.

    botocore has no public way to ask for that, so these are its private names. Without them the client is
    refused: two processes that write into one TLS connection garble it.
    """
    from urllib3 import PoolManager

    try:
        endpoint = copy.copy(vars(clone)["_endpoint"])
        shared = endpoint.http_session
        if type(shared).__module__ == "botocore.httpsession":
            own = copy.copy(shared)
            own._proxy_managers = {}
            own._manager = PoolManager(**shared._get_pool_manager_kwargs())
            own._manager.pool_classes_by_scheme = shared._manager.pool_classes_by_scheme
            endpoint.http_session = own
        clone._endpoint = endpoint
        return
    except (AttributeError, KeyError):
        pass
    raise ConfigurationError(
        "a boto3 client that was handed over before a fork cannot get connections of its own with this "
        "version of botocore: give client_factory= or session= instead, or make the client in the child"
    )
