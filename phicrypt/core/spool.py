"""A spool of ciphertext: bounded memory, then an unlinked file that only this process can open.

Bodies with one tag at the very end (non-framed messages, S3 Encryption Client objects) must be
verified whole before a byte of plaintext leaves (rule 6). They are read twice: the first pass
verifies and fills the spool, the second decrypts from it. Whoever can change the file between the
passes would hand out unverified bytes, so a digest of each chunk is kept in memory and checked.
Only ciphertext ever reaches the disk.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO

from phicrypt.core.primitives import constant_time_equal
from phicrypt.errors import AuthenticationError, LimitExceededError


class CiphertextSpool:
    """Keeps ciphertext between two passes. Close it, or use it as a context manager.

    Args:
        memory_bytes: how much is held in memory before a file takes over.
        max_bytes: the bound; one byte more raises LimitExceededError.
    """

    def __init__(self, *, memory_bytes: int, max_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._max_bytes = max_bytes
        self._file: IO[bytes] | None = None
        self._chunks: list[tuple[int, bytes]] = []
        self._length = 0

    def __enter__(self) -> CiphertextSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, chunk: bytes | memoryview) -> None:
        """Keep one chunk; raises LimitExceededError beyond ``max_bytes`` and OSError of a full disk."""
        self._length += len(chunk)
        if self._length > self._max_bytes:
            raise LimitExceededError(
                "the spooled body is too long in bytes",
                limit=self._max_bytes,
                actual=None,
                setting="ReadLimits.max_spool_bytes",
            )
        if self._file is None:
            # Beyond max_size this becomes a TemporaryFile: mode 0600, unlinked before it is written.
            self._file = tempfile.SpooledTemporaryFile(max_size=self._memory_bytes)  # noqa: SIM115
        self._file.write(chunk)
        self._chunks.append((len(chunk), hashlib.sha256(chunk).digest()))

    def verified_chunks(self) -> Iterator[bytes]:
        """The chunks as they were appended; AuthenticationError if one is not what it was."""
        if self._file is None:
            return
        self._file.seek(0)
        for length, digest in self._chunks:
            chunk = self._file.read(length)
            if not constant_time_equal(hashlib.sha256(chunk).digest(), digest):
                raise AuthenticationError("spooled ciphertext changed")
            yield chunk

    def close(self) -> None:
        """Drop the ciphertext."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._chunks.clear()
