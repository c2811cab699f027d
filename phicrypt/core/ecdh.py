"""Between whom an ECDH data key was sealed, as its provider info says (``framework/raw-ecdh-keyring.md``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from phicrypt.core.materials import EncryptedDataKey

if TYPE_CHECKING:
    from phicrypt.core.key_pairs import EcCurve

RAW_ECDH_PROVIDER_ID: Final = "raw-ecdh"
KMS_ECDH_PROVIDER_ID: Final = "aws-kms-ecdh"
_VERSION: Final = b"\x01"


class Parties(NamedTuple):
    """Between whom an encrypted data key was sealed: their compressed points on one curve."""

    curve: EcCurve
    sender: bytes
    recipient: bytes

    @property
    def provider_info(self) -> bytes:
        """The encrypted data key's provider info."""
        length = self.curve.point_length_bytes.to_bytes(4, "big")
        return _VERSION + length + self.recipient + length + self.sender

    def fixed_info(self, context_bytes: bytes) -> bytes:
        """What the derivation and the wrapping bind: the parties and the context."""
        points = self.sender + self.recipient
        return b"\x00".join(
            (b"ecdh-key-derivation", self.curve.name.encode(), b"HMAC_SHA384", points, _VERSION, context_bytes)
        )


def parties_of(encrypted_data_key: EncryptedDataKey, curve: EcCurve) -> Parties | None:
    """Between whom it was sealed; None for whatever is no ECDH data key on this curve."""
    if encrypted_data_key.provider_id not in (RAW_ECDH_PROVIDER_ID, KMS_ECDH_PROVIDER_ID):
        return None
    # Not parsed, but made again and compared: no length in a message is ever followed.
    info, length = encrypted_data_key.provider_info, curve.point_length_bytes
    parties = Parties(curve, sender=info[-length:], recipient=info[5 : 5 + length])
    return parties if info == parties.provider_info else None


def recipient_of(encrypted_data_key: EncryptedDataKey) -> str | None:
    """The fingerprint of the key to which an ECDH data key was sealed; None for whatever names no such key."""
    from phicrypt.core.key_pairs import EC_CURVES, EcPublicKey
    from phicrypt.errors import AuthenticationError

    for curve in EC_CURVES:
        parties = parties_of(encrypted_data_key, curve)
        if parties is not None:
            try:
                return EcPublicKey.at_point(curve, parties.recipient).fingerprint
            except AuthenticationError:
                return None
    return None
