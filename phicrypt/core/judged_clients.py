"""Judges what a botocore client is answered, before botocore or anybody else believes it (rule 27).

Botocore turns an error page into an empty answer, and an empty answer of GetItem says "there is none". So each
attempt's answer is looked at between the wire and botocore's parser, by :mod:`phicrypt.core.answers`. What is no
answer becomes the error ``NoAnswer`` with status 503, which botocore retries by the client's own settings, and
which whoever catches a 503 understands; what the service would not give becomes ``UnexpectedAnswer`` with 400.
It works in paginators and waiters too, since these call the client.

Only requests that carry a mark are judged: a client that was handed over stays as it was for its owner. All of it
goes through botocore's public events.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from phicrypt.core.answers import NO_ANSWER, UNEXPECTED_ANSWER, NoAnswer, Received, Refused, error_body, judge
from phicrypt.core.aws_clients import is_botocore_client, is_double

T = TypeVar("T")

_CONTEXT_NAME: Final = "phicrypt_judged"
_SERVICES: Final = ("dynamodb", "kms", "s3")
_REMEMBERED_IDS: Final = 4_096
_REQUEST_ID_HEADERS: Final = frozenset(("x-amzn-requestid", "x-amz-request-id", "x-amz-id-2"))
_AWS_HOSTS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".aws.dev", ".api.aws")


class _RecentIds:
    """Request ids of the latest answers of this process, so that an answer given twice is known again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], None] = {}

    def add(self, service: str, request_id: str) -> bool:
        """Whether it was new."""
        with self._lock:
            if (service, request_id) in self._known:
                return False
            self._known[service, request_id] = None
            if len(self._known) > _REMEMBERED_IDS:
                del self._known[next(iter(self._known))]
            return True

    def renew_lock(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()


class _Attempt(threading.local):
    """The attempt that this thread has under way.

    Botocore says which request an answer belongs to only before it sends the one and after it parsed the other;
    in between everything happens in one thread.

    Attributes:
        is_judged: whether the request carries the mark.
        is_double: whether its client was marked as a test's double.
        host: of the request.
        is_plain: whether it goes over plain http, and so to a local stack.
        is_parsing: whether the answer came, and botocore's parser has not given it back yet.
    """

    is_judged = False
    is_double = False
    host = ""
    is_plain = False
    is_parsing = False


_attempt = _Attempt()
_recent_ids = _RecentIds()
_hosts_with_ids: set[str] = set()
"""S3-compatible servers that were seen to send request ids: from then on each of their answers needs one."""
_clones: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_facts: WeakKeyDictionary[Any, tuple[str, str, bool, bool]] = WeakKeyDictionary()
_called_by_clone: ContextVar[bool | None] = ContextVar("phicrypt_called_by_clone", default=None)
"""Whether the call under way is a judged clone's, and then whether that one is a test's double."""
_one_at_a_time = threading.RLock()


def judged_client(client: T) -> T:
    """``judged_client(boto3.client("s3"))``: a private shallow clone whose answers are judged; the same each time.

    It shares connections, credentials, retry quota and events with the client that was handed over, whose own
    calls stay as they were. A double that botocore did not make is returned as it is.
    """
    if not is_botocore_client(client):
        return client
    with _one_at_a_time:
        clone: Any = _clones.get(client)
        if clone is None:
            handed: Any = client
            clone = object.__new__(type(handed))
            vars(clone).update(vars(handed))
            # On the clone itself, so that whatever wraps the method of botocore's class still does.
            clone._make_api_call = _marked_calls_of(clone, is_double(client))
            _judge_endpoint(handed.meta.events)
            handed.meta.events.register_last(
                "before-call", _mark_calls_of_clones, unique_id="phicrypt-judge-clone"
            )
            handed.meta.events.register_last("after-call-error", _parser_failed, unique_id="phicrypt-judge-parser")
            _clones[client] = clone
    made: T = clone
    return made


def _marked_calls_of(clone: Any, is_a_double: bool) -> Callable[[str, Any], Any]:
    """``_make_api_call`` of a clone, which botocore's methods, paginators and waiters all go through."""

    def make_api_call(operation_name: str, api_params: Any) -> Any:
        token = _called_by_clone.set(is_a_double)
        try:
            return type(clone)._make_api_call(clone, operation_name, api_params)
        finally:
            _called_by_clone.reset(token)

    return make_api_call


def _mark_calls_of_clones(context: MutableMapping[str, Any], **_: object) -> None:
    is_a_double = _called_by_clone.get()
    if is_a_double is not None:
        context.setdefault(_CONTEXT_NAME, is_a_double)


def changing_events() -> threading.RLock:
    """``with changing_events():`` one thread at a time registers with a client's events, or copies them.

    Botocore's emitter cannot be copied while another thread registers with it.
    """
    return _one_at_a_time


def judge_answers(endpoint_events: Any, client_events: Any, *, is_double: bool = False) -> None:
    """Judge what marked requests are answered, and mark those of one client.

    Args:
        endpoint_events: those of the client that botocore made; its endpoint emits there.
        client_events: those of the client whose requests are marked; they may be the same.
        is_double: the client stands for a test's double, whose answers are judged by their members only.
    """
    mark = _mark_double if is_double else _mark
    with _one_at_a_time:
        _judge_endpoint(endpoint_events)
        client_events.register_last("after-call-error", _parser_failed, unique_id="phicrypt-judge-parser")
        client_events.register_last("before-call", mark, unique_id="phicrypt-judge-mark")


def _judge_endpoint(events: Any) -> None:
    # The root of the event tree runs last: after whatever else looks at the request, and at the answer.
    events.register_last("request-created", _begin_attempt, unique_id="phicrypt-judge-request")
    events.register_last("before-parse", _judge_attempt, unique_id="phicrypt-judge-answer")
    events.register_last("response-received", _end_attempt, unique_id="phicrypt-judge-parsed")
    # Nearer to the leaves, and so before botocore's own retries.
    for service in _SERVICES:
        events.register_last(
            f"needs-retry.{service}.*", _tell_retries, unique_id=f"phicrypt-judge-retry-{service}"
        )


def _mark(context: MutableMapping[str, Any], **_: object) -> None:
    context[_CONTEXT_NAME] = False


def _mark_double(context: MutableMapping[str, Any], **_: object) -> None:
    context[_CONTEXT_NAME] = True


def _begin_attempt(request: Any, **_: object) -> None:
    mark = request.context.get(_CONTEXT_NAME)
    _attempt.is_judged, _attempt.is_double, _attempt.is_parsing = mark is not None, bool(mark), False
    if mark is not None:
        url = urlsplit(request.url)
        _attempt.host, _attempt.is_plain = url.netloc, url.scheme == "http"


def _judge_attempt(operation_model: Any, response_dict: dict[str, Any], **_: object) -> None:
    """Between the wire and botocore's parser: what is no answer is replaced by an error."""
    if not _attempt.is_judged:
        return
    _attempt.is_parsing = True
    received = _received(operation_model, response_dict)

    def parse() -> Any:
        from botocore.parsers import create_parser

        return create_parser(received.protocol).parse(dict(response_dict), operation_model.output_shape)

    verdict = judge(
        received,
        parse,
        operation_model.output_shape,
        demands_request_id=_demands_request_id(received),
        # moto's server calls its JSON text/html; on this machine's loopback nobody stands in between.
        demands_type=not (_is_a_doubles(received) or _attempt.is_plain),
    )
    if verdict is None and not _is_new(received):
        verdict = NoAnswer("its request id is that of another answer")
    if verdict is not None:
        _replace(received, response_dict, verdict)


def _received(operation_model: Any, response_dict: dict[str, Any]) -> Received:
    service, protocol, has_output, has_output_in_body = _facts_of(operation_model)
    body = response_dict["body"]
    return Received(
        service=service,
        operation=operation_model.name,
        protocol=protocol,
        status=response_dict["status_code"],
        headers={name.lower(): value for name, value in response_dict["headers"].items()},
        body=body if isinstance(body, bytes) else None,
        has_output=has_output,
        has_output_in_body=has_output_in_body,
    )


def _facts_of(operation_model: Any) -> tuple[str, str, bool, bool]:
    """Service, protocol, whether its answer has members, and whether some stand in the body; asked once."""
    known = _facts.get(operation_model)
    if known is None:
        shape = operation_model.output_shape
        members = shape.members.values() if shape is not None else ()
        in_body = any(member.serialization.get("location") is None for member in members)
        service_model = operation_model.service_model
        known = _facts[operation_model] = (
            service_model.service_name,
            service_model.resolved_protocol,
            bool(members),
            in_body and not operation_model.has_streaming_output,
        )
    return known


def _is_a_doubles(received: Received) -> bool:
    """Whether a test made the answer: by a marked client, or by a hook before sending that put it in place.

    What comes over a wire has headers, whoever sent it.
    """
    return _attempt.is_double or not received.headers


def _is_new(received: Received) -> bool:
    """Whether no recent answer had this one's request id; a test's double may repeat itself."""
    request_id = received.request_id
    if _is_a_doubles(received) or received.status >= 500 or request_id is None:
        return True
    return _recent_ids.add(received.service, request_id)


def _demands_request_id(received: Received) -> bool:
    if _is_a_doubles(received):
        return False
    if received.service != "s3" or _attempt.host.endswith(_AWS_HOSTS):
        return True
    # Of the servers that speak S3's protocol some send none, ever. One that does sends it with every success.
    if received.request_id is not None:
        _hosts_with_ids.add(_attempt.host)
    return _attempt.host in _hosts_with_ids and not received.is_error


def _replace(received: Received, response_dict: dict[str, Any], verdict: NoAnswer | Refused) -> None:
    headers = dict(received.headers)
    if isinstance(verdict, NoAnswer):
        # Its request id may be another call's, which the audit trail must not name.
        headers = {name: value for name, value in headers.items() if name not in _REQUEST_ID_HEADERS}
        status, code = 503, NO_ANSWER
    else:
        status, code = 400, UNEXPECTED_ANSWER
    if received.body is None and hasattr(response_dict["body"], "close"):
        response_dict["body"].close()
    response_dict["status_code"] = status
    response_dict["headers"] = headers
    response_dict["body"] = error_body(received.protocol, code, verdict.reason)


def _end_attempt(**_: object) -> None:
    _attempt.is_parsing = False


def _tell_retries(response: Any, **_: object) -> None:
    """Botocore's retries look at the status of HTTP itself."""
    if response is None or not _attempt.is_judged:
        return
    http_response, parsed = response
    status = parsed.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if parsed.get("Error", {}).get("Code") in (NO_ANSWER, UNEXPECTED_ANSWER) and status is not None:
        http_response.status_code = status


def _parser_failed(exception: Exception, event_name: str, **_: object) -> None:
    """Botocore's parser raised what it never says that it raises: the answer cannot be parsed."""
    if not _attempt.is_parsing:
        return
    _attempt.is_parsing = False
    from botocore.exceptions import ClientError

    # It stays behind ours as its context, and may quote the answer (rule 32).
    exception.args = ()
    if isinstance(exception, UnicodeDecodeError):
        exception.object = b""
    reason = "what came is not taken for an answer: it cannot be parsed"
    response: Any = {
        "Error": {"Code": NO_ANSWER, "Message": reason},
        "ResponseMetadata": {"HTTPStatusCode": 503, "HTTPHeaders": {}, "RetryAttempts": 0},
    }
    raise ClientError(response, event_name.rpartition(".")[2]) from None


def _renew_locks() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.RLock()
    _recent_ids.renew_lock()


# Another thread of the parent may have held them.
os.register_at_fork(after_in_child=_renew_locks)
