"""The metadata of S3 Encryption Client objects (``s3-encryption/data-format/content-metadata.md``).

Names of user metadata, without the ``x-amz-meta-`` that S3 adds::

    version 2                               version 3
    x-amz-key-v2    wrapped data key        x-amz-3   wrapped data key                 base64
    x-amz-wrap-alg  kms+context             x-amz-w   12
    x-amz-cek-alg   AES/GCM/NoPadding       x-amz-c   115
    x-amz-matdesc   KMS context, JSON       x-amz-t   KMS context, JSON
    x-amz-iv        12 bytes                x-amz-i   message id, 28 bytes             base64
    x-amz-tag-len   128                     x-amz-d   key commitment, 28 bytes         base64
    x-amz-unencrypted-content-length        (older clients only; must be true where it stands)

With an instruction file, an object beside the first whose body is a JSON object, version 2 keeps
everything there; version 3 keeps ``x-amz-c``, ``x-amz-i`` and ``x-amz-d`` with the object.

None of this is authenticated by itself. Only wrapping by KMS with a context is accepted, and that
context must name the content cipher that the metadata names: KMS then refuses a data key of one
version under the label of the other. Whoever reads decides which versions are accepted (rule 7).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from phicrypt.core.strict_json import parse_json
from phicrypt.core.suites import AlgorithmSuite, Kdf
from phicrypt.errors import ConfigurationError, FormatError, LimitExceededError, UnsupportedOperationError

S3EC_V3_SUITE: Final = AlgorithmSuite(
    0x0073, "ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY (S3EC)", 3, 32, Kdf.HKDF_SHA512, True, None
)
"""Version 3: a key per object, derived and committed to."""
S3EC_V2_SUITE: Final = AlgorithmSuite(
    0x0072, "ALG_AES_256_GCM_IV12_TAG16_NO_KDF (S3EC)", 2, 32, Kdf.IDENTITY, False, None
)
"""Version 2: the data key encrypts directly, and nothing commits to it."""

CIPHER_CONTEXT_NAME: Final = "aws:x-amz-cek-alg"
"""The pair of the KMS context that names the content cipher."""
INSTRUCTION_SUFFIX: Final = ".instruction"
MAX_INSTRUCTION_LENGTH_BYTES: Final = 64 * 1024
MESSAGE_ID_LENGTH_BYTES: Final = 28
S3EC_COMMITMENT_LENGTH_BYTES: Final = 28
_V2_IV_LENGTH_BYTES: Final = 12
_MAX_WRAPPED_KEY_LENGTH_BYTES: Final = 6_144
_MAX_LENGTH_DIGITS: Final = 11

_V3_CIPHER: Final = "115"
_V2_CIPHER: Final = "AES/GCM/NoPadding"
_V3_CONTENT_NAMES: Final = ("x-amz-c", "x-amz-d", "x-amz-i")
_V3_KEY_NAMES: Final = ("x-amz-3", "x-amz-w", "x-amz-t", "x-amz-m")
_V2_LENGTH_NAME: Final = "x-amz-unencrypted-content-length"
_V2_NAMES: Final = (
    "x-amz-key-v2",
    "x-amz-wrap-alg",
    "x-amz-cek-alg",
    "x-amz-matdesc",
    "x-amz-iv",
    "x-amz-tag-len",
    _V2_LENGTH_NAME,
)
_V1_KEY_NAME: Final = "x-amz-key"
_MARKER: Final = "x-amz-crypto-instr-file"
S3EC_METADATA_NAMES: Final = frozenset((*_V3_CONTENT_NAMES, *_V3_KEY_NAMES, *_V2_NAMES, _V1_KEY_NAME, _MARKER))
"""Every name of user metadata that the S3 Encryption Client uses for itself."""


@dataclass(frozen=True, slots=True)
class S3ecEnvelope:
    """What the metadata of one object says; nothing of it is authentic before the body's tag.

    Attributes:
        suite: :data:`S3EC_V3_SUITE` or :data:`S3EC_V2_SUITE`.
        wrapped_data_key: what KMS Decrypt takes.
        kms_context: the whole KMS context, ``aws:x-amz-cek-alg`` included.
        nonce: the message id in version 3, the GCM nonce in version 2.
        commitment: 28 bytes in version 3, ``b""`` in version 2.
        claimed_length_bytes: of the plaintext, where version 2 metadata says so.
    """

    suite: AlgorithmSuite
    wrapped_data_key: bytes
    kms_context: Mapping[str, str]
    nonce: bytes
    commitment: bytes
    claimed_length_bytes: int | None = None

    @property
    def version(self) -> int:
        """2 or 3."""
        return self.suite.message_format_version

    @property
    def caller_context(self) -> dict[str, str]:
        """The context without the pair that the format itself adds."""
        return {name: value for name, value in self.kms_context.items() if name != CIPHER_CONTEXT_NAME}

    def to_metadata(self) -> dict[str, str]:
        """The metadata of a version 3 object; the only version that is written."""
        if self.suite is not S3EC_V3_SUITE:
            raise ConfigurationError("only version 3 of the S3 Encryption Client format is written")
        return {
            "x-amz-c": _V3_CIPHER,
            "x-amz-3": base64.b64encode(self.wrapped_data_key).decode(),
            "x-amz-w": "12",
            "x-amz-t": json.dumps(dict(self.kms_context)),
            "x-amz-d": base64.b64encode(self.commitment).decode(),
            "x-amz-i": base64.b64encode(self.nonce).decode(),
        }


def kms_context_of(caller_context: Mapping[str, str], suite: AlgorithmSuite) -> dict[str, str]:
    """The context that KMS gets for an object: the caller's pairs and the content cipher.

    Raises ConfigurationError for a pair that the format reserves, and for text beyond ASCII: S3
    re-encodes such metadata, so that readers would see another context.
    """
    for name, value in caller_context.items():
        if name in (CIPHER_CONTEXT_NAME, "kms_cmk_id"):
            raise ConfigurationError(
                f"the context name {name!r} belongs to the S3 Encryption Client format itself"
            )
        if not (name.isascii() and value.isascii()):
            raise ConfigurationError(
                "contexts of S3 Encryption Client objects are ASCII: S3 re-encodes other text in metadata"
            )
    return {**caller_context, CIPHER_CONTEXT_NAME: _V3_CIPHER if suite is S3EC_V3_SUITE else _V2_CIPHER}


def claims_s3ec(metadata: Mapping[str, str]) -> bool:
    """Whether an object's metadata says that the S3 Encryption Client wrote it."""
    return not S3EC_METADATA_NAMES.isdisjoint(metadata)


def needs_instruction_file(metadata: Mapping[str, str]) -> bool:
    """Whether the object's own metadata holds no wrapped data key, so that a file beside it must."""
    return not {"x-amz-3", "x-amz-key-v2", _V1_KEY_NAME} & set(metadata)


def parse_instruction_file(body: bytes) -> dict[str, str]:
    """The metadata in an instruction file: a JSON object of text with the format's own names only."""
    if len(body) > MAX_INSTRUCTION_LENGTH_BYTES:
        raise LimitExceededError(
            "the instruction file is too long in bytes", limit=MAX_INSTRUCTION_LENGTH_BYTES, actual=len(body)
        )
    pairs = _json_text_pairs(body, "instruction file")
    if strangers := set(pairs) - S3EC_METADATA_NAMES:
        raise FormatError(f"it has {len(strangers)} names that the format does not know", field="instruction file")
    if not set(_V3_CONTENT_NAMES).isdisjoint(pairs):
        raise FormatError("x-amz-c, x-amz-d and x-amz-i belong to the object itself", field="instruction file")
    return pairs


def parse_envelope(metadata: Mapping[str, str], instruction: Mapping[str, str] | None = None) -> S3ecEnvelope:
    """The envelope of one object.

    Args:
        metadata: the object's user metadata.
        instruction: what :func:`parse_instruction_file` gave, where the object has such a file.

    Raises FormatError for missing, mixed or malformed fields, UnsupportedOperationError for what is
    never read: version 1, CBC, ``kms`` wrapping without context, wrapping by other means than KMS.
    """
    fields = {name: value for name, value in metadata.items() if name in S3EC_METADATA_NAMES}
    if instruction is not None:
        if repeated := set(instruction) & set(fields) - {_MARKER}:
            raise FormatError(f"{sorted(repeated)} stand both there and with the object", field="instruction file")
        fields |= instruction
    versions = [name for name in ("x-amz-3", "x-amz-key-v2", _V1_KEY_NAME) if name in fields]
    if len(versions) != 1:
        raise FormatError(
            f"exactly one wrapped data key was expected, {len(versions)} stand there", field="S3EC metadata"
        )
    if versions[0] == _V1_KEY_NAME:
        raise UnsupportedOperationError(
            "the object has the S3 Encryption Client's version 1 format, which does not authenticate its "
            "content; read it with that client once and write it again"
        )
    if versions[0] == "x-amz-3":
        return _parse_v3(fields)
    return _parse_v2(fields)


def _parse_v3(fields: Mapping[str, str]) -> S3ecEnvelope:
    _refuse_foreign(fields, _V2_NAMES)
    _require(fields, "x-amz-c", _V3_CIPHER)
    _require_kms_context_wrapping(fields, "x-amz-w", "12")
    return S3ecEnvelope(
        suite=S3EC_V3_SUITE,
        wrapped_data_key=_base64_field(fields, "x-amz-3", None),
        kms_context=_context_field(fields, "x-amz-t", _V3_CIPHER),
        nonce=_base64_field(fields, "x-amz-i", MESSAGE_ID_LENGTH_BYTES),
        commitment=_base64_field(fields, "x-amz-d", S3EC_COMMITMENT_LENGTH_BYTES),
    )


def _parse_v2(fields: Mapping[str, str]) -> S3ecEnvelope:
    _refuse_foreign(fields, (*_V3_CONTENT_NAMES, *_V3_KEY_NAMES))
    if fields.get("x-amz-cek-alg") in ("AES/CBC/PKCS5Padding", "AES/CTR/NoPadding"):
        raise UnsupportedOperationError(
            "the object was encrypted with AES-CBC or AES-CTR, which authenticate nothing; read it with the "
            "S3 Encryption Client's legacy mode once and write it again"
        )
    _require(fields, "x-amz-cek-alg", _V2_CIPHER)
    _require(fields, "x-amz-tag-len", "128")
    _require_kms_context_wrapping(fields, "x-amz-wrap-alg", "kms+context")
    return S3ecEnvelope(
        suite=S3EC_V2_SUITE,
        wrapped_data_key=_base64_field(fields, "x-amz-key-v2", None),
        kms_context=_context_field(fields, "x-amz-matdesc", _V2_CIPHER),
        nonce=_base64_field(fields, "x-amz-iv", _V2_IV_LENGTH_BYTES),
        commitment=b"",
        claimed_length_bytes=_length_field(fields, _V2_LENGTH_NAME),
    )


def _refuse_foreign(fields: Mapping[str, str], names: tuple[str, ...]) -> None:
    if mixed := sorted(set(names) & set(fields)):
        raise FormatError(f"fields of two versions stand together: {mixed}", field="S3EC metadata")


def _field(fields: Mapping[str, str], name: str) -> str:
    if name not in fields:
        raise FormatError("the field is missing", field=name)
    return fields[name]


def _require(fields: Mapping[str, str], name: str, expected: str) -> None:
    if _field(fields, name) != expected:
        raise FormatError(f"{expected!r} was expected", field=name)


def _require_kms_context_wrapping(fields: Mapping[str, str], name: str, expected: str) -> None:
    if _field(fields, name) != expected:
        raise UnsupportedOperationError(
            f"{name}: only data keys wrapped by KMS with a context ({expected!r}) are opened; 'kms' without a "
            "context, raw AES and RSA wrapping are refused"
        )


def _base64_field(fields: Mapping[str, str], name: str, length_bytes: int | None) -> bytes:
    text = _field(fields, name)
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError:
        value = None
    if value is None:
        raise FormatError("base64 was expected", field=name)
    if length_bytes is None:
        if not 1 <= len(value) <= _MAX_WRAPPED_KEY_LENGTH_BYTES:
            raise FormatError(
                f"1 to {_MAX_WRAPPED_KEY_LENGTH_BYTES} bytes were expected, {len(value)} came", field=name
            )
    elif len(value) != length_bytes:
        raise FormatError(f"{length_bytes} bytes were expected, {len(value)} came", field=name)
    return value


def _length_field(fields: Mapping[str, str], name: str) -> int | None:
    text = fields.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_LENGTH_DIGITS):
        raise FormatError("a length in bytes was expected", field=name)
    return int(text)


def _context_field(fields: Mapping[str, str], name: str, cipher: str) -> dict[str, str]:
    context = _json_text_pairs(_field(fields, name), name)
    if context.get(CIPHER_CONTEXT_NAME) != cipher:
        raise FormatError(
            f"its {CIPHER_CONTEXT_NAME} must be {cipher!r}, the content cipher that the metadata names", field=name
        )
    return context


def _json_text_pairs(text: str | bytes, field: str) -> dict[str, str]:
    value = parse_json(text, field=field)
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise FormatError("a JSON object of text was expected", field=field)
    return value
