"""A message of a source of unknown length, sealed piece by piece in the memory of a few frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from phicrypt.core.memory import FILE_BLOCK_BYTES, PAGE_BYTES, page_memory
from phicrypt.core.streams import ReadableStream, read_into
from phicrypt.formats.esdk.frames import FINAL_OVERHEAD_BYTES, REGULAR_OVERHEAD_BYTES, frames_in_run
from phicrypt.formats.esdk.sealing import MessageSealer


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
