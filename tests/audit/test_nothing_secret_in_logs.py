"""With every logger at DEBUG, no log line, event or error holds a canary or a data key."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from phicrypt import KmsKeyring, PhiCrypt
from phicrypt.audit import JsonlSink, LoggingSink
from phicrypt.core.materials import DecryptionMaterials, EncryptionMaterials
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.errors import PhiCryptError
from phicrypt.keys.kms.keyring import KmsKeyring as Keyring
from phicrypt.testing import local_aws

CANARY = "CANARY-7f3a9b1c-Jane-Doe"
OBJECT_KEY = "opaque"


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Everything that any logger says, formatted."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(self.format(record))

    listener = Listener()
    root = logging.getLogger()
    levels = {name: logger.level for name, logger in root.manager.loggerDict.items() if hasattr(logger, "level")}
    before = root.level
    root.addHandler(listener)
    root.setLevel(logging.DEBUG)
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield said
    root.removeHandler(listener)
    root.setLevel(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def spellings(secret: bytes) -> list[str]:
    """The forms in which bytes appear in logs: base64 at every alignment, hexadecimal, Python's repr."""
    inner = [base64.b64encode(secret[start:])[4:-4].decode() for start in range(3)]
    return [*inner, secret.hex(), repr(secret)[2:-1]]


def test_nothing_secret_in_logs(lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_keys: set[bytes] = set()
    encrypt, decrypt = Keyring.on_encrypt, Keyring.on_decrypt

    def remembering_encrypt(self: Keyring, materials: EncryptionMaterials) -> EncryptionMaterials:
        made = encrypt(self, materials)
        assert made.data_key is not None
        data_keys.add(made.data_key.key_bytes)
        return made

    def remembering_decrypt(self: Keyring, materials: DecryptionMaterials, keys: object) -> DecryptionMaterials:
        opened = decrypt(self, materials, keys)  # type: ignore[arg-type]
        assert opened.data_key is not None
        data_keys.add(opened.data_key.key_bytes)
        return opened

    monkeypatch.setattr(Keyring, "on_encrypt", remembering_encrypt)
    monkeypatch.setattr(Keyring, "on_decrypt", remembering_decrypt)
    table = TableConfig(
        table_name="patients",
        partition_key="patient_id",
        actions={"patient_id": Action.SIGN_ONLY, "name": Action.ENCRYPT_AND_SIGN},
    )
    errors: list[str] = []
    with local_aws() as aws:
        phi = PhiCrypt(
            KmsKeyring(aws.kms_key_arn, client=aws.client("kms")),
            cache=None,
            audit=[JsonlSink(tmp_path / "audit.jsonl"), LoggingSink()],
        )
        message = phi.encrypt(CANARY.encode(), context={"tenant": "clinic-7"})
        assert phi.decrypt(message, context={"tenant": "clinic-7"}) == CANARY.encode()
        aws.client("s3").create_bucket(Bucket="bucket")
        s3 = phi.s3(aws.client("s3"))
        s3.put_object(Bucket="bucket", Key=OBJECT_KEY, Body=CANARY.encode())
        assert s3.get_object(Bucket="bucket", Key=OBJECT_KEY)["Body"].read() == CANARY.encode()
        item = {"patient_id": "p-1", "name": CANARY}
        assert phi.dynamodb.decrypt_item(phi.dynamodb.encrypt_item(item, table), table) == item
        for attempt in (
            lambda: phi.decrypt(message[:-1] + bytes((message[-1] ^ 1,)), context={"tenant": "clinic-7"}),
            lambda: phi.encrypt(b"x", context={"subject": f"{CANARY} 123-45-6789"}),
            lambda: phi.decrypt(message, context={"tenant": CANARY}),
        ):
            with pytest.raises(PhiCryptError) as caught:
                attempt()
            errors.append(f"{caught.value} {caught.value!r}")
        phi.close()
    assert len(data_keys) >= 3
    log = "\n".join(lines)
    assert "botocore" in log or "GenerateDataKey" in log
    written = (tmp_path / "audit.jsonl").read_text()
    for secret in (CANARY.encode(), *data_keys):
        for spelling in spellings(secret):
            assert spelling not in log
            assert spelling not in written
            assert spelling not in "".join(errors)
    assert CANARY not in log + written + "".join(errors)
    assert "123-45-6789" not in log + written + "".join(errors)
