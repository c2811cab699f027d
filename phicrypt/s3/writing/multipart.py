"""boto3's low-level multipart verbs: create, upload_part, complete, abort.

The part size is the client's ``part_size_bytes``, so a part's number says which frames it holds:
part k of an unsigned message begins with frame (k - 1) · F + 1, where F is the frames of a part.
Such parts may come in any order and in parallel. Part 1 carries the header as well. A shorter part
is the last one and carries the final frame; it is held here until the upload is completed, since a
later number would make it wrong. If every part was full, an empty final frame (or the tag) goes up
as one more part.

A part number is sealed once (rule 3): other bytes under the same number would use its nonces again
and are refused; the same bytes may be sent again. The upload belongs to the process that created it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from phicrypt.audit.uses import Use
from phicrypt.core.materials import KeyHolder
from phicrypt.core.primitives import constant_time_equal
from phicrypt.core.process import ProcessBound
from phicrypt.errors import ConfigurationError, LimitExceededError, UnsupportedOperationError
from phicrypt.formats.esdk.frames import FINAL_OVERHEAD_BYTES
from phicrypt.formats.esdk.random_access import RandomAccessSealer
from phicrypt.s3.in_clear import clear_parameters
from phicrypt.s3.operations import forwarded
from phicrypt.s3.options import MAX_PARTS, S3Options
from phicrypt.s3.session import S3Session
from phicrypt.s3.transfer import part_reference
from phicrypt.s3.writing.put import in_memory, with_format
from phicrypt.s3.writing.sealing import OutgoingMessage, OutgoingObject, OutgoingS3ec, begin_object

_MAX_OPEN_UPLOADS: Final = 1_000


@dataclass(slots=True)
class _Part:
    """One part number: sealed, and either stored (``answer``) or still to be sent (``ciphertext``).

    ``digest`` is of the plaintext, to know the same bytes again; it never leaves this process.
    """

    digest: bytes = field(repr=False)
    plaintext_length_bytes: int
    ciphertext: bytes | None = field(repr=False)
    held_etag: str
    answer: dict[str, Any] | None = None
    sending: threading.Lock = field(default_factory=threading.Lock)


class _PartSealer(ProcessBound):
    """Seals the plaintext of numbered parts; subclasses know in which order."""

    def seal(self, number: int, plaintext: memoryview, *, is_last: bool) -> bytes:
        raise NotImplementedError


class _AnyOrderSealer(_PartSealer):
    def __init__(self, outgoing: OutgoingMessage, frames_per_part: int) -> None:
        super().__init__()
        self._frames = RandomAccessSealer(outgoing.sealer)
        self._frames_per_part = frames_per_part

    def seal(self, number: int, plaintext: memoryview, *, is_last: bool) -> bytes:
        self.check_process()
        prefix = self._frames.header if number == 1 else b""
        first = (number - 1) * self._frames_per_part + 1
        return self._frames.seal_run(first, plaintext, is_last=is_last, prefix=prefix)


class _InOrderSealer(_PartSealer):
    """For signed messages and S3 Encryption Client objects: one running state over all parts."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 1

    def seal(self, number: int, plaintext: memoryview, *, is_last: bool) -> bytes:
        self.check_process()
        if self._next == 0:
            raise UnsupportedOperationError(
                "sealing a part of this upload was interrupted, and its state went on; abort it and start again"
            )
        if number != self._next:
            raise UnsupportedOperationError(
                f"the parts of a signed or S3 Encryption Client upload come in order: part {self._next} is next, "
                f"part {number} came"
            )
        self._next = 0  # a part that fails in the middle has advanced the state: no part can follow it
        ciphertext = self._seal_next(plaintext, is_first=number == 1, is_last=is_last)
        self._next = number + 1
        return ciphertext

    def _seal_next(self, plaintext: memoryview, *, is_first: bool, is_last: bool) -> bytes:
        raise NotImplementedError


class _SignedSealer(_InOrderSealer):
    def __init__(self, outgoing: OutgoingMessage) -> None:
        super().__init__()
        self._sealer = outgoing.sealer

    def _seal_next(self, plaintext: memoryview, *, is_first: bool, is_last: bool) -> bytes:
        sealer = self._sealer
        length = sealer.frame_length_bytes
        regular = max(0, len(plaintext) - 1) // length if is_last else len(plaintext) // length
        room = memoryview(bytearray(len(plaintext) + (regular + 2) * FINAL_OVERHEAD_BYTES))
        written = sealer.seal_regular_into(plaintext[: regular * length], room) if regular else 0
        if is_last:
            written += sealer.seal_final_into(plaintext[regular * length :], room[written:])
        pieces = (sealer.header if is_first else b"", room[:written], sealer.footer() if is_last else b"")
        return b"".join(pieces)


class _S3ecPartSealer(_InOrderSealer):
    def __init__(self, outgoing: OutgoingS3ec) -> None:
        super().__init__()
        self._sealer = outgoing.sealer

    def _seal_next(self, plaintext: memoryview, *, is_first: bool, is_last: bool) -> bytes:
        ciphertext = self._sealer.update(plaintext)
        return ciphertext + self._sealer.finish() if is_last else ciphertext


class _Upload(KeyHolder):
    """The state of one multipart upload."""

    def __init__(self, sealer: _PartSealer, clear: Mapping[str, Any], use: Use) -> None:
        self.sealer = sealer
        self.has_checksums = "ChecksumAlgorithm" in clear
        self.part_parameters = forwarded("upload_part", clear)
        """What every part is sent with, those included that no caller uploads."""
        self.use = use
        self.parts: dict[int, _Part] = {}
        self.last_number: int | None = None
        """The part with the final frame, once it is known."""
        self.added_number: int | None = None
        """The part that no caller uploaded: the empty final frame, or the tag."""
        self.lock = threading.Lock()


class MultipartUploads(KeyHolder):
    """The multipart uploads that one client has created and not finished."""

    def __init__(self, s3_session: S3Session) -> None:
        self._s3_session = s3_session
        self._uploads: dict[tuple[str, str, str], _Upload] = {}
        self._lock = threading.Lock()

    def create(self, parameters: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """boto3's ``create_multipart_upload``; the upload belongs to this client in this process."""
        s3_session, bucket, object_key = self._s3_session, parameters["Bucket"], parameters["Key"]
        clear = clear_parameters(s3_session.phi_session.guard, parameters, "create_multipart_upload")
        if len(self._uploads) >= _MAX_OPEN_UPLOADS:
            raise LimitExceededError(
                "too many multipart uploads are open; complete or abort some",
                limit=_MAX_OPEN_UPLOADS,
                actual=len(self._uploads) + 1,
            )
        outgoing, use = begin_object(s3_session, "s3.create_multipart_upload", bucket, object_key, own, None)
        try:
            response: dict[str, Any] = s3_session.client.create_multipart_upload(
                Bucket=bucket, Key=object_key, **with_format(clear, outgoing)
            )
        except BaseException as error:
            use.end(error)
            raise
        upload = _Upload(_sealer_of(s3_session.options, outgoing), clear, use)
        with self._lock:
            self._uploads[bucket, object_key, response["UploadId"]] = upload
        return response

    def upload_part(self, parameters: Mapping[str, Any], own: object = None) -> dict[str, Any]:
        """boto3's ``upload_part``: exactly ``part_size_bytes`` of plaintext, the last part may be shorter."""
        upload = self._upload(parameters)
        number = parameters["PartNumber"]
        if not isinstance(number, int) or not 1 <= number <= MAX_PARTS:
            raise ConfigurationError(f"PartNumber is from 1 to {MAX_PARTS}")
        plaintext = self._read_body(parameters)
        upload.part_parameters |= forwarded("upload_part", parameters)
        part = self._seal(upload, number, plaintext)
        if number == upload.last_number:
            return {"ETag": part.held_etag, "ResponseMetadata": {"HTTPStatusCode": 200}}
        return self._send(upload, number, part, parameters)

    def complete(self, parameters: Mapping[str, Any], own: object = None) -> dict[str, Any]:
        """boto3's ``complete_multipart_upload``: all of parts 1 to n; adds what ends the message."""
        upload = self._upload(parameters)
        numbers = [part["PartNumber"] for part in parameters.get("MultipartUpload", {}).get("Parts", ())]
        with upload.lock:
            uploaded = sorted(number for number in upload.parts if number != upload.added_number)
            count = len(uploaded)
            if not count or numbers != list(range(1, count + 1)) or uploaded != numbers:
                raise ConfigurationError(
                    "an encrypted upload is completed with all of its parts, 1 to n in order without gaps; "
                    f"{len(numbers)} are named, {count} were uploaded"
                )
            self._check_etags(upload, parameters["MultipartUpload"]["Parts"])
            if upload.last_number is None:
                added = _sealed(upload, count + 1, memoryview(b""), is_last=True)
                upload.parts[count + 1] = added
                upload.last_number = upload.added_number = count + 1
        self._send(upload, upload.last_number, upload.parts[upload.last_number], parameters)
        total = sum(part.plaintext_length_bytes for part in upload.parts.values())
        if parameters.get("MpuObjectSize", total) != total:
            raise ConfigurationError(f"MpuObjectSize is not the {total} plaintext bytes that were uploaded")
        references = [
            {"PartNumber": number, **part_reference(part.answer or {}, upload.has_checksums)}
            for number, part in sorted(upload.parts.items())
        ]
        response: dict[str, Any] = self._s3_session.client.complete_multipart_upload(
            **_names(parameters),
            **forwarded("complete_multipart_upload", parameters),
            MultipartUpload={"Parts": references},
        )
        self._forget(parameters)
        upload.use.end()
        return response

    def abort(self, parameters: Mapping[str, Any], own: object = None) -> dict[str, Any]:
        """boto3's ``abort_multipart_upload``, also for uploads that another process created."""
        response: dict[str, Any] = self._s3_session.client.abort_multipart_upload(
            **_names(parameters), **forwarded("abort_multipart_upload", parameters)
        )
        self._forget(parameters)  # its use ends as interrupted
        return response

    def _upload(self, parameters: Mapping[str, Any]) -> _Upload:
        upload = self._uploads.get((parameters["Bucket"], parameters["Key"], parameters["UploadId"]))
        if upload is None:
            raise UnsupportedOperationError(
                "this client did not create that upload: its key and nonces belong to the process and client that "
                "called create_multipart_upload. Abort it and start again"
            )
        upload.sealer.check_process()
        return upload

    def _forget(self, parameters: Mapping[str, Any]) -> None:
        with self._lock:
            self._uploads.pop((parameters["Bucket"], parameters["Key"], parameters["UploadId"]), None)

    def _read_body(self, parameters: Mapping[str, Any]) -> memoryview:
        """The part's plaintext; never more than one byte beyond the part size is read."""
        body = in_memory(parameters.get("Body", b""))
        size = self._s3_session.options.part_size_bytes
        if not isinstance(body, bytes | bytearray | memoryview):
            body = _read_up_to(body.read, size + 1)
        plaintext = memoryview(body).cast("B")
        if len(plaintext) > size:
            raise ConfigurationError(
                f"a part is exactly the client's part_size_bytes of {size} bytes, the last one may be shorter; "
                "a longer one came"
            )
        if parameters.get("ContentLength", len(plaintext)) != len(plaintext):
            raise ConfigurationError(f"ContentLength is not the {len(plaintext)} bytes of the part's plaintext")
        return plaintext

    def _seal(self, upload: _Upload, number: int, plaintext: memoryview) -> _Part:
        """Seal a part number once; the same plaintext again gives the same part back."""
        is_short = len(plaintext) < self._s3_session.options.part_size_bytes
        digest = hashlib.sha256(plaintext).digest()
        with upload.lock:
            known = upload.parts.get(number)
            if known is not None:
                if not constant_time_equal(known.digest, digest):
                    raise UnsupportedOperationError(
                        f"part {number} was sealed with other bytes before; sealing a number twice would use its "
                        "nonces twice. Abort this upload and start a new one"
                    )
                return known
            self._check_place(upload, number, is_short)
            upload.use.count(len(plaintext))
            part = _sealed(upload, number, plaintext, is_last=is_short)
            upload.parts[number] = part
            if is_short:
                upload.last_number = number
        return part

    def _check_place(self, upload: _Upload, number: int, is_short: bool) -> None:
        last = upload.last_number
        if last is not None and (is_short or number > last):
            raise UnsupportedOperationError(
                f"part {last} was shorter than the part size and so is the last one; part {number} can neither "
                "follow it nor be short as well"
            )
        if is_short and any(other > number for other in upload.parts):
            raise UnsupportedOperationError(
                f"part {number} is shorter than the part size but parts after it were uploaded"
            )
        if number == MAX_PARTS and not is_short:
            raise LimitExceededError(
                "the last of S3's part numbers is needed for the end of the message; raise part_size_bytes",
                limit=MAX_PARTS - 1,
                actual=number,
            )

    def _send(self, upload: _Upload, number: int, part: _Part, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Send a part's kept ciphertext once; a part that S3 has is not sent again."""
        with part.sending:
            if part.answer is None:
                part.answer = self._s3_session.client.upload_part(
                    **_names(parameters),
                    **upload.part_parameters,
                    PartNumber=number,
                    Body=part.ciphertext,
                )
                part.ciphertext = None
            return dict(part.answer)

    @staticmethod
    def _check_etags(upload: _Upload, named: list[dict[str, Any]]) -> None:
        for reference in named:
            part = upload.parts[reference["PartNumber"]]
            # A held part keeps its own ETag for the caller after it was sent, for a second try.
            expected = {part.held_etag.strip('"'), (part.answer or {}).get("ETag", part.held_etag).strip('"')}
            if str(reference.get("ETag", "")).strip('"') not in expected:
                raise ConfigurationError(
                    f"part {reference['PartNumber']} has another ETag than upload_part returned"
                )


def _sealed(upload: _Upload, number: int, plaintext: memoryview, *, is_last: bool) -> _Part:
    ciphertext = upload.sealer.seal(number, plaintext, is_last=is_last)
    held_etag = f'"held-{hashlib.sha256(ciphertext).hexdigest()[:32]}"'
    return _Part(hashlib.sha256(plaintext).digest(), len(plaintext), ciphertext, held_etag)


def _sealer_of(options: S3Options, outgoing: OutgoingObject) -> _PartSealer:
    if isinstance(outgoing, OutgoingS3ec):
        return _S3ecPartSealer(outgoing)
    assert isinstance(outgoing, OutgoingMessage)
    if outgoing.materials.suite.is_signed:
        return _SignedSealer(outgoing)
    return _AnyOrderSealer(outgoing, options.part_size_bytes // options.frame_length_bytes)


def _names(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: parameters[name] for name in ("Bucket", "Key", "UploadId")}


def _read_up_to(read: Callable[[int], bytes], size: int) -> bytes:
    pieces = []
    while size and (piece := read(size)):
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise ConfigurationError(
                f"the body's read() returned {type(piece).__name__}; open it in binary mode ('rb')"
            )
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
