"""Contexts on their way into a message or an audit event: checked, guarded, and remembered.

Applications use few contexts again and again; what was checked once is not checked again. The
memories are bounded, and hold nothing secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from phicrypt.core.context import (
    PUBLIC_KEY_NAME,
    AnyContext,
    AuditContext,
    check_bindable,
    expected_context,
    plain_context,
    serialize_context,
)
from phicrypt.errors import PhiInContextError
from phicrypt.guard.phi_guard import PhiGuard

Context = Mapping[str, str] | AuditContext
_MemoKey = tuple[tuple[str, str], ...]

_MAX_REMEMBERED: Final = 1_024
_MAX_REMEMBERED_BYTES: Final = 4_096
_WITHHELD: Final = "<withheld>"


class ContextBinding:
    """Applies one guard to contexts; safe among threads.

    Args:
        guard: refuses or replaces values that look like PHI; None lets every context be bound.
    """

    __slots__ = ("_audit_guard", "_bindable", "_expected", "_guard", "_loggable")

    def __init__(self, guard: PhiGuard | None) -> None:
        self._guard = guard
        self._audit_guard = PhiGuard() if guard is None or guard.mode == "off" else guard
        self._bindable: dict[_MemoKey, tuple[Mapping[str, str], bytes]] = {}
        self._expected: dict[_MemoKey, dict[str, str]] = {}
        self._loggable: dict[bytes, Mapping[str, str]] = {}

    def to_bind(self, context: Context | None) -> tuple[Mapping[str, str], bytes]:
        """The checked and guarded pairs of a caller's context, with their canonical bytes.

        Raises ConfigurationError, PhiInContextError, LimitExceededError.
        """
        memo_key = _memo_key(context)
        if memo_key is not None and (known := self._bindable.get(memo_key)) is not None:
            return known
        pairs = plain_context(context)
        if self._guard is not None:
            pairs = dict(self._guard.check(pairs))
        check_bindable(pairs)
        # Read-only, because keyrings see it, and later messages are bound to the same pairs.
        checked = (MappingProxyType(pairs), serialize_context(pairs))
        if memo_key is not None and len(checked[1]) <= _MAX_REMEMBERED_BYTES:
            if len(self._bindable) >= _MAX_REMEMBERED:
                self._bindable.clear()
            self._bindable[memo_key] = checked
        return checked

    def expected(self, context: Context | AnyContext | None) -> dict[str, str] | None:
        """What decrypt demands (:func:`phicrypt.core.context.expected_context`), as the guard had it bound.

        A guard that replaces values by hashes replaces them here as well; one that refuses lets
        expectations pass, since a message may come from a writer without a guard.
        """
        memo_key = _memo_key(context)
        if memo_key is not None and (known := self._expected.get(memo_key)) is not None:
            return known
        expected = expected_context(context)
        if expected is None:
            return None
        if self._guard is not None and self._guard.mode == "hash":
            expected = dict(self._guard.check(expected))
        if memo_key is not None and sum(map(len, expected.values())) <= _MAX_REMEMBERED_BYTES:
            if len(self._expected) >= _MAX_REMEMBERED:
                self._expected.clear()
            self._expected[memo_key] = expected
        return expected

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
