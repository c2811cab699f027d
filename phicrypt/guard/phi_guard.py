"""The PHI guard: refuses identifiers of people where they would stand in clear.

Encryption contexts stand in clear in CloudTrail, in message headers and in stored objects; so do
object keys, metadata, tags and table keys. The guard looks for what can be recognized: social
security numbers, telephone numbers, e-mail addresses, dates of birth, medical record and Medicare
numbers, payment cards, IP addresses, ZIP+4 codes and vehicle identification numbers. **It cannot
find names of people or free text**; it knows only pairs whose own name announces one
(``patient_name``, ``address``).

Some values are PHI only under a name that says so: ``19870312`` is an order number under ``order``
and a birthday under ``dob``. The guard reads the name for that, see :mod:`phicrypt.guard.patterns`.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Literal

from phicrypt.core.materials import KeyHolder
from phicrypt.errors import ConfigurationError, PhiInContextError

_MEMO_LIMIT: Final = 4_096
_MEMO_PAIR_LENGTH: Final = 256
_WITHHELD: Final = "<name withheld>"


class PhiGuard(KeyHolder):
    """Checks pairs of name and value before they leave the process in clear.

    Args:
        mode: ``"refuse"`` raises PhiInContextError; ``"hash"`` replaces an offending value by a
            keyed hash of it, the same each time, so that decrypt can repeat the context; ``"off"``
            lets everything pass.
        allow_names: names of pairs that are not checked, because their values were judged by hand.
        extra_patterns: more patterns to refuse, regular expressions by a label of your own; they
            are searched without case in the value as it came.
        mrn_patterns: regular expressions for medical record numbers, searched without case; they
            replace :data:`phicrypt.guard.patterns.DEFAULT_MRN_PATTERNS`.
        hash_key: for ``"hash"``, at least 32 secret bytes. Whoever holds it can confirm a guess.

    Raises ConfigurationError for an unknown mode, a bad pattern or a missing or short hash key.
    """

    __slots__ = ("_allow_names", "_extra", "_hash_key", "_mrn", "_passed", "_passed_names", "mode")

    def __init__(
        self,
        mode: Literal["refuse", "hash", "off"] = "refuse",
        *,
        allow_names: Iterable[str] = (),
        extra_patterns: Mapping[str, str] = MappingProxyType({}),
        mrn_patterns: Iterable[str] | None = None,
        hash_key: bytes | None = None,
    ) -> None:
        if mode not in ("refuse", "hash", "off"):
            raise ConfigurationError(f"the guard's mode is 'refuse', 'hash' or 'off', not {mode!r}")
        if (mode == "hash") != (hash_key is not None):
            raise ConfigurationError("hash_key is given with mode 'hash', and only there")
        if hash_key is not None and (not isinstance(hash_key, bytes) or len(hash_key) < 32):
            raise ConfigurationError("hash_key is at least 32 secret bytes")
        if isinstance(allow_names, str) or isinstance(mrn_patterns, str):
            raise ConfigurationError("allow_names and mrn_patterns are collections of text, not one text")
        self.mode = mode
        self._allow_names = frozenset(allow_names)
        self._extra = _compiled(extra_patterns.values())
        self._mrn = _compiled(mrn_patterns) if mrn_patterns is not None else None
        self._hash_key = hash_key
        # Pairs that passed. Contexts repeat, and are not secret; pairs that were refused are never kept.
        self._passed: set[tuple[str, str]] = set()
        self._passed_names: set[str] = set()

    def __repr__(self) -> str:
        return f"<PhiGuard {self.mode!r}, allowing {sorted(self._allow_names)}>"

    def check(self, pairs: Mapping[str, str], *, where: str = "encryption context") -> Mapping[str, str]:
        """The pairs themselves if nothing looks like PHI; with mode ``"hash"`` a copy with replacements.

        Args:
            pairs: names and values as they would be sent.
            where: what they are, for the error (``"object key"``, ``"tag"``).

        Raises PhiInContextError with the names of the offending pairs; a name that itself looks like
        PHI is withheld, and is refused in every mode but ``"off"``.
        """
        try:
            if self._passed.issuperset(pairs.items()) or self.mode == "off":
                return pairs
            offending = [name for name, value in pairs.items() if not self._passes(name, value)]
        except TypeError:  # of a value that has no hash, and so is no text
            offending = None
        if offending is None:
            raise ConfigurationError(f"a value of the {where} is no text")
        if not offending:
            return pairs
        named_by_phi = [name for name in offending if self._is_phi("", name)]
        if self._hash_key is None or named_by_phi:
            raise PhiInContextError(
                [_WITHHELD if name in named_by_phi else name for name in offending], where=where
            )
        return {name: self._hashed(name, value) if name in offending else value for name, value in pairs.items()}

    def check_names_only(self, names: Iterable[str], *, where: str = "encryption context") -> None:
        """Raise PhiInContextError where a name itself looks like PHI; of pairs whose values stay here."""
        if self.mode != "off" and any(self._is_phi("", name) for name in names):
            raise PhiInContextError([_WITHHELD], where=where)

    def check_name(self, pairs: Mapping[str, str], *, where: str) -> None:
        """:meth:`check` for what something is called by, and found again: ``"hash"`` refuses there as well."""
        checked = self.check(pairs, where=where)
        if checked is not pairs:
            raise PhiInContextError([name for name in pairs if checked[name] != pairs[name]], where=where)

    def _passes(self, name: str, value: str) -> bool:
        pair = (name, value)
        if pair in self._passed:
            return True
        if name not in self._allow_names and self._is_phi(name, value):
            return False
        if name not in self._passed_names and self._is_phi("", name):
            return False
        if len(name) <= _MEMO_PAIR_LENGTH and len(self._passed_names) < _MEMO_LIMIT:
            self._passed_names.add(name)
        if len(name) + len(value) <= _MEMO_PAIR_LENGTH:
            if len(self._passed) >= _MEMO_LIMIT:
                self._passed.clear()
            self._passed.add(pair)
        return True

    def _is_phi(self, name: str, value: str) -> bool:
        if not isinstance(value, str):
            raise ConfigurationError(f"the value of {name!r} is {type(value).__name__}, text is expected")
        from phicrypt.guard.patterns import looks_like_phi

        return looks_like_phi(name, value, extra=self._extra, mrn=self._mrn)

    def _hashed(self, name: str, value: str) -> str:
        assert self._hash_key is not None
        encoded = name.encode()
        message = b"phicrypt guard v1\x00" + len(encoded).to_bytes(4, "big") + encoded + value.encode()
        return "guard-" + hmac.digest(self._hash_key, message, "sha256").hex()[:40]


def _compiled(patterns: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    try:
        return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)
    except re.error as error:
        raise ConfigurationError(f"a pattern of the guard is not a regular expression: {error}") from None
