"""The strict KMS refuses what AWS refuses, by AWS's names, and is nobody's burden until it is asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from phicrypt import KmsKeyring, PhiCrypt
from phicrypt.errors import KeyAccessError
from phicrypt.testing import StrictKms

SEALING = {
    "GenerateDataKey": {"NumberOfBytes": 32},
    "Encrypt": {"Plaintext": b"x"},
}


@pytest.fixture
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


def refusal(client: Any, operation: str, **parameters: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        client._make_api_call(operation, parameters)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("operation", SEALING)
@pytest.mark.parametrize(
    ("state", "code", "status"),
    [
        ("Disabled", "DisabledException", 400),
        ("PendingDeletion", "KMSInvalidStateException", 400),
        ("PendingImport", "KMSInvalidStateException", 400),
        ("Unavailable", "KeyUnavailableException", 500),
    ],
)
def test_key_states_are_enforced(kms: StrictKms, operation: str, state: str, code: str, status: int) -> None:
    arn = kms.create_key()
    blob = kms.client().encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    kms.key(arn).state = state
    assert refusal(kms.client(), operation, KeyId=arn, **SEALING[operation]) == (code, status)
    assert refusal(kms.client(), "Decrypt", CiphertextBlob=blob) == (code, status)
    assert kms.client().describe_key(KeyId=arn)["KeyMetadata"]["KeyState"] == state
    kms.enable(arn)
    assert kms.client().decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"


def test_a_keyring_meets_a_disabled_key(kms: StrictKms) -> None:
    arn = kms.create_key()
    phi = PhiCrypt(KmsKeyring(arn, client=kms.client()))
    message = phi.encrypt(b"record", context={"tenant": "clinic-7"})
    kms.disable(arn)
    with pytest.raises(KeyAccessError, match="DisabledException"):
        phi.decrypt(message, context={"tenant": "clinic-7"})


@pytest.mark.parametrize(
    ("spec", "usage", "operation", "parameters"),
    [
        ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "Sign", {"Message": b"x", "SigningAlgorithm": "ECDSA_SHA_256"}),
        ("ECC_NIST_P256", "SIGN_VERIFY", "GenerateDataKey", {"NumberOfBytes": 32}),
        ("HMAC_256", "GENERATE_VERIFY_MAC", "Encrypt", {"Plaintext": b"x"}),
        ("RSA_2048", "ENCRYPT_DECRYPT", "Sign", {"Message": b"x", "SigningAlgorithm": "RSASSA_PSS_SHA_256"}),
    ],
)
def test_a_key_does_what_it_was_made_for_only(
    kms: StrictKms, spec: str, usage: str, operation: str, parameters: dict[str, Any]
) -> None:
    arn = kms.create_key(KeySpec=spec, KeyUsage=usage)
    assert refusal(kms.client(), operation, KeyId=arn, **parameters) == ("InvalidKeyUsageException", 400)


def test_replicas_share_an_asymmetric_key_pair(kms: StrictKms) -> None:
    arn = kms.create_signing_key("ECC_NIST_P256", replicas=("eu-west-1",))
    there = arn.replace("us-east-1", "eu-west-1")
    public_keys = {
        kms.client(region).get_public_key(KeyId=one)["PublicKey"]
        for region, one in (("us-east-1", arn), ("eu-west-1", there))
    }
    assert len(public_keys) == 1


@pytest.mark.parametrize("target", ["usable", "account", "create_key", "_seal", "__init__", "DeleteEverything"])
def test_only_kms_operations_are_operations(kms: StrictKms, target: str) -> None:
    import http.client

    connection = http.client.HTTPConnection(kms.endpoint_url.removeprefix("http://"))
    connection.request("POST", "/", b"{}", {"X-Amz-Target": f"TrentService.{target}"})
    answer = connection.getresponse()
    assert (answer.status, b"UnknownOperationException" in answer.read()) == (400, True)
    connection.close()


def test_clients_ignore_the_environment(kms: StrictKms, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_PROFILE": "not-there",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "HTTP_PROXY": "http://192.0.2.1:1",
        "http_proxy": "http://192.0.2.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    arn = kms.create_key("ap-south-1")
    kms.client("ap-south-1", access_key_id="AKIDELSEWHERE").describe_key(KeyId=arn)
    (request,) = kms.requests
    assert (request.region, request.access_key_id) == ("ap-south-1", "AKIDELSEWHERE")


def test_importing_the_doubles_loads_neither_botocore_nor_moto() -> None:
    code = "import sys, phicrypt.testing; print([n for n in ('botocore', 'boto3', 'moto') if n in sys.modules])"
    ending = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ending.stdout.strip() == "[]"
