"""Audit events: one frozen record per use of a key, and its JSON.

An event says who used which key on what, when, for which purpose and with what result. It never
holds plaintext, key bytes, object keys or primary keys: resources stand as tokens (rule 23), errors
as the name of their class. The encryption context is recorded as the guard let it pass.

The JSON of an event is an object with the fields that are set, in the order of
``docs/audit-event.schema.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Final, NamedTuple

from phicrypt.errors import AuthenticationError, KeyAccessError
from phicrypt.materials import KeyOrigin


class Purpose(StrEnum):
    """Why a record is used: the purposes that HIPAA's Privacy Rule knows, and upkeep."""

    TREATMENT = "treatment"
    PAYMENT = "payment"
    OPERATIONS = "operations"
    RESEARCH = "research"
    DISCLOSURE = "disclosure"
    PATIENT_REQUEST = "patient-request"
    LEGAL = "legal"
    EMERGENCY = "emergency"
    MAINTENANCE = "maintenance"


class Kind(StrEnum):
    """What a record stands for."""

    USE = "use"
    """A whole use, written when it was over."""
    BEGIN = "begin"
    """A use that begins: written before the first plaintext byte (rule 20)."""
    END = "end"
    """The end of a use, with the ``use_id`` of its begin record."""
    BREAK_GLASS_OPEN = "break-glass-open"
    BREAK_GLASS_CLOSE = "break-glass-close"
    BREAK_GLASS_REVIEW = "break-glass-review"
    ANCHOR = "anchor"
    """The head of the chain was shown to CloudTrail."""
    CHAIN_START = "chain-start"
    """A process began a chain; says what the file held before."""


class Outcome(StrEnum):
    """How a use went."""

    BEGUN = "begun"
    SUCCESS = "success"
    FAILED = "failed"
    DENIED = "denied"
    """KMS or the key store refused the caller."""
    INTERRUPTED = "interrupted"
    """Stopped from outside, or abandoned before its end."""


_DENIED_CODES: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException"}
)


class AuditEvent(NamedTuple):
    """One record. Times are UTC; absent values are None.

    Attributes:
        time_ns: nanoseconds since 1970, written with microseconds.
        kind: a :class:`Kind`.
        use_id: the same for the begin and the end of one use, and for nothing else.
        operation: such as ``"encrypt"``, ``"decrypt"``, ``"s3.get_object"``, ``"dynamodb.put_item"``.
        outcome: an :class:`Outcome`.
        format: ``"esdk"``, ``"dbesdk"``, ``"s3ec"``.
        suite_id: the algorithm suite.
        message_id: the message's id in hexadecimal.
        origin: where the data key came from: key, key material, KMS request ids, correlation id.
        cache_hit: whether the key came from the cache, so that no KMS call belongs to this use.
        context: the encryption context.
        actor, purpose: as given to ``acting_as``; never part of the context.
        break_glass: the id of the break-glass grant under which this happened.
        application: the program, as the trail was told.
        resource: the resource's token, see :class:`phicrypt.audit.ResourceTokens`.
        error: the class of the error, for whatever did not succeed.
        reason: the error's short stable word, or AWS's error code.
        byte_count: plaintext bytes.
        duration_us: from begin to end, in microseconds.
        detail: what only this kind of record has; text and numbers.
    """

    time_ns: int
    kind: str
    use_id: str
    operation: str
    outcome: str
    format: str | None = None
    suite_id: int | None = None
    message_id: str | None = None
    origin: KeyOrigin | None = None
    cache_hit: bool | None = None
    context: Mapping[str, str] | None = None
    actor: str | None = None
    purpose: str | None = None
    break_glass: str | None = None
    application: str | None = None
    resource: str | None = None
    error: str | None = None
    reason: str | None = None
    byte_count: int | None = None
    duration_us: int | None = None
    detail: Mapping[str, Any] | None = None

    def to_json(self) -> str:
        """The event as one JSON object in ASCII, without line breaks."""
        return "".join(
            (
                '{"time":"',
                format_time(self.time_ns),
                _head_json(self.kind, self.operation, self.outcome, self.format, self.suite_id),
                ',"use_id":"',
                self.use_id,
                '"' if self.message_id is None else f'","message_id":"{self.message_id}"',
                "" if self.origin is None else _origin_json(self.origin),
                _FLAGS[self.cache_hit],
                "" if not self.context else _context_json(tuple(self.context.items())),
                _who_json(self.actor, self.purpose, self.break_glass, self.application),
                "" if self.resource is None else f',"resource":{_quoted(self.resource)}',
                "" if self.error is None else f',"error":{_quoted(self.error)}',
                "" if self.reason is None else f',"reason":{_quoted(self.reason)}',
                "" if self.byte_count is None else f',"bytes":{self.byte_count}',
                "" if self.duration_us is None else f',"duration_us":{self.duration_us}',
                "" if self.detail is None else f',"detail":{json.dumps(self.detail, separators=(",", ":"))}',
                "}",
            )
        )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> AuditEvent:
        """The event that a line of JSON holds. Raises ValueError, KeyError or TypeError if it is none."""
        origin = None
        if "key" in fields:
            origin = KeyOrigin(
                str(fields.get("provider", "")),
                str(fields["key"]),
                fields.get("key_material"),
                tuple(map(str, fields.get("request_ids", ()))),
                fields.get("correlation_id"),
            )
        suite = fields.get("suite")
        return cls(
            parse_time(fields["time"]),
            str(fields["kind"]),
            str(fields["use_id"]),
            str(fields["operation"]),
            str(fields["outcome"]),
            suite_id=None if suite is None else int(suite, 16),
            origin=origin,
            byte_count=fields.get("bytes"),
            **{name: fields.get(name) for name in _PLAIN_FIELDS},
        )


_PLAIN_FIELDS: Final = (
    "format",
    "message_id",
    "cache_hit",
    "context",
    "actor",
    "purpose",
    "break_glass",
    "application",
    "resource",
    "error",
    "reason",
    "duration_us",
    "detail",
)
_FLAGS: Final = {None: "", True: ',"cache_hit":true', False: ',"cache_hit":false'}

_last_second: tuple[int, str] = (-1, "")


def format_time(time_ns: int) -> str:
    """``2026-01-31T12:00:00.000000Z``."""
    global _last_second
    second, rest = divmod(time_ns, 1_000_000_000)
    known, text = _last_second
    if second != known:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _last_second = (second, text)
    return f"{text}.{rest // 1000:06d}Z"


def parse_time(text: str) -> int:
    """Nanoseconds since 1970 of an ISO 8601 time with zone; raises ValueError for anything else."""
    from datetime import UTC, datetime

    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time with its zone was expected")
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


# The constant parts of events repeat from use to use; each is built once while it stays in use.


@lru_cache(maxsize=512)
def _head_json(kind: str, operation: str, outcome: str, format_name: str | None, suite_id: int | None) -> str:
    text = f'","kind":{_quoted(kind)},"operation":{_quoted(operation)},"outcome":{_quoted(outcome)}'
    if format_name is not None:
        text += f',"format":{_quoted(format_name)}'
    if suite_id is not None:
        text += f',"suite":"0x{suite_id:04x}"'
    return text


@lru_cache(maxsize=1_024)
def _origin_json(origin: KeyOrigin) -> str:
    text = f',"provider":{_quoted(origin.provider_id)},"key":{_quoted(origin.key_id)}'
    if origin.key_material_id is not None:
        text += f',"key_material":{_quoted(origin.key_material_id)}'
    if origin.request_ids:
        text += f',"request_ids":[{",".join(map(_quoted, origin.request_ids))}]'
    if origin.correlation_id is not None:
        text += f',"correlation_id":{_quoted(origin.correlation_id)}'
    return text


@lru_cache(maxsize=1_024)
def _context_json(pairs: tuple[tuple[str, str], ...]) -> str:
    inner = ",".join(f"{_quoted(name)}:{_quoted(value)}" for name, value in pairs)
    return f',"context":{{{inner}}}'


@lru_cache(maxsize=1_024)
def _who_json(actor: str | None, purpose: str | None, break_glass: str | None, application: str | None) -> str:
    named = {"actor": actor, "purpose": purpose, "break_glass": break_glass, "application": application}
    return "".join(f',"{name}":{_quoted(value)}' for name, value in named.items() if value is not None)


def describe_error(error: BaseException | None) -> tuple[str, str | None, str | None]:
    """Outcome, class name and short reason of an error; never its message, which may be anything."""
    if error is None:
        return Outcome.SUCCESS, None, None
    name = type(error).__name__
    if not isinstance(error, Exception):  # KeyboardInterrupt, GeneratorExit, CancelledError
        return Outcome.INTERRUPTED, name, None
    if isinstance(error, KeyAccessError):
        return (Outcome.DENIED if error.code in _DENIED_CODES else Outcome.FAILED), name, error.code
    return Outcome.FAILED, name, error.reason if isinstance(error, AuthenticationError) else None
