"""How many rooms a read goes through: ``python -m pytest tests/s3/test_read_path.py -s`` prints the paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.module_path import ModulePath, followed

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.audit.sinks.memory import RecordingSink
from phicrypt.s3.client import S3Client

FRAME = 128 * 1024
DATA = bytes(range(256)) * (3 * FRAME // 256) + b"the end"
MAX_MODULES = 8
MAX_RETURNS = 1


def read_path(s3: S3Client, bucket: str, **request: Any) -> ModulePath:
    """The path of one read through ``phicrypt.s3``, from the verb to the bytes and back."""
    with followed("phicrypt.s3") as path:
        plaintext = s3.get_object(Bucket=bucket, Key="k", **request)["Body"].read()
    assert plaintext in DATA
    assert len(plaintext) > FRAME
    return path


@pytest.fixture(params=["no audit trail", "an audit trail"])
def client(request: pytest.FixtureRequest, raw: Any, bucket: str, keyring: RawAesKeyring) -> S3Client:
    sinks = [RecordingSink()] if request.param == "an audit trail" else []
    client = PhiCrypt(keyring, audit=sinks).s3(raw)
    client.put_object(Bucket=bucket, Key="k", Body=DATA)
    return client


@pytest.mark.parametrize("span", [None, "bytes=5-300000", "bytes=-200000"])
def test_a_read_passes_few_modules_and_comes_back_to_none_twice(
    client: S3Client, bucket: str, span: str | None
) -> None:
    path = read_path(client, bucket, **({} if span is None else {"Range": span}))
    print(f"get_object {span or 'whole'}: {path}")
    assert "operations" in path.modules
    assert "reading.frames" in path.modules
    assert len(path.modules) <= MAX_MODULES
    assert max(path.returns.values()) <= MAX_RETURNS, path
    page = Path(__file__).parents[2] / "docs" / "architecture.md"
    assert str(path) in page.read_text(encoding="utf-8"), f"the page shows another path than {path}"


def test_a_path_counts_what_comes_back() -> None:
    path = ModulePath("phicrypt.s3")
    path.visits = ["a", "b", "a", "c", "a"]
    assert path.modules == ["a", "b", "c"]
    assert path.returns == {"a": 2, "b": 0, "c": 0}
    assert str(path) == "a → b → a → c → a"


def test_calls_of_other_packages_belong_to_the_visit_under_way(s3: S3Client, bucket: str) -> None:
    with followed("phicrypt.core") as path:
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert "location" in path.modules
    with followed("phicrypt.s3") as path:
        len([])
    assert path.visits == []
