"""RawAesKeyring: AWS's raw AES keyring format, byte by byte (``framework/raw-aes-keyring.md``)."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.keyring_support import CONTEXT, changed, opens, to_decrypt, to_encrypt

from phicrypt.core.suites import DBE_SUITES, ESDK_SUITES, AlgorithmSuite
from phicrypt.errors import AuthenticationError, ConfigurationError, KeyAccessError
from phicrypt.keys.raw_aes import RawAesKeyring

WRAPPING_KEY = bytes(range(32))
SUITES = [*ESDK_SUITES.values(), *DBE_SUITES.values()]


def keyring(wrapping_key: bytes = WRAPPING_KEY, namespace: str = "clinic", name: str = "key-1") -> RawAesKeyring:
    return RawAesKeyring(namespace=namespace, name=name, wrapping_key=wrapping_key)


@pytest.mark.parametrize("length_bytes", [16, 24, 32])
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"{suite.suite_id:04x}")
def test_opens_what_it_sealed(suite: AlgorithmSuite, length_bytes: int) -> None:
    ring = keyring(bytes(range(length_bytes)))
    sealed = ring.on_encrypt(to_encrypt(suite=suite))
    assert len(sealed.data_key) == suite.data_key_length_bytes
    assert opens(ring, sealed).origin.key_id == "key-1"


def test_layout_of_the_encrypted_data_key() -> None:
    materials = to_encrypt()
    sealed = keyring().on_encrypt(materials)
    (wrapped,) = sealed.encrypted_data_keys
    assert wrapped.provider_id == "clinic"
    assert wrapped.provider_info[:13] == b"key-1" + b"\x00\x00\x00\x80" + b"\x00\x00\x00\x0c"
    iv = wrapped.provider_info[13:]
    assert len(iv) == 12
    assert len(wrapped.ciphertext) == 32 + 16
    opened = AESGCM(WRAPPING_KEY).decrypt(iv, wrapped.ciphertext, materials.context_bytes)
    assert opened == sealed.data_key.key_bytes


def test_data_key_and_iv_are_new_each_time() -> None:
    sealed = [keyring().on_encrypt(to_encrypt()) for _ in range(50)]
    assert len({one.data_key.key_bytes for one in sealed}) == 50
    assert len({one.encrypted_data_keys[0].provider_info for one in sealed}) == 50


def test_wraps_an_existing_data_key_for_a_second_recipient() -> None:
    first, second = keyring(), keyring(bytes(16), "archive", "key-2")
    sealed = second.on_encrypt(first.on_encrypt(to_encrypt()))
    assert (opens(first, sealed).recipient_index, opens(second, sealed).recipient_index) == (0, 1)
    assert sealed.origin.key_id == "key-1"


@pytest.mark.parametrize("suite", [ESDK_SUITES[0x0478], DBE_SUITES[0x6700]], ids=["esdk", "dbe"])
def test_no_changed_bit_opens(suite: AlgorithmSuite) -> None:
    (wrapped,) = keyring().on_encrypt(to_encrypt(suite=suite)).encrypted_data_keys
    for field in ("provider_info", "ciphertext"):
        original = getattr(wrapped, field)
        for bit in range(len(original) * 8):
            other = bytearray(original)
            other[bit // 8] ^= 1 << bit % 8
            # A changed name is another wrapping key; whatever else changed does not verify.
            names_another_key = field == "provider_info" and bit // 8 < len(original) - 12
            with pytest.raises(KeyAccessError if names_another_key else AuthenticationError):
                keyring().on_decrypt(to_decrypt(suite=suite), [changed(wrapped, **{field: bytes(other)})])


@pytest.mark.parametrize("suite", [ESDK_SUITES[0x0478], DBE_SUITES[0x6700]], ids=["esdk", "dbe"])
@pytest.mark.parametrize("field", ["provider_info", "ciphertext"])
def test_no_truncated_or_extended_data_key_opens(suite: AlgorithmSuite, field: str) -> None:
    (wrapped,) = keyring().on_encrypt(to_encrypt(suite=suite)).encrypted_data_keys
    original = getattr(wrapped, field)
    for other in (*(original[:length] for length in range(len(original))), original + b"\x00"):
        with pytest.raises(KeyAccessError if field == "provider_info" else AuthenticationError):
            keyring().on_decrypt(to_decrypt(suite=suite), [changed(wrapped, **{field: other})])


@pytest.mark.parametrize(
    "other",
    [
        keyring(namespace="clinic-2"),
        keyring(name="key-2"),
        keyring(name="key-"),
        keyring(name="key-1\x00"),
    ],
    ids=["namespace", "name", "shorter name", "longer name"],
)
def test_another_keyring_does_not_open(other: RawAesKeyring) -> None:
    sealed = keyring().on_encrypt(to_encrypt())
    with pytest.raises(KeyAccessError) as caught:
        other.on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    assert caught.value.code == "NoMatchingDataKey"


def test_another_wrapping_key_of_the_same_name_does_not_open() -> None:
    sealed = keyring().on_encrypt(to_encrypt())
    with pytest.raises(AuthenticationError):
        keyring(bytes(32)).on_decrypt(to_decrypt(), sealed.encrypted_data_keys)


@pytest.mark.parametrize("context", [{}, {"tenant": "clinic-7"}, {**CONTEXT, "tenant": "clinic-8"}])
def test_another_context_does_not_open(context: dict[str, str]) -> None:
    sealed = keyring().on_encrypt(to_encrypt())
    with pytest.raises(AuthenticationError) as caught:
        keyring().on_decrypt(to_decrypt(context), sealed.encrypted_data_keys)
    assert "clinic-7" not in str(caught.value)


def test_a_data_key_of_another_suites_length_does_not_open() -> None:
    sealed = keyring().on_encrypt(to_encrypt(suite=ESDK_SUITES[0x0114]))
    with pytest.raises(AuthenticationError):
        keyring().on_decrypt(to_decrypt(suite=ESDK_SUITES[0x0478]), sealed.encrypted_data_keys)


@pytest.mark.parametrize("wrapping_key", [b"", bytes(15), bytes(33), "x" * 32, bytearray(32), None])
def test_refuses_a_wrapping_key_that_is_not_16_24_or_32_bytes(wrapping_key: Any) -> None:
    with pytest.raises(ConfigurationError, match="16, 24 or 32"):
        keyring(wrapping_key)


@pytest.mark.parametrize(
    ("namespace", "name"), [("", "n"), ("aws-kms", "n"), ("aws-kms-hierarchy", "n"), ("c", "")]
)
def test_refuses_empty_names_and_the_namespace_of_kms(namespace: str, name: str) -> None:
    with pytest.raises(ConfigurationError):
        keyring(namespace=namespace, name=name)


def test_rule_11_identity_tells_wrapping_keys_of_one_name_apart_without_showing_them() -> None:
    assert keyring().identity == keyring().identity
    different = [keyring(), keyring(bytes(32)), keyring(name="key-2"), keyring(namespace="archive")]
    assert len({one.identity for one in different}) == 4
    for text in (repr(keyring().identity), repr(keyring())):
        assert repr(WRAPPING_KEY)[2:-1] not in text
        assert WRAPPING_KEY.hex() not in text


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_cannot_be_copied_or_pickled(duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be copied"):
        duplicate(keyring())
