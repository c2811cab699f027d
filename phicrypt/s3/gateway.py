"""What every verb needs: the raw S3 client, the settings, contexts, materials and the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl

from phicrypt.core.context import AnyContext, plain_context, serialize_context
from phicrypt.core.materials import DataKey, EncryptedDataKey, Keyring
from phicrypt.core.spool import CiphertextSpool
from phicrypt.core.suites import (
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
    AlgorithmSuite,
)
from phicrypt.errors import ConfigurationError, ContextMismatchError
from phicrypt.formats.esdk.header import MessageHeader
from phicrypt.formats.esdk.opening import MessageOpener
from phicrypt.formats.esdk.sealing import MessageSealer
from phicrypt.formats.s3ec.envelope import (
    S3EC_METADATA_NAMES,
    S3EC_V3_SUITE,
    S3ecEnvelope,
    kms_context_of,
)
from phicrypt.messages.stream_uses import StreamUse
from phicrypt.s3.location import location_pair
from phicrypt.s3.options import S3Options
from phicrypt.s3.writing.sealing import METADATA_PREFIX, OutgoingMessage, OutgoingObject, OutgoingS3ec

if TYPE_CHECKING:
    from phicrypt.audit.trail import Use
    from phicrypt.client import PhiCrypt
    from phicrypt.posture.write_guard import BucketWriteGuard

FIRST_PROBE_BYTES: Final = 128
"""Shorter than any header that phicrypt writes, so that the first probe fetches no frame."""


GET_OBJECT: Final = "s3.get_object"
"""The audit trail's name of a read; also of the source of a copy, as in IAM's permissions."""
REWRAP: Final = "s3.rewrap"
"""And of a change of keys."""


class Reading(NamedTuple):
    """What the caller of one read demands.

    Attributes:
        pairs: the caller's pairs, checked and guarded; None for ``ANY_CONTEXT``.
        require_signed, allow_uncommitted: as of ``PhiCrypt.decrypt``.
        operation: how the audit trail names the read.
    """

    pairs: Mapping[str, str] | None
    require_signed: bool = False
    allow_uncommitted: bool = False
    operation: str = GET_OBJECT

    def __repr__(self) -> str:
        return f"<Reading, {'any context' if self.pairs is None else f'{len(self.pairs)} pairs'}>"


class Gateway:
    """One encrypted S3 client's inside; the verbs stand in their own modules."""

    def __init__(self, phi: PhiCrypt, s3: Any, options: S3Options, write_guard: BucketWriteGuard | None) -> None:
        self.phi = phi
        self.s3 = s3
        self.options = options
        self.write_guard = write_guard
        self._header_rests: dict[str, int] = {}
        self._spare_buffers: list[bytearray] = []

    def with_fresh_keys(self, keyring: Keyring) -> Gateway:
        """The same settings, guard and audit trail under a keyring whose data keys are not cached.

        An object that is sealed again gets a data key of its own, also where its context is the old one (rule 3).
        """
        from phicrypt.client import PhiCrypt

        phi = self.phi
        sibling = PhiCrypt(
            keyring,
            cache=None,
            audit=phi.trail or (),
            guard=phi.guard,
            limits=phi.limits,
            frame_length_bytes=phi.frame_length_bytes,
            threads=phi.threads,
        )
        return Gateway(sibling, self.s3, self.options, self.write_guard)

    def writing_esdk(self, *, signed: bool) -> Gateway:
        """The same, writing messages: a change of key takes neither signature nor location away."""
        options = replace(self.options, format="esdk", signed=signed or self.options.signed)
        return Gateway(self.phi, self.s3, options, self.write_guard)

    # --- contexts -------------------------------------------------------------------------------

    def writing_context(self, bucket: str, object_key: str, own: Any) -> dict[str, str]:
        """The pairs that a new object is bound to; raises before anything is sealed or sent."""
        pairs = {**self.options.context, **plain_context(own)}
        if self.phi.guard is not None:
            pairs = dict(self.phi.guard.check(pairs))
        if self.options.format == "s3ec":
            return kms_context_of(pairs, S3EC_V3_SUITE)
        if self.options.bind_location:
            pairs |= location_pair(bucket, object_key, self.options.logical_buckets)
        return pairs

    def reading(
        self,
        own: Any,
        *,
        require_signed: bool = False,
        allow_uncommitted: bool = False,
        operation: str = GET_OBJECT,
    ) -> Reading:
        """What a read demands; ``ANY_CONTEXT`` drops the caller's pairs, never the location."""
        if isinstance(own, AnyContext):
            return Reading(None, require_signed, allow_uncommitted, operation)
        pairs = {**self.options.context, **plain_context(own)}
        if pairs:
            pairs = self.phi.contexts.expected(pairs) or {}
        return Reading(pairs, require_signed, allow_uncommitted, operation)

    def expected_pairs(self, bucket: str, object_key: str, reading: Reading) -> dict[str, str] | None:
        """The pairs that an ESDK object must hold; None where nothing is expected.

        Raises ConfigurationError where the caller gave no pair and the location is not bound
        (rule 8): that would accept every object that the keyring opens.
        """
        pairs = self._demanded_pairs(bucket, object_key, reading)
        if not pairs and reading.pairs is not None:
            raise ConfigurationError(
                "with bind_location=False a read names its pairs: EncryptionContext={…}, the client's context=, "
                "or ANY_CONTEXT"
            )
        return pairs or None

    def _demanded_pairs(self, bucket: str, object_key: str, reading: Reading) -> dict[str, str]:
        pairs = dict(reading.pairs or {})
        if self.options.bind_location:
            pairs |= location_pair(bucket, object_key, self.options.logical_buckets)
        return pairs

    # --- what stands in clear beside the object ------------------------------------------------------

    def user_metadata(self, metadata: Mapping[str, str] | None) -> dict[str, str]:
        """A caller's metadata, guarded; names that the formats use are refused."""
        metadata = dict(metadata or {})
        for name in metadata:
            if name.lower().startswith(METADATA_PREFIX) or name.lower() in S3EC_METADATA_NAMES:
                raise ConfigurationError(
                    f"the metadata name {name!r} is written by the encrypted formats themselves"
                )
        return self._guarded_beside(metadata, "S3 metadata")

    def check_tagging(self, tagging: str | None) -> None:
        """Guard tags in the form of a URL query, as ``Tagging=`` has them."""
        if tagging:
            self._guarded_beside(dict(parse_qsl(tagging, keep_blank_values=True)), "S3 tag")

    def check_tag_set(self, tags: Any) -> None:
        """Guard tags in the form of a list of ``{"Key": …, "Value": …}``."""
        self._guarded_beside({str(tag.get("Key")): str(tag.get("Value")) for tag in tags}, "S3 tag")

    def check_sse_context(self, encoded: str | None) -> None:
        """Guard the context that S3's own KMS encryption writes into CloudTrail: base64 of a JSON object."""
        if not encoded:
            return
        import base64
        import json

        try:
            pairs = json.loads(base64.b64decode(encoded, validate=True))
            self._guarded_beside({str(name): str(value) for name, value in pairs.items()}, "SSE-KMS context")
        except (ValueError, AttributeError):
            raise ConfigurationError("SSEKMSEncryptionContext is base64 of a JSON object of text") from None

    def _guarded_beside(self, pairs: dict[str, str], where: str) -> dict[str, str]:
        if self.phi.guard is None or not pairs:
            return pairs
        return dict(self.phi.guard.check(pairs, where=where))

    def check_object_key(self, object_key: str) -> None:
        """Guard the key of a new object."""
        if self.phi.guard is not None:
            self.phi.guard.check_name({"object-key": object_key}, where="object key")

    def check_bucket(self, bucket: str) -> None:
        """With ``require_private_bucket``: refuse to write to a bucket that is not private."""
        if self.write_guard is not None:
            self.write_guard.check(bucket)

    # --- materials -------------------------------------------------------------------------------

    def begin_object(
        self, operation: str, bucket: str, object_key: str, own: Any, plaintext_length_bytes: int | None
    ) -> tuple[OutgoingObject, StreamUse]:
        """Materials and a sealed header (or envelope) for one new object, and its audited use.

        ``operation`` is how the audit trail names it, such as ``"s3.put_object"``.

        With a known length the bytes are charged here; else ``use.count`` charges them as they pass.
        """
        context = self.writing_context(bucket, object_key, own)
        if operation != REWRAP:  # an object that is there already, under that key
            self.check_object_key(object_key)
        self.check_bucket(bucket)
        options = self.options
        audit_use = self.begin_use(
            operation,
            bucket,
            object_key,
            format_name="s3ec-v3" if options.format == "s3ec" else "esdk",
            context=context,
            sealing=True,
        )
        use = StreamUse(audit_use)
        provider = self.phi.provider
        suite = self._suite_to_write()
        try:
            if suite is S3EC_V3_SUITE:
                check_s3ec_keyring(provider.keyring)
            materials, hit = provider.encryption_materials(
                suite, context, plaintext_length_bytes=plaintext_length_bytes
            )
            outgoing: OutgoingObject
            if suite is S3EC_V3_SUITE:
                outgoing = OutgoingS3ec(materials)
            else:
                sealer = MessageSealer(materials, options.frame_length_bytes, options.limits)
                outgoing = OutgoingMessage(materials, sealer)
        except BaseException as error:
            use.end(error)
            raise
        if plaintext_length_bytes is None:
            use.charge = lambda count: provider.charge(materials, count)
        if audit_use is not None:
            audit_use.suite_id, audit_use.message_id = suite.suite_id, outgoing.message_id.hex()
            audit_use.origin, audit_use.cache_hit = materials.origin, hit
        return outgoing, use

    def _suite_to_write(self) -> AlgorithmSuite:
        if self.options.format == "s3ec":
            return S3EC_V3_SUITE
        if self.options.signed:
            return AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384
        return AES_256_GCM_HKDF_SHA512_COMMIT_KEY

    def open_message(
        self, bucket: str, object_key: str, header: MessageHeader, reading: Reading
    ) -> tuple[MessageOpener, StreamUse]:
        """The opener of a parsed header after every demand of the reader was checked, and its audited use."""
        expected = self.expected_pairs(bucket, object_key, reading)
        audit_use = self.begin_use(
            reading.operation,
            bucket,
            object_key,
            format_name="esdk",
            context=self.phi.contexts.loggable(header.context, header.context_bytes),
        )
        use = StreamUse(audit_use)
        if audit_use is not None:
            audit_use.suite_id, audit_use.message_id = header.suite.suite_id, header.message_id.hex()
        try:
            materials, hit = self.phi.materials_to_open(
                header, expected, reading.require_signed, reading.allow_uncommitted
            )
            if audit_use is not None:
                audit_use.origin, audit_use.cache_hit = materials.origin, hit
            return MessageOpener(header, materials), use
        except BaseException as error:
            use.end(error)
            raise

    def open_s3ec(
        self, bucket: str, object_key: str, envelope: S3ecEnvelope, reading: Reading
    ) -> tuple[DataKey, StreamUse]:
        """The data key of an S3 Encryption Client object; its context must equal the reader's (rule 7)."""
        audit_use = self.begin_use(
            reading.operation,
            bucket,
            object_key,
            format_name=f"s3ec-v{envelope.version}",
            context=self.phi.contexts.loggable(envelope.kms_context),
        )
        use = StreamUse(audit_use)
        if audit_use is not None:
            audit_use.suite_id, audit_use.message_id = envelope.suite.suite_id, envelope.nonce.hex()
        try:
            _check_equal_context(envelope, reading)
            provider = self.phi.provider
            key_arn = check_s3ec_keyring(provider.keyring)
            wrapped = EncryptedDataKey("aws-kms", key_arn.encode(), envelope.wrapped_data_key)
            materials, hit = provider.decryption_materials(
                envelope.suite, envelope.kms_context, (wrapped,), expected=envelope.kms_context
            )
        except BaseException as error:
            use.end(error)
            raise
        if audit_use is not None:
            audit_use.origin, audit_use.cache_hit = materials.origin, hit
        assert materials.data_key is not None
        return materials.data_key, use

    def new_spool(self) -> CiphertextSpool:
        """Where the ciphertext of a body waits for its tag (rule 6)."""
        limits = self.options.limits
        return CiphertextSpool(memory_bytes=limits.spool_memory_bytes, max_bytes=limits.max_spool_bytes)

    def begin_use(
        self,
        operation: str,
        bucket: str,
        object_key: str,
        *,
        format_name: str,
        context: Mapping[str, str],
        sealing: bool = False,
    ) -> Use | None:
        """The begin record of a use, before any key is asked for (rule 20)."""
        if self.phi.trail is None:
            return None
        return self.phi.trail.recorded(
            operation,
            format=format_name,
            context=context,
            resource=("s3", bucket, object_key),
            sealing=sealing,
        )

    # --- buffers and probes --------------------------------------------------------------------------

    def take_spare_buffer(self) -> bytearray:
        """Memory for the ciphertext of one ``put_object``.

        Fresh memory costs several times the cipher itself (a page fault for every 4 KiB), so one
        buffer is kept. It belongs to the caller until it is given back, and holds ciphertext only.
        """
        try:
            return self._spare_buffers.pop()
        except IndexError:
            return bytearray()

    def give_spare_buffer(self, buffer: bytearray) -> None:
        """Give a buffer back that botocore is done with."""
        if not self._spare_buffers:
            self._spare_buffers.append(buffer)

    def probe_length(self, bucket: str, object_key: str, reading: Reading) -> int:
        """How many bytes to fetch first: what the headers seen in the bucket had beside their contexts, and
        the pairs that this one must hold. A header is never shorter, so no byte of a frame is among them.
        """
        known = self._header_rests.get(bucket)
        if known is None:
            return FIRST_PROBE_BYTES
        return known + len(serialize_context(self._demanded_pairs(bucket, object_key, reading)))

    def saw_header(self, bucket: str, header: MessageHeader) -> None:
        """Remember a header's length for the next probe."""
        if len(self._header_rests) > 1_000:
            self._header_rests.clear()
        rest = header.length_bytes - len(header.context_bytes)
        self._header_rests[bucket] = min(self._header_rests.get(bucket, rest), rest)


def _check_equal_context(envelope: S3ecEnvelope, reading: Reading) -> None:
    if reading.require_signed:
        raise ConfigurationError("S3 Encryption Client objects are never signed; RequireSigned refuses them all")
    stored = envelope.caller_context
    if reading.pairs is not None and stored != reading.pairs:
        raise ContextMismatchError({name for name, _ in stored.items() ^ reading.pairs.items()})


def check_s3ec_keyring(keyring: Keyring) -> str:
    """The ARN of the one KMS key of the keyring; ConfigurationError for any other keyring (rule 16)."""
    from phicrypt.keys.kms.keyring import KmsKeyring

    if not isinstance(keyring, KmsKeyring) or keyring.key_arn is None:
        raise ConfigurationError(
            "S3 Encryption Client objects hold one data key wrapped by KMS: their keyring is a KmsKeyring with a "
            f"key ARN, not {type(keyring).__name__}"
        )
    return keyring.key_arn
