"""KmsKeyring: each refusal has its own error, and nothing that KMS would not say is believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.keyring_support import (
    CONTEXT,
    REFUSALS,
    WEST,
    changed,
    in_region,
    kms_keyring,
    opens,
    to_decrypt,
    to_encrypt,
)

from phicrypt.core.materials import EncryptedDataKey
from phicrypt.core.suites import DBE_SUITES, ESDK_SUITES, AlgorithmSuite
from phicrypt.errors import FormatError, KeyAccessError
from phicrypt.keys.kms.keyring import KmsKeyring
from phicrypt.testing import StrictKms

# --- refusals of KMS, each with its own error ----------------------------------------------------


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_has_its_own_code_on_encrypt_and_decrypt(kms: StrictKms, name: str) -> None:
    arn = kms.create_key()
    ring = kms_keyring(kms, arn)
    sealed = ring.on_encrypt(to_encrypt())
    refuse, code = REFUSALS[name]
    for attempt in (
        lambda: ring.on_encrypt(to_encrypt()),
        lambda: ring.on_decrypt(to_decrypt(), sealed.encrypted_data_keys),
    ):
        refuse(kms, arn)
        with pytest.raises(KeyAccessError) as caught:
            attempt()
        assert caught.value.code == code
        assert caught.value.key_arn == arn
        assert caught.value.request_id == kms.requests[-1].request_id
        assert "clinic-7" not in str(caught.value)


def test_an_unreachable_endpoint_is_its_own_error(kms: StrictKms) -> None:
    arn = kms.create_key()
    ring = KmsKeyring(arn, client=kms.client(endpoint_url=kms.closed_endpoint()))
    with pytest.raises(KeyAccessError, match="did not answer") as caught:
        ring.on_encrypt(to_encrypt())
    assert caught.value.is_retryable


def test_a_key_that_is_not_in_the_region_is_its_own_error(kms: StrictKms) -> None:
    arn = in_region(kms.create_key(), WEST)
    with pytest.raises(KeyAccessError, match="Region") as caught:
        kms_keyring(kms, arn).on_encrypt(to_encrypt())
    assert caught.value.code == "NotFoundException"


def test_a_message_for_another_key_is_refused_without_asking_kms(kms: StrictKms) -> None:
    theirs, mine = kms.create_key(), kms.create_key()
    sealed = kms_keyring(kms, theirs).on_encrypt(to_encrypt())
    kms.requests.clear()
    with pytest.raises(KeyAccessError) as caught:
        kms_keyring(kms, mine).on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    assert caught.value.code == "NoMatchingDataKey"
    assert theirs in str(caught.value)
    assert mine in str(caught.value)
    assert kms.requests == []


def test_a_data_key_of_another_kms_key_under_this_keys_name_is_refused(kms: StrictKms) -> None:
    theirs, mine = kms.create_key(), kms.create_key()
    (foreign,) = kms_keyring(kms, theirs).on_encrypt(to_encrypt()).encrypted_data_keys
    with pytest.raises(KeyAccessError, match="another key") as caught:
        kms_keyring(kms, mine, decrypt_key_arns=[theirs]).on_decrypt(
            to_decrypt(), [changed(foreign, provider_info=mine.encode())]
        )
    assert caught.value.code == "IncorrectKeyException"
    assert [one.parameters["KeyId"] for one in kms.requests[1:]] == [mine]


@pytest.mark.parametrize("suite", [ESDK_SUITES[0x0478], DBE_SUITES[0x6700]], ids=["esdk", "dbe"])
def test_another_context_does_not_open(kms: StrictKms, suite: AlgorithmSuite) -> None:
    ring = kms_keyring(kms, kms.create_key())
    sealed = ring.on_encrypt(to_encrypt(suite=suite))
    with pytest.raises(KeyAccessError) as caught:
        ring.on_decrypt(to_decrypt({**CONTEXT, "tenant": "clinic-8"}, suite), sealed.encrypted_data_keys)
    assert caught.value.code == "InvalidCiphertextException"


@pytest.mark.parametrize("suite", [ESDK_SUITES[0x0478], DBE_SUITES[0x6700]], ids=["esdk", "dbe"])
def test_no_changed_byte_of_the_ciphertext_opens(kms: StrictKms, suite: AlgorithmSuite) -> None:
    ring = kms_keyring(kms, kms.create_key())
    (sealed,) = ring.on_encrypt(to_encrypt(suite=suite)).encrypted_data_keys
    for position in range(len(sealed.ciphertext)):
        other = bytearray(sealed.ciphertext)
        other[position] ^= 1
        with pytest.raises(KeyAccessError):
            ring.on_decrypt(to_decrypt(suite=suite), [changed(sealed, ciphertext=bytes(other))])


@pytest.mark.parametrize("length_bytes", [0, 6145 + 48, 65535])
@pytest.mark.parametrize("suite", [ESDK_SUITES[0x0478], DBE_SUITES[0x6700]], ids=["esdk", "dbe"])
def test_a_ciphertext_of_an_impossible_length_does_not_open(
    kms: StrictKms, suite: AlgorithmSuite, length_bytes: int
) -> None:
    arn = kms.create_key()
    with pytest.raises(KeyAccessError):
        kms_keyring(kms, arn).on_decrypt(
            to_decrypt(suite=suite), [EncryptedDataKey("aws-kms", arn.encode(), bytes(length_bytes))]
        )
    assert kms.requests == []


@pytest.mark.parametrize(
    "info", [b"", b"\xff", b"alias/phi", b"arn:aws:kms:us-east-1:111122223333:alias/phi", b"key-1"]
)
def test_an_aws_kms_data_key_without_a_key_arn_is_a_format_error(kms: StrictKms, info: bytes) -> None:
    ring = kms_keyring(kms, kms.create_key())
    ring.prepare([EncryptedDataKey("aws-kms", info, b"x")])
    with pytest.raises(FormatError, match="provider info"):
        ring.on_decrypt(to_decrypt(), [EncryptedDataKey("aws-kms", info, b"x")])
    assert kms.requests == []


def test_data_keys_of_other_providers_are_passed_over(kms: StrictKms) -> None:
    ring = kms_keyring(kms, kms.create_key())
    sealed = ring.on_encrypt(to_encrypt())
    foreign = [
        EncryptedDataKey("aws-kms-hierarchy", b"tenant-7", b"x"),
        EncryptedDataKey("AWS-KMS", sealed.encrypted_data_keys[0].provider_info, b"x"),
    ]
    opened = ring.on_decrypt(to_decrypt(), [*foreign, *sealed.encrypted_data_keys])
    assert opened.recipient_index == 2
    assert len(kms.requests) == 2


def test_a_message_with_no_data_key_of_kms_says_so(kms: StrictKms) -> None:
    with pytest.raises(KeyAccessError, match="none of KMS"):
        kms_keyring(kms, kms.create_key()).on_decrypt(to_decrypt(), [])


def test_the_next_data_key_is_tried_after_a_refusal_and_the_refusal_is_listed(kms: StrictKms) -> None:
    first, second = kms.create_key(), kms.create_key()
    sealed = kms_keyring(kms, second).on_encrypt(kms_keyring(kms, first).on_encrypt(to_encrypt()))
    kms.disable(first)
    opened = opens(kms_keyring(kms, first, decrypt_key_arns=[second]), sealed)
    assert (opened.recipient_index, opened.origin.key_id) == (1, second)
    (refused,) = opened.origin.other_calls
    assert (refused.key_id, refused.error_code, refused.operation) == (first, "DisabledException", "Decrypt")
    assert refused.request_ids == (kms.requests[2].request_id,)


def test_when_all_fail_the_error_names_each_refusal(kms: StrictKms) -> None:
    first, second = kms.create_key(), kms.create_key()
    sealed = kms_keyring(kms, second).on_encrypt(kms_keyring(kms, first).on_encrypt(to_encrypt()))
    kms.disable(first)
    kms.deny(second)
    with pytest.raises(KeyAccessError) as caught:
        kms_keyring(kms, first, decrypt_key_arns=[second]).on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    assert [cause.code for cause in caught.value.causes] == ["DisabledException", "AccessDeniedException"]
    assert all(text in str(caught.value) for text in (first, second, "DisabledException", "AccessDeniedException"))
    assert caught.value.request_ids == tuple(one.request_id for one in kms.requests[2:])


# --- answers of a KMS that lies ------------------------------------------------------------------

LIES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "another key": lambda answer: {**answer, "KeyId": answer["KeyId"][:-1] + "x"},
    "no key": lambda answer: {name: value for name, value in answer.items() if name != "KeyId"},
    "short plaintext": lambda answer: {**answer, "Plaintext": "AAAA"},
    "long plaintext": lambda answer: {**answer, "Plaintext": "AAAA" * 11},
    "no plaintext": lambda answer: {name: value for name, value in answer.items() if name != "Plaintext"},
    "empty ciphertext": lambda answer: {**answer, "CiphertextBlob": ""},
    "huge ciphertext": lambda answer: {**answer, "CiphertextBlob": "AAAA" * 2049},
    "no ciphertext": lambda answer: {name: value for name, value in answer.items() if name != "CiphertextBlob"},
}
CONCERNS = {
    "GenerateDataKey": set(LIES),
    "Encrypt": {name for name in LIES if "plaintext" not in name},
    "Decrypt": {name for name in LIES if "ciphertext" not in name},
}


@pytest.mark.parametrize(
    ("operation", "lie"), [(operation, lie) for operation, lies in CONCERNS.items() for lie in sorted(lies)]
)
def test_rule_27_an_answer_that_kms_would_not_give_is_refused(kms: StrictKms, operation: str, lie: str) -> None:
    arn, other = kms.create_key(), kms.create_key()
    ring = kms_keyring(kms, arn)
    sealed = ring.on_encrypt(to_encrypt())
    half = kms_keyring(kms, other).on_encrypt(to_encrypt())
    attempts: dict[str, Callable[[], Any]] = {
        "GenerateDataKey": lambda: ring.on_encrypt(to_encrypt()),
        "Encrypt": lambda: ring.on_encrypt(half),
        "Decrypt": lambda: ring.on_decrypt(to_decrypt(), sealed.encrypted_data_keys),
    }
    kms.alter(LIES[lie], operation=operation)
    with pytest.raises(KeyAccessError) as caught:
        attempts[operation]()
    assert (caught.value.code, caught.value.operation) == ("UnexpectedAnswer", operation)
    assert caught.value.request_ids == (kms.requests[-1].request_id,)
