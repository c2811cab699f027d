"""``put_object``: seal once, then hand finished ciphertext to botocore (rule 2)."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from phicrypt.audit.uses import Use
from phicrypt.errors import ConfigurationError
from phicrypt.s3.in_clear import clear_parameters
from phicrypt.s3.session import S3Session
from phicrypt.s3.writing.sealing import OutgoingObject, begin_object


def put_object(s3_session: S3Session, parameters: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """boto3's ``put_object``. ``Body`` is sealed once, into memory or a file of ciphertext, then sent."""
    bucket, object_key = parameters["Bucket"], parameters["Key"]
    clear = clear_parameters(s3_session.phi_session.guard, parameters)
    plaintext = in_memory(parameters.get("Body", b""))
    length = _length_in_memory(plaintext)
    if length is not None:
        _check_announced(length, parameters)
    outgoing, use = begin_object(s3_session, "s3.put_object", bucket, object_key, own, length)
    with use:
        ciphertext: bytes | bytearray | IO[bytes]
        if length is not None and length <= s3_session.options.max_memory_bytes:
            ciphertext = outgoing.seal_bytes(plaintext, _spare_buffer(s3_session))
            use.count(length)
        else:
            source = io.BytesIO(plaintext) if length is not None else plaintext
            ciphertext = seal_to_spool(outgoing, source, use, s3_session.options.max_memory_bytes)
        try:
            _check_announced(use.byte_count or 0, parameters)
            response: dict[str, Any] = s3_session.client.put_object(
                Bucket=bucket, Key=object_key, Body=ciphertext, **with_format(clear, outgoing)
            )
        finally:
            if not isinstance(ciphertext, bytes | bytearray):
                ciphertext.close()
        if isinstance(ciphertext, bytearray) and not s3_session.spare_buffers:
            s3_session.spare_buffers.append(ciphertext)  # botocore is done with it
    return response


def _spare_buffer(s3_session: S3Session) -> bytearray:
    """Memory for the ciphertext of one ``put_object``, the caller's until it is given back.

    Fresh memory costs several times the cipher itself (a page fault for every 4 KiB), so one
    buffer is kept. It holds ciphertext only.
    """
    try:
        return s3_session.spare_buffers.pop()
    except IndexError:
        return bytearray()


def with_format(clear: Mapping[str, Any], outgoing: OutgoingObject) -> dict[str, Any]:
    """The clear parameters with the metadata that the format needs."""
    return {**clear, "Metadata": {**clear["Metadata"], **outgoing.metadata}}


def seal_to_spool(outgoing: OutgoingObject, source: Any, use: Use, max_memory_bytes: int) -> IO[bytes]:
    """The ciphertext of a stream in memory, beyond a bound in an unlinked 0600 file."""
    spool = tempfile.SpooledTemporaryFile(max_size=max_memory_bytes)  # noqa: SIM115
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
        return _encoded(body)
    if isinstance(body, memoryview):
        return body.cast("B") if body.c_contiguous else body.tobytes()
    if isinstance(body, bytes | bytearray):
        return body
    if isinstance(body, io.BytesIO):
        return body.read()
    if not hasattr(body, "read"):
        raise ConfigurationError(f"Body is bytes, text or a binary file object, not {type(body).__name__}")
    return body


def _encoded(body: str) -> bytes:
    with suppress(UnicodeEncodeError):
        return body.encode()
    # Not in the handler: Python's own error holds the whole body (rule 32).
    raise ConfigurationError(
        "Body is text with half a surrogate pair, which UTF-8 cannot hold; pass bytes, or text without it"
    )


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
