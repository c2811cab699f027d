"""What every stream has in common: whole writes, counted uses, and a source sealed piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from phicrypt.core.memory import FILE_BLOCK_BYTES, PAGE_BYTES, page_memory
from phicrypt.core.streams import ReadableStream, read_into
from phicrypt.formats.esdk.frames import FINAL_OVERHEAD_BYTES, REGULAR_OVERHEAD_BYTES, frames_in_run
from phicrypt.formats.esdk.sealing import MessageSealer

if TYPE_CHECKING:
    from phicrypt.audit.trail import Use


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


def sealed_pieces(
    sealer: MessageSealer, source: ReadableStream, charge: Callable[[int], None]
) -> Iterator[memoryview | bytes]:
    """The message of a source, piece by piece. A piece is valid until the next one is asked for.

    ``charge`` is told the plaintext bytes of each piece before the piece is given out.
    """
    frame_length = sealer.frame_length_bytes
    run_length = frames_in_run(frame_length) * frame_length
    # A run is sealed when bytes behind it have come: only they show that its last frame is not the final one.
    # They are moved to the front, a page of them, so that runs are read to the begin of a page.
    ahead_length = min(frame_length, PAGE_BYTES)
    buffer = page_memory(run_length + ahead_length)
    # What is sealed is given out in whole file blocks, and the rest of it with the next run.
    header_length = len(sealer.header)
    overhead = run_length // frame_length * REGULAR_OVERHEAD_BYTES + FINAL_OVERHEAD_BYTES
    output = page_memory(max(header_length, FILE_BLOCK_BYTES) + run_length + ahead_length + overhead)
    output[:header_length] = sealer.header
    sealed, filled = header_length, 0
    while True:
        count = read_into(source, buffer[filled:])
        charge(count)
        filled += count
        if filled < len(buffer):
            break
        sealed += sealer.seal_regular_into(buffer[:run_length], output[sealed:])
        given = sealed - sealed % FILE_BLOCK_BYTES
        yield output[:given]
        sealed -= given
        output[:sealed] = output[given : given + sealed]
        buffer[:ahead_length] = buffer[run_length:]
        filled = ahead_length
    whole_frames = max(0, filled - 1) // frame_length * frame_length
    if whole_frames:
        sealed += sealer.seal_regular_into(buffer[:whole_frames], output[sealed:])
    sealed += sealer.seal_final_into(buffer[whole_frames:filled], output[sealed:])
    yield output[:sealed]
    footer = sealer.footer()
    if footer:
        yield footer
