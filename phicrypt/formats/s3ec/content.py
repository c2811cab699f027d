"""The body of S3 Encryption Client objects: one AES-GCM message with its tag at the end.

::

    version 3   key   = expand(suite id ‖ "DERIVEKEY", 32 bytes), HKDF-SHA512, salt = message id
                nonce = twelve bytes of 0x01, AAD = suite id (0x0073)
                commitment = expand(suite id ‖ "COMMITKEY", 28 bytes)
    version 2   key = data key, nonce = x-amz-iv, no AAD, no commitment

(``s3-encryption/key-derivation.md``). A body of n bytes is n + 16 bytes long, at most 64 GiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from phicrypt.core.materials import DataKey
from phicrypt.core.primitives import (
    GcmStreamOpener,
    GcmStreamSealer,
    constant_time_equal,
    hkdf_expand,
    hkdf_extract,
    random_bytes,
)
from phicrypt.core.process import ProcessBound
from phicrypt.core.suites import TAG_LENGTH_BYTES
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, LimitExceededError
from phicrypt.formats.s3ec.envelope import (
    MESSAGE_ID_LENGTH_BYTES,
    S3EC_COMMITMENT_LENGTH_BYTES,
    S3EC_V3_SUITE,
    S3ecEnvelope,
)

if TYPE_CHECKING:
    from phicrypt.core.spool import CiphertextSpool

MAX_PLAINTEXT_LENGTH_BYTES: Final = 2**36 - 32
"""AES-GCM's bound on one message (NIST SP 800-38D section 5.2.1.1)."""
_V3_NONCE: Final = b"\x01" * 12
_V3_AAD: Final = S3EC_V3_SUITE.id_bytes


def derive_v3_keys(data_key: DataKey, message_id: bytes) -> tuple[bytes, bytes]:
    """Content key (32 bytes) and commitment (28 bytes) of one version 3 object."""
    if len(data_key) != S3EC_V3_SUITE.data_key_length_bytes:
        raise ConfigurationError(f"a data key of 32 bytes was expected, the keyring gave {len(data_key)}")
    pseudorandom_key = hkdf_extract("sha512", message_id, data_key.key_bytes)
    return (
        hkdf_expand("sha512", pseudorandom_key, _V3_AAD + b"DERIVEKEY", 32),
        hkdf_expand("sha512", pseudorandom_key, _V3_AAD + b"COMMITKEY", S3EC_COMMITMENT_LENGTH_BYTES),
    )


def verify_commitment(envelope: S3ecEnvelope, data_key: DataKey) -> bytes:
    """The content key of a version 3 object; AuthenticationError unless the data key is the committed one."""
    content_key, commitment = derive_v3_keys(data_key, envelope.nonce)
    if not constant_time_equal(commitment, envelope.commitment):
        raise AuthenticationError("commitment")
    return content_key


class S3ecSealer(ProcessBound):
    """One version 3 object being written, in order.

    Attributes:
        envelope: its metadata.
    """

    __slots__ = ("_gcm", "_length", "envelope")

    def __init__(self, data_key: DataKey, wrapped_data_key: bytes, kms_context: Mapping[str, str]) -> None:
        super().__init__()
        message_id = random_bytes(MESSAGE_ID_LENGTH_BYTES)
        content_key, commitment = derive_v3_keys(data_key, message_id)
        self.envelope = S3ecEnvelope(S3EC_V3_SUITE, wrapped_data_key, kms_context, message_id, commitment)
        self._gcm: GcmStreamSealer | None = GcmStreamSealer(content_key, _V3_NONCE, _V3_AAD)
        self._length = 0

    def __repr__(self) -> str:
        return f"<S3ecSealer, {self._length} bytes sealed>"

    def update(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """The ciphertext of the next piece, of the same length."""
        return self._open().update(self._counted(plaintext))

    def finish(self) -> bytes:
        """The 16-byte tag. Nothing can be sealed afterwards."""
        tag = self._open().finish()
        self._gcm = None
        return tag

    def _open(self) -> GcmStreamSealer:
        self.check_process()
        if self._gcm is None:
            raise ConfigurationError("this object was finished; nothing can be sealed after its tag")
        return self._gcm

    def _counted(self, plaintext: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
        self._length += len(plaintext)
        if self._length > MAX_PLAINTEXT_LENGTH_BYTES:
            raise LimitExceededError(
                "an S3 Encryption Client object is too long in bytes",
                limit=MAX_PLAINTEXT_LENGTH_BYTES,
                actual=self._length,
            )
        return plaintext


def plaintext_length_of(stored_length_bytes: int) -> int:
    """The plaintext length of a stored body; FormatError where it cannot hold a tag."""
    if stored_length_bytes < TAG_LENGTH_BYTES:
        raise FormatError("the body is shorter than its authentication tag", field="S3EC body")
    return stored_length_bytes - TAG_LENGTH_BYTES


def open_content(
    envelope: S3ecEnvelope, data_key: DataKey, chunks: Iterable[bytes], spool: CiphertextSpool
) -> Iterator[bytes]:
    """Plaintext in order; the first piece comes only after the whole body was verified (rule 6).

    ``chunks`` is the stored body in order. Raises AuthenticationError, FormatError, LimitExceededError.
    """
    return verified_content(envelope, data_key, chunks, spool)()


def verified_content(
    envelope: S3ecEnvelope, data_key: DataKey, chunks: Iterable[bytes], spool: CiphertextSpool
) -> Callable[[], Iterator[bytes]]:
    """As :func:`open_content`, but what opens the verified body in ``spool`` from its begin, each time anew."""
    if envelope.suite is S3EC_V3_SUITE:
        parameters = (verify_commitment(envelope, data_key), _V3_NONCE, _V3_AAD)
    else:
        parameters = (data_key.key_bytes, envelope.nonce, b"")
    verifier = GcmStreamOpener(*parameters)
    held = b""
    length = 0
    for chunk in chunks:
        held += chunk
        body, held = held[:-TAG_LENGTH_BYTES], held[-TAG_LENGTH_BYTES:]
        length += len(body)
        if length > MAX_PLAINTEXT_LENGTH_BYTES:
            raise LimitExceededError(
                "the object is too long in bytes", limit=MAX_PLAINTEXT_LENGTH_BYTES, actual=length
            )
        if body:
            verifier.update(body)  # the plaintext is dropped: nothing is verified yet
            spool.append(body)
    if len(held) < TAG_LENGTH_BYTES:
        raise FormatError("the body is shorter than its authentication tag", field="S3EC body")
    verifier.verify(held, reason="body tag")

    def pieces() -> Iterator[bytes]:
        opener = GcmStreamOpener(*parameters)
        return (opener.update(chunk) for chunk in spool.verified_chunks())

    return pieces
