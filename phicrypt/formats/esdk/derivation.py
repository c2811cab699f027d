"""From data key to message key and commitment (``framework/transitive-requirements.md``).

Suites of version 2 (HKDF-SHA512, salt = message id, one extraction for both outputs)::

    message key  = expand(suite id ‖ "DERIVEKEY", 32 bytes)
    commitment   = expand("COMMITKEY", 32 bytes)

Suites of version 1 with HKDF: no salt, info = suite id ‖ message id, length of the suite's key.
Suites without derivation use the data key itself.
"""

from __future__ import annotations

from typing import Final

from phicrypt.core.materials import DataKey
from phicrypt.core.primitives import hkdf, hkdf_expand_two, hkdf_extract
from phicrypt.core.suites import COMMITMENT_LENGTH_BYTES, ESDK_SUITES, AlgorithmSuite, Kdf
from phicrypt.errors import ConfigurationError

_COMMITMENT_INFO: Final = b"COMMITKEY"
_MESSAGE_KEY_INFO: Final = {
    suite.suite_id: suite.id_bytes + b"DERIVEKEY" for suite in ESDK_SUITES.values() if suite.is_committing
}


def derive_keys(suite: AlgorithmSuite, data_key: DataKey, message_id: bytes) -> tuple[bytes, bytes]:
    """The message key and the commitment (``b""`` without one) of one message.

    Raises ConfigurationError for a data key that has not the suite's length.
    """
    key_bytes = data_key.key_bytes
    if len(key_bytes) != suite.data_key_length_bytes:
        raise ConfigurationError(
            f"suite {suite.name} needs a data key of {suite.data_key_length_bytes} bytes, "
            f"the keyring gave {len(key_bytes)}"
        )
    if suite.is_committing:
        # Both outputs are as long: COMMITMENT_LENGTH_BYTES and the keys of these suites are 32 bytes.
        return hkdf_expand_two(
            "sha512",
            hkdf_extract("sha512", message_id, key_bytes),
            _MESSAGE_KEY_INFO[suite.suite_id],
            _COMMITMENT_INFO,
            COMMITMENT_LENGTH_BYTES,
        )
    if suite.kdf is Kdf.IDENTITY:
        return key_bytes, b""
    return (hkdf(suite.kdf.value, b"", key_bytes, suite.id_bytes + message_id, suite.data_key_length_bytes), b"")
