"""The file of token keys: each sealed as a message under the caller's keyring (so by KMS), newest last.

JSON: ``{"version": 1, "token_keys": [{"id": …, "sealed": <base64 of the message>}, …]}``. Each message is
bound to the purpose and to the key's id.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from phicrypt.audit import resource_tokens
from phicrypt.audit.resource_tokens import TOKEN_KEY_LENGTH_BYTES
from phicrypt.audit.trail import NO_TRAIL, Trail
from phicrypt.core.limits import ReadLimits
from phicrypt.core.primitives import random_bytes
from phicrypt.core.spool import CiphertextSpool
from phicrypt.core.strict_json import parse_json
from phicrypt.core.suites import AES_256_GCM_HKDF_SHA512_COMMIT_KEY, check_demands
from phicrypt.errors import ConfigurationError, FormatError
from phicrypt.formats.esdk.header import parse_header
from phicrypt.formats.esdk.opening import open_message
from phicrypt.formats.esdk.sealing import DEFAULT_FRAME_LENGTH_BYTES, seal_message
from phicrypt.formats.reader import ByteReader
from phicrypt.keys.provider import MaterialsProvider

if TYPE_CHECKING:
    from phicrypt.core.materials import Keyring

_SUITE: Final = AES_256_GCM_HKDF_SHA512_COMMIT_KEY
_LIMITS: Final = ReadLimits()


class ResourceTokens(resource_tokens.ResourceTokens):
    """Resource tokens whose token keys lie sealed in a file; see :mod:`phicrypt.audit.resource_tokens`."""

    __slots__ = ()

    @classmethod
    def load(cls, path: str | os.PathLike[str], keyring: Keyring, *, trail: Trail | None = None) -> ResourceTokens:
        return cls(
            {
                entry["id"]: _opened(base64.b64decode(entry["sealed"]), entry["id"], keyring, trail or NO_TRAIL)
                for entry in _entries(Path(path))
            }
        )

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], keyring: Keyring, *, trail: Trail | None = None
    ) -> ResourceTokens:
        """Make a new file with one token key sealed under the keyring. An existing file is refused."""
        if Path(path).exists():
            raise ConfigurationError("the token key file exists already; use rotate to add a key")
        return cls._with_new_key(Path(path), keyring, [], trail)

    @classmethod
    def rotate(
        cls, path: str | os.PathLike[str], keyring: Keyring, *, trail: Trail | None = None
    ) -> ResourceTokens:
        """Add a new token key to the file; the old ones stay, so that old tokens are still found."""
        return cls._with_new_key(Path(path), keyring, _entries(Path(path)), trail)

    @classmethod
    def _with_new_key(
        cls, path: Path, keyring: Keyring, entries: list[dict[str, str]], trail: Trail | None
    ) -> ResourceTokens:
        key_id = random_bytes(4).hex()
        sealed = _sealed(random_bytes(TOKEN_KEY_LENGTH_BYTES), key_id, keyring, trail or NO_TRAIL)
        entries = [*entries, {"id": key_id, "sealed": base64.b64encode(sealed).decode()}]
        beside = path.with_name(f"{path.name}.{random_bytes(4).hex()}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"version": 1, "token_keys": entries}, file, indent=1)
        beside.replace(path)
        return cls.load(path, keyring, trail=trail)


def _context(key_id: str) -> dict[str, str]:
    return {"purpose": "resource-token-key", "token-key-id": key_id}


def _sealed(token_key: bytes, key_id: str, keyring: Keyring, trail: Trail) -> bytes:
    """The token key as a message. There is no client yet: its audit trail waits for these tokens."""
    context, suite_id = _context(key_id), _SUITE.suite_id
    with trail.recorded(
        "encrypt", format="esdk", suite_id=suite_id, context=context, sealing=True, at_once=True
    ) as use:
        materials, use.cache_hit = MaterialsProvider(keyring, None).encryption_materials(
            _SUITE, context, plaintext_length_bytes=len(token_key)
        )
        use.origin = materials.origin
        message, message_id = seal_message(materials, token_key, DEFAULT_FRAME_LENGTH_BYTES)
        use.message_id, use.byte_count = message_id.hex(), len(token_key)
    return message


def _opened(message: bytes, key_id: str, keyring: Keyring, trail: Trail) -> bytes:
    context, reader = _context(key_id), ByteReader(message)
    header = parse_header(reader, _LIMITS)
    check_demands(header.suite, require_signed=False, allow_uncommitted=False)
    with trail.recorded(
        "decrypt",
        format="esdk",
        suite_id=header.suite.suite_id,
        message_id=header.message_id,
        context=context,
    ) as use:
        materials, use.cache_hit = MaterialsProvider(keyring, None).decryption_materials(
            header.suite, header.context, header.encrypted_data_keys, expected=context
        )
        use.origin = materials.origin
        token_key = open_message(header, materials, reader, _spool, _LIMITS)
        use.byte_count = len(token_key)
    return token_key


def _spool() -> CiphertextSpool:
    return CiphertextSpool(memory_bytes=_LIMITS.spool_memory_bytes, max_bytes=_LIMITS.max_spool_bytes)


def _entries(path: Path) -> list[dict[str, str]]:
    try:
        document = parse_json(path.read_bytes(), field="token key file")
        if document["version"] != 1:
            raise ValueError("unknown version")
        entries = [{"id": str(entry["id"]), "sealed": str(entry["sealed"])} for entry in document["token_keys"]]
        for entry in entries:
            base64.b64decode(entry["sealed"], validate=True)
        return entries
    except (FormatError, OSError, ValueError, KeyError, TypeError) as error:
        reason = type(error).__name__
    raise ConfigurationError(f"no token key file: {reason}")
