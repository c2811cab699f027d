"""``get_object``, ``head_object`` and listings: boto3's responses in plaintext terms."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from phicrypt.core.byte_ranges import parse_range
from phicrypt.errors import FormatError, NotEncryptedError, PhiCryptError
from phicrypt.formats.esdk.frames import layout_of_body
from phicrypt.formats.esdk.summary import claimed_plaintext_length
from phicrypt.formats.s3ec.content import plaintext_length_of
from phicrypt.formats.s3ec.envelope import S3EC_METADATA_NAMES
from phicrypt.s3.in_clear import (
    ESDK_FORMAT,
    FOOTER_LENGTH_NAME,
    FORMAT_NAME,
    FRAME_LENGTH_NAME,
    HEADER_LENGTH_NAME,
    METADATA_PREFIX,
)
from phicrypt.s3.reading.frames import StoredObject
from phicrypt.s3.reading.opening import HeaderProbe, detect, find_by_head, hinted_length, open_range, open_whole
from phicrypt.s3.session import S3Session

_LISTING_CONCURRENCY: Final = 10
DETAILS: Final = "PhiCrypt"
"""The member that phicrypt adds to responses: format, stored length, whether the length is verified."""


def get_object(s3_session: S3Session, parameters: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """boto3's ``get_object``, with ``Range`` in plaintext terms.

    ``Body`` gives verified plaintext frame by frame; an error in the middle of it means that what
    came before was verified, and that nothing after it may be believed.
    """
    from botocore.response import StreamingBody

    request = parse_range(parameters.get("Range"))
    if request is None:
        plaintext = open_whole(s3_session, parameters, own)
    else:
        plaintext = open_range(s3_session, parameters, own, request)
    response = _translated(plaintext.stored, plaintext.length_bytes, plaintext.format_name)
    response["Body"] = StreamingBody(plaintext.body, plaintext.length_bytes)
    if plaintext.span is not None:
        response[DETAILS]["LengthVerified"] = True
        if plaintext.length_bytes:  # the last bytes of an empty object are all of it, as S3 says
            metadata = response["ResponseMetadata"]
            metadata["HTTPStatusCode"] = 206
            told = plaintext.span.content_range(plaintext.total_bytes or 0)
            response["ContentRange"] = metadata["HTTPHeaders"]["content-range"] = told
    return response


def _translated(stored: StoredObject, length: int, format_name: str) -> dict[str, Any]:
    """A response in plaintext terms: lengths, and the metadata without what the formats wrote."""
    response = {name: value for name, value in stored.response.items() if name != "ContentRange"}
    metadata = response["ResponseMetadata"] = dict(stored.response["ResponseMetadata"])
    headers = metadata["HTTPHeaders"] = dict(metadata.get("HTTPHeaders", {}))
    headers.pop("content-range", None)
    headers["content-length"] = str(length)
    metadata["HTTPStatusCode"] = 200
    response["ContentLength"] = length
    response["Metadata"] = foreign_metadata(stored.response)
    response[DETAILS] = {"Format": format_name, "StoredLength": stored.length_bytes, "LengthVerified": False}
    return response


def foreign_metadata(response: Mapping[str, Any]) -> dict[str, str]:
    """User metadata without what the encrypted formats wrote."""
    return {
        name: value
        for name, value in response.get("Metadata", {}).items()
        if not name.lower().startswith(METADATA_PREFIX) and name.lower() not in S3EC_METADATA_NAMES
    }


def head_object(s3_session: S3Session, parameters: Mapping[str, Any], own: object = None) -> dict[str, Any]:
    """boto3's ``head_object``; ``ContentLength`` is the plaintext's, a claim that nobody verified (rule 10)."""
    stored = find_by_head(s3_session.client, parameters)
    envelope = detect(s3_session, stored)
    if envelope is not None:
        return _translated(stored, plaintext_length_of(stored.length_bytes), f"s3ec-v{envelope.version}")
    length = _hinted_plaintext_length(s3_session, stored)
    if length is None:
        if not stored.length_bytes:
            raise NotEncryptedError("the object is empty; an encrypted object holds a header at least")
        # No hints: another program's message. Its header says the lengths; no key is needed for that.
        probe = HeaderProbe(s3_session, parameters)
        length = claimed_plaintext_length(probe.header(), probe.stored.length_bytes)
    return _translated(stored, length, "esdk")


def _hinted_plaintext_length(s3_session: S3Session, stored: StoredObject) -> int | None:
    """The plaintext length that phicrypt's own metadata claims; None where there is none or it cannot be."""
    limits, metadata = s3_session.options.limits, stored.metadata
    header_length = hinted_length(metadata, HEADER_LENGTH_NAME, limits.max_header_length_bytes)
    frame_length = hinted_length(metadata, FRAME_LENGTH_NAME, limits.max_frame_length_bytes)
    footer_length = hinted_length(metadata, FOOTER_LENGTH_NAME, 1_024) or 0
    if metadata.get(FORMAT_NAME) != ESDK_FORMAT or header_length is None or frame_length is None:
        return None
    try:
        layout = layout_of_body(stored.length_bytes - header_length - footer_length, frame_length, header_length)
    except FormatError:
        return None
    return layout.plaintext_length_bytes


def list_objects_v2(
    s3_session: S3Session, parameters: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """boto3's ``list_objects_v2``. ``Size`` is the stored length.

    ``PlaintextSizes=True`` asks for each object's metadata (one HeadObject each, in parallel) and adds
    ``PlaintextSize`` where the metadata or the header tells it: a claim, so ``PlaintextSizeVerified: False``.
    """
    page: dict[str, Any] = dict(s3_session.client.list_objects_v2(**parameters))
    if not own.get("PlaintextSizes"):
        return page
    shared = {name: parameters[name] for name in ("RequestPayer", "ExpectedBucketOwner") if name in parameters}

    def size_of(entry: Mapping[str, Any]) -> int | None:
        from botocore.exceptions import ClientError

        pinned = {"Bucket": parameters["Bucket"], "Key": entry["Key"], "IfMatch": entry["ETag"], **shared}
        try:
            length: int = head_object(s3_session, pinned)["ContentLength"]
        except (PhiCryptError, ClientError):
            return None  # plaintext, another format, replaced since, or not readable for this caller
        return length

    entries = page.get("Contents", [])
    with ThreadPoolExecutor(_LISTING_CONCURRENCY, thread_name_prefix="phicrypt-list") as pool:
        for entry, size in zip(entries, pool.map(size_of, entries), strict=True):
            if size is not None:
                entry["PlaintextSize"] = size
                entry["PlaintextSizeVerified"] = False
    return page
