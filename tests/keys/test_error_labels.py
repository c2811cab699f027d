"""Which errors say "try again" and which "another Region may serve", as one table (rules 13 and 27)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.wires import HTML, Answer, Wire, fresh_id, unconnected

from phicrypt import BranchKeyStore, HierarchicalKeyring, KmsKeyring, PhiCrypt
from phicrypt.errors import KeyAccessError

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
JSON = {"content-type": "application/x-amz-json-1.1"}


def answer(status: int, document: Any) -> Answer:
    return Answer(status, {**JSON, "x-amzn-requestid": fresh_id()}, json.dumps(document).encode())


def error(status: int, code: str, **members: Any) -> Answer:
    return answer(status, {"__type": code, "message": "no", **members})


KEY = {"KeyId": ARN, "Plaintext": "A" * 43 + "=", "CiphertextBlob": "AAAA"}
BOTH, NEITHER, LATER = (True, True), (False, False), (True, False)
OF_KMS: list[tuple[str, Answer, str, tuple[bool, bool]]] = [
    ("a page", Answer(200, {"content-type": "text/html"}, HTML), "NoAnswer", BOTH),
    ("a page that forbids", Answer(403, {"content-type": "text/html"}, HTML), "NoAnswer", BOTH),
    ("a page of a gateway", Answer(502, {"content-type": "text/html"}, HTML), "502", BOTH),
    ("cut", Answer(200, {**JSON, "x-amzn-requestid": "cut"}, b'{"KeyId": "arn:'), "NoAnswer", BOTH),
    ("empty", Answer(200, {**JSON, "x-amzn-requestid": "empty"}, b""), "NoAnswer", BOTH),
    ("braces", answer(200, {}), "NoAnswer", BOTH),
    ("no request id", Answer(200, JSON, json.dumps(KEY).encode()), "NoAnswer", BOTH),
    ("no base64", answer(200, {**KEY, "Plaintext": "A"}), "NoAnswer", BOTH),
    ("a number", answer(200, {**KEY, "KeyId": 7}), "NoAnswer", BOTH),
    ("another key", answer(200, {**KEY, "KeyId": ARN[:-1] + "c"}), "UnexpectedAnswer", NEITHER),
    ("a short key", answer(200, {**KEY, "Plaintext": "AAAA"}), "UnexpectedAnswer", NEITHER),
    ("no ciphertext", answer(200, {"KeyId": ARN, "Plaintext": KEY["Plaintext"]}), "UnexpectedAnswer", NEITHER),
    ("denied", error(400, "AccessDeniedException"), "AccessDeniedException", NEITHER),
    ("disabled", error(400, "DisabledException"), "DisabledException", NEITHER),
    ("throttled", error(400, "ThrottlingException"), "ThrottlingException", LATER),
    ("failed", error(500, "KMSInternalException"), "KMSInternalException", BOTH),
]
OF_TABLES: list[tuple[str, Answer, str, tuple[bool, bool]]] = [
    ("a page", Answer(200, {"content-type": "text/html"}, HTML), "NoAnswer", BOTH),
    ("cut", Answer(200, {**JSON, "x-amzn-requestid": "cut-2"}, b'{"Item": {"ty'), "NoAnswer", BOTH),
    ("no request id", Answer(200, JSON, b"{}"), "NoAnswer", BOTH),
    (
        "another checksum",
        Answer(200, {**JSON, "x-amzn-requestid": "crc", "x-amz-crc32": "7"}, b"{}"),
        "NoAnswer",
        BOTH,
    ),
    ("none there", answer(200, {}), "BranchKeyNotFound", NEITHER),
    ("an empty row", answer(200, {"Item": {}}), "InvalidBranchKeyRecord", NEITHER),
    ("another row", answer(200, {"Item": {"branch-key-id": {"S": "b"}, "type": {"S": "c"}}}), "", NEITHER),
    ("denied", error(400, "AccessDeniedException"), "AccessDeniedException", NEITHER),
    ("no table", error(400, "ResourceNotFoundException"), "ResourceNotFoundException", NEITHER),
    (
        "throttled",
        error(400, "ProvisionedThroughputExceededException"),
        "ProvisionedThroughputExceededException",
        LATER,
    ),
    ("failed", error(500, "InternalServerError"), "InternalServerError", BOTH),
]


def labels(raised: KeyAccessError) -> tuple[bool, bool]:
    return raised.is_retryable, raised.is_outage


@pytest.mark.parametrize(
    ("given", "code", "expected"), [row[1:] for row in OF_KMS], ids=[row[0] for row in OF_KMS]
)
def test_rule_27_the_labels_of_what_kms_answers(given: Answer, code: str, expected: tuple[bool, bool]) -> None:
    client = unconnected("kms")
    Wire(client, is_real=False).always = lambda _: given
    with pytest.raises(KeyAccessError) as caught:
        PhiCrypt(KmsKeyring(ARN, client=client)).encrypt(b"note", context={"tenant": "clinic-7"})
    assert (caught.value.code, labels(caught.value)) == (code, expected)
    assert "guest network" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "code", "expected"), [row[1:] for row in OF_TABLES], ids=[row[0] for row in OF_TABLES]
)
def test_rule_27_the_labels_of_what_a_key_store_answers(
    given: Answer, code: str, expected: tuple[bool, bool]
) -> None:
    client = unconnected("dynamodb")
    answers = iter(range(100))

    def again(_: Any) -> Answer:
        headers = dict(given.headers)
        if "x-amzn-requestid" in headers:
            headers["x-amzn-requestid"] += f"-{next(answers)}"
        return Answer(given.status, headers, given.body)

    Wire(client, is_real=False).always = again
    store = BranchKeyStore("keys", "clinic-keys", ARN, dynamodb_client=client, kms_client=unconnected("kms"))
    with pytest.raises(KeyAccessError) as caught:
        PhiCrypt(HierarchicalKeyring(store, "clinic-7")).encrypt(b"note", context={"tenant": "clinic-7"})
    assert (caught.value.code, labels(caught.value)) == (code or "InvalidBranchKeyRecord", expected)
