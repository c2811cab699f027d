"""Which answers of AWS are answers (rule 27): pure judgement over what came, before anything of it is used.

An answer is one of three things. *Answered*: whole, parseable, with a request id of its own and the members that
its operation always has. *No answer*: cut, empty, unparseable, of another content type, without a request id or
with one that another answer had: a fault of the way, to be retried, and never "there is none". *Refused*: whole,
with content that the service would not give.

The services' own errors are answers too, and are judged by the same marks of wholeness.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

NO_ANSWER: Final = "NoAnswer"
"""The error code of what is no answer. Its HTTP status is 503, so that whoever knows AWS retries it."""
UNEXPECTED_ANSWER: Final = "UnexpectedAnswer"
"""The error code of a whole answer that the service would not give. Its HTTP status is 400: it is final."""

MEMBERS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "kms": {
            "Decrypt": ("KeyId", "Plaintext"),
            "DeriveSharedSecret": ("KeyId", "SharedSecret"),
            "DescribeKey": ("KeyMetadata",),
            "Encrypt": ("KeyId", "CiphertextBlob"),
            "GenerateDataKey": ("KeyId", "Plaintext", "CiphertextBlob"),
            "GenerateDataKeyWithoutPlaintext": ("KeyId", "CiphertextBlob"),
            "GenerateMac": ("KeyId", "Mac"),
            "GenerateRandom": ("Plaintext",),
            "GetPublicKey": ("KeyId", "PublicKey"),
            "ReEncrypt": ("KeyId", "CiphertextBlob"),
            "Sign": ("KeyId", "Signature"),
            "Verify": ("KeyId", "SignatureValid"),
            "VerifyMac": ("KeyId", "MacValid"),
        },
        "dynamodb": {
            "BatchGetItem": ("Responses",),
            "BatchWriteItem": ("UnprocessedItems",),
            "CreateTable": ("TableDescription",),
            "DescribeContinuousBackups": ("ContinuousBackupsDescription",),
            "DescribeTable": ("Table",),
            "DescribeTimeToLive": ("TimeToLiveDescription",),
            "ListBackups": ("BackupSummaries",),
            "ListExports": ("ExportSummaries",),
            "ListTables": ("TableNames",),
            "Query": ("Count",),
            "Scan": ("Count",),
            "TransactGetItems": ("Responses",),
            "UpdateTable": ("TableDescription",),
        },
        "s3": {
            "CompleteMultipartUpload": ("ETag",),
            "CopyObject": ("CopyObjectResult",),
            "CreateMultipartUpload": ("UploadId",),
            "GetObject": ("ETag", "ContentLength"),
            "GetObjectTagging": ("TagSet",),
            "HeadObject": ("ETag", "ContentLength"),
            "ListMultipartUploads": ("IsTruncated",),
            "ListObjectVersions": ("IsTruncated",),
            "ListObjects": ("IsTruncated",),
            "ListObjectsV2": ("IsTruncated",),
            "ListParts": ("IsTruncated",),
            "PutObject": ("ETag",),
            "UploadPart": ("ETag",),
            "UploadPartCopy": ("CopyPartResult",),
        },
    }
)
"""By service and operation, what every whole answer has. Operations that are not here may answer with nothing."""

_JSON: Final = "json"
_TYPES: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {
        "blob": (bytes, bytearray),
        "boolean": (bool,),
        "byte": (int,),
        "character": (str,),
        "double": (int, float),
        "float": (int, float),
        "integer": (int,),
        "long": (int,),
        "short": (int,),
        "string": (str,),
        "timestamp": (datetime,),
    }
)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A fault of the way; ``reason`` says which, and quotes nothing that came."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A whole answer that the service would not give; ``reason`` names what is wrong, and quotes nothing."""

    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Received:
    """What came over the wire for one attempt.

    Attributes:
        service, operation: AWS's names, such as ``"kms"`` and ``"Decrypt"``.
        protocol: botocore's name, such as ``"json"``.
        status: HTTP's.
        headers: by their names in lower case.
        body: None for a stream, which is judged while it is read.
        has_output: whether the operation's answer has members at all.
        has_output_in_body: whether some of them stand in the body.
    """

    service: str
    operation: str
    protocol: str
    status: int
    headers: Mapping[str, str]
    body: bytes | None
    has_output: bool
    has_output_in_body: bool

    @property
    def request_id(self) -> str | None:
        """What the service calls the request."""
        found = self.headers.get("x-amzn-requestid") or self.headers.get("x-amz-request-id")
        return str(found) if found else None

    @property
    def is_error(self) -> bool:
        return self.status >= 300


def judge(
    received: Received,
    parse: Callable[[], Mapping[str, Any]],
    shape: Any,
    *,
    demands_request_id: bool,
    demands_type: bool,
) -> NoAnswer | Refused | None:
    """Why what came is not the operation's answer; None where it is one.

    Args:
        received: the bytes and what stands around them.
        parse: botocore's parser of this answer; whatever it raises means that the answer cannot be parsed.
        shape: botocore's output shape; None for operations that answer with nothing.
        demands_request_id, demands_type: not of a server that is known to send neither.

    A 5xx passes: that the service failed is what it says already. So does a body under DynamoDB's own
    checksum, without a second parsing.
    """
    if received.status >= 500:
        return None
    fault = _fault_of_the_way(received, demands_request_id=demands_request_id, demands_type=demands_type)
    if fault is not None or received.is_error:
        return fault
    demanded = MEMBERS.get(received.service, {}).get(received.operation, ())
    try:
        if _is_under_checksum(received):
            parsed: Mapping[str, Any] = json.loads(received.body or b"{}") if demanded else {}
        else:
            parsed = parse()
            strange = None if shape is None else misfit(parsed, shape)
            if strange is not None:
                return NoAnswer(f"{strange} is of another type than it has")
        missing = [name for name in demanded if parsed.get(name) is None]
    except Exception:  # noqa: BLE001  (a parser's error, which quotes what came)
        return NoAnswer("it cannot be parsed")
    if missing:
        # Of a short answer that lacks one member the rest was said by the service; one that lacks all is empty.
        kind = NoAnswer if len(missing) == len(demanded) else Refused
        return kind(f"it lacks {', '.join(missing)}")
    return None


def _fault_of_the_way(received: Received, *, demands_request_id: bool, demands_type: bool) -> NoAnswer | None:
    """Why the bytes are no answer, whatever they would mean."""
    if demands_request_id and received.request_id is None:
        return NoAnswer("it has no request id")
    if received.body is None:
        return None
    stated = received.headers.get("x-amz-crc32")
    if received.service == "dynamodb" and stated is not None and str(zlib.crc32(received.body)) != stated.strip():
        return NoAnswer("its x-amz-crc32 is not that of its body")
    if received.protocol == _JSON:
        return _fault_of_json(received, received.body, demands_type=demands_type)
    if received.is_error and received.body and b"<Error" not in received.body:
        return NoAnswer("it is a page and no error of the service")
    if received.has_output_in_body and not received.is_error and not received.body:
        return NoAnswer("it is empty")
    return None


def _fault_of_json(received: Received, body: bytes, *, demands_type: bool) -> NoAnswer | None:
    content_type = received.headers.get("content-type")
    if demands_type and content_type is not None and "json" not in content_type.lower():
        return NoAnswer("its content type is not JSON")
    if not body:
        return NoAnswer("it is empty") if received.has_output or received.is_error else None
    if _is_under_checksum(received) and not received.is_error:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return NoAnswer("its body is not JSON")
    return None if isinstance(document, dict) else NoAnswer("its body is no JSON object")


def _is_under_checksum(received: Received) -> bool:
    """Whether the service's own checksum, which was compared, says that the body is what it sent."""
    return received.service == "dynamodb" and "x-amz-crc32" in received.headers


def misfit(value: Any, shape: Any, name: str = "the answer") -> str | None:
    """The name of the first member that is not of its type in botocore's output shape; None if all are.

    Bodies that are streams pass: they are judged while they are read.
    """
    kind = shape.type_name
    if kind == "structure":
        if getattr(shape, "is_document_type", False) or shape.serialization.get("eventstream"):
            return None
        if not isinstance(value, Mapping):
            return name
        members = ((one, shape.members[one], inner) for one, inner in value.items() if one in shape.members)
        found = (misfit(inner, of, one) for one, of, inner in members)
        return next((one for one in found if one is not None), None)
    if kind == "list":
        if not isinstance(value, list):
            return name
        return next((name for one in value if misfit(one, shape.member) is not None), None)
    if kind == "map":
        if not isinstance(value, Mapping):
            return name
        return next((name for one in value.values() if misfit(one, shape.value) is not None), None)
    if kind == "blob" and hasattr(value, "read"):
        return None
    expected = _TYPES.get(kind)
    is_bool = isinstance(value, bool)
    if expected is None or (isinstance(value, expected) and is_bool == (kind == "boolean")):
        return None
    return name


def error_body(protocol: str, code: str, reason: str) -> bytes:
    """An error as the service itself would write it, in the place of what came."""
    message = f"what came is not taken for an answer: {reason}"
    if protocol == _JSON:
        return json.dumps({"__type": code, "message": message}).encode()
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
