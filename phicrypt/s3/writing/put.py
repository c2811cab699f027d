"""``put_object``: seal once, then hand finished ciphertext to botocore (rule 2)."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from typing import IO, Any

from phicrypt.errors import ConfigurationError
from phicrypt.messages.stream_uses import StreamUse
from phicrypt.s3.gateway import Gateway
from phicrypt.s3.operations import forwarded
from phicrypt.s3.writing.sealing import OutgoingObject


def put_object(gateway: Gateway, parameters: Mapping[str, Any], own: Any) -> dict[str, Any]:
    """The response of PutObject; what is stored is the ciphertext of ``Body``."""
    bucket, object_key = parameters["Bucket"], parameters["Key"]
    clear = clear_parameters(gateway, parameters)
    plaintext = in_memory(parameters.get("Body", b""))
    length = _length_in_memory(plaintext)
    if length is not None:
        _check_announced(length, parameters)
    outgoing, use = gateway.begin_object("s3.put_object", bucket, object_key, own, length)
    with use:
        ciphertext: bytes | bytearray | IO[bytes]
        if length is not None and length <= gateway.options.max_memory_bytes:
            ciphertext = outgoing.seal_bytes(plaintext, gateway.take_spare_buffer())
            use.count(length)
        else:
            source = io.BytesIO(plaintext) if length is not None else plaintext
            ciphertext = seal_to_spool(gateway, outgoing, source, use)
        try:
            _check_announced(use.byte_count, parameters)
            response: dict[str, Any] = gateway.s3.put_object(
                Bucket=bucket, Key=object_key, Body=ciphertext, **with_format(clear, outgoing)
            )
        finally:
            if not isinstance(ciphertext, bytes | bytearray):
                ciphertext.close()
        if isinstance(ciphertext, bytearray):
            gateway.give_spare_buffer(ciphertext)
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


def seal_to_spool(gateway: Gateway, outgoing: OutgoingObject, source: Any, use: StreamUse) -> IO[bytes]:
    """The ciphertext of a stream in memory, beyond a bound in an unlinked 0600 file."""
    spool = tempfile.SpooledTemporaryFile(max_size=gateway.options.max_memory_bytes)  # noqa: SIM115
    try:
        for piece in outgoing.seal_stream(source, use.count):
            spool.write(piece)
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return spool


def in_memory(body: Any) -> Any:
    """The body as bytes where it is in memory, else the file object itself."""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, memoryview):
        return body.cast("B") if body.c_contiguous else body.tobytes()
    if isinstance(body, bytes | bytearray):
        return body
    if isinstance(body, io.BytesIO):
        return body.read()
    if not hasattr(body, "read"):
        raise ConfigurationError(f"Body is bytes, text or a binary file object, not {type(body).__name__}")
    return body


def _length_in_memory(plaintext: Any) -> int | None:
    """The length of a body in memory; None for a file object."""
    if not isinstance(plaintext, bytes | bytearray | memoryview):
        return None
    return len(plaintext)


def _check_announced(length: int, parameters: Mapping[str, Any]) -> None:
    """``ContentLength`` is of the plaintext here; S3 gets the ciphertext's from botocore."""
    announced = parameters.get("ContentLength", length)
    if announced != length:
        raise ConfigurationError(f"ContentLength announced {announced} bytes of plaintext, the body has {length}")
