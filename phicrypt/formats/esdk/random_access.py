"""Sealing the frames of one unsigned message out of order, for parallel and numbered parts.

Everything that :mod:`phicrypt.formats.esdk.sealing` says of nonces holds here too: each frame is
sealed at most once. This sealer keeps the runs of frames that were claimed and refuses to seal any
of them again, whatever the plaintext (rule 3).
"""

from __future__ import annotations

import io
import threading

from phicrypt.errors import ConfigurationError, UnsupportedOperationError
from phicrypt.formats.esdk.frames import FINAL_OVERHEAD_BYTES, REGULAR_OVERHEAD_BYTES, Buffer
from phicrypt.formats.esdk.sealing import MessageSealer
from phicrypt.process import ProcessBound


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

    def seal_run(self, first: int, plaintext: Buffer, *, is_last: bool, prefix: bytes = b"") -> bytes:
        """The frames from number ``first`` (from 1) on, after ``prefix``.

        Without ``is_last`` the plaintext is a positive multiple of the frame length and every frame
        is regular; with it, the last frame is the final one, full or shorter, or empty for an empty
        plaintext.

        Raises UnsupportedOperationError if one of the frames was sealed before.
        """
        length = self.frame_length_bytes
        with memoryview(plaintext) as source:
            regular, rest = divmod(len(source), length)
            if is_last and regular and not rest:
                regular, rest = regular - 1, length
            if not is_last and (rest or not regular):
                raise ConfigurationError(f"a run of regular frames is a multiple of {length} bytes")
            self._claim(first, first + regular + (1 if is_last else 0))
            stride = length + REGULAR_OVERHEAD_BYTES
            size = len(prefix) + regular * stride + (FINAL_OVERHEAD_BYTES + rest if is_last else 0)
            buffer = io.BytesIO(bytes(size))
            with buffer.getbuffer() as output:
                output[: len(prefix)] = prefix
                end = len(prefix) + regular * stride
                if regular:
                    self._cipher.seal_regular_frames_into(
                        first, source[: regular * length], output[len(prefix) : end]
                    )
                if is_last:
                    self._cipher.seal_final_into(first + regular, source[regular * length :], output[end:])
        return buffer.getvalue()

    def _claim(self, start: int, end: int) -> None:
        with self._lock:
            if any(start < other_end and other_start < end for other_start, other_end in self._claimed):
                raise UnsupportedOperationError(
                    "one of these frames was sealed before; sealing it again would use its nonce twice"
                )
            self._claimed.append((start, end))
