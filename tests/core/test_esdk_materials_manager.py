"""phicrypt's cache, guard and audit behind the AWS Encryption SDK's own client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
from aws_encryption_sdk.identifiers import AlgorithmSuite
from support.keys_fakes import CountingKeyring
from support.messages import CONTEXT
from support.sdk_providers import raw_provider

from phicrypt import ANY_CONTEXT, PhiCrypt
from phicrypt.audit import AuditEvent
from phicrypt.errors import ConfigurationError, ContextMismatchError, KeyAccessError, PhiInContextError
from phicrypt.esdk import PhiCryptMaterialsManager

SIGNED = AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384


class Sink:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def write(self, events: Sequence[AuditEvent]) -> None:
        self.events += events

    def close(self) -> None:
        pass


def test_a_hundred_messages_of_the_sdk_use_one_cached_data_key_and_open_on_both_sides() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring)
    manager = PhiCryptMaterialsManager(phi, expect=CONTEXT)
    client = EncryptionSDKClient()
    messages = [
        client.encrypt(source=b"payload", materials_manager=manager, encryption_context=CONTEXT)[0]
        for _ in range(100)
    ]
    assert keyring.encrypts == 1
    for message in messages:
        opened, header = client.decrypt(source=message, materials_manager=manager)
        assert opened == b"payload"
        assert header.algorithm.algorithm_id == 0x0478
    assert keyring.decrypts == 1
    assert phi.decrypt(messages[0], context=CONTEXT) == b"payload"
    assert client.decrypt(source=messages[0], key_provider=raw_provider())[0] == b"payload"


def test_signed_messages_of_the_sdk_verify_on_both_sides() -> None:
    phi = PhiCrypt(CountingKeyring())
    manager = PhiCryptMaterialsManager(phi, expect=CONTEXT)
    client = EncryptionSDKClient()
    message, _ = client.encrypt(
        source=b"payload", materials_manager=manager, encryption_context=CONTEXT, algorithm=SIGNED
    )
    assert phi.decrypt(message, context=CONTEXT, require_signed=True) == b"payload"
    assert client.decrypt(source=message, materials_manager=manager)[0] == b"payload"
    signed = phi.encrypt(b"from phicrypt", context=CONTEXT, signed=True)
    assert client.decrypt(source=signed, materials_manager=manager)[0] == b"from phicrypt"


def test_expected_pairs_are_demanded() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring)
    client = EncryptionSDKClient()
    message = phi.encrypt(b"x", context=CONTEXT)
    with pytest.raises(ContextMismatchError):
        client.decrypt(source=message, materials_manager=PhiCryptMaterialsManager(phi, expect={"tenant": "other"}))
    with pytest.raises(ConfigurationError, match="ANY_CONTEXT"):
        client.decrypt(source=message, materials_manager=PhiCryptMaterialsManager(phi))
    assert keyring.decrypts == 0
    anything = PhiCryptMaterialsManager(phi, expect=ANY_CONTEXT)
    assert client.decrypt(source=message, materials_manager=anything)[0] == b"x"


def test_the_guard_refuses_phi() -> None:
    manager = PhiCryptMaterialsManager(PhiCrypt(CountingKeyring()))
    with pytest.raises(PhiInContextError):
        EncryptionSDKClient().encrypt(
            source=b"x", materials_manager=manager, encryption_context={"id": "123-45-6789"}
        )


def test_uses_and_failures_are_recorded() -> None:
    sink, keyring = Sink(), CountingKeyring()
    phi = PhiCrypt(keyring, audit=[sink], cache=None)
    manager = PhiCryptMaterialsManager(phi, expect=CONTEXT)
    client = EncryptionSDKClient()
    message, _ = client.encrypt(source=b"x", materials_manager=manager, encryption_context=CONTEXT)
    client.decrypt(source=message, materials_manager=manager)
    keyring.failures = [KeyAccessError("denied", operation="Decrypt", code="AccessDeniedException")]
    with pytest.raises(KeyAccessError):
        client.decrypt(source=message, materials_manager=manager)
    assert phi.trail is not None
    phi.trail.flush()
    seen = sorted((event.operation, event.kind, event.outcome) for event in sink.events)
    assert seen == [
        ("esdk.decrypt", "begin", "begun"),
        ("esdk.decrypt", "begin", "begun"),
        ("esdk.decrypt", "end", "denied"),
        ("esdk.decrypt", "end", "success"),
        ("esdk.encrypt", "use", "success"),
    ]


@pytest.mark.parametrize("policy", [CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT])
def test_suites_without_commitment_are_never_written(policy: Any) -> None:
    manager = PhiCryptMaterialsManager(PhiCrypt(CountingKeyring()))
    with pytest.raises((ConfigurationError, AWSEncryptionSDKClientError)):
        EncryptionSDKClient(commitment_policy=policy).encrypt(
            source=b"x",
            materials_manager=manager,
            encryption_context=CONTEXT,
            algorithm=AlgorithmSuite.AES_256_GCM_IV12_TAG16_HKDF_SHA256,
        )
