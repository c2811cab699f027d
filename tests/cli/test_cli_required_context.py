"""--required-context: pairs that files and objects are bound to and do not store."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from phicrypt import KmsKeyring, PhiCrypt
from phicrypt.cli import run

PAIRS = ("tenant=clinic-7", "patient=p-20391-canary")
BIND = ("--context", PAIRS[0], "--context", PAIRS[1], "--required-context", "patient")
EXPECT = ("--expect", PAIRS[0], "--expect", PAIRS[1], "--required-context", "patient")
SECRET = b"diagnosis " * 5_000
WHOLE = {"tenant": "clinic-7", "patient": "p-20391-canary"}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.json"
    path.write_bytes(SECRET)
    return path


def test_rule_35_a_file_stores_no_required_pair_and_is_read_with_it(phicrypt: Any, aws: Any, record: Path) -> None:
    message = Path(f"{record}.esdk")
    assert phicrypt("encrypt", record, *BIND).code == 0
    assert b"patient" not in message.read_bytes()
    assert b"canary" not in message.read_bytes()
    assert phicrypt("decrypt", message, "-", *EXPECT).out == SECRET.decode()
    client = PhiCrypt(KmsKeyring(aws.kms_key_arn, client=aws.client("kms")), required_context=("patient",))
    assert client.decrypt(message.read_bytes(), context=WHOLE) == SECRET
    told = phicrypt("decrypt", message, "-", *EXPECT[:4])
    assert (told.code, told.out) == (5, "")
    assert "--required-context" in told.error
    assert "required_context" not in told.error
    assert "canary" not in told.error
    plain = phicrypt("encrypt", record, f"{record}.plain", *BIND[:4])
    assert plain.code == 0
    told = phicrypt("decrypt", f"{record}.plain", "-", *EXPECT)  # the downgrade
    assert (told.code, told.out) == (5, "")
    assert "'patient'" in told.error


def test_a_name_without_a_value_is_refused_in_the_options_own_words(phicrypt: Any, record: Path) -> None:
    told = phicrypt("encrypt", record, "--context", PAIRS[0], "--required-context", "patient")
    assert told.code == 2
    assert "--context patient=VALUE" in told.error
    told = phicrypt("decrypt", record, "-", "--any-context", "--required-context", "patient")
    assert told.code == 2
    assert "--expect patient=VALUE" in told.error


def test_inspect_shows_stored_names_and_says_that_there_may_be_others(phicrypt: Any, record: Path) -> None:
    assert phicrypt("encrypt", record, *BIND).code == 0
    told = json.loads(phicrypt("inspect", f"{record}.esdk", "--json").out)
    assert told["context_names"] == ["tenant"]
    assert told["required_context_names"] == []
    shown = phicrypt("inspect", f"{record}.esdk").out
    assert "only opening tells" in shown
    assert "patient" not in shown


def test_rule_35_objects_go_up_and_come_down_without_storing_it(
    environment: dict[str, str], aws: Any, record: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def s3(*arguments: object) -> int:
        return run(["s3", *map(str, arguments), "--endpoint-url", aws.endpoint_url, "--key", aws.kms_key_arn])

    raw, bucket = aws.client("s3"), f"bucket-{uuid.uuid4().hex[:12]}"
    raw.create_bucket(Bucket=bucket)
    name = f"s3://{bucket}/record"
    assert s3("put", record, name, *BIND) == 0
    assert b"canary" not in raw.get_object(Bucket=bucket, Key="record")["Body"].read()
    capfd.readouterr()
    assert s3("cat", name, "--range", "0-8", *BIND) == 0
    assert capfd.readouterr().out == "diagnosis"
    assert s3("get", name, tmp_path / "back", *BIND) == 0
    assert (tmp_path / "back").read_bytes() == SECRET
    assert s3("rewrap", name, "--to", aws.kms_key_arn, *BIND) == 0
    assert b"canary" not in raw.get_object(Bucket=bucket, Key="record")["Body"].read()
    assert s3("cat", name, *BIND[:4]) == 5
    assert s3("put", record, name, "--s3ec", *BIND) == 2
