"""The use of a key by a stream of S3, which counts plaintext bytes."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from phicrypt.formats.esdk.pieces import sealed_pieces

if TYPE_CHECKING:
    from phicrypt.audit.trail import Use

__all__ = ["StreamUse", "sealed_pieces"]


class StreamUse:
    """One use of a key by a stream: counts its plaintext, charges the cache, ends the audit event once.

    Args:
        audit_use: the event that has begun, or None without an audit trail.
    """

    __slots__ = ("_audit_use", "byte_count", "charge")

    def __init__(self, audit_use: Use | None) -> None:
        self._audit_use = audit_use
        self.byte_count = 0
        self.charge: Callable[[int], None] | None = None

    def count(self, byte_count: int) -> None:
        """That many more plaintext bytes have passed."""
        self.byte_count += byte_count
        if self._audit_use is not None:
            self._audit_use.byte_count = self.byte_count  # for the record of a use that is abandoned
        if self.charge is not None:
            self.charge(byte_count)

    def end(self, error: BaseException | None = None) -> None:
        """The stream is over, or failed. Later calls do nothing. Raises AuditError."""
        audit_use, self._audit_use = self._audit_use, None
        if audit_use is not None:
            audit_use.end(error=error, byte_count=self.byte_count)

    def __enter__(self) -> StreamUse:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error)
