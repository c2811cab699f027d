"""Sealing the frames of one unsigned message out of order, for parallel and numbered parts.

Everything that :mod:`phicrypt.formats.esdk.sealing` says of nonces holds here too: each frame is
sealed at most once. This sealer keeps the runs of frames that were claimed and refuses to seal any
of them again, whatever the plaintext (rule 3).
"""

from __future__ import annotations

import threading

from phicrypt.core.memory import bytes_to_fill
from phicrypt.core.process import ProcessBound
from phicrypt.errors import ConfigurationError, UnsupportedOperationError
from phicrypt.formats.esdk.frames import FINAL_OVERHEAD_BYTES, REGULAR_OVERHEAD_BYTES, Buffer
from phicrypt.formats.esdk.sealing import MessageSealer


class RandomAccessSealer(ProcessBound):
    """One unsigned message whose frames are sealed in runs, in any order and from any thread.

    Attributes:
        header: the sealed header, to be written before the first frame.
        message_id: 32 random bytes.
        frame_length_bytes: plaintext bytes of a regular frame.

    Raises ConfigurationError for a signed message (a signature is over the frames in order), and for
    one of which a frame was sealed already.
    """

    __slots__ = ("_cipher", "_claimed", "_lock", "frame_length_bytes", "header", "message_id")

    def __init__(self, sealer: MessageSealer) -> None:
        super().__init__()
        self.message_id = sealer.message_id
        self.header, self._cipher = sealer.release_for_random_access()
        self.frame_length_bytes = sealer.frame_length_bytes
        self._claimed: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<RandomAccessSealer, {len(self._claimed)} runs sealed>"

    def run_length_bytes(self, plaintext_length_bytes: int, *, is_last: bool) -> int:
        """How long the frames of a run are."""
        regular, rest = self._frames_of(plaintext_length_bytes, is_last)
        return regular * (self.frame_length_bytes + REGULAR_OVERHEAD_BYTES) + (
            FINAL_OVERHEAD_BYTES + rest if is_last else 0
        )

    def seal_run_into(self, first: int, plaintext: Buffer, output: memoryview, *, is_last: bool) -> None:
        """Write the frames from number ``first`` (from 1) on; ``output`` has exactly their length.

        Without ``is_last`` the plaintext is a positive multiple of the frame length and every frame
        is regular; with it, the last frame is the final one, full or shorter, or empty for an empty
        plaintext.

        Raises UnsupportedOperationError if one of the frames was sealed before.
        """
        length = self.frame_length_bytes
        with memoryview(plaintext) as source:
            regular, rest = self._frames_of(len(source), is_last)
            if not is_last and (rest or not regular):
                raise ConfigurationError(f"a run of regular frames is a multiple of {length} bytes")
            self._claim(first, first + regular + (1 if is_last else 0))
            end = regular * (length + REGULAR_OVERHEAD_BYTES)
            if regular:
                self._cipher.seal_regular_frames_into(first, source[: regular * length], output[:end])
            if is_last:
                self._cipher.seal_final_into(first + regular, source[regular * length :], output[end:])

    def seal_run(self, first: int, plaintext: Buffer, *, is_last: bool, prefix: bytes = b"") -> bytes:
        """:meth:`seal_run_into` into new bytes, after ``prefix``."""
        size = len(prefix) + self.run_length_bytes(memoryview(plaintext).nbytes, is_last=is_last)
        buffer = bytes_to_fill(size)
        with buffer.getbuffer() as output:
            output[: len(prefix)] = prefix
            self.seal_run_into(first, plaintext, output[len(prefix) :], is_last=is_last)
        return buffer.getvalue()

    def _frames_of(self, plaintext_length_bytes: int, is_last: bool) -> tuple[int, int]:
        """How many regular frames, and how many bytes behind them."""
        regular, rest = divmod(plaintext_length_bytes, self.frame_length_bytes)
        if is_last and regular and not rest:
            return regular - 1, self.frame_length_bytes
        return regular, rest

    def _claim(self, start: int, end: int) -> None:
        with self._lock:
            if any(start < other_end and other_start < end for other_start, other_end in self._claimed):
                raise UnsupportedOperationError(
                    "one of these frames was sealed before; sealing it again would use its nonce twice"
                )
            self._claimed.append((start, end))
