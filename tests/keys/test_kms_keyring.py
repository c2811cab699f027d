"""KmsKeyring: what it sends, what it accepts, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from support.keyring_support import (
    CONTEXT,
    EAST,
    WEST,
    kms_keyring,
    opens,
    to_encrypt,
)

from phicrypt.core.suites import DBE_SUITES, ESDK_SUITES, AlgorithmSuite
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.kms.keyring import KmsKeyring
from phicrypt.keys.provider import MaterialsProvider
from phicrypt.testing import StrictKms

SUITES = [*ESDK_SUITES.values(), *DBE_SUITES.values()]


# --- what it does --------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"{suite.suite_id:04x}")
def test_opens_what_it_generated_under_every_suite(kms: StrictKms, suite: AlgorithmSuite) -> None:
    arn = kms.create_key()
    sealed = kms_keyring(kms, arn).on_encrypt(to_encrypt(suite=suite))
    assert len(sealed.data_key) == suite.data_key_length_bytes
    assert [(one.provider_id, one.provider_info) for one in sealed.encrypted_data_keys] == [
        ("aws-kms", arn.encode())
    ]
    opens(kms_keyring(kms, arn), sealed)
    generated, decrypted = kms.requests
    assert generated.operation == "GenerateDataKey"
    assert generated.parameters == {
        "KeyId": arn,
        "NumberOfBytes": suite.data_key_length_bytes,
        "EncryptionContext": CONTEXT,
    }
    assert decrypted.operation == "Decrypt"
    assert set(decrypted.parameters) == {"KeyId", "CiphertextBlob", "EncryptionContext"}
    assert decrypted.parameters["KeyId"] == arn
    assert decrypted.parameters["EncryptionContext"] == CONTEXT


def test_wraps_an_existing_data_key_with_encrypt(kms: StrictKms) -> None:
    first, second = kms.create_key(), kms.create_key()
    sealed = kms_keyring(kms, second).on_encrypt(kms_keyring(kms, first).on_encrypt(to_encrypt()))
    assert [request.operation for request in kms.requests] == ["GenerateDataKey", "Encrypt"]
    assert opens(kms_keyring(kms, first), sealed).recipient_index == 0
    assert opens(kms_keyring(kms, second), sealed).recipient_index == 1


def test_an_empty_context_is_left_out(kms: StrictKms) -> None:
    arn = kms.create_key()
    opens(kms_keyring(kms, arn), kms_keyring(kms, arn).on_encrypt(to_encrypt({})))
    assert all("EncryptionContext" not in request.parameters for request in kms.requests)


def test_the_verification_key_of_signed_suites_goes_to_kms_as_context(kms: StrictKms) -> None:
    provider = MaterialsProvider(kms_keyring(kms, kms.create_key()), None)
    provider.encryption_materials(ESDK_SUITES[0x0578], CONTEXT, plaintext_length_bytes=1)
    assert set(kms.requests[0].parameters["EncryptionContext"]) == {*CONTEXT, "aws-crypto-public-key"}


def test_origin_names_key_material_and_requests(kms: StrictKms) -> None:
    arn = kms.create_key()
    ring = kms_keyring(kms, arn)
    sealed = ring.on_encrypt(to_encrypt())
    opened = opens(ring, sealed)
    origins = (sealed.origin, opened.origin)
    for origin, request, operation in zip(origins, kms.requests, ("GenerateDataKey", "Decrypt"), strict=True):
        assert (origin.provider_id, origin.key_id, origin.operation) == ("aws-kms", arn, operation)
        assert origin.request_ids == (request.request_id,)
        assert origin.correlation_id in request.user_agent
        assert origin.key_material_id == kms.key(arn).materials[0][0]
        assert origin.other_calls == ()


def test_origin_names_the_key_material_after_a_rotation(kms: StrictKms) -> None:
    arn = kms.create_key()
    ring = kms_keyring(kms, arn)
    old = ring.on_encrypt(to_encrypt())
    kms.rotate(arn)
    new = ring.on_encrypt(to_encrypt())
    materials = [material_id for material_id, _ in kms.key(arn).materials]
    assert [opens(ring, sealed).origin.key_material_id for sealed in (old, new)] == materials


def test_the_call_for_a_further_recipient_is_listed_in_the_origin(kms: StrictKms) -> None:
    first, second = kms.create_key(), kms.create_key()
    sealed = kms_keyring(kms, second).on_encrypt(kms_keyring(kms, first).on_encrypt(to_encrypt()))
    assert (sealed.origin.key_id, sealed.origin.operation) == (first, "GenerateDataKey")
    (other,) = sealed.origin.other_calls
    assert (other.key_id, other.operation) == (second, "Encrypt")
    assert other.request_ids == (kms.requests[1].request_id,)


def test_grant_tokens_are_sent_with_every_operation_and_lift_a_denial(kms: StrictKms) -> None:
    arn, other = kms.create_key(), kms.create_key()
    kms.deny(arn)
    tokens = [kms.grant(arn, operation) for operation in ("GenerateDataKey", "Encrypt", "Decrypt")]
    ring = kms_keyring(kms, arn, grant_tokens=tokens)
    opens(ring, ring.on_encrypt(to_encrypt()))
    ring.on_encrypt(kms_keyring(kms, other).on_encrypt(to_encrypt()))
    assert [(one.operation, one.grant_tokens) for one in kms.requests if one.parameters["KeyId"] == arn] == [
        ("GenerateDataKey", tokens),
        ("Decrypt", tokens),
        ("Encrypt", tokens),
    ]
    with pytest.raises(KeyAccessError, match="AccessDenied"):
        kms_keyring(kms, arn).on_encrypt(to_encrypt())


def test_makes_its_own_client_from_session_endpoint_and_application(kms: StrictKms) -> None:
    arn = kms.create_key()
    ring = KmsKeyring(arn, session=kms.session("AKIDOWN"), endpoint_url=kms.endpoint_url, application="ward-app")
    opens(ring, ring.on_encrypt(to_encrypt()))
    assert {(one.access_key_id, one.region) for one in kms.requests} == {("AKIDOWN", EAST)}
    assert all("phicrypt-app/ward-app" in one.user_agent for one in kms.requests)


def test_fips_switch_reaches_the_client() -> None:
    made: list[Any] = []

    class Session:
        def client(self, service: str, **settings: Any) -> Any:
            made.append((service, settings))
            raise ValueError("stop here")

    ring = KmsKeyring(f"arn:aws:kms:{EAST}:111122223333:key/1", session=Session(), use_fips_endpoint=True)
    with pytest.raises(ConfigurationError):
        ring.on_encrypt(to_encrypt())
    ((service, settings),) = made
    assert (service, settings["region_name"], settings["config"].use_fips_endpoint) == ("kms", EAST, True)


# --- what it refuses to be made of ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["alias/phi", f"arn:aws:kms:{EAST}:111122223333:alias/phi", "1234abcd-12ab-34cd-56ef-1234567890ab", "", None],
)
def test_refuses_aliases_and_bare_ids(name: Any) -> None:
    with pytest.raises(ConfigurationError):
        KmsKeyring(name)
    with pytest.raises(ConfigurationError):
        KmsKeyring(f"arn:aws:kms:{EAST}:111122223333:key/1", decrypt_key_arns=[name])


def test_a_single_text_given_for_a_sequence_is_refused(kms: StrictKms) -> None:
    arn = kms.create_key()
    for name in ("decrypt_key_arns", "grant_tokens", "failover_regions"):
        with pytest.raises(ConfigurationError, match=name):
            KmsKeyring(arn, **{name: "text"})


def test_a_client_of_another_region_is_refused_at_construction(kms: StrictKms) -> None:
    arn = kms.create_key()
    with pytest.raises(ConfigurationError, match="of Region us-west-2, the key of us-east-1"):
        KmsKeyring(arn, client=kms.client(WEST))
    with pytest.raises(ConfigurationError, match="client_factory"):
        KmsKeyring(arn, client=kms.client(EAST), decrypt_key_arns=[kms.create_key(WEST)])


def test_a_plain_http_endpoint_is_refused_at_construction(kms: StrictKms) -> None:
    import boto3

    arn = kms.create_key()
    with pytest.raises(ConfigurationError, match="loopback"):
        KmsKeyring(arn, endpoint_url="http://kms.example.com")
    remote = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b").client(
        "kms", region_name=EAST, endpoint_url="http://kms.example.com"
    )
    with pytest.raises(ConfigurationError, match="loopback"):
        KmsKeyring(arn, client=remote)


def test_settings_of_clients_and_a_handed_client_exclude_each_other(kms: StrictKms) -> None:
    with pytest.raises(ConfigurationError, match="endpoint_url"):
        KmsKeyring(kms.create_key(), client=kms.client(), endpoint_url=kms.endpoint_url)


def test_failover_regions_without_a_multi_region_key_are_refused(kms: StrictKms) -> None:
    with pytest.raises(ConfigurationError, match="multi-Region"):
        KmsKeyring(kms.create_key(), failover_regions=[WEST])


# --- aliases -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["alias/phi", f"arn:aws:kms:{EAST}:111122223333:alias/phi"])
def test_from_alias_resolves_once_and_pins_the_arn(kms: StrictKms, form: str) -> None:
    arn, other = kms.create_key(), kms.create_key()
    kms.create_alias("alias/phi", arn)
    ring = KmsKeyring.from_alias(form, client=kms.client())
    kms.create_alias("alias/phi", other)
    opens(ring, ring.on_encrypt(to_encrypt()))
    assert ring.key_arn == arn
    assert [(one.operation, one.parameters["KeyId"]) for one in kms.requests] == [
        ("DescribeKey", form),
        ("GenerateDataKey", arn),
        ("Decrypt", arn),
    ]


def test_from_alias_refuses_what_cannot_wrap_data_keys(kms: StrictKms) -> None:
    kms.create_alias("alias/rsa", kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec="RSA_2048"))
    with pytest.raises(ConfigurationError, match="symmetric"):
        KmsKeyring.from_alias("alias/rsa", client=kms.client())
    with pytest.raises(ConfigurationError, match="no alias"):
        KmsKeyring.from_alias(kms.create_key(), client=kms.client())
    with pytest.raises(ConfigurationError, match="needs a Region"):
        KmsKeyring.from_alias("alias/phi", client_factory=kms.client)
    with pytest.raises(KeyAccessError, match="NotFound"):
        KmsKeyring.from_alias("alias/none", client=kms.client())


def test_importing_the_keyrings_loads_neither_boto3_nor_botocore() -> None:
    code = (
        "import sys, phicrypt.keys.kms.keyring, phicrypt.keys.multi, phicrypt.keys.raw_aes, phicrypt.testing; "
        "print(sorted({'boto3', 'botocore', 'urllib3', 'moto', 'pydantic'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
