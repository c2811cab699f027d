"""From data key to message key and commitment (``framework/transitive-requirements.md``).

Suites of version 2 (HKDF-SHA512, salt = message id, one extraction for both outputs)::

    message key  = expand(suite id ‖ "DERIVEKEY", 32 bytes)
    commitment   = expand("COMMITKEY", 32 bytes)

Suites of version 1 with HKDF: no salt, info = suite id ‖ message id, length of the suite's key.
Suites without derivation use the data key itself.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from phicrypt.errors import ConfigurationError
from phicrypt.materials import DataKey
from phicrypt.primitives import hkdf, hkdf_expand, hkdf_extract
from phicrypt.suites import COMMITMENT_LENGTH_BYTES, AlgorithmSuite, Kdf

_COMMIT_INFO: Final = b"COMMITKEY"
_DERIVE_INFO: Final = b"DERIVEKEY"


class DerivedKeys(NamedTuple):
    """The key that encrypts header and body of one message, and the commitment of its header."""

    message_key: bytes
    commitment: bytes

    def __repr__(self) -> str:
        return "<DerivedKeys>"


def derive_keys(suite: AlgorithmSuite, data_key: DataKey, message_id: bytes) -> DerivedKeys:
    """The keys of one message; raises ConfigurationError for a data key of another length."""
    key_bytes = data_key.key_bytes
    if len(key_bytes) != suite.data_key_length_bytes:
        raise ConfigurationError(
            f"suite {suite.name} needs a data key of {suite.data_key_length_bytes} bytes, "
            f"the keyring gave {len(key_bytes)}"
        )
    if suite.is_committing:
        pseudorandom_key = hkdf_extract("sha512", message_id, key_bytes)
        return DerivedKeys(
            hkdf_expand("sha512", pseudorandom_key, suite.id_bytes + _DERIVE_INFO, suite.data_key_length_bytes),
            hkdf_expand("sha512", pseudorandom_key, _COMMIT_INFO, COMMITMENT_LENGTH_BYTES),
        )
    if suite.kdf is Kdf.IDENTITY:
        return DerivedKeys(key_bytes, b"")
    return DerivedKeys(
        hkdf(suite.kdf.value, b"", key_bytes, suite.id_bytes + message_id, suite.data_key_length_bytes), b""
    )
