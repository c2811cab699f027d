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
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Final, NamedTuple

from phicrypt.core.key_origin import KeyOrigin
from phicrypt.errors import AuthenticationError, KeyAccessError


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
    PUBLIC_HEALTH = "public-health"
    """To a public health authority: an accountable disclosure (45 CFR 164.512(b), 164.528)."""

    @classmethod
    def _missing_(cls, value: object) -> Purpose | None:
        """HL7's codes of purposes of use (v3-ActReason), which other systems hand over as text."""
        name = _HL7_PURPOSES.get(value) if isinstance(value, str) else None
        return None if name is None else cls(name)


_HL7_PURPOSES: Final = {
    **dict.fromkeys(("TREAT", "CAREMGT"), "treatment"),
    **dict.fromkeys(("ETREAT", "BTG"), "emergency"),
    **dict.fromkeys(("HPAYMT", "COVERAGE"), "payment"),
    **dict.fromkeys(("HOPERAT", "HQUALIMP", "PATSFTY", "HCOMPL", "RECORDMGT"), "operations"),
    **dict.fromkeys(("HRESCH", "CLINTRCH"), "research"),
    **dict.fromkeys(("PATRQT", "FAMRQT", "PWATRNY"), "patient-request"),
    "HLEGAL": "legal",
    "HSYSADMIN": "maintenance",
    "PUBHLTH": "public-health",
}


SIGNATURE_FORMAT: Final = "dsse"
BRANCH_KEY_FORMAT: Final = "branch-key"


class Kind:
    """What a record stands for. Plain text, because enumerations hash too slowly for each use."""

    USE: Final = "use"
    """A whole use, written when it was over."""
    BEGIN: Final = "begin"
    """A use that begins: written before the first plaintext byte (rule 20)."""
    END: Final = "end"
    """The end of a use, with the ``use_id`` of its begin record."""
    BREAK_GLASS_OPEN: Final = "break-glass-open"
    BREAK_GLASS_CLOSE: Final = "break-glass-close"
    BREAK_GLASS_REVIEW: Final = "break-glass-review"
    ANCHOR: Final = "anchor"
    """The head of the chain was shown to CloudTrail, or a checkpoint of the log was signed."""
    CHAIN_START: Final = "chain-start"
    """A process began a chain; says what the file held before."""


class Outcome:
    """How a use went."""

    BEGUN: Final = "begun"
    SUCCESS: Final = "success"
    FAILED: Final = "failed"
    DENIED: Final = "denied"
    """KMS or the key store refused the caller."""
    INTERRUPTED: Final = "interrupted"
    """Stopped from outside, or abandoned before its end."""


NOT_RELEASED: Final[Mapping[str, int]] = {"released": 0}
"""``detail`` of a use whose plaintext nobody got: a lookup opened an item that only its hash had brought."""
_DENIED_CODES: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException"}
)


class AuditEvent(NamedTuple):
    """One record. Times are UTC; absent values are None.

    Attributes:
        time_ns: nanoseconds since 1970, written with microseconds.
        kind: a :class:`Kind`.
        use_id: the same for the begin and the end of one use, and for nothing else.
        operation: such as ``"encrypt"``, ``"s3.get_object"``, ``"dynamodb.put_item"``, ``"sign"``,
            ``"rotate-branch-key"``.
        outcome: an :class:`Outcome`.
        format: ``"esdk"``, ``"dbesdk"``, ``"s3ec-v3"``, ``"dsse"``, ``"branch-key"``.
        suite_id: the algorithm suite.
        message_id: the message's id in hexadecimal.
        origin: where the data key came from: key, key material, KMS request ids, correlation id.
        cache_hit: whether the key came from the cache, so that no KMS call belongs to this use.
        context: the encryption context, as far as the message stores it.
        actor, purpose: as given to ``acting_as``; never part of the context.
        recipient: who receives what is disclosed, for the accounting of disclosures.
        break_glass: the id of the break-glass grant under which this happened.
        application: the program, as the trail was told.
        principal: the AWS principal whose credentials called KMS, as the trail was told.
        resource: the resource's token, see :class:`phicrypt.witness.ResourceTokens`.
        error: the class of the error, for whatever did not succeed.
        reason: the error's short stable word, or AWS's error code.
        byte_count: plaintext bytes.
        duration_us: from begin to end, in microseconds.
        detail: what only this kind of record has; text and numbers.
        required_context: names of the pairs that the message is bound to and does not store, never their
            values (rule 35).
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
    recipient: str | None = None
    break_glass: str | None = None
    application: str | None = None
    principal: str | None = None
    resource: str | None = None
    error: str | None = None
    reason: str | None = None
    byte_count: int | None = None
    duration_us: int | None = None
    detail: Mapping[str, Any] | None = None
    required_context: tuple[str, ...] | None = None

    def to_json(self) -> str:
        """The event as one JSON object in ASCII, without line breaks."""
        # Unpacked, and built at once: this is most of what an event costs.
        # fmt: off
        (
            time_ns, kind, use_id, operation, outcome, format_name, suite_id, message_id, origin, cache_hit,
            context, actor, purpose, recipient, break_glass, application, principal, resource, error, reason,
            byte_count, duration_us, detail, required_context,
        ) = self
        # fmt: on
        repeated = _repeated_json(
            kind,
            operation,
            outcome,
            format_name,
            suite_id,
            origin,
            cache_hit,
            actor,
            purpose,
            recipient,
            break_glass,
            application,
            principal,
        )
        message = f',"message_id":"{message_id}"' if message_id is not None else ""
        pairs = _context_json(tuple(context.items())) if context else ""
        size = f',"bytes":{byte_count}' if byte_count is not None else ""
        duration = f',"duration_us":{duration_us}' if duration_us is not None else ""
        token = f',"resource":{_quoted(resource)}' if resource is not None else ""
        is_plain = error is None and detail is None and required_context is None
        rare = "" if is_plain else _rare_json(error, reason, detail, required_context)
        head = f'{{"time":"{format_time(time_ns)}","use_id":{_quoted(use_id)}{repeated}'
        return f"{head}{message}{pairs}{token}{size}{duration}{rare}}}"

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> AuditEvent:
        """The event that a line of JSON holds. Raises ValueError, KeyError or TypeError if it is none."""
        _check_kinds(fields)
        origin = None
        if "key" in fields:
            others = tuple(_origin_from(call) for call in fields.get("other_calls", ()))
            origin = replace(_origin_from(fields), other_calls=others)
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
            required_context=_names_from(fields.get("required_context")),
            **{name: fields.get(name) for name in _PLAIN_FIELDS},
        )


_TEXT_FIELDS: Final = (
    *("time", "kind", "use_id", "operation", "outcome", "suite", "provider", "key", "key_material"),
    *("correlation_id", "kms_operation", "kms_error", "format", "message_id", "actor", "purpose", "recipient"),
    *("break_glass", "application", "principal", "resource", "error", "reason"),
)
_KINDS: Final[dict[str, type]] = {
    **dict.fromkeys(_TEXT_FIELDS, str),
    **dict.fromkeys(("bytes", "duration_us", "unanswered_attempts"), int),
    **dict.fromkeys(("context", "detail"), dict),
    **dict.fromkeys(("request_ids", "other_calls", "required_context"), list),
    "cache_hit": bool,
}
_MAX_ATTEMPTS: Final = 1_000


def _check_kinds(fields: Any) -> None:
    """Raise TypeError where a value is of another kind than the schema says: logs may be anything."""
    for name, value in fields.items() if isinstance(fields, Mapping) else ((None, fields),):
        if name is None or not isinstance(value, _KINDS.get(name, object)):
            raise TypeError("not an event of the audit log's schema")
    if not all(isinstance(value, str) for value in fields.get("context", {}).values()):
        raise TypeError("a context holds text")


def _names_from(names: list[Any] | None) -> tuple[str, ...] | None:
    if names is not None and not all(isinstance(name, str) for name in names):
        raise TypeError("required_context holds names")
    return None if names is None else tuple(names)


_PLAIN_FIELDS: Final = (
    "format",
    "message_id",
    "cache_hit",
    "context",
    "actor",
    "purpose",
    "recipient",
    "break_glass",
    "application",
    "principal",
    "resource",
    "error",
    "reason",
    "duration_us",
    "detail",
)

MAX_CONTEXT_BYTES: Final = 4_096
"""Of a longer context the log has the names only."""
_TOO_LONG: Final = '"<withheld: the context is too long>"'
_newest_second: tuple[str, str] = ("", "")


def format_time(time_ns: int) -> str:
    """``2026-01-31T12:00:00.000000Z``, for times between 1970 and 2286."""
    global _newest_second
    digits = str(time_ns).zfill(19)
    second = digits[:10]
    known, text = _newest_second
    if second != known:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(second)))
        _newest_second = (second, text)
    return f"{text}.{digits[10:16]}Z"


def parse_time(text: str) -> int:
    """Nanoseconds since 1970 of an ISO 8601 time with zone, to 2262; raises ValueError for anything else."""
    from datetime import UTC, datetime

    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time with its zone was expected")
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    time_ns = ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
    if not 0 <= time_ns < 2**63:
        raise ValueError("a time between 1970 and 2262 was expected")
    return time_ns


# The constant parts of events repeat from use to use; each is built once while it stays in use.


@lru_cache(maxsize=1_024)
def _repeated_json(
    kind: str,
    operation: str,
    outcome: str,
    format_name: str | None,
    suite_id: int | None,
    origin: KeyOrigin | None,
    cache_hit: bool | None,
    actor: str | None,
    purpose: str | None,
    recipient: str | None,
    break_glass: str | None,
    application: str | None,
    principal: str | None,
) -> str:
    fields: dict[str, Any] = {"kind": kind, "operation": operation, "outcome": outcome, "format": format_name}
    if suite_id is not None:
        fields["suite"] = f"0x{suite_id:04x}"
    if origin is not None:
        fields |= _call_fields(origin)
        fields["other_calls"] = [_call_fields(call) for call in origin.other_calls] or None
    fields |= {"cache_hit": cache_hit, "actor": actor, "purpose": purpose, "recipient": recipient}
    fields |= {"break_glass": break_glass, "application": application, "principal": principal}
    present = {name: value for name, value in fields.items() if value is not None}
    return "," + json.dumps(present, separators=(",", ":"))[1:-1]


def _call_fields(call: KeyOrigin) -> dict[str, Any]:
    named = {
        "provider": call.provider_id,
        "key": call.key_id,
        "key_material": call.key_material_id,
        "request_ids": call.request_ids or None,
        "correlation_id": call.correlation_id,
        "unanswered_attempts": call.unanswered_attempts or None,
        "kms_operation": call.operation,
        "kms_error": call.error_code,
    }
    return {name: value for name, value in named.items() if value is not None}


def _origin_from(fields: Mapping[str, Any]) -> KeyOrigin:
    _check_kinds(fields)
    return KeyOrigin(
        str(fields.get("provider", "")),
        str(fields["key"]),
        fields.get("key_material"),
        tuple(map(str, fields.get("request_ids", ()))),
        fields.get("correlation_id"),
        operation=fields.get("kms_operation"),
        error_code=fields.get("kms_error"),
        unanswered_attempts=min(fields.get("unanswered_attempts", 0), _MAX_ATTEMPTS),
    )


def _rare_json(*rare: object) -> str:
    fields = dict(zip(("error", "reason", "detail", "required_context"), rare, strict=True))
    present = {name: value for name, value in fields.items() if value is not None}
    return "," + json.dumps(present, separators=(",", ":"))[1:-1]


@lru_cache(maxsize=1_024)
def _context_json(pairs: tuple[tuple[str, str], ...]) -> str:
    """The context; of one that is too long only the names, as many as fit: a line must stay readable."""
    inner = ",".join(f"{_quoted(name)}:{_quoted(value)}" for name, value in pairs)
    if len(inner) > MAX_CONTEXT_BYTES:
        named: dict[str, None] = {}
        for number, (name, _) in enumerate(pairs):
            named[_quoted(name if len(name) <= 256 else f"{name[:240]}… ({number})")] = None
            inner = ",".join(f"{name}:{_TOO_LONG}" for name in named)
            if len(inner) > MAX_CONTEXT_BYTES:
                break
    return f',"context":{{{inner}}}'


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


def refused_origin(error: BaseException | None) -> KeyOrigin | None:
    """The KMS calls that ended in this refusal, as an origin: CloudTrail shows them too."""
    if error is not None and not isinstance(error, KeyAccessError):
        error = error.__cause__  # a bad signature or MAC, for example, which KMS reports as a refusal
    if not isinstance(error, KeyAccessError):
        return None
    from phicrypt.core.kms_calls import refused_calls

    earlier = (call for call in error.earlier_calls if isinstance(call, KeyOrigin))
    first, *others = (*refused_calls([error]), *earlier) or (None,)
    return None if first is None else replace(first, other_calls=tuple(call for call in others if call))
