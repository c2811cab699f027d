"""Messages between phicrypt and the AWS Encryption SDK for JavaScript, in both directions."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from typing import Any

import pytest
from interop.esdk_js import (
    JavaScriptCounterpart,
    JavaScriptRefusedError,
    JavaScriptUnavailableError,
    javascript_counterpart,
)

from phicrypt import KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.errors import PhiCryptError
from phicrypt.formats.esdk.sealing import DEFAULT_FRAME_LENGTH_BYTES
from phicrypt.testing import local_aws
from phicrypt.testing.local_stack import ACCESS_KEY_ID, SECRET_ACCESS_KEY

WRAPPING_KEY = os.urandom(32)
CONTEXT = {"tenant": "clinic-7", "ünï": "cödé \U0001f512"}
SUITES = {0x0478: False, 0x0578: True}
MIB = 1024 * 1024


def sizes(frame_length):
    return sorted({0, 1, frame_length - 1, frame_length, frame_length + 1, 3 * frame_length + 7})


CASES = [
    (frame_length, size)
    for frame_length in (1, 4_096, DEFAULT_FRAME_LENGTH_BYTES, MIB)
    for size in sizes(frame_length)
]


@pytest.fixture(scope="module")
def javascript() -> Iterator[JavaScriptCounterpart]:
    try:
        with javascript_counterpart() as counterpart:
            yield counterpart
    except JavaScriptUnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    with local_aws() as stack:
        yield stack


@pytest.fixture(scope="module", params=["raw AES", "KMS"])
def both_sides(request, aws):
    """A phicrypt client and the settings of the same keyring in JavaScript."""
    if request.param == "KMS":
        settings = {
            "kind": "kms",
            "keyArn": aws.kms_key_arn,
            "endpoint": aws.endpoint_url,
            "accessKeyId": ACCESS_KEY_ID,
            "secretAccessKey": SECRET_ACCESS_KEY,
        }
        return PhiCrypt(KmsKeyring(aws.kms_key_arn, client=aws.client("kms"))), settings
    settings = {
        "kind": "raw-aes",
        "namespace": "clinic",
        "name": "key-1",
        "wrappingKey": base64.b64encode(WRAPPING_KEY).decode(),
    }
    return PhiCrypt(RawAesKeyring(namespace="clinic", name="key-1", wrapping_key=WRAPPING_KEY)), settings


@pytest.mark.parametrize("suite_id", SUITES, ids=hex)
@pytest.mark.parametrize(("frame_length", "size"), CASES)
def test_javascript_opens_what_phicrypt_wrote(javascript, both_sides, suite_id, frame_length, size):
    client, settings = both_sides
    plaintext = os.urandom(size)
    message = client.encrypt(plaintext, context=CONTEXT, signed=SUITES[suite_id], frame_length_bytes=frame_length)
    opened, context = javascript.decrypt(message, settings)
    assert opened == plaintext
    assert {name: value for name, value in context.items() if name != "aws-crypto-public-key"} == CONTEXT
    assert ("aws-crypto-public-key" in context) == SUITES[suite_id]


@pytest.mark.parametrize("suite_id", SUITES, ids=hex)
@pytest.mark.parametrize(("frame_length", "size"), CASES)
def test_phicrypt_opens_what_javascript_wrote(javascript, both_sides, suite_id, frame_length, size):
    client, settings = both_sides
    plaintext = os.urandom(size)
    context = {**CONTEXT, "empty": ""}  # which phicrypt reads and does not write
    message = javascript.encrypt(
        plaintext, settings, context=context, suite_id=suite_id, frame_length_bytes=frame_length
    )
    assert client.inspect(message).suite_id == f"0x{suite_id:04x}"
    assert client.inspect(message).frame_length_bytes == frame_length
    assert client.decrypt(message, context=context, require_signed=SUITES[suite_id]) == plaintext


def test_each_side_refuses_what_was_changed_on_the_way(javascript, both_sides):
    client, settings = both_sides
    message = bytearray(client.encrypt(b"x" * 100, context=CONTEXT))
    message[-1] ^= 1
    with pytest.raises(JavaScriptRefusedError):
        javascript.decrypt(bytes(message), settings)
    message = bytearray(
        javascript.encrypt(b"x" * 100, settings, context=CONTEXT, suite_id=0x0478, frame_length_bytes=64)
    )
    message[-1] ^= 1
    with pytest.raises(PhiCryptError):
        client.decrypt(bytes(message), context=CONTEXT)
