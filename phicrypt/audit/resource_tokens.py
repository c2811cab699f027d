"""Resource tokens: equal resources are found in the log without naming them (rule 23).

A token is an HMAC of the resource under a token key that serves nothing else::

    token = "rt1-" ‖ id of the token key ‖ "-" ‖ first 16 bytes of HMAC-SHA-256, hexadecimal
    HMAC over "phicrypt resource token v1" ‖ for each part: length in bytes, 4 bytes big-endian ‖ UTF-8

Whoever holds a token key can confirm a guessed resource, and nobody else can. After a rotation old keys
stay, so that old tokens are still found: :meth:`ResourceTokens.all_tokens`. The file in which the keys lie
sealed is read and written by :mod:`phicrypt.witness.token_keys`, because opening it calls KMS.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from phicrypt.core.materials import KeyHolder
from phicrypt.errors import ConfigurationError

Resource = Sequence[str | bytes]
"""The parts of a resource's name, such as ``("s3", bucket, object_key)`` or ``("dynamodb", table, …)``."""

_DOMAIN: Final = b"phicrypt resource token v1"
TOKEN_KEY_LENGTH_BYTES: Final = 32


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
            if not (key_id.isascii() and key_id.isalnum()) or len(token_key) != TOKEN_KEY_LENGTH_BYTES:
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


def _canonical(resource: Resource) -> bytes:
    pieces = [_DOMAIN]
    for part in resource:
        encoded = part.encode() if isinstance(part, str) else part
        pieces.append(len(encoded).to_bytes(4, "big"))
        pieces.append(encoded)
    return b"".join(pieces)
