"""What was sent under a caller's own ClientRequestToken (rule 19).

DynamoDB takes a transaction with a token it has seen for a retry only if every byte is the same, but
encryption gives other bytes each time. So the sealed parameters of such transactions are kept for as
long as DynamoDB remembers the token, and a retry of the same plaintext sends them again.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

MAX_AGE_SECONDS: Final = 600
"""DynamoDB remembers a token for ten minutes."""
MAX_ENTRIES: Final = 256
"""A transaction holds at most 4 MB, so the ledger is bounded in bytes as well."""


class TokenLedger:
    """Sealed transactions by token. A retry after the entry was dropped is sealed anew, and DynamoDB
    refuses it with IdempotentParameterMismatchException if the first try arrived: nothing is applied
    twice.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[float, bytes, Mapping[str, Any]]] = OrderedDict()
        # Keyed, so that the digests in memory say nothing about the plaintext without this process.
        self._digest_key = os.urandom(32)

    def sealed_once(self, asked: Mapping[str, Any], seal: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """The parameters to send for ``asked``: kept ones if token and plaintext are the same."""
        token = asked["ClientRequestToken"]
        digest = hashlib.blake2b(_canonical(asked), key=self._digest_key).digest()
        kept = self._kept(token, digest)
        if kept is not None:
            return kept
        sealed = seal()
        with self._lock:
            # Of two first tries at the same time, both send what the faster one sealed.
            entry = self._entries.get(token)
            if entry is not None and entry[1] == digest and not self._is_old(entry[0]):
                return entry[2]
            self._entries[token] = (self._clock(), digest, sealed)
            self._entries.move_to_end(token)
            while len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)
        return sealed

    def _kept(self, token: str, digest: bytes) -> Mapping[str, Any] | None:
        with self._lock:
            while self._entries and self._is_old(next(iter(self._entries.values()))[0]):
                self._entries.popitem(last=False)
            entry = self._entries.get(token)
            return entry[2] if entry is not None and entry[1] == digest else None

    def _is_old(self, since: float) -> bool:
        return self._clock() - since > MAX_AGE_SECONDS


def _canonical(value: object) -> bytes:
    """Unambiguous bytes of nested parameters: type, length and content of each part."""
    if isinstance(value, Mapping):
        parts = [part for name in sorted(value, key=repr) for part in (_canonical(name), _canonical(value[name]))]
        return b"m%d:" % len(parts) + b"".join(parts)
    if isinstance(value, list | tuple):
        return b"l%d:" % len(value) + b"".join(map(_canonical, value))
    content = bytes(value) if isinstance(value, bytes | bytearray | memoryview) else repr(value).encode()
    return f"{type(value).__name__}{len(content)}:".encode() + content
