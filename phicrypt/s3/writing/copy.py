"""Copies and changes of key.

An ESDK header is never sealed twice under one data key and message id (rule 3), and a body is bound
to its name (rule 9): so a copy, a new name and a new wrapping key all mean reading, verifying and
sealing again under a fresh data key and message id, in one streaming pass, read in parallel ranges
and written in parallel parts. The new object appears only after the old one was verified to its end.

An S3 Encryption Client object keeps its wrapped data key in metadata outside the sealed body: there
a change of wrapping key replaces metadata on the server, and no body byte moves. That revokes
nobody who held the data key or an old version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlencode

from phicrypt.core.context import serialize_context
from phicrypt.core.materials import DataKey, EncryptionMaterials
from phicrypt.errors import AuthenticationError, ConfigurationError, UnsupportedOperationError
from phicrypt.formats.reader import StreamReader
from phicrypt.formats.s3ec.content import verify_commitment
from phicrypt.formats.s3ec.envelope import S3EC_METADATA_NAMES, S3EC_V3_SUITE, S3ecEnvelope
from phicrypt.messages.stream_uses import StreamUse
from phicrypt.s3.gateway import REWRAP, Gateway, Reading, check_s3ec_keyring
from phicrypt.s3.operations import forwarded
from phicrypt.s3.reading.opening import HEADER_STEP_BYTES, HeaderProbe, detect, read_header
from phicrypt.s3.reading.ranges import Span
from phicrypt.s3.reading.source import ObjectSource
from phicrypt.s3.transfer import Progress, TransferSettings, abort, download, part_reference, upload
from phicrypt.s3.writing.sealing import METADATA_PREFIX

MAX_COPY_BYTES: Final = 5 * 1024**3
"""What CopyObject takes; longer objects are copied on the server in parts."""
_SERVER_PART_BYTES: Final = 512 * 1024**2
_SYSTEM_METADATA: Final = (
    *("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Expires"),
    "WebsiteRedirectLocation",
)
_STORAGE: Final = ("StorageClass", "ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled")


class CopyPlan(NamedTuple):
    """What a change of key costs, before it is done.

    Attributes:
        method: ``"re-encrypt"`` or ``"replace metadata"``.
        stored_length_bytes: of the object.
        bytes_through_client: downloaded and uploaded by this process, bodies only.
        s3_requests: about how many requests to S3.
        kms_calls: how many calls to KMS, if nothing is cached.
    """

    method: str
    stored_length_bytes: int
    bytes_through_client: int
    s3_requests: int
    kms_calls: int


class _IteratorFile:
    """An iterator of plaintext as a source that is read once."""

    def __init__(self, pieces: Iterator[bytes | memoryview]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")

    def read(self, size: int = -1, /) -> memoryview:
        while not len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return memoryview(b"")
            self._piece = memoryview(piece)
        count = len(self._piece) if size < 0 else size
        taken, self._piece = self._piece[:count], self._piece[count:]
        return taken


def parse_copy_source(source: Any) -> dict[str, str]:
    """Bucket, Key and VersionId of boto3's ``CopySource``.

    That is a dict, ``"bucket/key?versionId=…"``, or ``"arn:…/object/key"`` of an access point.
    """
    if isinstance(source, str):
        path, _, query = source.partition("?versionId=")
        path = path.lstrip("/")
        bucket, _, object_key = path.partition("/object/" if path.startswith("arn:") else "/")
        parsed = {"Bucket": unquote(bucket), "Key": unquote(object_key)}
        if query:
            parsed["VersionId"] = query
        source = parsed
    if not isinstance(source, Mapping) or not source.get("Bucket") or not source.get("Key"):
        raise ConfigurationError('CopySource is {"Bucket": …, "Key": …} or "bucket/key"')
    if unknown := set(source) - {"Bucket", "Key", "VersionId"}:
        raise ConfigurationError(f"CopySource has unknown members {sorted(unknown)}")
    return {name: source[name] for name in ("Bucket", "Key", "VersionId") if source.get(name)}


def copy_object(
    gateway: Gateway,
    reader: Gateway,
    parameters: Mapping[str, Any],
    own: Any,
    reading: Reading,
    settings: TransferSettings,
    progress: Progress | None = None,
    *,
    operation: str,
) -> dict[str, Any]:
    """The response of CopyObject: ``reader`` opens the source, ``gateway`` seals the new object.

    Two uses in the audit trail: the source's, as ``reading`` names it, and ``operation``.
    """
    source_parameters = _source_parameters(parameters)
    source = ObjectSource(reader.s3, source_parameters)
    _head_source(reader, source)
    target = _target_parameters(reader, source, parameters)
    replaces_itself = gateway.s3 is reader.s3 and (source.bucket, source.object_key) == (
        target["Bucket"],
        target["Key"],
    )
    if replaces_itself and "VersionId" not in source_parameters and "IfNoneMatch" not in target:
        # What was written meanwhile must not give way to what was read before.
        target.setdefault("IfMatch", source.response["ETag"])
    pinned = {**source_parameters, "IfMatch": source.response["ETag"]}
    for name in ("IfNoneMatch", "IfModifiedSince", "IfUnmodifiedSince"):
        pinned.pop(name, None)
    if "VersionId" not in pinned and source.response.get("VersionId", "null") != "null":
        pinned["VersionId"] = source.response["VersionId"]
    plaintext = download(reader, pinned, reading, settings)
    response = upload(gateway, _IteratorFile(plaintext), target, own, settings, progress, operation=operation)
    return _copy_response(response, source)


def _source_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of reading the source, from those of CopyObject."""
    source: dict[str, Any] = dict(parse_copy_source(parameters.get("CopySource")))
    for name in ("IfMatch", "IfModifiedSince", "IfNoneMatch", "IfUnmodifiedSince", "SSECustomerAlgorithm"):
        if f"CopySource{name}" in parameters:
            source[name] = parameters[f"CopySource{name}"]
    for name in ("SSECustomerKey", "SSECustomerKeyMD5"):
        if f"CopySource{name}" in parameters:
            source[name] = parameters[f"CopySource{name}"]
    if "ExpectedSourceBucketOwner" in parameters:
        source["ExpectedBucketOwner"] = parameters["ExpectedSourceBucketOwner"]
    if "RequestPayer" in parameters:
        source["RequestPayer"] = parameters["RequestPayer"]
    return source


def _head_source(reader: Gateway, source: ObjectSource) -> None:
    """Ask for the source; S3 answers CopyObject with 412 where HeadObject answers 304 or 412."""
    from botocore.exceptions import ClientError

    try:
        source.head_first()
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status in (304, 412):
            raise _client_error(reader, "PreconditionFailed", 412, error) from None
        if status == 404:
            raise _client_error(reader, "NoSuchKey", 404, error) from None
        raise


def _client_error(reader: Gateway, code: str, status: int, error: Any) -> Exception:
    metadata = {**error.response.get("ResponseMetadata", {}), "HTTPStatusCode": status}
    message = {"PreconditionFailed": "At least one of the pre-conditions you specified did not hold"}.get(
        code, "The specified key does not exist."
    )
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}
    refusal: Exception = reader.s3.exceptions.from_code(code)(response, "CopyObject")
    return refusal


def _target_parameters(reader: Gateway, source: ObjectSource, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the new object: S3's rules of what a copy keeps and what it sets anew."""
    names = ("Bucket", "Key", "SSEKMSEncryptionContext")
    target = {name: parameters[name] for name in names if name in parameters}
    target |= forwarded("copy_object", parameters)
    directive = parameters.get("MetadataDirective", "COPY")
    if directive == "REPLACE":
        target["Metadata"] = parameters.get("Metadata", {})
    elif directive == "COPY":
        for name in _SYSTEM_METADATA:
            target.pop(name, None)
        target |= system_metadata(source.response)
        target["Metadata"] = foreign_metadata(source.response)
    else:
        raise ConfigurationError("MetadataDirective is COPY or REPLACE")
    if parameters.get("TaggingDirective", "COPY") == "REPLACE":
        if "Tagging" in parameters:
            target["Tagging"] = parameters["Tagging"]
    elif tags := tags_of(reader, source):
        target["Tagging"] = tags
    return target


def system_metadata(response: Mapping[str, Any]) -> dict[str, Any]:
    """Content type and its like, from an answer about an object."""
    found = {name: response[name] for name in _SYSTEM_METADATA if name in response and name != "Expires"}
    if response.get("ExpiresString"):
        found["Expires"] = response["ExpiresString"]
    return found


def foreign_metadata(response: Mapping[str, Any]) -> dict[str, str]:
    """User metadata without what the encrypted formats wrote."""
    return {
        name: value
        for name, value in response.get("Metadata", {}).items()
        if not name.lower().startswith(METADATA_PREFIX) and name.lower() not in S3EC_METADATA_NAMES
    }


def tags_of(reader: Gateway, source: ObjectSource) -> str:
    """The source's tags as a URL query; asked for only where S3 says that there are some."""
    if not source.response.get("TagCount"):
        return ""
    version = {"VersionId": source.response["VersionId"]} if "VersionId" in source.response else {}
    answer = reader.s3.get_object_tagging(Bucket=source.bucket, Key=source.object_key, **version)
    return urlencode([(tag["Key"], tag["Value"]) for tag in answer["TagSet"]])


def _copy_response(response: Mapping[str, Any], source: ObjectSource) -> dict[str, Any]:
    """boto3's CopyObject response from that of the put or the completed upload."""
    metadata = response.get("ResponseMetadata", {})
    result: dict[str, Any] = {"ETag": response["ETag"], "LastModified": _date_of(metadata)}
    answer: dict[str, Any] = {
        name: value
        for name, value in response.items()
        if name not in ("ETag", "Location", "Bucket", "Key") and not name.startswith("Checksum")
    }
    result |= {name: value for name, value in response.items() if name.startswith("Checksum")}
    answer["CopyObjectResult"] = result
    if "VersionId" in source.response:
        answer["CopySourceVersionId"] = source.response["VersionId"]
    return answer


def _date_of(metadata: Mapping[str, Any]) -> datetime:
    try:
        return parsedate_to_datetime(metadata["HTTPHeaders"]["date"]).replace(tzinfo=UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC).replace(microsecond=0)


def plan_rewrap(gateway: Gateway, source: ObjectSource) -> CopyPlan:
    """What :func:`rewrap` would cost; asks S3 for the object's metadata only."""
    source.head_first()
    stored = source.stored_length_bytes
    if detect(gateway, source) is not None:
        parts = 0 if stored <= MAX_COPY_BYTES else -(-stored // _SERVER_PART_BYTES) + 2
        return CopyPlan("replace metadata", stored, 0, 3 + parts, 2)
    ranges = -(-stored // gateway.options.part_size_bytes)
    return CopyPlan("re-encrypt", stored, 2 * stored, 6 + 2 * ranges, 2)


def rewrap(
    gateway: Gateway,
    target: Gateway,
    source: ObjectSource,
    own: Any,
    reading: Reading,
    settings: TransferSettings,
    progress: Progress | None = None,
) -> CopyPlan:
    """Put one object under ``target``'s keyring, in its place; returns what was done.

    Raises ClientError (PreconditionFailed) if the object was replaced meanwhile.
    """
    plan = plan_rewrap(gateway, source)
    envelope = detect(gateway, source)
    if envelope is not None:
        _replace_metadata(gateway, target, source, envelope, reading)
        return plan
    names = {"Bucket": source.bucket, "Key": source.object_key}
    parameters: dict[str, Any] = {
        **names,
        "CopySource": names,
        **{name: source.response[name] for name in _STORAGE if name in source.response},
        "CopySourceIfMatch": source.response["ETag"],
        "IfMatch": source.response["ETag"],
    }
    target = target.writing_esdk(signed=_is_signed(gateway, source))
    copy_object(target, gateway, parameters, own, reading, settings, progress, operation=REWRAP)
    return plan


def _is_signed(gateway: Gateway, source: ObjectSource) -> bool:
    """By the header itself: metadata could be stripped to have the signature dropped (rule 7).

    A header that lies does not open: the copy reads the same object, pinned by its ETag.
    """
    pinned = ObjectSource(
        gateway.s3,
        {"Bucket": source.bucket, "Key": source.object_key, "IfMatch": source.response["ETag"]},
    )
    probe = HeaderProbe(gateway, pinned)
    return read_header(gateway, pinned, StreamReader(probe, read_ahead_bytes=HEADER_STEP_BYTES)).suite.is_signed


def _replace_metadata(
    gateway: Gateway, target: Gateway, source: ObjectSource, envelope: S3ecEnvelope, reading: Reading
) -> None:
    """Wrap the data key of a version 3 object under another KMS key, and replace the metadata only."""
    check_s3ec_keyring(target.phi.provider.keyring)
    target.check_bucket(source.bucket)
    if envelope.suite is not S3EC_V3_SUITE or "x-amz-3" not in source.metadata:
        raise UnsupportedOperationError(
            "only version 3 objects with their wrapped key in their own metadata are rewrapped: nothing commits a "
            "version 2 object to its key, and instruction files are not written. Use copy() to encrypt it again"
        )
    data_key, use = gateway.open_s3ec(source.bucket, source.object_key, envelope, reading)
    with use:
        # Without this check a bucket writer could have any data key of the context wrapped anew.
        verify_commitment(envelope, data_key)
        wrapped_data_key = _wrapped_anew(target, source, envelope, data_key)
    renewed = replace(envelope, wrapped_data_key=wrapped_data_key)
    new_object: dict[str, Any] = {
        **system_metadata(source.response),
        **{name: source.response[name] for name in _STORAGE if name in source.response},
        "Metadata": {**foreign_metadata(source.response), **renewed.to_metadata()},
    }
    _copy_on_server(gateway, source, new_object)
    _check_metadata(gateway, source, new_object["Metadata"])


def _wrapped_anew(target: Gateway, source: ObjectSource, envelope: S3ecEnvelope, data_key: DataKey) -> bytes:
    """The data key wrapped by the target's keyring, as a use of that key."""
    context = dict(envelope.kms_context)
    audit_use = target.begin_use(
        REWRAP,
        source.bucket,
        source.object_key,
        format_name=f"s3ec-v{envelope.version}",
        context=target.phi.contexts.loggable(context),
        sealing=True,
    )
    with StreamUse(audit_use):
        keyring = target.phi.provider.keyring
        keyring.prepare(())
        wrapped = keyring.on_encrypt(
            EncryptionMaterials(S3EC_V3_SUITE, context, serialize_context(context), data_key=data_key)
        )
        if audit_use is not None:
            audit_use.suite_id, audit_use.message_id = envelope.suite.suite_id, envelope.nonce.hex()
            audit_use.origin, audit_use.cache_hit = wrapped.origin, False
    return wrapped.encrypted_data_keys[0].ciphertext


def _copy_on_server(gateway: Gateway, source: ObjectSource, new_object: dict[str, Any]) -> None:
    """Copy an object onto itself with other metadata, conditional on its ETag."""
    names = {"Bucket": source.bucket, "Key": source.object_key}
    where = dict(names)
    if source.response.get("VersionId", "null") != "null":
        where["VersionId"] = source.response["VersionId"]
    copied = {"CopySource": where, "CopySourceIfMatch": source.response["ETag"]}
    if source.stored_length_bytes <= MAX_COPY_BYTES:
        gateway.s3.copy_object(**names, **copied, MetadataDirective="REPLACE", **new_object)
        return
    if tags := tags_of(gateway, source):
        new_object = {**new_object, "Tagging": tags}
    upload_id = gateway.s3.create_multipart_upload(**names, **new_object)["UploadId"]
    try:
        parts: list[dict[str, Any]] = []
        for start in range(0, source.stored_length_bytes, _SERVER_PART_BYTES):
            span = Span(start, min(start + _SERVER_PART_BYTES, source.stored_length_bytes))
            number = len(parts) + 1
            answer = gateway.s3.upload_part_copy(
                **names, **copied, UploadId=upload_id, PartNumber=number, CopySourceRange=span.header()
            )
            parts.append({"PartNumber": number, **part_reference(answer["CopyPartResult"], False)})
        gateway.s3.complete_multipart_upload(
            **names,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
            # The parts were copied under a condition; between the last of them and here lies time as well.
            IfMatch=source.response["ETag"],
        )
    except BaseException as error:
        abort(gateway.s3, names, upload_id, error)
        raise


def _check_metadata(gateway: Gateway, source: ObjectSource, expected: Mapping[str, str]) -> None:
    """Ask S3 whether the object stands there as it should."""
    after = ObjectSource(gateway.s3, {"Bucket": source.bucket, "Key": source.object_key})
    after.head_first()
    stored = {name.lower(): value for name, value in expected.items()}
    if after.metadata != stored or after.stored_length_bytes != source.stored_length_bytes:
        raise AuthenticationError("metadata after rewrap")
