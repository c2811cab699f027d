"""Every S3 operation and every input member, classed (rule 17).

An operation is *encrypted* (its body is sealed first), *decrypted* (what it returns is opened or
translated), *harmless* (:mod:`phicrypt.s3.operations_forwarded`) or *refused*. An input member of an operation
that phicrypt handles itself is *handled* (phicrypt reads or replaces it), *forwarded*, or *refused*.
A test walks botocore's own model and fails on whatever is in none of these tables, and at run time
an unknown member is refused: a later botocore cannot open a way for plaintext.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from phicrypt.core.required_context import required_names
from phicrypt.errors import ConfigurationError, UnsupportedOperationError
from phicrypt.s3.operations_forwarded import HARMLESS_OPERATIONS
from phicrypt.s3.session import Boto3S3


class Treatment(Enum):
    """What becomes of an operation."""

    ENCRYPTED = "encrypted"
    DECRYPTED = "decrypted"
    HARMLESS = "harmless"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Operation:
    """One S3 operation.

    Attributes:
        treatment: what becomes of it.
        forwarded: members that reach S3 as they came.
        handled: members that phicrypt reads, checks or replaces.
        refused: member to the reason why it is refused.
        reason: for a refused operation, why, and what to call instead.
    """

    treatment: Treatment
    forwarded: frozenset[str] = frozenset()
    handled: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def members(self) -> frozenset[str]:
        """Every member that is classed."""
        return self.forwarded | self.handled | frozenset(self.refused)


_CHECKSUMS: Final = tuple(
    f"Checksum{name}"
    for name in (
        *("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256", "SHA512", "MD5"),
        *("XXHASH64", "XXHASH3", "XXHASH128"),
    )
)
_CHECKSUM_OF_PLAINTEXT: Final = (
    "a checksum that the caller computed is one of the plaintext: it fails against the ciphertext and tells "
    "about the content; name ChecksumAlgorithm instead, S3 then checks the ciphertext"
)
_CHECKSUM_REFUSALS: Final = dict.fromkeys(("ContentMD5", *_CHECKSUMS), _CHECKSUM_OF_PLAINTEXT)
_WHOLE_OBJECTS: Final = "parts of the stored ciphertext are not parts of the plaintext; use Range"
_ANNOTATIONS: Final = "annotations are stored in plaintext"

_OWNER: Final = "RequestPayer ExpectedBucketOwner"
_CUSTOMER_KEY: Final = "SSECustomerAlgorithm SSECustomerKey SSECustomerKeyMD5"
_LOCK: Final = (
    "ObjectLockMode ObjectLockRetainUntilDate ObjectLockLegalHoldStatus ObjectLockEventHold "
    "ObjectLockEventHoldDurationDays ObjectLockEventHoldDurationYears"
)
_NEW_OBJECT: Final = (
    "ACL GrantFullControl GrantRead GrantReadACP GrantWriteACP CacheControl ContentDisposition "
    "ContentEncoding ContentLanguage ContentType Expires ServerSideEncryption StorageClass "
    f"WebsiteRedirectLocation SSEKMSKeyId BucketKeyEnabled ChecksumAlgorithm {_CUSTOMER_KEY} {_LOCK} {_OWNER}"
)
_GUARDED: Final = "Metadata Tagging SSEKMSEncryptionContext"
_READ_CONDITIONS: Final = "IfMatch IfModifiedSince IfNoneMatch IfUnmodifiedSince"
_READ: Final = (
    "ResponseCacheControl ResponseContentDisposition ResponseContentEncoding ResponseContentLanguage "
    f"ResponseContentType ResponseExpires ChecksumMode {_CUSTOMER_KEY} {_OWNER}"
)
_SOURCE_CONDITIONS: Final = (
    "CopySourceIfMatch CopySourceIfModifiedSince CopySourceIfNoneMatch CopySourceIfUnmodifiedSince"
)
_SOURCE_CUSTOMER_KEY: Final = "CopySourceSSECustomerAlgorithm CopySourceSSECustomerKey CopySourceSSECustomerKeyMD5"


def _handled(
    treatment: Treatment, forwarded: str, handled: str, refused: Mapping[str, str] | None = None
) -> Operation:
    return Operation(treatment, frozenset(forwarded.split()), frozenset(handled.split()), refused or {})


def _refused(reason: str) -> Operation:
    return Operation(Treatment.REFUSED, reason=reason)


_ENCRYPTED: Final = Treatment.ENCRYPTED
_DECRYPTED: Final = Treatment.DECRYPTED

OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {name: Operation(Treatment.HARMLESS, forwarded=members) for name, members in HARMLESS_OPERATIONS.items()}
    | {
        "put_object": _handled(
            _ENCRYPTED,
            f"{_NEW_OBJECT} IfMatch IfNoneMatch",
            f"Bucket Key Body ContentLength {_GUARDED}",
            {**_CHECKSUM_REFUSALS, "WriteOffsetBytes": "a message cannot be appended to; write a new object"},
        ),
        "create_multipart_upload": _handled(_ENCRYPTED, f"{_NEW_OBJECT} ChecksumType", f"Bucket Key {_GUARDED}"),
        "upload_part": _handled(
            _ENCRYPTED,
            f"ChecksumAlgorithm {_CUSTOMER_KEY} {_OWNER}",
            "Bucket Key UploadId PartNumber Body ContentLength",
            _CHECKSUM_REFUSALS,
        ),
        "complete_multipart_upload": _handled(
            _ENCRYPTED,
            f"IfMatch IfNoneMatch ChecksumType {_CUSTOMER_KEY} {_OWNER}",
            "Bucket Key UploadId MultipartUpload MpuObjectSize",
            dict.fromkeys(_CHECKSUMS, _CHECKSUM_OF_PLAINTEXT),
        ),
        "abort_multipart_upload": _handled(_ENCRYPTED, f"IfMatchInitiatedTime {_OWNER}", "Bucket Key UploadId"),
        "copy_object": _handled(
            _ENCRYPTED,
            f"{_NEW_OBJECT} IfMatch IfNoneMatch",
            f"Bucket Key CopySource MetadataDirective TaggingDirective ExpectedSourceBucketOwner "
            f"{_GUARDED} {_SOURCE_CONDITIONS} {_SOURCE_CUSTOMER_KEY}",
            {"AnnotationDirective": _ANNOTATIONS},
        ),
        "get_object": _handled(
            _DECRYPTED,
            _READ,
            f"Bucket Key VersionId Range {_READ_CONDITIONS}",
            {"PartNumber": _WHOLE_OBJECTS},
        ),
        "head_object": _handled(
            _DECRYPTED,
            _READ,
            f"Bucket Key VersionId {_READ_CONDITIONS}",
            {"PartNumber": _WHOLE_OBJECTS, "Range": "the length of a range is known only by reading it"},
        ),
        "list_objects_v2": _handled(
            _DECRYPTED,
            "Delimiter EncodingType MaxKeys Prefix ContinuationToken FetchOwner StartAfter "
            f"OptionalObjectAttributes {_OWNER}",
            "Bucket",
        ),
        "put_object_tagging": _handled(
            _ENCRYPTED, f"Bucket Key VersionId ContentMD5 ChecksumAlgorithm {_OWNER}", "Tagging"
        ),
        "restore_object": _handled(
            _ENCRYPTED, f"Bucket Key VersionId ChecksumAlgorithm {_OWNER}", "RestoreRequest"
        ),
        "upload_part_copy": _refused(
            "copied bytes would stand in a message that they were not sealed for; use copy() or copy_object()"
        ),
        "select_object_content": _refused("S3 Select reads plaintext on the server; use get_object with Range"),
        "write_get_object_response": _refused("an Object Lambda answer carries a plaintext body"),
        "get_object_torrent": _refused("a torrent hands out the stored bytes; use get_object"),
        "rename_object": _refused("a renamed object keeps a body that is bound to its old name; use copy_object"),
        "put_object_annotation": _refused(f"{_ANNOTATIONS}; store the note as an object of its own"),
        "get_object_annotation": _refused(f"{_ANNOTATIONS}; phicrypt neither writes nor reads them"),
    }
)
"""boto3's method name to its class."""

OWN_PARAMETERS: Final = ("EncryptionContext", "RequiredContext")
"""Parameters that phicrypt adds to boto3's: see :class:`phicrypt.s3.client.S3Client`."""
OWN_READ_PARAMETERS: Final = (*OWN_PARAMETERS, "RequireSigned", "AllowUncommitted")
"""And those that it adds where an object is read."""
Parameters = Mapping[str, Any]


def handled(
    operation_name: str,
    step: Callable[[Any, Parameters, Parameters], dict[str, Any]],
    own_names: tuple[str, ...] = OWN_PARAMETERS,
    of: str = "_s3_session",
) -> Callable[..., dict[str, Any]]:
    """The method of an operation that phicrypt handles itself.

    ``step`` gets the client's attribute ``of``, boto3's parameters after they were checked (rule 17), and
    phicrypt's own.
    """

    def verb(self: Any, **parameters: Any) -> dict[str, Any]:
        own = own_parameters(parameters, own_names)
        check_parameters(self._s3_session.client, operation_name, parameters)
        return step(getattr(self, of), parameters, own)

    verb.__name__, verb.__doc__ = operation_name, step.__doc__
    verb.__qualname__ = f"S3Client.{operation_name}"
    return verb


def own_parameters(parameters: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """phicrypt's own parameters, taken out of a call's.

    The names of ``RequiredContext`` are read once, here: what gives them only once would otherwise have none
    left where the object is sealed, and the pairs would be stored.
    """
    own = {name: parameters.pop(name) for name in names if name in parameters}
    if own.get("RequiredContext") is not None:
        own["RequiredContext"] = required_names(own["RequiredContext"])
    return own


def check_members(operation_name: str, parameters: Mapping[str, Any]) -> None:
    """Raise UnsupportedOperationError unless every parameter is classed as handled or forwarded."""
    operation = OPERATIONS[operation_name]
    if operation.treatment is Treatment.REFUSED:
        raise UnsupportedOperationError(f"{operation_name} is refused: {operation.reason}")
    for name, value in parameters.items():
        if name in operation.refused:
            raise UnsupportedOperationError(f"{operation_name}: {name} is refused: {operation.refused[name]}")
        if name not in operation.members:
            raise UnsupportedOperationError(
                f"{operation_name}: {name} is not a parameter that phicrypt has classed; it is refused because it "
                "might carry plaintext"
            )
        if isinstance(value, str):
            check_text(value, name)


def check_text(value: object, name: str) -> None:
    """Raise ConfigurationError for what is no text, or cannot be sent as UTF-8.

    botocore's own errors, of later, hold the object key or whatever else it was.
    """
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} is text, {type(value).__name__} came")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ConfigurationError(f"{name} is not valid Unicode text (it holds half of a surrogate pair)")


@cache
def _text_members(shape: Any) -> tuple[str, ...]:
    given_otherwise = {"CopySource", "CopySourceSSECustomerKey", "SSECustomerKey"}  # boto3 makes text of them
    texts = (name for name, member in shape.members.items() if member.type_name == "string")
    return tuple(name for name in texts if name not in given_otherwise)


def check_parameters(client: Boto3S3, operation_name: str, parameters: Mapping[str, Any]) -> None:
    """:func:`check_members`; and boto3's own error, without values, before anything is sealed.

    ``client`` is boto3's, whose model says what is required.
    """
    from botocore.exceptions import ParamValidationError

    check_members(operation_name, parameters)
    operation = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation_name])
    wrong = [
        f'Missing required parameter in input: "{name}"'
        for name in operation.input_shape.required_members
        if name not in parameters
    ]
    wrong += [
        f"Invalid type for parameter {name}, type: {type(parameters[name])}, valid types: <class 'str'>"
        for name in _text_members(operation.input_shape)
        if name in parameters and not isinstance(parameters[name], str)
    ]
    if wrong:
        raise ParamValidationError(report="\n".join(wrong))


def forwarded(operation_name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that reach S3 as they came."""
    names = OPERATIONS[operation_name].forwarded
    return {name: value for name, value in parameters.items() if name in names}
