"""Contexts on their way into a message or an audit event: checked, guarded, and remembered.

Applications use few contexts again and again; what was checked once is not checked again. The
memories are bounded, and hold no key; of required pairs (rule 35) they hold values that no message shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from phicrypt.core.context import (
    PUBLIC_KEY_NAME,
    AnyContext,
    AuditContext,
    check_bindable,
    expected_context,
    plain_context,
    serialize_context,
)
from phicrypt.core.required_context import (
    NO_NAMES,
    NOTHING_REQUIRED,
    RequiredPairs,
    required_names,
    required_pairs,
    without_required,
)
from phicrypt.errors import ConfigurationError, PhiInContextError
from phicrypt.guard.phi_guard import PhiGuard

Context = Mapping[str, str] | AuditContext
_MemoKey = tuple[tuple[str, str], ...]

_MAX_REMEMBERED: Final = 1_024
_MAX_REMEMBERED_BYTES: Final = 4_096
_WITHHELD: Final = "<withheld>"


class BoundContext(NamedTuple):
    """A context as a message is bound to it. Its ``repr`` shows names only.

    Attributes:
        pairs, context_bytes: all pairs, and their canonical bytes.
        stored: the pairs that the message stores.
        required: those that it does not (rule 35).
    """

    pairs: Mapping[str, str]
    context_bytes: bytes
    stored: Mapping[str, str]
    required: RequiredPairs

    def __repr__(self) -> str:
        return f"<BoundContext, names {sorted(self.stored)}, not stored {sorted(self.required.pairs)}>"


class ExpectedContext(NamedTuple):
    """What a reader demands of a message's context. Its ``repr`` shows names only.

    Attributes:
        stored: pairs that the message must store; None for ``ANY_CONTEXT``.
        required: pairs that it must be bound to, and must not store.
    """

    stored: Mapping[str, str] | None
    required: RequiredPairs

    def __repr__(self) -> str:
        stored = "any" if self.stored is None else sorted(self.stored)
        return f"<ExpectedContext, names {stored}, not stored {sorted(self.required.pairs)}>"


ANYTHING: Final = ExpectedContext(None, NOTHING_REQUIRED)
"""What ``ANY_CONTEXT`` demands."""


class ContextBinding:
    """Applies one guard to contexts; safe among threads.

    Args:
        guard: refuses or replaces values that look like PHI; None lets every context be bound.
        binds_locally: whether the keyring shows the context to nobody: then the guard does not judge the
            values of required pairs, which leave this process nowhere (rule 35).

    Attributes:
        required_context: names of the pairs that are required where a call names none of its own.
    """

    __slots__ = (
        "_audit_guard",
        "_bindable",
        "_binds_locally",
        "_expected",
        "_guard",
        "_loggable",
        "required_context",
    )

    def __init__(
        self,
        guard: PhiGuard | None,
        *,
        binds_locally: bool = False,
        required_context: frozenset[str] = NO_NAMES,
    ) -> None:
        self._guard = guard
        self.required_context = required_context
        self._binds_locally = binds_locally
        self._audit_guard = PhiGuard() if guard is None or guard.mode == "off" else guard
        self._bindable: dict[object, BoundContext] = {}
        self._expected: dict[object, ExpectedContext] = {}
        self._loggable: dict[bytes, Mapping[str, str]] = {}

    def under(self, *, binds_locally: bool) -> ContextBinding:
        """The same guard for another keyring."""
        if binds_locally == self._binds_locally:
            return self
        return ContextBinding(self._guard, binds_locally=binds_locally, required_context=self.required_context)

    def to_bind(self, context: Context | None, required_context: Iterable[str] | None = None) -> BoundContext:
        """The checked and guarded pairs of a caller's context, with their canonical bytes.

        ``required_context`` names those that the message is not to store, by default those of the client.
        Raises ConfigurationError, PhiInContextError, LimitExceededError.
        """
        required = self.required_context if required_context is None else required_names(required_context)
        memo_key: object = _memo_key(context)
        if memo_key is not None and required:
            memo_key = (memo_key, required)
        if memo_key is not None and (known := self._bindable.get(memo_key)) is not None:
            return known
        pairs = self.guarded(plain_context(context), required)
        check_bindable(pairs)
        split = required_pairs(pairs, required) if required else NOTHING_REQUIRED
        # Read-only, because keyrings see it, and later messages are bound to the same pairs.
        whole: Mapping[str, str] = MappingProxyType(pairs)
        stored = MappingProxyType(without_required(pairs, split)) if required else whole
        checked = BoundContext(whole, serialize_context(pairs), stored, split)
        if memo_key is not None and len(checked.context_bytes) <= _MAX_REMEMBERED_BYTES:
            if len(self._bindable) >= _MAX_REMEMBERED:
                self._bindable.clear()
            self._bindable[memo_key] = checked
        return checked

    def expected(
        self, context: Context | AnyContext | None, required_context: Iterable[str] | None = None
    ) -> ExpectedContext:
        """What decrypt demands (:func:`phicrypt.core.context.expected_context`), as the guard had it bound.

        A guard that replaces values by hashes replaces them here as well; one that refuses lets
        expectations pass, since a message may come from a writer without a guard. ``required_context`` names
        the pairs that the message must not store: their values stand in ``context`` all the same.
        """
        required = self.required_context if required_context is None else required_names(required_context)
        memo_key: object = _memo_key(context)
        if memo_key is not None and required:
            memo_key = (memo_key, required)
        if memo_key is not None and (known := self._expected.get(memo_key)) is not None:
            return known
        pairs = expected_context(context)
        if pairs is None:
            if required:
                raise ConfigurationError(
                    f"required_context declares {', '.join(map(repr, sorted(required)))}, whose values no message "
                    "stores: pass the pairs in context=, since ANY_CONTEXT has none"
                )
            return ANYTHING
        if self._guard is not None and self._guard.mode == "hash":
            pairs = self.guarded(pairs, required)
        split = required_pairs(pairs, required) if required else NOTHING_REQUIRED
        expected = ExpectedContext(without_required(pairs, split), split)
        if memo_key is not None and sum(map(len, pairs.values())) <= _MAX_REMEMBERED_BYTES:
            if len(self._expected) >= _MAX_REMEMBERED:
                self._expected.clear()
            self._expected[memo_key] = expected
        return expected

    def guarded(self, pairs: Mapping[str, str], required: frozenset[str] = NO_NAMES) -> dict[str, str]:
        """The pairs as the guard lets them pass, replaces or refuses them; raises PhiInContextError.

        Of required pairs that nobody is shown the guard judges the names only, which stand in errors and logs.
        """
        if self._guard is None:
            return dict(pairs)
        if not (required and self._binds_locally):
            return dict(self._guard.check(pairs))
        kept_here = {name: value for name, value in pairs.items() if name in required}
        self._guard.check_names_only(kept_here)
        shown = {name: value for name, value in pairs.items() if name not in required}
        return {**self._guard.check(shown), **kept_here}

    def loggable(self, context: Mapping[str, str], context_bytes: bytes | None = None) -> Mapping[str, str]:
        """A message's context as the audit trail may record it.

        What others wrote has not passed our guard: values that look like PHI are withheld.
        """
        if context_bytes is None:
            context_bytes = serialize_context(context)
        known = self._loggable.get(context_bytes)
        if known is not None:
            return known
        pairs = {name: value for name, value in context.items() if name != PUBLIC_KEY_NAME}
        pairs = dict(self._loggable_pair(name, value) for name, value in pairs.items())
        if len(context_bytes) <= _MAX_REMEMBERED_BYTES:
            if len(self._loggable) >= _MAX_REMEMBERED:
                self._loggable.clear()
            self._loggable[context_bytes] = pairs
        return pairs

    def _loggable_pair(self, name: str, value: str) -> tuple[str, str]:
        try:
            return name, self._audit_guard.check({name: value})[name]
        except PhiInContextError as error:
            # A name that looks like PHI itself is not among the error's names.
            return (name if name in error.names else _WITHHELD), _WITHHELD


def _memo_key(context: object) -> _MemoKey | None:
    """What a caller's dict is remembered by; None for whatever has to be checked each time."""
    if type(context) is not dict:
        return None
    memo_key = tuple(context.items())
    try:
        hash(memo_key)
    except TypeError:  # an unhashable value, which plain_context names
        return None
    return memo_key
