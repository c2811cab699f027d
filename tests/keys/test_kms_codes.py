"""Every error code that KMS's model names for a call of phicrypt has advice, and stands in docs/errors.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

import phicrypt
from phicrypt import ANY_CONTEXT, KmsKeyring, PhiCrypt
from phicrypt.errors import KeyAccessError
from phicrypt.keys.kms.errors import ADVICE, key_access_error
from phicrypt.keys.kms.tagging import TaggedCall
from phicrypt.testing import StrictKms

PACKAGE = Path(phicrypt.__file__).parent
DOCUMENTATION = (PACKAGE.parent / "docs" / "errors.md").read_text()
MODEL: Any = botocore.session.get_session().get_service_model("kms")
SERVER_ERRORS = {"DependencyTimeoutException", "KMSInternalException", "KeyUnavailableException"}
"""KMS's own failures: their status is 500 or more, which makes them outages whatever the code."""
JUDGED_WHERE_THEY_COME = {
    "KMSInvalidMacException": "a MAC that does not verify: AuthenticationError",
    "KMSInvalidSignatureException": "a signature that does not verify: AuthenticationError",
}


def operations_that_are_called() -> set[str]:
    """Operations of KMS that stand as text in the modules that call it."""
    texts = {
        node.value
        for folder in ("keys", "signatures", "witness")
        for path in (PACKAGE / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return texts & set(MODEL.operation_names)


def codes_of_the_model() -> set[str]:
    return {
        str(shape.error_code or shape.name)
        for operation in operations_that_are_called()
        for shape in MODEL.operation_model(operation).error_shapes
    }


def documented() -> dict[str, bool]:
    """code -> whether the page calls it retryable"""
    section = DOCUMENTATION.partition("## KeyAccessError")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \| .+ \| (yes|no) \|$", section, flags=re.MULTILINE)
    return {code: answer == "yes" for codes, answer in rows for code in re.findall(r"`(\w+)`", codes)}


def test_the_operations_that_are_called_are_found():
    assert {"GenerateDataKey", "Decrypt", "ReEncrypt", "Sign", "VerifyMac", "DescribeKey"} <= (
        operations_that_are_called()
    )


def test_every_code_of_the_model_has_advice():
    assert codes_of_the_model() - set(ADVICE) - SERVER_ERRORS - set(JUDGED_WHERE_THEY_COME) == set()


def test_every_code_with_advice_is_documented():
    assert (set(ADVICE) | SERVER_ERRORS) - set(documented()) == set()


@pytest.mark.parametrize("code", sorted(set(documented()) & (set(ADVICE) | SERVER_ERRORS)))
def test_a_code_is_retryable_as_documented(code):
    answer = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    if code in SERVER_ERRORS:
        answer["ResponseMetadata"]["HTTPStatusCode"] = 500
    error = ClientError(answer, "Decrypt")
    refusal = key_access_error(error, "Decrypt", None, {}, TaggedCall(), is_botocore=True)
    assert (refusal.code, refusal.is_retryable) == (code, documented()[code])


# --- external key stores ---------------------------------------------------------------------------

OUT, BUSY, FINAL = (True, True), (True, False), (False, False)
WORDS_OF_KEY_STORES = [
    ("AWS KMS cannot communicate with the external key store proxy. …", OUT, "may succeed later"),
    ("… because the external key store proxy did not respond in time. …", OUT, "may succeed later"),
    ("The external key store proxy did not respond to the request in the time allotted. …", OUT, "proxy"),
    ("The external key store proxy is in an unhealthy state. …", OUT, "may succeed later"),
    ("AWS KMS cannot interpret the response from the external key store proxy. …", OUT, "may succeed later"),
    ("… due to a very high request rate.", BUSY, "cache data keys longer"),
    ("… because it could not authenticate AWS KMS. …", FINAL, "credential"),
    ("The external key store proxy denied access to the operation. …", FINAL, "own policy"),
    ("… because it could not find the external key.", FINAL, "no such key any more"),
    ("… because the external key is not enabled in the external key manager.", FINAL, "disabled"),
    ("… because the external key does not support the requested operation.", FINAL, "not for this operation"),
    ("… because it does not support the requested cryptographic operation.", FINAL, "not for this operation"),
    (
        "… the specified ciphertext or additional authenticated data is corrupted, …",
        FINAL,
        "context is not the one",
    ),
    (
        "… that the external key store proxy submitted for decryption, …",
        FINAL,
        "context is not the one",
    ),
    ("The custom key store is not connected.", FINAL, "ConnectCustomKeyStore"),
    ("arn:aws:kms:…:key/… is unavailable.", FINAL, "to stop the key's use"),
    ("arn:aws:kms:…:key/… is pending deletion.", FINAL, "cancel the deletion"),
]


@pytest.mark.parametrize(("words", "judged", "advice"), WORDS_OF_KEY_STORES)
def test_what_befell_an_external_key_store_is_told_by_the_words_of_kms(
    kms: StrictKms, words: str, judged: tuple[bool, bool], advice: str
) -> None:
    arn = kms.create_key()
    kms.fail("KMSInvalidStateException", status=400, message=words)
    with pytest.raises(KeyAccessError) as caught:
        PhiCrypt(KmsKeyring(arn, client=kms.client())).encrypt(b"x")
    refusal = caught.value
    assert (refusal.is_retryable, refusal.is_outage) == judged
    assert advice in str(refusal)
    assert words in str(refusal)
    assert ("cancel the deletion" in str(refusal)) == ("pending deletion" in words)


def test_the_words_of_kms_are_left_out_where_a_context_value_stands_in_them(kms: StrictKms) -> None:
    kms.fail("KMSInvalidStateException", status=400, message="it could not authenticate tenant-7 there")
    with pytest.raises(KeyAccessError, match="credential") as caught:
        PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client())).encrypt(b"x", context={"tenant": "tenant-7"})
    assert "tenant-7" not in str(caught.value)


@pytest.mark.parametrize("words", [words for words, judged, _ in WORDS_OF_KEY_STORES if judged == OUT])
def test_rule_13_no_other_region_is_asked_when_a_key_store_is_out(kms: StrictKms, words: str) -> None:
    east = kms.create_key(replicas=("us-west-2",))
    ring = KmsKeyring(east, client_factory=kms.client, failover_regions=["us-west-2"])
    message = PhiCrypt(ring).encrypt(b"x")
    kms.requests.clear()
    kms.fail("KMSInvalidStateException", status=400, message=words, region="us-east-1")
    with pytest.raises(KeyAccessError) as caught:
        PhiCrypt(ring).decrypt(message, context=ANY_CONTEXT)
    assert caught.value.is_outage
    assert [request.region for request in kms.requests] == ["us-east-1"]


def test_a_breaker_does_not_count_a_key_store_that_is_out(kms: StrictKms) -> None:
    """Other keys of the endpoint are not to wait for it."""
    ring = KmsKeyring(kms.create_key(), client=kms.client())
    kms.fail("KMSInvalidStateException", status=400, message=WORDS_OF_KEY_STORES[0][0], times=20)
    for _ in range(20):
        with pytest.raises(KeyAccessError, match="external key store"):
            PhiCrypt(ring).encrypt(b"x")
    assert PhiCrypt(ring).encrypt(b"x")
