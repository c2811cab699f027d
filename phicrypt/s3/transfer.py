"""Uploads in parallel parts and downloads in parallel ranges, in bounded memory.

An upload seals the source once, in order, and keeps each part's ciphertext until S3 has it: what a
retry sends again is the same bytes (rule 3). A failed or interrupted upload aborts its multipart
upload, so no object appears. A download gives out verified frames in order; a file appears under
its name only when the final frame was verified and all of it is on the disk.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from phicrypt.audit.uses import Use
from phicrypt.core.broken_connections import MendedBody
from phicrypt.errors import ConfigurationError
from phicrypt.s3.in_clear import clear_parameters
from phicrypt.s3.operations import OPERATIONS
from phicrypt.s3.options import MAX_PART_SIZE_BYTES, MAX_PARTS, MIN_PART_SIZE_BYTES, S3Options
from phicrypt.s3.reading.frames import FramedMessage, Opened
from phicrypt.s3.reading.opening import open_by_probe, whole_plaintext
from phicrypt.s3.reading.s3ec_objects import open_s3ec
from phicrypt.s3.session import Boto3S3, Demands, S3Session
from phicrypt.s3.writing.put import with_format
from phicrypt.s3.writing.sealing import OutgoingObject, begin_object

DEFAULT_CONCURRENCY: Final = 10
"""boto3's own."""
_GROWTH_STEP_PARTS: Final = 1_000
_COPY_BYTES: Final = 1024**2

Progress = Callable[[int], Any]


class TransferSettings(NamedTuple):
    """How a transfer is cut and how much of it runs at once.

    Attributes:
        part_size_bytes: plaintext bytes of a part or range, a multiple of the frame length.
        concurrency: parts or ranges at once; each holds one part in memory.
        advance: told the plaintext bytes that an upload has stored, from whatever thread.
    """

    part_size_bytes: int
    concurrency: int
    advance: Progress

    @classmethod
    def of(cls, options: S3Options, config: Any = None, progress: Progress | None = None) -> TransferSettings:
        """The client's settings, or those of a boto3 ``TransferConfig``.

        ``multipart_chunksize`` is rounded up to whole frames. One threshold decides about parts: an
        object of one part is not cut.
        """
        if config is None:
            return cls(options.part_size_bytes, DEFAULT_CONCURRENCY, progress or _no_progress)
        frame = options.frame_length_bytes
        size = max(int(config.multipart_chunksize), MIN_PART_SIZE_BYTES)
        size = min(-(-size // frame) * frame, MAX_PART_SIZE_BYTES // frame * frame)
        concurrency = int(config.max_concurrency) if config.use_threads else 1
        if concurrency < 1:
            raise ConfigurationError("max_concurrency is above zero")
        return cls(size, concurrency, progress or _no_progress)


class CiphertextPart(NamedTuple):
    """One part as it goes to S3."""

    ciphertext: bytes
    plaintext_length_bytes: int


def upload(
    s3_session: S3Session,
    source: Any,
    parameters: Mapping[str, Any],
    own: Mapping[str, Any],
    settings: TransferSettings,
    *,
    operation: str,
) -> dict[str, Any]:
    """Encrypt a binary source into one object; the response of PutObject or CompleteMultipartUpload.

    ``parameters`` are those of a new object, checked before; ``operation`` is for the audit trail.
    """
    bucket, object_key = parameters["Bucket"], parameters["Key"]
    clear = clear_parameters(s3_session.phi_session.guard, parameters)
    outgoing, use = begin_object(s3_session, operation, bucket, object_key, own, None)
    names = {"Bucket": bucket, "Key": object_key}
    with use:
        parts = cut_into_parts(outgoing, source, use, settings.part_size_bytes)
        first = next(parts)
        second = next(parts, None)
        if second is not None:
            upload_parts = MultipartUpload(s3_session.client, names, with_format(clear, outgoing), settings)
            return upload_parts.run([first, second], parts)
        response: dict[str, Any] = s3_session.client.put_object(
            **names, Body=first.ciphertext, **with_format(clear, outgoing)
        )
        settings.advance(first.plaintext_length_bytes)
        return response


def _no_progress(_count: int) -> None:
    """For transfers that nobody watches."""


def cut_into_parts(
    outgoing: OutgoingObject, source: Any, use: Use, part_size_bytes: int
) -> Iterator[CiphertextPart]:
    """The ciphertext of a source in parts for S3; at least one.

    Parts double in size after every thousand, so that a source of unknown length never runs out of
    S3's 10,000 numbers. Where S3 cuts does not matter to the message: it is one sequence of frames.
    """
    number = 1
    size = part_size_bytes
    buffer, filled, reported = io.BytesIO(bytes(size)), 0, 0
    for piece in outgoing.seal_stream(source, use.count):
        position = 0
        while position < len(piece):
            if filled == size:
                passed = use.byte_count or 0
                yield CiphertextPart(buffer.getvalue(), passed - reported)
                number, reported = number + 1, passed
                size = _part_size(part_size_bytes, number)
                buffer, filled = io.BytesIO(bytes(size)), 0
            count = min(len(piece) - position, size - filled)
            with buffer.getbuffer() as view:
                view[filled : filled + count] = piece[position : position + count]
            position += count
            filled += count
    yield CiphertextPart(buffer.getvalue()[:filled], (use.byte_count or 0) - reported)


def _part_size(part_size_bytes: int, number: int) -> int:
    size: int = part_size_bytes << ((number - 1) // _GROWTH_STEP_PARTS)
    return min(size, MAX_PART_SIZE_BYTES)


class MultipartUpload:
    """The parts of one upload on their way, a bounded number at once; completed, or aborted."""

    def __init__(
        self,
        client: Boto3S3,
        names: Mapping[str, Any],
        new_object: Mapping[str, Any],
        settings: TransferSettings,
    ) -> None:
        self._s3 = client
        self._names = dict(names)
        self._new_object = dict(new_object)
        if getattr(client.meta.config, "request_checksum_calculation", "") == "when_supported":
            # As boto3's own transfers do: S3 then checks each part and the whole by this checksum.
            self._new_object.setdefault("ChecksumAlgorithm", "CRC32")
        self._settings = settings
        self._etags: dict[int, dict[str, Any]] = {}

    def run(
        self,
        begun: list[CiphertextPart],
        rest: Iterator[CiphertextPart],
    ) -> dict[str, Any]:
        """Upload all parts and complete; on any failure, abort and raise it."""
        conditions = {
            name: self._new_object.pop(name) for name in ("IfMatch", "IfNoneMatch") if name in self._new_object
        }
        upload_id = self._s3.create_multipart_upload(**self._names, **self._new_object)["UploadId"]
        try:
            self._send_all(upload_id, begun, rest)
            parts = [{"PartNumber": number, **self._etags[number]} for number in sorted(self._etags)]
            response: dict[str, Any] = self._s3.complete_multipart_upload(
                **self._names,
                **conditions,
                **self._of("complete_multipart_upload"),
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
            )
        except BaseException as error:
            abort(self._s3, {**self._names, **self._of("abort_multipart_upload")}, upload_id, error)
            raise
        return response

    def _send_all(self, upload_id: str, begun: list[CiphertextPart], rest: Iterator[CiphertextPart]) -> None:
        waiting: deque[Future[None]] = deque()
        with ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="phicrypt-upload") as pool:
            try:
                number = 0
                while begun or rest is not None:
                    part = begun.pop(0) if begun else next(rest, None)
                    if part is None:
                        break
                    number += 1
                    if number > MAX_PARTS:
                        raise ConfigurationError(f"S3 takes {MAX_PARTS} parts; raise part_size_bytes")
                    waiting.append(pool.submit(self._send, upload_id, number, part))
                    del part
                    while len(waiting) >= self._settings.concurrency:
                        waiting.popleft().result()
                while waiting:
                    waiting.popleft().result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _send(self, upload_id: str, number: int, part: CiphertextPart) -> None:
        answer = self._s3.upload_part(
            **self._names,
            **self._of("upload_part"),
            UploadId=upload_id,
            PartNumber=number,
            Body=part.ciphertext,
        )
        self._etags[number] = part_reference(answer, "ChecksumAlgorithm" in self._new_object)
        self._settings.advance(part.plaintext_length_bytes)

    def _of(self, operation_name: str) -> dict[str, Any]:
        """Parameters of the new object that its other requests need too."""
        members = OPERATIONS[operation_name].forwarded
        return {name: value for name, value in self._new_object.items() if name in members}


def part_reference(answer: Mapping[str, Any], has_checksums: bool) -> dict[str, Any]:
    """What CompleteMultipartUpload must repeat of the answer to a part: its ETag and checksum.

    S3 compares the checksums only of an upload that was created with a ``ChecksumAlgorithm``.
    """
    return {
        name: value
        for name, value in answer.items()
        if name == "ETag" or (has_checksums and name.startswith("Checksum") and name != "ChecksumType")
    }


def abort(s3: Boto3S3, names: Mapping[str, Any], upload_id: str, cause: BaseException) -> None:
    """Abort an upload that failed with ``cause``; a failure to abort is noted on it, not raised."""
    try:
        s3.abort_multipart_upload(**names, UploadId=upload_id)
    except Exception as error:  # noqa: BLE001  (whatever it is, the cause is what the caller must see)
        cause.add_note(
            f"the multipart upload could not be aborted ({type(error).__name__}); "
            "'phicrypt s3 abort-incomplete' finds what it left"
        )


def download(
    s3_session: S3Session, parameters: Mapping[str, Any], demands: Demands, settings: TransferSettings
) -> Iterator[bytes | memoryview]:
    """The verified plaintext of one object, in order, fetched in parallel ranges.

    The iterator ends without an error only when the final frame (of a signed object: the signature)
    has been verified. Close it to stop early.
    """
    found = open_by_probe(s3_session, parameters, demands)
    if not isinstance(found, Opened):
        stored, envelope = found
        body = MendedBody(stored.body, 0, stored.length_bytes)
        return _in_order(open_s3ec(s3_session, stored, envelope, demands, body)[0])
    header = found.opener.header
    if header.suite.is_signed or not header.is_framed:
        rest = MendedBody(found.stored.body, header.length_bytes, found.stored.length_bytes)
        return _in_order(whole_plaintext(s3_session, found, rest).body)
    return _parallel(FramedMessage(found), settings)


def _in_order(body: io.RawIOBase) -> Iterator[bytes]:
    with body:
        while piece := body.read(_COPY_BYTES):
            yield piece


def _parallel(message: FramedMessage, settings: TransferSettings) -> Iterator[bytes]:
    total = message.claimed_length_bytes
    length = max(1, settings.part_size_bytes // message.piece_bytes) * message.piece_bytes
    pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="phicrypt-download")
    with message.use as use, pool:
        waiting: deque[Future[bytes]] = deque()

        def oldest() -> bytes:
            piece = waiting.popleft().result()
            use.count(len(piece))
            return piece

        try:
            for start in range(0, max(total, 1), length):
                # The last one asks for more than there is, so that it answers only after the final frame.
                waiting.append(pool.submit(message.open_at, start, length + (start + length >= total)))
                if len(waiting) >= settings.concurrency:
                    yield oldest()
            while waiting:
                yield oldest()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
