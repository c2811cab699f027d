"""The demo's S3 chapter: a large scan, a small range of it, and a swap that is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from phicrypt.client import PhiCrypt
from phicrypt.demo.stage import Stage, Stopwatch
from phicrypt.errors import ContextMismatchError, NotEncryptedError, PhiCryptError, UnsupportedOperationError
from phicrypt.formats.esdk.sealing import DEFAULT_FRAME_LENGTH_BYTES
from phicrypt.keys.kms.keyring import KmsKeyring

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client as Boto3S3Client
    from mypy_boto3_s3.type_defs import CopySourceTypeDef

    from phicrypt.s3.client import S3Client

_SCAN_BYTES: Final = 200_000_000
_SLICE_BYTES: Final = 50_000
_OFFSET: Final = 123_456_789
_PART_BYTES: Final = 32 * 1024**2
_BUCKET: Final = "imaging"


def tell(stage: Stage) -> None:
    stage.chapter("A scan in S3, read where it is needed")
    raw = stage.aws.client("s3")
    raw.create_bucket(Bucket=_BUCKET)
    phi = PhiCrypt(KmsKeyring(stage.aws.kms_key_arn, client=stage.aws.client("kms")))
    fetched = _FetchedBytes(raw)
    s3 = phi.s3(raw, part_size_bytes=_PART_BYTES)
    _upload(stage, s3, raw)
    _read_a_range(stage, s3, fetched)
    _swap(stage, s3, raw)
    _refuse(stage, s3)


def _upload(stage: Stage, s3: S3Client, raw: Boto3S3Client) -> None:
    with Stopwatch() as watch:
        s3.upload_fileobj(_SyntheticScan(), _BUCKET, "study-1/scan", ExtraArgs={"Metadata": {"modality": "ct"}})
    stored = raw.head_object(Bucket=_BUCKET, Key="study-1/scan")
    stage.show("synthetic scan", f"{_SCAN_BYTES:,} bytes, sealed and uploaded in parts in {watch.seconds:.1f} s")
    stage.show("stored", f"{stored['ContentLength']:,} bytes, an AWS Encryption SDK message")
    stage.show("metadata", stored["Metadata"])
    told = s3.head_object(Bucket=_BUCKET, Key="study-1/scan")["ContentLength"]
    stage.check(told == _SCAN_BYTES, "head_object tells the plaintext length")


def _read_a_range(stage: Stage, s3: S3Client, fetched: _FetchedBytes) -> None:
    fetched.count = 0
    header = f"bytes={_OFFSET}-{_OFFSET + 1023}"
    response = s3.get_object(Bucket=_BUCKET, Key="study-1/scan", Range=header)
    piece = response["Body"].read()
    stage.show("read", f"{header} → {response['ContentRange']}")
    stage.show("fetched", f"{fetched.count:,} bytes: the header, one frame, and the last frame")
    stage.check(piece == _scan(_OFFSET, 1024), "1 KiB out of the middle, authenticated, equals the scan's")
    frame = DEFAULT_FRAME_LENGTH_BYTES
    stage.check(fetched.count < 3 * frame, f"fetched less than three frames of {frame // 1024} KiB")
    with s3.open(f"s3://{_BUCKET}/study-1/scan") as file:
        file.seek(-16, 2)
        stage.check(file.read() == _scan(_SCAN_BYTES - 16, 16), "as a file object: seek(-16, 2) and read")


def _swap(stage: Stage, s3: S3Client, raw: Boto3S3Client) -> None:
    s3.put_object(Bucket=_BUCKET, Key="study-2/scan", Body=b"the scan of another patient")
    source: CopySourceTypeDef = {"Bucket": _BUCKET, "Key": "study-1/scan"}
    raw.copy_object(Bucket=_BUCKET, Key="study-2/scan", CopySource=source)
    stage.say("Somebody with write access to the bucket puts one patient's scan under another's name.")
    _expect(
        stage, s3, "study-2/scan", ContextMismatchError, "the swapped object is refused: it is bound to its name"
    )
    raw.put_object(Bucket=_BUCKET, Key="study-3/scan", Body=b"never encrypted")
    _expect(stage, s3, "study-3/scan", NotEncryptedError, "a plaintext object is refused, not passed through")


def _expect(stage: Stage, s3: S3Client, object_key: str, error_class: type[PhiCryptError], text: str) -> None:
    try:
        s3.get_object(Bucket=_BUCKET, Key=object_key, Range="bytes=0-9")
    except error_class:
        stage.check(True, text)
    else:
        stage.check(False, text)


def _refuse(stage: Stage, s3: S3Client) -> None:
    try:
        s3.generate_presigned_url("put_object", Params={"Bucket": _BUCKET, "Key": "k"})
    except UnsupportedOperationError as error:
        stage.check(True, "a presigned upload is refused before the network")
        stage.show("because", error)
    else:
        stage.check(False, "a presigned upload is refused before the network")


class _FetchedBytes:
    """Counts the body bytes that a boto3 client is sent."""

    def __init__(self, raw: Boto3S3Client) -> None:
        self.count = 0
        raw.meta.events.register("after-call.s3.GetObject", self._add)

    def _add(self, parsed: dict[str, Any], **_: Any) -> None:
        self.count += parsed["ContentLength"]


class _SyntheticScan:
    """A long file in little memory, made of numbered slices."""

    def __init__(self) -> None:
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        left = _SCAN_BYTES - self._position
        count = left if size < 0 else min(size, left)
        piece = _scan(self._position, count)
        self._position += count
        return piece


def _scan(start: int, count: int) -> bytes:
    """``count`` bytes of the synthetic scan from ``start`` on."""
    numbers = range(start // _SLICE_BYTES, (start + count) // _SLICE_BYTES + 1)
    slices = b"".join(number.to_bytes(10, "big") * (_SLICE_BYTES // 10) for number in numbers)
    skipped = start % _SLICE_BYTES
    return slices[skipped : skipped + count]
