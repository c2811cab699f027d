"""Keeps plaintext data keys out of botocore's debug logs.

At DEBUG, botocore logs every request body before it is sent and every response body before it is
parsed: a plaintext data key stands there in base64. The filter replaces bodies of KMS calls by
their length; it acts on the loggers themselves, so every handler gets the redacted record.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

_LOGGERS: Final = ("botocore.endpoint", "botocore.parsers")
"""botocore's loggers that print bodies: requests and responses."""
_SECRET_FIELDS: Final = ("Plaintext", "CiphertextBlob", "SharedSecret", "Signature", "Mac", "EncryptionContext")
"""Fields of KMS answers; a response that names one is removed whole, whatever its encoding."""


class KmsBodyFilter(logging.Filter):
    """Removes the bodies of KMS requests and responses from log records; drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args
        if isinstance(arguments, tuple):
            is_kms = any(_is_kms_operation(argument) for argument in arguments)
            record.args = tuple(_without_body(argument, is_kms_request=is_kms) for argument in arguments)
        elif isinstance(arguments, Mapping):  # logging's form for one mapping
            record.args = {name: _without_body(value, is_kms_request=False) for name, value in arguments.items()}
        record.msg = _without_body(record.msg, is_kms_request=False)
        return True


def redact_kms_logs() -> None:
    """Install the filter for the whole process; it is there at most once.

    phicrypt does so for each KMS client that it makes or is handed. Call it in programs that also
    use KMS clients of their own. It sees log records only: wire dumps such as ``http.client``'s
    debug output and botocore's history recorder are to be left off where KMS is called.
    """
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(present, KmsBodyFilter) for present in logger.filters):
            logger.addFilter(KmsBodyFilter())


def _is_kms_operation(argument: object) -> bool:
    service = getattr(argument, "service_model", None)
    return getattr(service, "service_name", None) == "kms"


def _without_body(argument: object, *, is_kms_request: bool) -> object:
    if is_kms_request and isinstance(argument, Mapping):
        redacted: dict[str, Any] = {name: value for name, value in argument.items() if name != "body"}
        return {**redacted, "body": _length_of(argument.get("body"))}
    if isinstance(argument, bytes | bytearray) and any(field.encode() in argument for field in _SECRET_FIELDS):
        return _length_of(argument)
    if isinstance(argument, str) and any(field in argument for field in _SECRET_FIELDS):
        return _length_of(argument)
    return argument


def _length_of(body: object) -> str:
    length = len(body) if isinstance(body, bytes | bytearray | str) else "some"
    return f"<{length} bytes removed by phicrypt>"
