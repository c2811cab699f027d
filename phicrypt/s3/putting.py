"""``put_object``: seal once, then hand finished ciphertext to botocore (rule 2)."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from phicrypt.errors import ConfigurationError
from phicrypt.s3.gateway import Gateway, NoUse
from phicrypt.s3.operations import forwarded
from phicrypt.s3.sealing import OutgoingObject

if TYPE_CHECKING:
    from phicrypt.audit.trail import Use


def put_object(gateway: Gateway, parameters: Mapping[str, Any], own: Any) -> dict[str, Any]:
    """The response of PutObject; what is stored is the ciphertext of ``Body``."""
    bucket, object_key = parameters["Bucket"], parameters["Key"]
    clear = clear_parameters(gateway, parameters)
    plaintext = _in_memory(parameters.get("Body", b""))
    length = _checked_length(plaintext, parameters.get("ContentLength"))
    outgoing = gateway.begin_object(bucket, object_key, own, length)
    use = begin_encrypt(gateway, bucket, object_key, outgoing)
    try:
        ciphertext: bytes | IO[bytes]
        if length is not None and length <= gateway.options.max_memory_bytes:
            ciphertext, count = outgoing.seal_bytes(plaintext), length
        else:
            source = io.BytesIO(plaintext) if length is not None else plaintext
            ciphertext, count = seal_to_spool(gateway, outgoing, source, parameters.get("ContentLength"))
        try:
            response: dict[str, Any] = gateway.s3.put_object(
                Bucket=bucket, Key=object_key, Body=ciphertext, **with_format(clear, outgoing)
            )
        finally:
            if not isinstance(ciphertext, bytes):
                ciphertext.close()
    except BaseException as error:
        use.end(error=error)
        raise
    use.end(byte_count=count)
    return response


def clear_parameters(
    gateway: Gateway, parameters: Mapping[str, Any], operation_name: str = "put_object"
) -> dict[str, Any]:
    """The parameters of a new object that stand in clear beside it, guarded."""
    clear = forwarded(operation_name, parameters)
    clear["Metadata"] = gateway.user_metadata(parameters.get("Metadata"))
    if "Tagging" in parameters:
        gateway.check_tagging(parameters["Tagging"])
        clear["Tagging"] = parameters["Tagging"]
    if "SSEKMSEncryptionContext" in parameters:
        gateway.check_sse_context(parameters["SSEKMSEncryptionContext"])
        clear["SSEKMSEncryptionContext"] = parameters["SSEKMSEncryptionContext"]
    return clear


def with_format(clear: Mapping[str, Any], outgoing: OutgoingObject) -> dict[str, Any]:
    """The clear parameters with the metadata that the format needs."""
    return {**clear, "Metadata": {**clear["Metadata"], **outgoing.metadata}}


def begin_encrypt(gateway: Gateway, bucket: str, object_key: str, outgoing: OutgoingObject) -> Use | NoUse:
    """The begin record of writing an object."""
    format_name = "s3ec-v3" if gateway.options.format == "s3ec" else "esdk"
    use = gateway.begin_use("encrypt", bucket, object_key, format_name=format_name, sealing=True)
    if not isinstance(use, NoUse):
        materials = outgoing.materials
        use.suite_id = materials.suite.suite_id
        use.message_id = outgoing.message_id.hex()
        use.context = materials.context
        use.origin = materials.origin
    return use


def seal_to_spool(
    gateway: Gateway, outgoing: OutgoingObject, source: Any, announced_length_bytes: int | None
) -> tuple[IO[bytes], int]:
    """The ciphertext of a stream in memory, beyond a bound in an unlinked 0600 file; and the plaintext's length.

    Raises ConfigurationError if the stream has another length than ``ContentLength`` announced.
    """
    counted = 0

    def charge(count: int) -> None:
        nonlocal counted
        counted += count
        gateway.phi.provider.charge(outgoing.materials, count)

    spool = tempfile.SpooledTemporaryFile(max_size=gateway.options.max_memory_bytes)  # noqa: SIM115
    try:
        for piece in outgoing.seal_stream(source, charge):
            spool.write(piece)
        if announced_length_bytes is not None and announced_length_bytes != counted:
            raise ConfigurationError(
                f"ContentLength announced {announced_length_bytes} bytes of plaintext, the body has {counted}"
            )
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return spool, counted


def _in_memory(body: Any) -> Any:
    """The body as bytes where it is in memory, else the file object itself."""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray | memoryview):
        return body
    if isinstance(body, io.BytesIO):
        return body.read()
    if not hasattr(body, "read"):
        raise ConfigurationError(f"Body is bytes, text or a binary file object, not {type(body).__name__}")
    return body


def _checked_length(plaintext: Any, announced_length_bytes: int | None) -> int | None:
    """The length of a body in memory; None for a file object."""
    if not isinstance(plaintext, bytes | bytearray | memoryview):
        return None
    length = memoryview(plaintext).nbytes
    if announced_length_bytes is not None and announced_length_bytes != length:
        raise ConfigurationError(
            f"ContentLength announced {announced_length_bytes} bytes of plaintext, the body has {length}"
        )
    return length
