"""No data key and no context in debug logs: botocore prints every body."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest

from phicrypt.core.log_redaction import KmsBodyFilter
from phicrypt.errors import KeyAccessError
from phicrypt.keys.kms.calls import call_kms, kms_client, redact_kms_logs, tagged
from phicrypt.testing import StrictKms

CANARY = "canary-tenant-4711"


@pytest.fixture
def every_logger_at_debug(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(0)
    for name in [*logging.root.manager.loggerDict, "botocore.endpoint", "botocore.parsers"]:
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


def exercise(client: Any, arn: str) -> list[bytes]:
    """Each operation that carries a plaintext key; the keys."""
    context = {"tenant": CANARY}
    answer = call_kms(
        client, "GenerateDataKey", key_arn=arn, KeyId=arn, NumberOfBytes=32, EncryptionContext=context
    ).response
    call_kms(
        client,
        "Decrypt",
        key_arn=arn,
        KeyId=arn,
        CiphertextBlob=answer["CiphertextBlob"],
        EncryptionContext=context,
    )
    mine = b"0123456789abcdefghijklmnopqrstuv"
    call_kms(client, "Encrypt", key_arn=arn, KeyId=arn, Plaintext=mine, EncryptionContext=context)
    with pytest.raises(KeyAccessError):
        call_kms(client, "Decrypt", key_arn=arn, KeyId=arn, CiphertextBlob=b"x", EncryptionContext=context)
    return [answer["Plaintext"], mine]


def leaks(text: str, data_keys: list[bytes]) -> list[str]:
    forms = [CANARY]
    for data_key in data_keys:
        encoded = base64.b64encode(data_key).decode()
        forms += [encoded, encoded[4:-4], data_key.hex(), repr(data_key)[2:-1], data_key.decode("latin-1")]
    return [form for form in forms if form in text]


@pytest.mark.parametrize("kind", ["own", "handed"])
def test_rule_33_debug_logs_hold_no_data_key_and_no_context(
    kms: StrictKms, every_logger_at_debug: pytest.LogCaptureFixture, kind: str
) -> None:
    client = (
        kms_client("us-east-1", endpoint_url=kms.endpoint_url, session=kms.session())
        if kind == "own"
        else tagged(kms.client())
    )
    data_keys = exercise(client, kms.create_key())
    text = every_logger_at_debug.text
    assert "Making request for" in text
    assert "Response body" in text
    assert "bytes removed by phicrypt" in text
    assert leaks(text, data_keys) == []


def test_rule_33_redaction_covers_other_kms_clients_of_the_process(
    kms: StrictKms, every_logger_at_debug: pytest.LogCaptureFixture
) -> None:
    redact_kms_logs()
    data_key = kms.client().generate_data_key(KeyId=kms.create_key(), NumberOfBytes=32)["Plaintext"]
    assert leaks(every_logger_at_debug.text, [data_key]) == []


def test_without_the_filter_botocore_would_log_the_data_key(
    kms: StrictKms, every_logger_at_debug: pytest.LogCaptureFixture
) -> None:
    """The control: shows that the search of the tests above finds what it looks for."""
    loggers = [logging.getLogger(name) for name in ("botocore.endpoint", "botocore.parsers")]
    kept = [list(logger.filters) for logger in loggers]
    client = kms.client()
    try:
        for logger in loggers:
            logger.filters.clear()
        data_key = client.generate_data_key(
            KeyId=kms.create_key(), NumberOfBytes=32, EncryptionContext={"tenant": CANARY}
        )["Plaintext"]
    finally:
        for logger, filters in zip(loggers, kept, strict=True):
            logger.filters[:] = filters
    assert CANARY in leaks(every_logger_at_debug.text, [data_key])
    assert base64.b64encode(data_key).decode() in leaks(every_logger_at_debug.text, [data_key])


def test_the_filter_is_installed_once_and_leaves_other_services_alone(
    every_logger_at_debug: pytest.LogCaptureFixture,
) -> None:
    redact_kms_logs()
    redact_kms_logs()
    logger = logging.getLogger("botocore.parsers")
    assert sum(isinstance(one, KmsBodyFilter) for one in logger.filters) == 1
    logger.debug("Response body:\n%r", b'{"Item": {"id": {"S": "1"}}}')
    assert '"Item"' in every_logger_at_debug.text


@pytest.mark.parametrize("form", ["mapping", "message", "bytearray"])
def test_bodies_are_removed_however_a_record_carries_them(
    every_logger_at_debug: pytest.LogCaptureFixture, form: str
) -> None:
    redact_kms_logs()
    logger = logging.getLogger("botocore.endpoint")
    body = '{"Plaintext": "c2VjcmV0"}'
    if form == "mapping":
        logger.debug("request %s", {"body": body.encode()})
    elif form == "message":
        logger.debug(body)
    else:
        logger.debug("request %s", bytearray(body.encode()))
    assert "c2VjcmV0" not in every_logger_at_debug.text
    assert "bytes removed by phicrypt" in every_logger_at_debug.text
