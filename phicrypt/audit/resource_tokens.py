"""Resource tokens: equal resources are found in the log without naming them (rule 23).

A token is an HMAC of the resource under a token key that serves nothing else::

    token = "rt1-" ‖ id of the token key ‖ "-" ‖ first 16 bytes of HMAC-SHA-256, hexadecimal
    HMAC over "phicrypt resource token v1" ‖ for each part: length in bytes, 4 bytes big-endian ‖ UTF-8

Whoever holds a token key can confirm a guessed resource, and nobody else can. The keys lie in a JSON
file, each sealed as a message under the caller's keyring (so by KMS), newest last. After a rotation
old keys stay, so that old tokens are still found: :meth:`ResourceTokens.all_tokens`.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from phicrypt.core.materials import KeyHolder
from phicrypt.core.primitives import random_bytes
from phicrypt.errors import ConfigurationError

if TYPE_CHECKING:
    from phicrypt.audit.trail import AuditTrail
    from phicrypt.core.materials import Keyring

Resource = Sequence[str | bytes]
"""The parts of a resource's name, such as ``("s3", bucket, object_key)`` or ``("dynamodb", table, …)``."""

_DOMAIN: Final = b"phicrypt resource token v1"
_TOKEN_KEY_LENGTH_BYTES: Final = 32
_CONTEXT_PURPOSE: Final = {"purpose": "resource-token-key"}


class ResourceTokens(KeyHolder):
    """Makes tokens under the newest of its token keys.

    Args:
        token_keys: 32 secret bytes by their id (letters and digits), newest last.

    Raises ConfigurationError for no key, or one of another length or id.
    """

    __slots__ = ("_newest", "_token_keys")

    def __init__(self, token_keys: Mapping[str, bytes]) -> None:
        if not token_keys:
            raise ConfigurationError("resource tokens need at least one token key")
        for key_id, token_key in token_keys.items():
            if not (key_id.isascii() and key_id.isalnum()) or len(token_key) != _TOKEN_KEY_LENGTH_BYTES:
                raise ConfigurationError("a token key is 32 bytes under an id of letters and digits")
        self._token_keys = dict(token_keys)
        self._newest = next(reversed(self._token_keys))

    def __repr__(self) -> str:
        return f"<ResourceTokens under {self._newest!r}, {len(self._token_keys)} token keys>"

    def token(self, resource: Resource) -> str:
        """The token of a resource under the newest key."""
        return self._token_under(self._newest, _canonical(resource))

    def all_tokens(self, resource: Resource) -> list[str]:
        """The resource's tokens under every key, newest first: what to search an old log for."""
        canonical = _canonical(resource)
        return [self._token_under(key_id, canonical) for key_id in reversed(self._token_keys)]

    def _token_under(self, key_id: str, canonical: bytes) -> str:
        return f"rt1-{key_id}-{hmac.digest(self._token_keys[key_id], canonical, 'sha256')[:16].hex()}"

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], keyring: Keyring, *, trail: AuditTrail | None = None
    ) -> ResourceTokens:
        """Open the sealed token keys of a file with the keyring that sealed them.

        ``trail`` gets the use of each: one that has no resource tokens yet, on the same sinks. Raises
        ConfigurationError for a file that is none, and what opening raises (KeyAccessError, …).
        """
        phi = _client(keyring, trail)
        token_keys = {
            entry["id"]: phi.decrypt(
                base64.b64decode(entry["sealed"]), context={**_CONTEXT_PURPOSE, "token-key-id": entry["id"]}
            )
            for entry in _entries(Path(path))
        }
        return cls(token_keys)

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], keyring: Keyring, *, trail: AuditTrail | None = None
    ) -> ResourceTokens:
        """Make a new file with one token key sealed under the keyring. An existing file is refused."""
        if Path(path).exists():
            raise ConfigurationError("the token key file exists already; use rotate to add a key")
        return cls._with_new_key(Path(path), keyring, [], trail)

    @classmethod
    def rotate(
        cls, path: str | os.PathLike[str], keyring: Keyring, *, trail: AuditTrail | None = None
    ) -> ResourceTokens:
        """Add a new token key to the file; the old ones stay, so that old tokens are still found."""
        return cls._with_new_key(Path(path), keyring, _entries(Path(path)), trail)

    @classmethod
    def _with_new_key(
        cls, path: Path, keyring: Keyring, entries: list[dict[str, str]], trail: AuditTrail | None
    ) -> ResourceTokens:
        key_id = random_bytes(4).hex()
        sealed = _client(keyring, trail).encrypt(
            random_bytes(_TOKEN_KEY_LENGTH_BYTES), context={**_CONTEXT_PURPOSE, "token-key-id": key_id}
        )
        entries = [*entries, {"id": key_id, "sealed": base64.b64encode(sealed).decode()}]
        beside = path.with_name(f"{path.name}.{random_bytes(4).hex()}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"version": 1, "token_keys": entries}, file, indent=1)
        beside.replace(path)
        return cls.load(path, keyring, trail=trail)


def _canonical(resource: Resource) -> bytes:
    pieces = [_DOMAIN]
    for part in resource:
        encoded = part.encode() if isinstance(part, str) else part
        pieces.append(len(encoded).to_bytes(4, "big"))
        pieces.append(encoded)
    return b"".join(pieces)


def _client(keyring: Keyring, trail: AuditTrail | None) -> Any:
    from phicrypt.client import PhiCrypt

    return PhiCrypt(keyring=keyring, audit=trail or ())


def _entries(path: Path) -> list[dict[str, str]]:
    try:
        document = json.loads(path.read_text())
        if document["version"] != 1:
            raise ValueError("unknown version")
        return [{"id": str(entry["id"]), "sealed": str(entry["sealed"])} for entry in document["token_keys"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"no token key file: {type(error).__name__}") from None
