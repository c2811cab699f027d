"""The encryption context: an immutable map of text to text, and its canonical bytes.

It is authenticated with every message but not secret: it stands in clear in CloudTrail, in message
headers and in S3 metadata. The serialization is that of ``framework/structures.md``, section
"Encryption Context / Serialization"::

    count of pairs          2 bytes, big-endian, at least 1
    for each pair, sorted by the UTF-8 bytes of its name, no name twice:
        length of name      2 bytes
        name                UTF-8
        length of value     2 bytes
        value               UTF-8

An empty context is the empty byte string.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from phicrypt.errors import ConfigurationError, ContextMismatchError, FormatError, LimitExceededError

RESERVED_PREFIXES: Final = ("aws-crypto-", "phicrypt-")
"""Names that callers may not use: AWS's formats and phicrypt write them (rule 8)."""
PUBLIC_KEY_NAME: Final = "aws-crypto-public-key"
"""The name under which signed suites carry their verification key."""
MAX_FIELD_LENGTH_BYTES: Final = 0xFFFF
MAX_WRITTEN_FIELD_LENGTH_BYTES: Final = 0x7FFF
"""The longest name or value that AWS's library for Java reads: it takes the length for a signed number."""

_SHOWN_LENGTH: Final = 100
"""How much of a context name stands in an error about its value."""


class AnyContext:
    """The type of :data:`ANY_CONTEXT`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ANY_CONTEXT"


ANY_CONTEXT: Final = AnyContext()
"""Given as ``context=`` to decrypt: accept the message whatever its context says.

Loud on purpose: without expected pairs, one tenant's message opens where another's was meant.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditContext:
    """Typed pairs that an audit reads in CloudTrail; unset fields are left out.

    Opaque identifiers only: CloudTrail shows them in clear. Actor and purpose are not here, because
    decrypt must repeat the context of encrypt; see ``PhiCrypt.acting_as``.
    """

    tenant: str | None = None
    application: str | None = None
    dataset: str | None = None
    resource_type: str | None = None

    def as_context(self) -> dict[str, str]:
        """The pairs that are set, by the names ``tenant``, ``application``, ``dataset``, ``resource-type``."""
        pairs = {
            "tenant": self.tenant,
            "application": self.application,
            "dataset": self.dataset,
            "resource-type": self.resource_type,
        }
        return {name: value for name, value in pairs.items() if value is not None}


def plain_context(context: Mapping[str, str] | AuditContext | None) -> dict[str, str]:
    """A caller's context as a checked dict of its own.

    Raises ConfigurationError for anything but text, for empty names and for reserved names.
    """
    if context is None:
        return {}
    if isinstance(context, AuditContext):
        return context.as_context()
    if isinstance(context, AnyContext):
        raise ConfigurationError("ANY_CONTEXT is for decrypt; encrypt takes the pairs to bind, or nothing")
    if not isinstance(context, Mapping):
        raise ConfigurationError(
            f"a context is a mapping of text to text or an AuditContext, not {type(context).__name__}"
        )
    checked: dict[str, str] = {}
    for name, value in context.items():
        if not isinstance(name, str) or not name:
            raise ConfigurationError("context names are non-empty text")
        if not isinstance(value, str):
            raise ConfigurationError(f"the context value of {name!r} is {type(value).__name__}, text is expected")
        if name.startswith(RESERVED_PREFIXES):
            raise ConfigurationError(
                f"the context name {name!r} is reserved: names beginning with "
                f"{' or '.join(RESERVED_PREFIXES)} are written by the formats themselves"
            )
        checked[name] = value
    return checked


def check_bindable(context: Mapping[str, str]) -> None:
    """Raise ConfigurationError for pairs that AWS's library for Java does not read (rule 34).

    For what is about to be written. Readers take such pairs, because other libraries write them.
    """
    for name, value in context.items():
        for field, what in ((name, "a context name"), (value, f"the context value of {name[:_SHOWN_LENGTH]!r}")):
            if not field:
                raise ConfigurationError(
                    f"{what} is empty: AWS's library for Java does not read such a message; leave the pair out"
                )
            # A character has 4 bytes at most. What UTF-8 cannot hold, serialize_context refuses.
            if len(field) * 4 > MAX_WRITTEN_FIELD_LENGTH_BYTES:
                length = len(field.encode(errors="surrogatepass"))
                if length > MAX_WRITTEN_FIELD_LENGTH_BYTES:
                    raise ConfigurationError(
                        f"{what} has {length} bytes: AWS's library for Java reads "
                        f"{MAX_WRITTEN_FIELD_LENGTH_BYTES} at most; bind something shorter, such as a hash"
                    )


def serialize_context(context: Mapping[str, str]) -> bytes:
    """Canonical bytes, as the module's head lays them out; ``b""`` for an empty context.

    Raises ConfigurationError for text that UTF-8 cannot hold, LimitExceededError for a name or
    value of more than 65,535 bytes or a context whose serialization is longer than that.
    """
    if not context:
        return b""
    if len(context) > MAX_FIELD_LENGTH_BYTES:
        raise LimitExceededError("too many context pairs", limit=MAX_FIELD_LENGTH_BYTES, actual=len(context))
    pieces = [len(context).to_bytes(2, "big")]
    is_text = True
    try:
        # Text sorts by code points, and UTF-8 keeps that order.
        for name in sorted(context):
            for field in (name.encode(), context[name].encode()):
                pieces += (len(field).to_bytes(2, "big"), field)
    except UnicodeEncodeError:
        is_text = False
    except OverflowError:
        raise LimitExceededError(
            "a context name or value is too long", limit=MAX_FIELD_LENGTH_BYTES, actual=len(field)
        ) from None
    if not is_text:
        # Not in the handler: Python's own error holds the value, and would stay with this one as its context.
        raise ConfigurationError("context names and values must be valid Unicode text")
    serialized = b"".join(pieces)
    if len(serialized) > MAX_FIELD_LENGTH_BYTES:
        raise LimitExceededError(
            "the encryption context is too long in bytes",
            limit=MAX_FIELD_LENGTH_BYTES,
            actual=len(serialized),
        )
    return serialized


def parse_context(serialized: bytes, *, offset: int = 0) -> Mapping[str, str]:
    """The context whose canonical bytes these are; the inverse of :func:`serialize_context`.

    ``offset`` is where the bytes stand in their message, for errors. Raises FormatError for repeated
    names, a count of zero, bytes left over and invalid UTF-8. Unsorted names are accepted, because
    official vectors have them: serialize what comes back where canonical bytes are needed.
    """
    if not serialized:
        return MappingProxyType({})

    def wrong(what: str, at: int) -> FormatError:
        return FormatError(what, field="encryption context", offset=offset + at)

    if len(serialized) < 2:
        raise wrong("two bytes of pair count were expected", 0)
    count = int.from_bytes(serialized[:2], "big")
    if count == 0:
        raise wrong("a count of zero pairs; an empty context has no bytes at all", 0)
    position = 2
    context: dict[str, str] = {}
    for _ in range(count):
        fields = []
        for part in ("name", "value"):
            end_of_length = position + 2
            end = end_of_length + int.from_bytes(serialized[position:end_of_length], "big")
            if end_of_length > len(serialized) or end > len(serialized):
                raise wrong(f"a pair's {part} ends beyond the context", position)
            fields.append(serialized[end_of_length:end])
            position = end
        is_text = True
        try:
            name, value = fields[0].decode(), fields[1].decode()
        except UnicodeDecodeError:
            is_text = False
        if not is_text:  # as in serialize_context, not in the handler
            raise wrong("a name or value is not valid UTF-8", position)
        if name in context:
            raise wrong("a name stands twice", position)
        context[name] = value
    if position != len(serialized):
        raise wrong("bytes are left over after the last pair", position)
    return MappingProxyType(context)


def expected_context(context: Mapping[str, str] | AuditContext | AnyContext | None) -> dict[str, str] | None:
    """What decrypt's ``context=`` demands: a checked dict, or None for :data:`ANY_CONTEXT`.

    Raises ConfigurationError for a missing or empty context (rule 8): an empty expectation would
    accept every message, which nobody should do by accident.
    """
    if isinstance(context, AnyContext):
        return None
    if context is None:
        raise ConfigurationError(
            "decrypt needs context=: the pairs that the message must hold, or ANY_CONTEXT to accept any message"
        )
    expected = plain_context(context)
    if not expected:
        raise ConfigurationError(
            "an empty context would match every message; pass the expected pairs, or ANY_CONTEXT to accept any"
        )
    return expected


def check_expected_pairs(context: Mapping[str, str], expected: Mapping[str, str] | None) -> None:
    """Raise ContextMismatchError unless each expected pair is in the context; None expects nothing."""
    if expected is None:
        return
    for name, value in expected.items():
        if context.get(name) != value:
            wrong = [name for name, value in expected.items() if context.get(name) != value]
            are_absent = not any(name in context for name in wrong)
            text = ContextMismatchError.ABSENT if are_absent else ContextMismatchError.DIFFERENT
            raise ContextMismatchError(wrong, text)
