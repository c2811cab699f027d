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
from phicrypt.keys.kms.errors import ADVICE, key_access_error
from phicrypt.keys.kms.tagging import TaggedCall

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
