"""The null-key suite vectors and the key commitment vectors, as bytes and as streams."""

from __future__ import annotations

import base64
import io

import pytest
from support.official_vectors import load_vectors

from phicrypt import ANY_CONTEXT, PhiCrypt
from phicrypt.core.suites import ESDK_SUITES
from phicrypt.errors import AuthenticationError, UnsupportedOperationError
from phicrypt.testing import StaticKeyring


def decrypt_both_ways(data_key: bytes, message: bytes) -> bytes:
    phi = PhiCrypt(StaticKeyring(data_key))
    whole = phi.decrypt(message, context=ANY_CONTEXT, allow_uncommitted=True)
    sink = io.BytesIO()
    phi.decrypt_stream(io.BytesIO(message), sink, context=ANY_CONTEXT, allow_uncommitted=True)
    assert sink.getvalue() == whole
    return whole


@pytest.mark.parametrize("index", range(9))
def test_null_key_vector_of_each_legacy_suite_opens(index: int) -> None:
    vector = load_vectors("esdk", "all-suites.json")[index]
    suite = ESDK_SUITES[int(vector["algorithm-suite"], 16)]
    message = base64.b64decode(vector["ciphertext"])
    plaintext = decrypt_both_ways(bytes(suite.data_key_length_bytes), message)
    assert plaintext == base64.b64decode(vector["plaintext"])


def test_null_key_vectors_cover_every_suite_without_commitment() -> None:
    suites = {int(vector["algorithm-suite"], 16) for vector in load_vectors("esdk", "all-suites.json")}
    assert suites == {suite_id for suite_id, suite in ESDK_SUITES.items() if not suite.is_committing}


@pytest.mark.parametrize("index", range(9))
def test_rule_07_uncommitted_suites_are_refused_by_default_before_any_key_is_used(index: int) -> None:
    vector = load_vectors("esdk", "all-suites.json")[index]
    keyring = StaticKeyring(b"a key that no suite could use")
    with pytest.raises(UnsupportedOperationError, match="allow_uncommitted"):
        PhiCrypt(keyring).decrypt(base64.b64decode(vector["ciphertext"]), context=ANY_CONTEXT)


@pytest.mark.parametrize("index", range(23))
def test_commitment_vector_opens_or_fails_as_it_says(index: int) -> None:
    vector = load_vectors("esdk", "commitment.json")["tests"][index]
    message = base64.b64decode(vector["ciphertext"])
    data_key = base64.b64decode(vector["decrypted-dek"])
    if vector["status"]:
        expected = "".join(vector["plaintext-frames"]).encode()
        assert decrypt_both_ways(data_key, message) == expected
        return
    assert vector["exception"] == "EXCEPTION: Invalid commitment"
    with pytest.raises(AuthenticationError) as caught:
        PhiCrypt(StaticKeyring(data_key)).decrypt(message, context=ANY_CONTEXT)
    assert caught.value.reason == "commitment"


def test_commitment_vectors_are_all_covered() -> None:
    tests = load_vectors("esdk", "commitment.json")["tests"]
    assert len(tests) == 23
    assert sum(not vector["status"] for vector in tests) == 2
