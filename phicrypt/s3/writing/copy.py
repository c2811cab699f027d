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

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlencode

from phicrypt.core.byte_ranges import Span
from phicrypt.core.context import ANY_CONTEXT, serialize_context
from phicrypt.core.materials import DataKey, EncryptionMaterials, Keyring
from phicrypt.core.streams import PieceSource
from phicrypt.errors import AuthenticationError, ConfigurationError, UnsupportedOperationError
from phicrypt.formats.s3ec.content import verify_commitment
from phicrypt.formats.s3ec.envelope import S3EC_V3_SUITE, S3ecEnvelope
from phicrypt.s3.operations import check_text, forwarded
from phicrypt.s3.options import check_s3ec_keyring
from phicrypt.s3.reading.frames import StoredObject
from phicrypt.s3.reading.get import foreign_metadata
from phicrypt.s3.reading.opening import HeaderProbe, demands_of, detect, find_by_head
from phicrypt.s3.reading.s3ec_objects import open_data_key
from phicrypt.s3.session import Demands, S3Session
from phicrypt.s3.transfer import TransferSettings, abort, download, part_reference, upload
from phicrypt.s3.writing.sealing import REWRAP
from phicrypt.session import Session

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
    names = {name: source[name] for name in ("Bucket", "Key", "VersionId") if source.get(name)}
    for name, value in names.items():
        check_text(value, f"CopySource's {name}")
    return names


def copy_object(s3_session: S3Session, parameters: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """boto3's ``copy_object``: reads, verifies and seals again for the new name, of any size."""
    settings = TransferSettings.of(s3_session.options)
    return copy(s3_session, s3_session, parameters, own, settings, operation="s3.copy_object")


def copy(
    writer: S3Session,
    reader: S3Session,
    parameters: Mapping[str, Any],
    own: Mapping[str, Any],
    settings: TransferSettings,
    *,
    operation: str,
) -> dict[str, Any]:
    """The response of CopyObject: ``reader`` opens the source, ``writer`` seals the new object.

    Two uses in the audit trail: the source's, as that of a read, and ``operation``. What is sealed again
    gets a data key of its own, also where its context is the old one (rule 3).
    """
    demands = _demands_of_both(reader, own)
    phi_session = writer.phi_session
    writer = replace(writer, phi_session=phi_session.under(phi_session.provider.keyring))
    source_parameters = _source_parameters(parameters)
    source = _head_source(reader, source_parameters)
    target = _target_parameters(reader, source, parameters)
    replaces_itself = writer.client is reader.client and (source.bucket, source.object_key) == (
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
    pieces = filter(len, download(reader, pinned, demands, settings))
    plaintext = PieceSource(lambda: next(pieces, b""))
    response = upload(writer, plaintext, target, own, settings, operation=operation)
    return _copy_response(response, source)


def _demands_of_both(reader: S3Session, own: Mapping[str, Any]) -> Demands:
    if own.get("EncryptionContext") is ANY_CONTEXT:
        raise ConfigurationError("the object is written again, so it needs the pairs themselves")
    return demands_of(reader, own)


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


def _head_source(reader: S3Session, parameters: Mapping[str, Any]) -> StoredObject:
    """Ask for the source; S3 answers CopyObject with 412 where HeadObject answers 304 or 412."""
    from botocore.exceptions import ClientError

    try:
        return find_by_head(reader.client, parameters)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status in (304, 412):
            raise _client_error(reader, "PreconditionFailed", 412, error) from None
        if status == 404:
            raise _client_error(reader, "NoSuchKey", 404, error) from None
        raise


def _client_error(reader: S3Session, code: str, status: int, error: Any) -> Exception:
    metadata = {**error.response.get("ResponseMetadata", {}), "HTTPStatusCode": status}
    message = {"PreconditionFailed": "At least one of the pre-conditions you specified did not hold"}.get(
        code, "The specified key does not exist."
    )
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}
    refusal: Exception = reader.client.exceptions.from_code(code)(response, "CopyObject")
    return refusal


def _target_parameters(reader: S3Session, source: StoredObject, parameters: Mapping[str, Any]) -> dict[str, Any]:
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


def tags_of(reader: S3Session, source: StoredObject) -> str:
    """The source's tags as a URL query; asked for only where S3 says that there are some."""
    if not source.response.get("TagCount"):
        return ""
    version = {"VersionId": source.response["VersionId"]} if "VersionId" in source.response else {}
    answer = reader.client.get_object_tagging(Bucket=source.bucket, Key=source.object_key, **version)
    return urlencode([(tag["Key"], tag["Value"]) for tag in answer["TagSet"]])


def _copy_response(response: Mapping[str, Any], source: StoredObject) -> dict[str, Any]:
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


def plan_rewrap(s3_session: S3Session, bucket: str, object_key: str) -> CopyPlan:
    """What :func:`rewrap` would cost; asks S3 for the object's metadata only."""
    return _planned(s3_session, {"Bucket": bucket, "Key": object_key})[0]


def _planned(
    s3_session: S3Session, names: Mapping[str, Any]
) -> tuple[CopyPlan, StoredObject, S3ecEnvelope | None]:
    source = find_by_head(s3_session.client, names)
    stored = source.length_bytes
    envelope = detect(s3_session, source)
    if envelope is not None:
        parts = 0 if stored <= MAX_COPY_BYTES else -(-stored // _SERVER_PART_BYTES) + 2
        return CopyPlan("replace metadata", stored, 0, 3 + parts, 2), source, envelope
    ranges = -(-stored // s3_session.options.part_size_bytes)
    return CopyPlan("re-encrypt", stored, 2 * stored, 6 + 2 * ranges, 2), source, None


def rewrap(
    s3_session: S3Session,
    to: Keyring,
    bucket: str,
    object_key: str,
    own: Mapping[str, Any],
    settings: TransferSettings,
) -> CopyPlan:
    """Put one object under the keyring ``to``, in its place; returns what was done.

    Raises ClientError (PreconditionFailed) if the object was replaced meanwhile.
    """
    demands = _demands_of_both(s3_session, own)
    names = {"Bucket": bucket, "Key": object_key}
    writer = replace(s3_session, phi_session=s3_session.phi_session.under(to))
    plan, source, envelope = _planned(s3_session, names)
    if envelope is not None:
        _replace_metadata(s3_session, writer, source, envelope, demands)
        return plan
    parameters: dict[str, Any] = {
        **names,
        "CopySource": names,
        **{name: source.response[name] for name in _STORAGE if name in source.response},
        "CopySourceIfMatch": source.response["ETag"],
        "IfMatch": source.response["ETag"],
    }
    # By the header itself: metadata could be stripped to have the signature dropped (rule 7). A header that
    # lies does not open: the copy reads the same object, pinned by its ETag.
    header = HeaderProbe(s3_session, {**names, "IfMatch": source.response["ETag"]}).header()
    is_signed = header.suite.is_signed or s3_session.options.signed
    # A change of key takes neither signature nor location away.
    writer = replace(writer, options=replace(writer.options, format="esdk", signed=is_signed))
    copy(writer, s3_session, parameters, own, settings, operation=REWRAP)
    return plan


def _replace_metadata(
    s3_session: S3Session, writer: S3Session, source: StoredObject, envelope: S3ecEnvelope, demands: Demands
) -> None:
    """Wrap the data key of a version 3 object under another KMS key, and replace the metadata only."""
    check_s3ec_keyring(writer.phi_session.provider.keyring)
    if writer.write_guard is not None:
        writer.write_guard.check(source.bucket)
    if envelope.suite is not S3EC_V3_SUITE or "x-amz-3" not in source.metadata:
        raise UnsupportedOperationError(
            "only version 3 objects with their wrapped key in their own metadata are rewrapped: nothing commits a "
            "version 2 object to its key, and instruction files are not written. Use copy() to encrypt it again"
        )
    data_key, use = open_data_key(s3_session, source, envelope, demands)
    with use:
        # Without this check a bucket writer could have any data key of the context wrapped anew.
        verify_commitment(envelope, data_key)
        wrapped_data_key = _wrapped_anew(writer.phi_session, source, envelope, data_key)
    renewed = replace(envelope, wrapped_data_key=wrapped_data_key)
    new_object: dict[str, Any] = {
        **system_metadata(source.response),
        **{name: source.response[name] for name in _STORAGE if name in source.response},
        "Metadata": {**foreign_metadata(source.response), **renewed.to_metadata()},
    }
    _copy_on_server(s3_session, source, new_object)
    _check_metadata(s3_session, source, new_object["Metadata"])


def _wrapped_anew(phi_session: Session, source: StoredObject, envelope: S3ecEnvelope, data_key: DataKey) -> bytes:
    """The data key wrapped by the session's keyring, as a use of that key."""
    context = dict(envelope.kms_context)
    with phi_session.recorded(
        REWRAP,
        format=f"s3ec-v{envelope.version}",
        context=phi_session.contexts.loggable(context),
        resource=("s3", source.bucket, source.object_key),
        sealing=True,
    ) as use:
        keyring = phi_session.provider.keyring
        keyring.prepare(())
        wrapped = keyring.on_encrypt(
            EncryptionMaterials(S3EC_V3_SUITE, context, serialize_context(context), data_key=data_key)
        )
        use.suite_id, use.message_id = envelope.suite.suite_id, envelope.nonce.hex()
        use.origin, use.cache_hit = wrapped.origin, False
    return wrapped.encrypted_data_keys[0].ciphertext


def _copy_on_server(s3_session: S3Session, source: StoredObject, new_object: dict[str, Any]) -> None:
    """Copy an object onto itself with other metadata, conditional on its ETag."""
    names = {"Bucket": source.bucket, "Key": source.object_key}
    where = dict(names)
    if source.response.get("VersionId", "null") != "null":
        where["VersionId"] = source.response["VersionId"]
    copied = {"CopySource": where, "CopySourceIfMatch": source.response["ETag"]}
    if source.length_bytes <= MAX_COPY_BYTES:
        s3_session.client.copy_object(**names, **copied, MetadataDirective="REPLACE", **new_object)
        return
    if tags := tags_of(s3_session, source):
        new_object = {**new_object, "Tagging": tags}
    upload_id = s3_session.client.create_multipart_upload(**names, **new_object)["UploadId"]
    try:
        parts: list[dict[str, Any]] = []
        for start in range(0, source.length_bytes, _SERVER_PART_BYTES):
            span = Span(start, min(start + _SERVER_PART_BYTES, source.length_bytes))
            number = len(parts) + 1
            answer = s3_session.client.upload_part_copy(
                **names, **copied, UploadId=upload_id, PartNumber=number, CopySourceRange=span.header()
            )
            parts.append({"PartNumber": number, **part_reference(answer["CopyPartResult"], False)})
        s3_session.client.complete_multipart_upload(
            **names,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
            # The parts were copied under a condition; between the last of them and here lies time as well.
            IfMatch=source.response["ETag"],
        )
    except BaseException as error:
        abort(s3_session.client, names, upload_id, error)
        raise


def _check_metadata(s3_session: S3Session, source: StoredObject, expected: Mapping[str, str]) -> None:
    """Ask S3 whether the object stands there as it should."""
    after = find_by_head(s3_session.client, {"Bucket": source.bucket, "Key": source.object_key})
    stored = {name.lower(): value for name, value in expected.items()}
    if after.metadata != stored or after.length_bytes != source.length_bytes:
        raise AuthenticationError("metadata after rewrap")
