"""What a failure of a custom key store is: KMS has one code for all of them, and tells them apart in words.

A key in an external key store (XKS) is used through a proxy of the customer's. Whatever goes wrong there, and
between there and KMS, comes back as ``KMSInvalidStateException``, which for a key of KMS's own means its state.
AWS lists the words in "Troubleshooting external key stores".
"""

from __future__ import annotations

from typing import Final, NamedTuple

from phicrypt.errors import KEY_STORE_CODES


class StoreFailure(NamedTuple):
    """What to do about it, and whether the same call may succeed later by itself."""

    advice: str
    is_retryable: bool = False
    is_outage: bool = False


_SILENT: Final = StoreFailure(
    "KMS got no usable answer from the key's external key store: the same call may succeed later. If it lasts, "
    "look at the proxy, at the key manager behind it and at the network between. No other Region holds such a key",
    is_retryable=True,
    is_outage=True,
)
_BUSY: Final = StoreFailure(
    "the key's external key store cannot take so many requests: cache data keys longer, or use the "
    "hierarchical keyring",
    is_retryable=True,
)
_DISCONNECTED: Final = StoreFailure(
    "the key is in a key store that is not connected. Somebody may have disconnected it to stop the key's use: "
    "ask its operators; kms:ConnectCustomKeyStore connects it again"
)
_CREDENTIALS: Final = StoreFailure(
    "the external key store's proxy does not accept KMS's credential for it: its operators renew it there and "
    "with kms:UpdateCustomKeyStore"
)
_DENIED: Final = StoreFailure(
    "the external key store's own policy denies this operation to the caller: its operators grant it there, "
    "not in AWS"
)
_KEY_IS_GONE: Final = StoreFailure(
    "the external key store has no such key any more: its operators restore it under the same id. Nothing else "
    "opens what was sealed under it"
)
_KEY_IS_OFF: Final = StoreFailure(
    "the key is disabled, or not for this operation, in the external key manager: its operators decide "
    "about that there"
)
_CIPHERTEXT: Final = StoreFailure(
    "the encrypted data key or the context is not the one that this key sealed, or was changed on its way to the "
    "external key manager",
)
_BY_WORDS: Final = (
    ("cannot communicate with the external key store proxy", _SILENT),
    ("external key store proxy did not respond", _SILENT),
    ("external key store proxy is in an unhealthy state", _SILENT),
    ("cannot interpret the response", _SILENT),
    ("request rate", _BUSY),
    ("could not authenticate", _CREDENTIALS),
    ("denied access to the operation", _DENIED),
    ("could not find the external key", _KEY_IS_GONE),
    ("external key is not enabled", _KEY_IS_OFF),
    ("external key does not support", _KEY_IS_OFF),
    ("does not support the requested cryptographic operation", _KEY_IS_OFF),
    ("ciphertext or additional authenticated data", _CIPHERTEXT),
    ("external key store proxy submitted for decryption", _CIPHERTEXT),
    ("is not connected", _DISCONNECTED),
    ("is unavailable", _DISCONNECTED),
)


def store_failure(code: str, text: str) -> StoreFailure | None:
    """The failure that AWS's code and text mean; None where they say nothing of a key store."""
    if code not in KEY_STORE_CODES:
        return None
    words = " ".join(text.split()).lower()
    known = next((failure for part, failure in _BY_WORDS if part in words), None)
    return _SILENT if known is None and code.startswith("XksProxy") else known
