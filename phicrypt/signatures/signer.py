"""Detached signatures by asymmetric KMS keys: what ``phi.signer(key_arn)`` gives.

A signature covers a resource's name, the purpose, the length and a digest, so there is no limit on
the resource's length, and a signature that is moved to another resource or purpose fails. The bytes
are those of :mod:`phicrypt.formats.signatures` (DSSE and in-toto); docs/signatures.md shows how to
verify them with openssl.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypedDict

from phicrypt.audit.trail import Trail, Use
from phicrypt.core.key_origin import KMS_PROVIDER_ID, KeyOrigin
from phicrypt.core.kms_arn import configured_key_arn, parse_kms_arn
from phicrypt.core.kms_calls import origin_of
from phicrypt.core.primitives import SignaturePublicKey
from phicrypt.errors import ConfigurationError, PhiInContextError
from phicrypt.formats.manifests import (
    ManifestMismatchError,
    compare_manifest,
    read_manifest,
    write_manifest,
)
from phicrypt.formats.signatures import (
    DETACHED,
    MANIFEST,
    PAYLOAD_TYPE,
    Fingerprint,
    Readable,
    Statement,
    check_statement,
    fingerprint,
    open_envelope,
    pae,
    read_envelope,
    write_envelope,
    write_statement,
)
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.signatures.key_uses import key_use, lent
from phicrypt.signatures.kms_signing import KmsSigningKey

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

    from phicrypt.session import Session

Source = bytes | bytearray | memoryview | Readable
Resources = Iterable[tuple[str, Source]]


class Verifier:
    """Verifies with a public key and nothing else: no KMS, no network.

    Args:
        key_arn: the key that must have signed. Its name stands inside the signed bytes.
        public_key_der: SubjectPublicKeyInfo, obtained over a channel that you trust.
        algorithm: KMS's name; None takes the key's own (RSA keys: ``RSASSA_PSS_SHA_256``). The
            verifier decides, never the signature file.

    Raises ConfigurationError for an alias or an unsuitable algorithm, FormatError for a bad key.
    """

    def __init__(self, key_arn: str, public_key_der: bytes, *, algorithm: str | None = None) -> None:
        self._arn = configured_key_arn(key_arn)
        self.key_arn = key_arn
        self._public_key = SignaturePublicKey(public_key_der)
        self.algorithm = algorithm or self._public_key.algorithms[0]
        if self.algorithm not in self._public_key.algorithms:
            raise ConfigurationError(
                f"{self.algorithm} does not suit the public key: {', '.join(self._public_key.algorithms)}"
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {self.key_arn}>"

    def verify(self, source: Source, signature_file: bytes, *, resource: str, purpose: str) -> Statement:
        """The signed statement, if the signature is the key's, over these bytes, name and purpose.

        Raises AuthenticationError (``.reason`` says which part), FormatError for no signature file.
        """
        with self._recorded(resource) as use:
            return self._verify(use, source, signature_file, resource, purpose, DETACHED)

    def verify_manifest(
        self, manifest: bytes, signature_file: bytes, resources: Resources, *, resource: str, purpose: str
    ) -> Statement:
        """The statement, if manifest and signature are genuine and list exactly these resources in order.

        Raises AuthenticationError, and ManifestMismatchError with ``.differences`` where the manifest
        is genuine and a resource's bytes, length, name or place differ.
        """
        with self._recorded(resource) as use:
            statement = self._verify(use, manifest, signature_file, resource, purpose, MANIFEST)
            listed = read_manifest(manifest)
            digest_names = {entry.name: entry.digest_name for entry in listed}
            default = listed[0].digest_name
            found = [fingerprint(name, source, digest_names.get(name, default)) for name, source in resources]
            if differences := compare_manifest(listed, found):
                raise ManifestMismatchError(differences)
        return statement

    def _recorded(self, resource: str) -> Use:
        """One verification; nothing is recorded of one that needs no key of ours."""
        return Use()

    def _verify(
        self, use: Use, source: Source, signature_file: bytes, resource: str, purpose: str, predicate_type: str
    ) -> Statement:
        """The signature first, then the source, then every signed field."""
        statement = open_envelope(
            read_envelope(signature_file),
            is_own_key=self._is_own_key,
            verify=partial(self._verify_signature, use),
        )
        found = fingerprint(resource, source, statement.subject.digest_name)
        check_statement(statement, Statement(predicate_type, found, purpose, self.key_arn, self.algorithm, None))
        use.byte_count = statement.subject.length_bytes
        return statement

    def _is_own_key(self, named: str) -> bool:
        """Whether an ARN names the expected key, or another replica of that multi-Region key."""
        arn = parse_kms_arn(named)
        return arn is not None and arn.is_same_key_as(self._arn)

    def _verify_signature(self, use: Use, message: bytes, signature: bytes) -> None:
        self._public_key.verify(self.algorithm, message, signature)


class _SignersVerifier(Verifier):
    """Verifies with a signer's cached public key or by KMS, on record as the signer's."""

    def __init__(self, signing_key: KmsSigningKey, trail: Trail, *, by_kms: bool) -> None:
        self._arn = signing_key.arn
        self.key_arn = signing_key.key_arn
        self.algorithm = signing_key.algorithm
        self._signing_key = signing_key
        self._trail = trail
        self._by_kms = by_kms

    def _recorded(self, resource: str) -> Use:
        return key_use(self._trail, "verify", resource)

    def _verify_signature(self, use: Use, message: bytes, signature: bytes) -> None:
        if self._by_kms:
            use.origin = origin_of(self._signing_key.verify_by_kms(message, signature), "Verify", self._arn)
        else:
            self._signing_key.verify(message, signature)
            use.origin = KeyOrigin(KMS_PROVIDER_ID, self.key_arn)


class SignerSettings(TypedDict, total=False):
    """Settings of :class:`Signer`, as ``phi.signer`` takes them."""

    client: KMSClient | None
    algorithm: str | None
    digest: str
    public_key_ttl_seconds: float
    guard: PhiGuard | None
    trail: Trail | None
    clock: Callable[[], datetime]


class Signer:
    """Signs with an asymmetric KMS key, and verifies with its cached public key or by KMS.

    ECDSA P-256 and P-384, RSA-PSS, Ed25519 and ML-DSA keys, as KMS offers them in the key's Region.

    Args:
        key_arn: the key's ARN.
        client: a boto3 KMS client of the key's Region; None takes the session's keyring's, or makes one.
        algorithm: KMS's name; None takes the key's own (RSA keys: ``RSASSA_PSS_SHA_256``).
        digest: of the resources: ``"sha256"``, ``"sha384"`` or ``"sha512"``.
        public_key_ttl_seconds: how long the public key is kept.
        guard: checks resource names and purposes, which stand in clear in the signature file; None takes
            the session's.
        trail: gets one event per signature made or verified; None takes the session's.
        clock: the time that statements carry.
        phi_session: a client's, which lends what is not given here.

    Raises ConfigurationError for an alias, an unknown algorithm or digest.
    """

    def __init__(
        self,
        key_arn: str,
        *,
        client: KMSClient | None = None,
        algorithm: str | None = None,
        digest: str = "sha256",
        public_key_ttl_seconds: float = 3600.0,
        guard: PhiGuard | None = None,
        trail: Trail | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        phi_session: Session | None = None,
    ) -> None:
        clients, self._guard, self._trail = lent(phi_session, client, guard, trail)
        self._key = KmsSigningKey(
            key_arn, clients, algorithm=algorithm, public_key_ttl_seconds=public_key_ttl_seconds
        )
        fingerprint("probe", b"", digest)
        self._digest = digest
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Signer with {self._key.key_arn}>"

    @property
    def key_arn(self) -> str:
        return self._key.key_arn

    @property
    def algorithm(self) -> str:
        """KMS's name of the algorithm in use."""
        return self._key.algorithm

    def public_key_der(self) -> bytes:
        """SubjectPublicKeyInfo, for a :class:`Verifier` elsewhere or for openssl."""
        return self._key.public_key_der()

    def sign(self, source: Source, *, resource: str, purpose: str) -> bytes:
        """A detached signature file over bytes, or over a binary source that is read once.

        Args:
            source: the resource's bytes, or an object with ``read``.
            resource: the name under which readers look for it.
            purpose: what the signature vouches for, such as ``"lab-result-release"``.

        Raises KeyAccessError, ConfigurationError, LimitExceededError (name and purpose beyond about
        3,000 bytes together), PhiInContextError by the guard.
        """
        return self._sign(fingerprint(resource, source, self._digest), purpose, DETACHED)

    def sign_manifest(self, resources: Resources, *, resource: str, purpose: str) -> tuple[bytes, bytes]:
        """Many resources under one signature: the manifest document and its signature file.

        Args:
            resources: (name, bytes or binary source) in the order that the signature vouches for.
            resource: the manifest's own name.
            purpose: as for :meth:`sign`.
        """
        entries = [fingerprint(name, source, self._digest) for name, source in resources]
        manifest = write_manifest(entries)
        self._check_names({f"resource {at}": entry.name for at, entry in enumerate(entries)})
        return manifest, self._sign(fingerprint(resource, manifest, self._digest), purpose, MANIFEST)

    def verify(
        self, source: Source, signature_file: bytes, *, resource: str, purpose: str, by_kms: bool = False
    ) -> Statement:
        """As :meth:`Verifier.verify`; ``by_kms=True`` asks KMS, which refuses disabled keys too."""
        verifier = self.verifier(by_kms=by_kms)
        return verifier.verify(source, signature_file, resource=resource, purpose=purpose)

    def verify_manifest(
        self,
        manifest: bytes,
        signature_file: bytes,
        resources: Resources,
        *,
        resource: str,
        purpose: str,
        by_kms: bool = False,
    ) -> Statement:
        """As :meth:`Verifier.verify_manifest`; ``by_kms=True`` asks KMS."""
        verifier = self.verifier(by_kms=by_kms)
        return verifier.verify_manifest(manifest, signature_file, resources, resource=resource, purpose=purpose)

    def verifier(self, *, by_kms: bool = False) -> Verifier:
        """What verifies this key's signatures, with its cached public key or by KMS."""
        return _SignersVerifier(self._key, self._trail, by_kms=by_kms)

    def _sign(self, subject: Fingerprint, purpose: str, predicate_type: str) -> bytes:
        self._check_names({"resource": subject.name, "purpose": purpose})
        signed_at = self._clock().astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        payload = write_statement(
            Statement(predicate_type, subject, purpose, self.key_arn, self.algorithm, signed_at)
        )
        with key_use(self._trail, "sign", subject.name) as use:
            use.byte_count = subject.length_bytes
            answer = self._key.sign(pae(PAYLOAD_TYPE, payload))
            use.origin = origin_of(answer, "Sign", self._key.arn)
        return write_envelope(payload, self.key_arn, answer.response["Signature"])

    def _check_names(self, names: dict[str, str]) -> None:
        """Names are signed as they are, so a guard that would replace one refuses it instead."""
        if self._guard is None:
            return
        checked = self._guard.check(names, where="signed statement")
        if replaced := [name for name in names if checked[name] != names[name]]:
            raise PhiInContextError(replaced, where="signed statement")
