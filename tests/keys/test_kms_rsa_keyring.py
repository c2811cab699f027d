"""The RSA recipient: wrapped offline, opened by KMS, beside a hierarchical keyring (rule 16)."""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from support.key_stores import CONTEXT, SUITES, opened, refusal_of, to_decrypt, to_encrypt, with_ciphertext
from support.recovery_keys import RecoveryKey

from phicrypt import ANY_CONTEXT, HierarchicalKeyring, MultiKeyring, PhiCrypt
from phicrypt.core.key_pairs import RsaPublicKey
from phicrypt.core.suites import AlgorithmSuite
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, KeyAccessError
from phicrypt.keys.kms.rsa_keyring import KmsRsaKeyring
from phicrypt.testing import StaticBranchKeyStore, StrictKms, mark_as_double

UNSIGNED = tuple(suite for suite in SUITES if not suite.is_signed)
SIGNED = tuple(suite for suite in SUITES if suite.is_signed)
ALGORITHMS = ("RSAES_OAEP_SHA_256", "RSAES_OAEP_SHA_1")
VERSION = "e9ce18a3-edb5-4272-9f86-1cacb7997ff6"


class Recovery(RecoveryKey):
    """The recovery key and its keyrings."""

    def writer(self, **settings: Any) -> KmsRsaKeyring:
        """With the public key; its KMS client must not be used for writing."""
        return KmsRsaKeyring(self.arn, public_key=self.public_key, client=self.client, **settings)

    def opener(self, **settings: Any) -> KmsRsaKeyring:
        """Without the public key: it only opens."""
        return KmsRsaKeyring(self.arn, client=self.client, **settings)


@pytest.fixture(scope="module")
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


@pytest.fixture
def recovery(kms: StrictKms) -> Recovery:
    return Recovery(kms)


def hierarchical() -> HierarchicalKeyring:
    return HierarchicalKeyring(StaticBranchKeyStore("clinic-7", VERSION, bytes(range(32)), bytes(32)), "clinic-7")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("suite", UNSIGNED, ids=lambda suite: f"{suite.suite_id:04x}")
def test_wraps_without_kms_and_opens_with_one_decrypt(
    recovery: Recovery, suite: AlgorithmSuite, algorithm: Any
) -> None:
    sealed = recovery.writer(algorithm=algorithm).on_encrypt(to_encrypt(suite=suite))
    assert recovery.kms.requests == []
    (data_key,) = sealed.encrypted_data_keys
    assert (data_key.provider_id, data_key.provider_info) == ("aws-kms-rsa", recovery.arn.encode())
    assert opened(recovery.opener(algorithm=algorithm), sealed)
    (request,) = recovery.kms.requests
    assert request.operation == "Decrypt"
    assert request.parameters["KeyId"] == recovery.arn
    assert request.parameters["EncryptionAlgorithm"] == algorithm
    assert "EncryptionContext" not in request.parameters


@pytest.mark.parametrize("spec", ["RSA_3072", "RSA_4096"])
def test_longer_keys_work(kms: StrictKms, spec: str) -> None:
    recovery = Recovery(kms, spec)
    assert opened(recovery.opener(), recovery.writer().on_encrypt(to_encrypt()))


def test_the_plaintext_under_rsa_is_the_context_digest_and_the_data_key(recovery: Recovery) -> None:
    materials = to_encrypt()
    sealed = recovery.writer().on_encrypt(materials)
    answer = recovery.client.decrypt(
        KeyId=recovery.arn,
        CiphertextBlob=sealed.encrypted_data_keys[0].ciphertext,
        EncryptionAlgorithm="RSAES_OAEP_SHA_256",
    )
    assert sealed.data_key is not None
    assert answer["Plaintext"] == hashlib.sha384(materials.context_bytes).digest() + sealed.data_key.key_bytes


@pytest.mark.parametrize("suite", UNSIGNED, ids=lambda suite: f"{suite.suite_id:04x}")
def test_another_context_does_not_open(recovery: Recovery, suite: AlgorithmSuite) -> None:
    sealed = recovery.writer().on_encrypt(to_encrypt(suite=suite))
    with pytest.raises(AuthenticationError):
        opened(recovery.opener(), sealed, context={**CONTEXT, "tenant": "clinic-8"})


def test_changed_and_cut_ciphertexts_do_not_open(recovery: Recovery) -> None:
    (data_key,) = recovery.writer().on_encrypt(to_encrypt()).encrypted_data_keys
    changed = data_key.ciphertext[:-1] + bytes([data_key.ciphertext[-1] ^ 1])
    for ciphertext in (changed, data_key.ciphertext[:-1], b"", data_key.ciphertext + b"\0", bytes(256)):
        with pytest.raises((AuthenticationError, KeyAccessError)):
            recovery.opener().on_decrypt(to_decrypt(), [with_ciphertext(data_key, ciphertext)])


def test_a_data_key_of_another_length_does_not_open(recovery: Recovery) -> None:
    """Whoever has the public key can wrap anything; only keys of the suite's length come out."""
    digest = hashlib.sha384(to_encrypt().context_bytes).digest()
    (data_key,) = recovery.writer().on_encrypt(to_encrypt()).encrypted_data_keys
    for length in (0, 16, 31, 33):
        forged = RsaPublicKey(recovery.public_key).encrypt_oaep(digest + bytes(length), hash_name="sha256")
        with pytest.raises(AuthenticationError):
            recovery.opener().on_decrypt(to_decrypt(), [with_ciphertext(data_key, forged)])


def test_only_data_keys_of_its_own_kms_key_are_sent(kms: StrictKms, recovery: Recovery) -> None:
    other = Recovery(kms, number=1)
    sealed = other.writer().on_encrypt(to_encrypt())
    assert refusal_of(lambda: opened(recovery.opener(), sealed)).code == "NoMatchingDataKey"
    (data_key,) = sealed.encrypted_data_keys
    for info in (b"alias/recovery", b"\xff", b"1234abcd-12ab-34cd-56ef-1234567890ab"):
        relabelled = type(data_key)(data_key.provider_id, info, data_key.ciphertext)
        with pytest.raises(FormatError):
            recovery.opener().on_decrypt(to_decrypt(), [relabelled])
    assert kms.requests == []


@pytest.mark.parametrize("suite", SIGNED, ids=lambda suite: f"{suite.suite_id:04x}")
def test_signed_suites_are_refused_both_ways_without_a_kms_call(recovery: Recovery, suite: AlgorithmSuite) -> None:
    with pytest.raises(ConfigurationError, match="unsigned"):
        recovery.writer().on_encrypt(to_encrypt(suite=suite))
    data_keys = recovery.writer().on_encrypt(to_encrypt()).encrypted_data_keys
    refusal = refusal_of(lambda: recovery.opener().on_decrypt(to_decrypt(suite=suite), data_keys))
    assert refusal.code == "NoMatchingDataKey" and recovery.kms.requests == []


def test_a_keyring_without_a_public_key_only_opens(recovery: Recovery) -> None:
    with pytest.raises(ConfigurationError, match="public key"):
        recovery.opener().on_encrypt(to_encrypt())


def test_rule_16_a_keyring_with_only_a_public_key_never_calls_kms(recovery: Recovery) -> None:
    """A daily reader whose own key is refused does not go on to knock at the recovery key."""
    writer = KmsRsaKeyring(recovery.arn, public_key=recovery.public_key)
    sealed = writer.on_encrypt(to_encrypt())
    refusal = refusal_of(lambda: opened(writer, sealed))
    assert refusal.code == "NoMatchingDataKey" and "only writes" in str(refusal)
    assert recovery.kms.requests == []
    assert opened(recovery.opener(), sealed)


def test_public_keys_come_in_der_and_pem(recovery: Recovery) -> None:
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(recovery.public_key) + b"-----END PUBLIC KEY-----\n"
    for public_key in (pem, pem.decode()):
        keyring = KmsRsaKeyring(recovery.arn, public_key=public_key, client=recovery.client)
        assert opened(recovery.opener(), keyring.on_encrypt(to_encrypt()))
        assert keyring.identity == recovery.writer().identity


def test_refuses_unsuitable_keys_arns_and_paddings(recovery: Recovery) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    def der(private_key: Any) -> bytes:
        encoded = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return bytes(encoded)

    for public_key in (
        der(rsa.generate_private_key(65537, 1024)),
        der(ec.generate_private_key(ec.SECP256R1())),
        b"",
        b"-----BEGIN PUBLIC KEY-----\n",
    ):
        with pytest.raises(ConfigurationError):
            KmsRsaKeyring(recovery.arn, public_key=public_key)
    for arn in ("alias/recovery", "", recovery.arn.replace(":key/", ":alias/")):
        with pytest.raises(ConfigurationError):
            KmsRsaKeyring(arn, public_key=recovery.public_key)
    with pytest.raises(ConfigurationError, match="padding"):
        recovery.writer(algorithm="RSAES_PKCS1_V1_5")


def test_a_kms_that_answers_with_another_key_is_refused(recovery: Recovery) -> None:
    class Liar:
        def decrypt(self, **parameters: Any) -> dict[str, Any]:
            return {**recovery.client.decrypt(**parameters), "KeyId": recovery.arn + "0"}

    sealed = recovery.writer().on_encrypt(to_encrypt())
    assert (
        refusal_of(lambda: opened(KmsRsaKeyring(recovery.arn, client=mark_as_double(Liar())), sealed)).code
        == "UnexpectedAnswer"
    )


def test_rule_16_messages_for_two_recipients_cost_no_further_kms_call_and_open_with_either(
    recovery: Recovery,
) -> None:
    daily = hierarchical()
    phi = PhiCrypt(keyring=MultiKeyring(daily, recovery.writer()))
    messages = [phi.encrypt(b"note", context=CONTEXT) for _ in range(20)]
    assert recovery.kms.requests == []
    for message in messages[:2]:
        assert PhiCrypt(keyring=daily).decrypt(message, context=CONTEXT) == b"note"
    assert recovery.kms.requests == []
    rescue = PhiCrypt(keyring=recovery.opener())
    assert rescue.decrypt(messages[0], context=ANY_CONTEXT) == b"note"
    assert [one.operation for one in recovery.kms.requests] == ["Decrypt"]
    with pytest.raises(ConfigurationError, match="unsigned"):
        phi.encrypt(b"note", context=CONTEXT, signed=True)


def test_rule_16_the_daily_reader_never_calls_the_recovery_key(recovery: Recovery) -> None:
    phi = PhiCrypt(keyring=MultiKeyring(hierarchical(), recovery.writer()))
    assert phi.decrypt(phi.encrypt(b"note", context=CONTEXT), context=CONTEXT) == b"note"
    assert recovery.kms.requests == []


def test_repr_names_the_key_and_copies_are_refused(recovery: Recovery) -> None:
    keyring = recovery.writer()
    assert recovery.arn in repr(keyring)
    with pytest.raises(TypeError):
        copy.copy(keyring)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_aws_opens_with_the_recovery_key_alone_and_the_reverse(recovery: Recovery, algorithm: Any) -> None:
    pytest.importorskip("aws_cryptographic_material_providers", reason="needs the extra 'test'")
    from support import aws_library

    theirs = aws_library.rsa_keyring(recovery.arn, algorithm, recovery.public_key, recovery.client)
    ours = MultiKeyring(hierarchical(), recovery.writer(algorithm=algorithm))
    message = PhiCrypt(keyring=ours).encrypt(b"note", context=CONTEXT)
    assert aws_library.decrypt(theirs, message) == b"note"
    message = aws_library.encrypt(theirs, b"note", CONTEXT)
    rescue = PhiCrypt(keyring=recovery.opener(algorithm=algorithm))
    assert rescue.decrypt(message, context=CONTEXT) == b"note"


@pytest.mark.parametrize("suite", UNSIGNED, ids=lambda suite: f"{suite.suite_id:04x}")
def test_aws_keyring_agrees_on_every_unsigned_suite(recovery: Recovery, suite: AlgorithmSuite) -> None:
    pytest.importorskip("aws_cryptographic_material_providers", reason="needs the extra 'test'")
    from support import aws_library

    theirs = aws_library.rsa_keyring(recovery.arn, "RSAES_OAEP_SHA_256", recovery.public_key, recovery.client)
    sealed = recovery.writer().on_encrypt(to_encrypt(suite=suite))
    assert sealed.data_key is not None
    signing_key = sealed.symmetric_signing_keys[0].key_bytes if sealed.symmetric_signing_keys else None
    assert aws_library.unwrap(theirs, sealed) == (sealed.data_key.key_bytes, signing_key)
    assert opened(recovery.opener(), aws_library.wrap(theirs, suite, CONTEXT))
