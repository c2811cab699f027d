"""Required context: pairs that a message is bound to and does not store (rule 35).

``framework/required-encryption-context-cmm.md`` and ``client-apis/encrypt.md``. Of one encryption context::

    header           the stored pairs: the context without the required ones
    data key         wrapped under the whole context, stored and required pairs together
    header's tag     AAD = header body ‖ serialization of the required pairs alone, no bytes if there are none
    frames           as ever
    signature        over the message as it is written

So whoever reads must name the required pairs and say their values, and the header's tag tells whether they
are those of the writer, also where a keyring does not bind data keys to the context.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from phicrypt.core.context import RESERVED_PREFIXES, serialize_context
from phicrypt.errors import ConfigurationError, ContextMismatchError

NO_NAMES: Final[frozenset[str]] = frozenset()


class RequiredPairs(NamedTuple):
    """The required pairs of one message. Its ``repr`` shows their names only.

    Attributes:
        pairs: names and values.
        serialized: their canonical bytes; ``b""`` for none.
    """

    pairs: Mapping[str, str]
    serialized: bytes

    def __repr__(self) -> str:
        return f"<RequiredPairs, names {sorted(self.pairs)}>"


NOTHING_REQUIRED: Final = RequiredPairs(MappingProxyType({}), b"")


def required_names(names: Iterable[str]) -> frozenset[str]:
    """The names that a client or a call declares, checked.

    Raises ConfigurationError for anything but a collection of names that callers may use.
    """
    if isinstance(names, str | bytes | Mapping) or not isinstance(names, Iterable):
        raise ConfigurationError(
            "required_context takes names, such as ('patient',), whose values stand in context=; "
            f"{type(names).__name__} came"
        )
    declared = list(names)
    for name in declared:
        if not isinstance(name, str) or not name:
            raise ConfigurationError("the names of required_context are non-empty text")
        if name.startswith(RESERVED_PREFIXES):
            raise ConfigurationError(
                f"required_context cannot name {name!r}: names beginning with {' or '.join(RESERVED_PREFIXES)} "
                "are written by the formats themselves"
            )
    return frozenset(declared)


def required_pairs(context: Mapping[str, str], names: frozenset[str]) -> RequiredPairs:
    """The pairs of these names in a caller's context; ConfigurationError unless each has a value there."""
    missing = sorted(name for name in names if name not in context)
    if missing:
        raise ConfigurationError(
            f"required_context declares {', '.join(map(repr, missing))}, whose value no message stores: "
            "pass the pair in context="
        )
    pairs = {name: context[name] for name in sorted(names)}
    return RequiredPairs(MappingProxyType(pairs), serialize_context(pairs))


def without_required(context: Mapping[str, str], required: RequiredPairs) -> Mapping[str, str]:
    """The pairs of a whole context that its message stores."""
    if not required.pairs:
        return context
    return {name: value for name, value in context.items() if name not in required.pairs}


def check_not_stored(stored: Mapping[str, str], required: RequiredPairs) -> None:
    """Raise ContextMismatchError where a message stores a name that its reader declares as required.

    By its own bytes such a message is bound to what stands in its header, which is what somebody without the
    required value could write.
    """
    found = [name for name in required.pairs if name in stored]
    if found:
        raise ContextMismatchError(
            found,
            "the message stores {names}, which its reader declares as required context, bound and never stored; "
            "it was not opened. Have it written again with required_context",
        )
