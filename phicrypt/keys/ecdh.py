"""What AWS's ECDH keyrings share: whom an encrypted data key is for, and how a shared secret wraps one.

``framework/raw-ecdh-keyring.md`` and ``framework/key-agreement-schemas.md``; an encrypted data key is::

    provider id     "raw-ecdh" or "aws-kms-ecdh": who sealed; either opens the other's
    provider info   0x01 ‖ length (4 bytes) ‖ recipient's compressed point ‖ length (4 bytes) ‖ sender's
    ciphertext      salt (32 bytes) ‖ commitment (32 bytes) ‖ AES-256-GCM(wrapping key, IV of zeros, data key)

    commitment ‖ wrapping key = KDF in counter mode, HMAC-SHA-384(shared secret, fixed info ‖ 0x00 ‖ salt)
    fixed info, also the AAD  = "ecdh-key-derivation" ‖ 0x00 ‖ curve ‖ 0x00 ‖ "HMAC_SHA384" ‖ 0x00
                                ‖ sender's point ‖ recipient's point ‖ 0x00 ‖ 0x01 ‖ 0x00 ‖ context

The salt is new for each data key, and so is the wrapping key: the IV of zeros seals once (rule 3). The context
is bound here and by no service; nothing of it leaves this process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from phicrypt.core.ecdh import Parties
from phicrypt.core.keyed_hashes import kdf_counter_mode
from phicrypt.core.materials import DecryptionMaterials, EncryptionMaterials
from phicrypt.core.primitives import constant_time_equal, open_gcm, random_bytes, seal_gcm
from phicrypt.core.suites import IV_LENGTH_BYTES, TAG_LENGTH_BYTES
from phicrypt.errors import AuthenticationError
from phicrypt.keys.wrapping import UnwrappedDataKey, WrappedDataKey, unwrap_data_key, wrap_data_key

if TYPE_CHECKING:
    from phicrypt.core.key_pairs import EcPublicKey

_SALT_LENGTH_BYTES: Final = 32
_COMMITMENT_LENGTH_BYTES: Final = 32
_WRAPPING_KEY_LENGTH_BYTES: Final = 32
_ZERO_IV: Final = bytes(IV_LENGTH_BYTES)


def sealed_for(
    parties: Parties, shared_secret: Callable[[], bytes], materials: EncryptionMaterials
) -> WrappedDataKey:
    """The materials' data key, generated if there is none, wrapped under a key of this shared secret."""
    fixed_info = parties.fixed_info(materials.context_bytes)

    def wrap(plaintext_key: bytes) -> bytes:
        salt = random_bytes(_SALT_LENGTH_BYTES)
        commitment, wrapping_key = _derive(shared_secret(), fixed_info, salt)
        return salt + commitment + seal_gcm(wrapping_key, _ZERO_IV, plaintext_key, fixed_info)

    return wrap_data_key(materials, wrap)


def opened_with(
    parties: Parties, shared_secret: bytes, materials: DecryptionMaterials, ciphertext: bytes
) -> UnwrappedDataKey:
    """The data key that was wrapped between these parties; AuthenticationError if it was not, or was changed."""
    fixed_info = parties.fixed_info(materials.context_bytes)
    wrapped_length = materials.suite.data_key_length_bytes + TAG_LENGTH_BYTES

    def unwrap(wrapped: bytes) -> bytes:
        if len(wrapped) != _SALT_LENGTH_BYTES + _COMMITMENT_LENGTH_BYTES + wrapped_length:
            raise AuthenticationError("encrypted data key length")
        salt, commitment = wrapped[:_SALT_LENGTH_BYTES], wrapped[_SALT_LENGTH_BYTES:-wrapped_length]
        expected, wrapping_key = _derive(shared_secret, fixed_info, salt)
        if not constant_time_equal(commitment, expected):
            raise AuthenticationError("encrypted data key")
        return open_gcm(wrapping_key, _ZERO_IV, wrapped[-wrapped_length:], fixed_info, reason="encrypted data key")

    return unwrap_data_key(materials, ciphertext, unwrap)


def counterpart_of(
    parties: Parties, own_point: bytes | None, counterpart: EcPublicKey | None
) -> EcPublicKey | None:
    """With whom the secret of these parties is shared; None where they are others than this keyring's.

    With a configured counterpart, the two may have sealed in either direction, and an own point that is not
    known is whatever stands beside the counterpart's: a false one makes another derivation. Without, anyone may
    have sealed to the own point, and AuthenticationError is raised where a sender's is not on the curve.
    """
    if counterpart is None:
        from phicrypt.core.key_pairs import EcPublicKey

        return EcPublicKey.at_point(parties.curve, parties.sender) if parties.recipient == own_point else None
    named = [parties.sender, parties.recipient]
    if counterpart.point not in named:
        return None
    named.remove(counterpart.point)
    return counterpart if own_point in (None, named[0]) else None


def _derive(shared_secret: bytes, fixed_info: bytes, salt: bytes) -> tuple[bytes, bytes]:
    """The commitment and the wrapping key."""
    length = _COMMITMENT_LENGTH_BYTES + _WRAPPING_KEY_LENGTH_BYTES
    derived = kdf_counter_mode("sha384", shared_secret, fixed_info, salt, length)
    return derived[:_COMMITMENT_LENGTH_BYTES], derived[_COMMITMENT_LENGTH_BYTES:]
