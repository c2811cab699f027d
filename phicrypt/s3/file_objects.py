"""``open("s3://bucket/name", "rb" | "wb")``: an encrypted object as a Python file object.

Reading fetches the frames it needs with a small read-ahead that grows while the reading is
sequential. Whatever depends on the total length (``SEEK_END``, a read at or beyond the end) verifies
the final frame first (rule 10). Writing is a multipart upload in the background that is completed by
``close()``; an exception in the ``with`` block, or a file that was never closed, aborts it.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import copy_context
from types import TracebackType
from typing import Any, Final, Self

from phicrypt.core.materials import KeyHolder
from phicrypt.core.streams import PieceSource
from phicrypt.errors import ConfigurationError, PhiCryptError, UnsupportedOperationError
from phicrypt.s3.in_clear import clear_parameters
from phicrypt.s3.reading.frames import FramedMessage
from phicrypt.s3.reading.s3ec_objects import VerifiedObject
from phicrypt.s3.session import S3Session
from phicrypt.s3.transfer import TransferSettings, upload
from phicrypt.s3.writing.sealing import check_new_object

_READ_AHEAD_BYTES: Final = 8 * 1024**2
_QUEUE_PIECES: Final = 16
_PIECE_BYTES: Final = 256 * 1024


def parse_s3_name(name: str) -> tuple[str, str]:
    """Bucket and object key of ``s3://bucket/key``; nothing in the key is decoded."""
    scheme, _, rest = name.partition("://")
    bucket, _, object_key = rest.partition("/")
    if scheme != "s3" or not bucket or not object_key:
        raise ConfigurationError("an S3 name has the form s3://bucket/key")
    return bucket, object_key


class S3File(io.BufferedReader):
    """What ``open(…, "rb")`` gives: a buffered, seekable file, and reads by place that share no position."""

    raw: S3Reader

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """``file.read_at(4096, 100)``: verified plaintext from a place; from any number of threads at once.

        Position and buffer of the file stay as they are. Fewer bytes than asked mean the end, which is told
        after the final frame was verified (rules 10 and 43). Raises AuthenticationError, FormatError,
        ValueError for a negative number or a closed file, UnsupportedOperationError after a fork, and
        boto3's errors.
        """
        return self.raw.read_at(offset_bytes, length_bytes)


class S3Reader(KeyHolder, io.RawIOBase):
    """The raw reader of an opened object, with one position; it is read through an :class:`S3File`."""

    def __init__(self, message: FramedMessage | VerifiedObject) -> None:
        self._failure: PhiCryptError | None = None
        self._unread: BaseException | None = None
        self._message = message
        self._length = message.claimed_length_bytes
        self._position = 0
        self._held = b""
        self._held_start = 0
        self._ahead_pieces = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check()
        return self._position

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """See :meth:`S3File.read_at`."""
        self._check()
        with self._failing():
            return self._message.read_at(offset_bytes, length_bytes)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._check()
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            with self._failing():
                offset += self._message.verified_length()
        elif whence != io.SEEK_SET:
            raise ValueError(f"whence is 0, 1 or 2, {whence} came")
        if offset < 0:
            raise ValueError(f"a position before the start was asked: {offset}")
        self._position = offset
        self._unread = None
        return offset

    def readinto(self, buffer: Any, /) -> int:
        self._check()
        if self._unread is not None:
            # The buffer above drops what it read before the failure: reading on would leave a gap.
            raise self._unread
        try:
            return self._read_into(memoryview(buffer).cast("B"))
        except BaseException as error:  # an interrupt as well, until the caller has sought a place
            self._unread = error
            raise

    def _read_into(self, view: memoryview) -> int:
        if not len(view):
            return 0
        if self._position >= self._length:
            with self._failing():
                self._message.verified_length()  # the end is an answer that depends on the total
            return 0
        if not self._held_start <= self._position < self._held_start + len(self._held):
            with self._failing():
                self._fetch()
        start = self._position - self._held_start
        piece = memoryview(self._held)[start : start + len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        self._message.count(len(piece))
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._held = b""
            try:
                if hasattr(self, "_message"):
                    self._message.close(self._failure)
            finally:
                super().close()

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed file")
        self._message.check_process()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Other frames may still be read after a failure, but the use ends as failed (rule 20)."""
        try:
            yield
        except PhiCryptError as error:
            self._failure = self._failure or error
            raise

    def _fetch(self) -> None:
        """Hold the frame at the position, and more of them the longer the reading is sequential."""
        length = self._message.piece_bytes
        is_next = self._position == self._held_start + len(self._held) and self._held
        most = max(0, _READ_AHEAD_BYTES // length - 1)
        self._ahead_pieces = min(max(1, 2 * self._ahead_pieces), most) if is_next else 0
        start = self._position // length * length
        held_length = min((1 + self._ahead_pieces) * length, self._length - start)
        self._held, self._held_start = self._message.open_at(start, held_length), start


class S3Writer(KeyHolder, io.BufferedIOBase):
    """What ``open(…, "wb")`` writes to: plaintext goes to a thread that seals and uploads it in parts.

    The object appears when ``close()`` returns, and only then.
    """

    def __init__(
        self,
        s3_session: S3Session,
        parameters: Mapping[str, Any],
        own: Mapping[str, Any],
        settings: TransferSettings,
    ) -> None:
        # What would be refused is refused at open(), before a thread begins.
        clear_parameters(s3_session.phi_session.guard, parameters)
        check_new_object(s3_session, parameters["Bucket"], parameters["Key"], own)
        self._owner_pid = os.getpid()
        self._pieces: queue.Queue[bytes | BaseException] = queue.Queue(_QUEUE_PIECES)
        self._failure: BaseException | None = None
        self._ends_with_block = False
        self._position = 0
        self._gathered = bytearray()
        self._result: dict[str, Any] = {}
        run = copy_context().run  # the actor of the audit trail goes along (rule 20)
        self._thread = threading.Thread(
            target=run,
            args=(self._upload, s3_session, dict(parameters), own, settings),
            name="phicrypt-writer",
            daemon=True,
        )
        self._thread.start()

    @property
    def response(self) -> dict[str, Any]:
        """S3's answer to the finished upload; empty before ``close()``."""
        return self._result

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any, /) -> int:
        self._check()
        view = memoryview(data).cast("B")
        try:
            self._position += len(view)
            for start in range(0, len(view), _PIECE_BYTES):
                self._gathered += view[start : start + _PIECE_BYTES]
                if len(self._gathered) >= _PIECE_BYTES:
                    self._put_gathered()
        except BaseException as error:
            # An interrupt may have come between handing a piece over and forgetting it: no object then.
            self._failure = self._failure or error
            raise
        return len(view)

    def close(self) -> None:
        if self.closed:
            return
        if self._ends_with_block and sys.exception() is not None:
            # A wrapper such as TextIOWrapper closes what it wraps after an exception as well. Whether
            # there will be an object is for the end of the ``with`` block to say.
            return
        try:
            self._check()
            self._put_gathered()
            self._put(b"")
            self._thread.join()
            if self._failure is not None:
                raise self._failure
        finally:
            self._stop(ConfigurationError("the file was closed after an error"))
            super().close()

    def abort(self) -> None:
        """Stop without an object: the multipart upload is aborted."""
        if not self.closed:
            self._stop(_AbortedError())
            super().close()

    def __enter__(self) -> Self:
        self._check()
        self._ends_with_block = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends_with_block = False
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        # A file that nobody closed is not a finished object: what was written is dropped.
        with contextlib.suppress(Exception):
            if not self.closed and os.getpid() == self._owner_pid:
                self.abort()

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed file")
        if os.getpid() != self._owner_pid:
            raise UnsupportedOperationError(
                "this S3 file was opened in another process; after a fork, open another one"
            )
        if self._failure is not None:
            raise self._failure

    def _put_gathered(self) -> None:
        if self._gathered:
            self._put(bytes(self._gathered))
            self._gathered.clear()

    def _put(self, piece: bytes | BaseException) -> None:
        while True:
            try:
                self._pieces.put(piece, timeout=0.5)
            except queue.Full:
                if not self._thread.is_alive():
                    raise self._failure or OSError("the upload has ended") from None
            else:
                return

    def _stop(self, reason: BaseException) -> None:
        if os.getpid() != self._owner_pid:
            return
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._pieces.put(reason, timeout=0.1)
                self._thread.join()

    def _upload(
        self,
        s3_session: S3Session,
        parameters: dict[str, Any],
        own: Mapping[str, Any],
        settings: TransferSettings,
    ) -> None:
        try:
            source = PieceSource(self._next_piece)
            self._result = upload(s3_session, source, parameters, own, settings, operation="s3.open_write")
        except BaseException as error:  # noqa: BLE001  (raised again by the writing thread)
            self._failure = error

    def _next_piece(self) -> bytes:
        piece = self._pieces.get()
        if isinstance(piece, BaseException):
            raise piece
        return piece


class _AbortedError(Exception):
    """The writer was abandoned; stops the upload."""
