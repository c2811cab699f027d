"""What stands in clear beside an encrypted object: its key, metadata, tags and SSE context, all guarded.

The encrypted formats keep their own names among the metadata: phicrypt's say the format and lengths only,
and are hints that nobody authenticated.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qsl

from phicrypt.core.strict_json import parse_json
from phicrypt.errors import ConfigurationError, FormatError
from phicrypt.formats.s3ec.envelope import S3EC_METADATA_NAMES
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.s3.operations import check_text, forwarded

METADATA_PREFIX: Final = "phicrypt-"
FORMAT_NAME: Final = "phicrypt-format"
HEADER_LENGTH_NAME: Final = "phicrypt-header-length"
FRAME_LENGTH_NAME: Final = "phicrypt-frame-length"
FOOTER_LENGTH_NAME: Final = "phicrypt-footer-length"
ESDK_FORMAT: Final = "esdk"


def clear_parameters(
    guard: PhiGuard | None, parameters: Mapping[str, Any], operation_name: str = "put_object"
) -> dict[str, Any]:
    """The parameters of a new object that stand in clear beside it, guarded."""
    clear = forwarded(operation_name, parameters)
    clear["Metadata"] = user_metadata(guard, parameters.get("Metadata"))
    if "Tagging" in parameters:
        check_text(parameters["Tagging"], "Tagging")
        tags = dict(parse_qsl(parameters["Tagging"], keep_blank_values=True))
        _guarded(guard, tags, "S3 tag")
        clear["Tagging"] = parameters["Tagging"]
    if "SSEKMSEncryptionContext" in parameters:
        check_sse_context(guard, parameters["SSEKMSEncryptionContext"])
        clear["SSEKMSEncryptionContext"] = parameters["SSEKMSEncryptionContext"]
    return clear


def user_metadata(guard: PhiGuard | None, metadata: Mapping[str, str] | None) -> dict[str, str]:
    """A caller's metadata, guarded; names that the formats use are refused."""
    if not isinstance(metadata, Mapping | None):
        raise ConfigurationError(f"Metadata is a mapping of text to text, {type(metadata).__name__} came")
    metadata = dict(metadata or {})
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str) or not (name.isascii() and value.isascii()):
            # botocore's own error, of later, shows both.
            raise ConfigurationError("Metadata is text of ASCII characters, names and values; encode other text")
        if name.lower().startswith(METADATA_PREFIX) or name.lower() in S3EC_METADATA_NAMES:
            raise ConfigurationError(f"the metadata name {name!r} is written by the encrypted formats themselves")
    return _guarded(guard, metadata, "S3 metadata")


def check_tag_set(guard: PhiGuard | None, tags: Any) -> None:
    """Guard tags in the form of a list of ``{"Key": …, "Value": …}``."""
    _guarded(guard, {str(tag.get("Key")): str(tag.get("Value")) for tag in tags}, "S3 tag")


def check_sse_context(guard: PhiGuard | None, encoded: str | None) -> None:
    """Guard the context that S3's own KMS encryption writes into CloudTrail: base64 of a JSON object."""
    if not encoded:
        return
    pairs = None
    with suppress(TypeError, ValueError, FormatError):
        pairs = parse_json(base64.b64decode(encoded, validate=True), field="SSEKMSEncryptionContext")
    if not isinstance(pairs, dict):
        # Not in the handler: Python's own error holds the pairs.
        raise ConfigurationError("SSEKMSEncryptionContext is base64 of a JSON object of text")
    _guarded(guard, {str(name): str(value) for name, value in pairs.items()}, "SSE-KMS context")


def check_object_key(guard: PhiGuard | None, object_key: str) -> None:
    """Guard the key of a new object."""
    if guard is not None:
        guard.check_name({"object-key": object_key}, where="object key")


def _guarded(guard: PhiGuard | None, pairs: dict[str, str], where: str) -> dict[str, str]:
    return pairs if guard is None or not pairs else dict(guard.check(pairs, where=where))
