"""Direct and intermediate wrapping of data keys (``framework/algorithm-suites.md``)."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from support.keyring_support import CONTEXT, kms_keyring, to_decrypt, to_encrypt

from phicrypt.core.materials import DataKey
from phicrypt.core.suites import DBE_SUITES, ESDK_SUITES
from phicrypt.errors import AuthenticationError
from phicrypt.keys.cache import CachePolicy
from phicrypt.keys.provider import MaterialsProvider
from phicrypt.keys.raw_aes import RawAesKeyring
from phicrypt.keys.wrapping import unwrap_data_key, wrap_data_key
from phicrypt.testing import StrictKms

DBE = DBE_SUITES[0x6700]
ESDK = ESDK_SUITES[0x0478]


def mirrored(plaintext_key: bytes) -> bytes:
    """A provider whose wrapping is its own inverse, so that tests see what was wrapped."""
    return plaintext_key[::-1]


def derive(intermediate_key: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA512(), 32, None, info).derive(intermediate_key)


def test_esdk_suites_wrap_the_data_key_itself() -> None:
    wrapped = wrap_data_key(to_encrypt(suite=ESDK), mirrored)
    assert wrapped.ciphertext[::-1] == wrapped.generated_data_key.key_bytes
    assert wrapped.symmetric_signing_key is None


def test_dbe_suites_follow_the_specification_byte_by_byte() -> None:
    materials = to_encrypt(suite=DBE)
    wrapped = wrap_data_key(materials, mirrored)
    sealed, intermediate_key = wrapped.ciphertext[:48], wrapped.ciphertext[48:][::-1]
    assert len(intermediate_key) == 32
    wrapping_key = derive(intermediate_key, b"AWS_MPL_INTERMEDIATE_KEYWRAP_ENC")
    data_key = AESGCM(wrapping_key).decrypt(bytes(12), sealed, materials.context_bytes)
    assert data_key == wrapped.generated_data_key.key_bytes
    assert wrapped.symmetric_signing_key.key_bytes == derive(intermediate_key, b"AWS_MPL_INTERMEDIATE_KEYWRAP_MAC")


def test_a_providers_own_generation_is_used_for_the_key_that_it_wraps() -> None:
    generated: list[int] = []

    def generate(length_bytes: int) -> tuple[bytes, bytes]:
        generated.append(length_bytes)
        return bytes(range(length_bytes)), b"blob"

    direct = wrap_data_key(to_encrypt(suite=ESDK), mirrored, generate=generate)
    assert (direct.generated_data_key.key_bytes, direct.ciphertext) == (bytes(range(32)), b"blob")
    intermediate = wrap_data_key(to_encrypt(suite=DBE), mirrored, generate=generate)
    assert intermediate.ciphertext[48:] == b"blob"
    assert intermediate.generated_data_key.key_bytes != bytes(range(32))
    assert generated == [32, 32]


@pytest.mark.parametrize("suite", [ESDK, DBE], ids=["esdk", "dbe"])
def test_a_generated_key_of_the_wrong_length_is_refused(suite: Any) -> None:
    with pytest.raises(AuthenticationError):
        wrap_data_key(to_encrypt(suite=suite), mirrored, generate=lambda length: (bytes(length - 1), b"blob"))


@pytest.mark.parametrize("suite", [ESDK, DBE], ids=["esdk", "dbe"])
@pytest.mark.parametrize("length_bytes", [0, 16, 31, 33])
def test_an_unwrapped_key_of_the_wrong_length_is_refused(suite: Any, length_bytes: int) -> None:
    wrapped = wrap_data_key(to_encrypt(suite=suite), mirrored)
    with pytest.raises(AuthenticationError) as caught:
        unwrap_data_key(to_decrypt(suite=suite), wrapped.ciphertext, lambda _: bytes(length_bytes))
    assert caught.value.reason == "data key length"


def test_a_dbe_ciphertext_without_an_intermediate_key_never_reaches_the_provider() -> None:
    for length_bytes in (0, 47, 48):
        with pytest.raises(AuthenticationError):
            unwrap_data_key(to_decrypt(suite=DBE), bytes(length_bytes), pytest.fail)


def test_the_sealed_data_key_is_bound_to_context_and_intermediate_key() -> None:
    wrapped = wrap_data_key(to_encrypt(suite=DBE), mirrored)
    other = wrap_data_key(to_encrypt(suite=DBE), mirrored)
    with pytest.raises(AuthenticationError):
        unwrap_data_key(to_decrypt({**CONTEXT, "tenant": "x"}, DBE), wrapped.ciphertext, mirrored)
    with pytest.raises(AuthenticationError):
        unwrap_data_key(to_decrypt(suite=DBE), wrapped.ciphertext[:48] + other.ciphertext[48:], mirrored)


def test_rule_04_intermediate_key_wraps_exactly_one_data_key() -> None:
    seen: list[bytes] = []

    def wrap(plaintext_key: bytes) -> bytes:
        seen.append(plaintext_key)
        return plaintext_key[::-1]

    materials = to_encrypt(suite=DBE)
    first = wrap_data_key(materials, wrap)
    same = materials.with_recipient(
        # The second recipient of the same message: the data key is there, the intermediate key is new.
        _recipient(first.ciphertext),
        data_key=first.generated_data_key,
        symmetric_signing_key=DataKey(bytes(32)),
    )
    for _ in range(20):
        wrap_data_key(same, wrap)
        wrap_data_key(to_encrypt(suite=DBE), wrap)
    assert len(seen) == 41
    assert len(set(seen)) == 41
    assert first.generated_data_key.key_bytes not in seen


@pytest.mark.parametrize("kind", ["local", "kms"])
def test_rule_04_intermediate_keys_are_never_cached(kms: StrictKms, kind: str) -> None:
    ring = RawAesKeyring("clinic", "key-1", bytes(32)) if kind == "local" else kms_keyring(kms, kms.create_key())
    provider = MaterialsProvider(ring, CachePolicy())
    results = [provider.encryption_materials(DBE, CONTEXT, plaintext_length_bytes=1) for _ in range(5)]
    assert [hit for _, hit in results] == [False] * 5
    assert len({materials.symmetric_signing_keys[0].key_bytes for materials, _ in results}) == 5
    assert len({materials.encrypted_data_keys for materials, _ in results}) == 5
    materials = results[0][0]
    hits = [
        provider.decryption_materials(DBE, CONTEXT, materials.encrypted_data_keys, expected=CONTEXT)[1]
        for _ in range(2)
    ]
    assert hits == [False, False]


def _recipient(ciphertext: bytes) -> Any:
    from phicrypt.core.materials import EncryptedDataKey

    return EncryptedDataKey("clinic", b"info", ciphertext)
