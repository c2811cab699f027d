"""MACs by KMS and local MACs: what ``phi.mac(key_arn)`` gives.

Every MAC binds the resource's name and the purpose: what is MACed is the statement of
:mod:`phicrypt.formats.signatures` in DSSE's pre-authentication encoding, with the message's length
and digest in it, so that KMS's limit of 4,096 bytes does not bind the caller.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypedDict

from phicrypt.audit.trail import NO_TRAIL, Trail, Use
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.core.kms_calls import KmsAnswer, origin_of
from phicrypt.core.materials import KeyHolder
from phicrypt.core.primitives import constant_time_equal
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, PhiInContextError
from phicrypt.formats.signatures import (
    MAC,
    PAYLOAD_TYPE,
    Readable,
    Statement,
    fingerprint,
    pae,
    write_statement,
)
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.signatures.key_uses import key_use, lent
from phicrypt.signatures.kms_mac import MAC_ALGORITHMS, KmsMacKey, LocalMacKey

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

    from phicrypt.session import Session

_MAX_LOCAL_KEYS: Final = 64
_LOCAL_ALGORITHM: Final = "HMAC_SHA_256"
_TOKEN: Final = re.compile(r"[0-9a-f]{16}\.[A-Za-z0-9_-]{43}")

Source = bytes | bytearray | memoryview | Readable


class MacSettings(TypedDict, total=False):
    """Settings of :class:`Mac`, as ``phi.mac`` takes them."""

    client: KMSClient | None
    algorithm: str
    guard: PhiGuard | None
    trail: Trail | None


class Mac:
    """MACs under one KMS key.

    Args:
        key_arn: the ARN of an HMAC key for :meth:`generate` and :meth:`verify`; of a symmetric
            encryption key for :meth:`new_local_key` and :meth:`local`.
        client: a boto3 KMS client of the key's Region; None takes the session's keyring's, or makes one.
        algorithm: ``"HMAC_SHA_256"``, ``"HMAC_SHA_384"`` or ``"HMAC_SHA_512"``, as the HMAC key's spec.
        guard: checks the purpose of local keys, which stands in clear in CloudTrail; None takes the session's.
        trail: gets one event per use of a key, of the KMS key as of local keys; None takes the session's.
        phi_session: a client's, which lends what is not given here.
    """

    def __init__(
        self,
        key_arn: str,
        *,
        client: KMSClient | None = None,
        algorithm: str = "HMAC_SHA_256",
        guard: PhiGuard | None = None,
        trail: Trail | None = None,
        phi_session: Session | None = None,
    ) -> None:
        clients, self._guard, self._trail = lent(phi_session, client, guard, trail)
        self._key = KmsMacKey(key_arn, clients, algorithm=algorithm)

    def __repr__(self) -> str:
        return f"<Mac under {self._key.key_arn}>"

    @property
    def key_arn(self) -> str:
        return self._key.key_arn

    def generate(self, source: Source, *, resource: str, purpose: str) -> bytes:
        """The MAC, made by KMS: 32, 48 or 64 bytes.

        Raises KeyAccessError (also for a key of another usage), ConfigurationError.
        """
        message = self._message(source, resource, purpose)
        with key_use(self._trail, "mac", resource) as use:
            mac, answer = self._key.generate(message)
            use.origin = self._origin(answer, "GenerateMac")
        return mac

    def verify(self, source: Source, mac: bytes, *, resource: str, purpose: str) -> None:
        """Verify by KMS. Raises AuthenticationError, KeyAccessError."""
        message = self._message(source, resource, purpose)
        with key_use(self._trail, "verify-mac", resource) as use:
            use.origin = self._origin(self._key.verify(message, mac), "VerifyMac")

    def new_local_key(self, purpose: str) -> bytes:
        """An enveloped local MAC key (a KMS ciphertext with its id, JSON) to be stored as configuration."""
        self._check_purpose(purpose)
        with key_use(self._trail, "create-mac-key", purpose) as use:
            envelope, answer = self._key.new_local_key(purpose)
            use.origin = self._origin(answer, "GenerateDataKey")
        return envelope

    def local(self, envelopes: Sequence[bytes], *, purpose: str) -> LocalMac:
        """MACs in this process, under enveloped keys: the first one makes tokens, all of them verify.

        Two KMS Decrypt calls per envelope, which must agree, here and never again. Rotate by putting a new
        envelope in front; tokens of the older keys stay verifiable and findable.
        """
        if not 1 <= len(envelopes) <= _MAX_LOCAL_KEYS:
            raise ConfigurationError(f"1 to {_MAX_LOCAL_KEYS} enveloped MAC keys are expected")
        self._check_purpose(purpose)
        local_keys, origins = [], []
        for envelope in envelopes:
            with key_use(self._trail, "open-mac-key", purpose) as use:
                local_key, answers = self._key.open_local_key(envelope, purpose)
                *earlier, last = (self._origin(answer, "Decrypt") for answer in answers)
                use.origin = origin = replace(last, other_calls=tuple(earlier))
            local_keys.append(local_key)
            origins.append(replace(origin, key_id=f"{self.key_arn}#{local_key.key_id}"))
        return LocalMac(local_keys, purpose, origins, self._trail)

    def _origin(self, answer: KmsAnswer, operation: str) -> KeyOrigin:
        return origin_of(answer, operation, self._key.arn)

    def _check_purpose(self, purpose: str) -> None:
        if not isinstance(purpose, str):
            raise ConfigurationError(f"a purpose is text, {type(purpose).__name__} came")
        if self._guard is not None and self._guard.check({"purpose": purpose})["purpose"] != purpose:
            raise PhiInContextError(["purpose"])

    def _message(self, source: Source, resource: str, purpose: str) -> bytes:
        digest_name = MAC_ALGORITHMS[self._key.algorithm]
        return mac_message(source, resource, purpose, self.key_arn, self._key.algorithm, digest_name)


class LocalMac(KeyHolder):
    """HMAC-SHA-256 tokens at memory speed, for search tokens and resource tokens.

    A token is text: the key's id, a dot, and the MAC in URL-safe base64 without padding. Each call of
    a method is one event of the trail, which names the KMS call that opened the key.
    """

    __slots__ = ("_keys", "_origins", "_trail", "purpose")

    def __init__(
        self,
        local_keys: Sequence[LocalMacKey],
        purpose: str,
        origins: Sequence[KeyOrigin],
        trail: Trail = NO_TRAIL,
    ) -> None:
        self._keys = {local_key.key_id: local_key for local_key in local_keys}
        self._origins = {key.key_id: origin for key, origin in zip(local_keys, origins, strict=True)}
        self._trail = trail
        self.purpose = purpose

    def __repr__(self) -> str:
        return f"<LocalMac of {len(self._keys)} keys>"

    def generate(self, source: Source, *, resource: str) -> str:
        """The token under the first key."""
        with self._recorded("local-mac", resource):
            return self._token(next(iter(self._keys.values())), source, resource)

    def tokens(self, source: bytes, *, resource: str) -> tuple[str, ...]:
        """The token under every key, the newest first: what to search for after a rotation.

        Takes bytes only: a stream could not be read once per key.
        """
        with self._recorded("local-mac", resource):
            return tuple(self._token(local_key, source, resource) for local_key in self._keys.values())

    def verify(self, source: Source, token: str, *, resource: str) -> None:
        """In constant time. Raises AuthenticationError, FormatError for text that is no token."""
        key_id = token.partition(".")[0]
        with self._recorded("verify-local-mac", resource, key_id):
            if _TOKEN.fullmatch(token) is None:
                raise FormatError("a key id, a dot and 43 characters of base64 were expected", field="MAC token")
            local_key = self._keys.get(key_id)
            if local_key is None:
                raise AuthenticationError("MAC key id")
            # Compared as text, so that a token has one spelling only.
            if not constant_time_equal(self._token(local_key, source, resource).encode(), token.encode()):
                raise AuthenticationError("MAC")

    def _recorded(self, operation: str, resource: str, key_id: str | None = None) -> Use:
        """One use of a local key, the first one unless another is named."""
        origin = self._origins.get(key_id or next(iter(self._keys)))
        return key_use(self._trail, operation, resource, origin=origin, cache_hit=True)

    def _token(self, local_key: LocalMacKey, source: Source, resource: str) -> str:
        mac = local_key.generate(self._message(local_key, source, resource), "sha256")
        return f"{local_key.key_id}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    def _message(self, local_key: LocalMacKey, source: Source, resource: str) -> bytes:
        return mac_message(source, resource, self.purpose, local_key.key_id, _LOCAL_ALGORITHM, "sha256")


def mac_message(
    source: Source, resource: str, purpose: str, key_name: str, algorithm: str, digest_name: str
) -> bytes:
    """The bytes that are MACed: the statement of type ``mac-v1``, without a time, in DSSE's encoding."""
    subject = fingerprint(resource, source, digest_name)
    return pae(PAYLOAD_TYPE, write_statement(Statement(MAC, subject, purpose, key_name, algorithm, None)))
