"""``phicrypt s3`` on the local AWS."""

from __future__ import annotations

import io
import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.recipient_keys import ec_pair, private_pem, public_pem, rsa_pair

from phicrypt import KmsKeyring, PhiCrypt
from phicrypt.cli import run


@pytest.fixture
def bucket(aws: Any) -> str:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    aws.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def s3_command(environment: dict[str, str], aws: Any, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run ``phicrypt s3 NAME …``; (exit code, stdout, stderr)."""

    def command(name: str, *arguments: object, key: bool = True) -> tuple[int, str, str]:
        capfd.readouterr()
        options = ["--endpoint-url", aws.endpoint_url, *(["--key", aws.kms_key_arn] if key else [])]
        code = run(["s3", name, *map(str, arguments), *options])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def client(aws: Any) -> Any:
    return PhiCrypt(KmsKeyring(aws.kms_key_arn, client=aws.client("kms"))).s3(aws.client("s3"))


def test_objects_for_key_pairs_open_with_their_private_keys_alone(
    s3_command: Callable[..., Any], bucket: str, tmp_path: Path
) -> None:
    source, name = tmp_path / "scan.dcm", f"s3://{bucket}/study/scan.dcm"
    source.write_bytes(b"scan" * 1_000)
    theirs, rsa = ec_pair(), ("--rsa-name", "clinic/recovery")
    files = {"ec.pub": public_pem(theirs).encode(), "ec.key": private_pem(theirs)}
    files |= {"rsa.pub": public_pem(rsa_pair()).encode(), "rsa.key": private_pem(rsa_pair())}
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
        (tmp_path / file).chmod(0o600)
    for_both = ("--rsa-public-key", tmp_path / "rsa.pub", *rsa, "--ecdh-public-key", tmp_path / "ec.pub")
    assert s3_command("put", source, name, *for_both)[0] == 0
    assert s3_command("get", name, tmp_path / "back")[0] == 0
    by_rsa = ("--rsa-private-key", tmp_path / "rsa.key", *rsa)
    assert s3_command("get", name, tmp_path / "recovered", *by_rsa, key=False)[0] == 0
    assert (tmp_path / "recovered").read_bytes() == (tmp_path / "back").read_bytes() == source.read_bytes()
    by_ecdh = ("--ecdh-private-key", tmp_path / "ec.key")
    assert s3_command("cat", name, "--range", "-4", *by_ecdh, key=False)[:2] == (0, "scan")
    code, _, error = s3_command("cat", name, key=False)
    assert code == 2 and "name a key: --key ARN" in error


def test_files_go_up_and_come_down(s3_command: Callable[..., Any], bucket: str, tmp_path: Path) -> None:
    source, target = tmp_path / "scan.dcm", tmp_path / "back"
    source.write_bytes(b"scan" * 1_000)
    assert s3_command("put", source, f"s3://{bucket}/study/")[0] == 0
    assert s3_command("get", f"s3://{bucket}/study/scan.dcm", target)[0] == 0
    assert target.read_bytes() == source.read_bytes()
    code, out, _ = s3_command("cat", f"s3://{bucket}/study/scan.dcm", "--range", "-4")
    assert (code, out) == (0, "scan")
    for wrong in ("bytes=0-3", "4-1", "0-1,3-4", "all"):
        assert s3_command("cat", f"s3://{bucket}/study/scan.dcm", "--range", wrong)[:2] == (2, "")
    assert s3_command("cat", f"s3://{bucket}/study/scan.dcm")[1] == "scan" * 1_000
    assert s3_command("get", f"s3://{bucket}/study/scan.dcm", tmp_path, "--force")[0] == 0
    code, out, error = s3_command("get", f"s3://{bucket}/study/scan.dcm", "-")
    assert (code, out, "s3 cat" in error, Path("-").exists()) == (2, "", True, False)


def test_globs_name_many_files(s3_command: Callable[..., Any], bucket: str, client: Any, tmp_path: Path) -> None:
    for name in ("a.dcm", "b.dcm", "c.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert s3_command("put", tmp_path / "*.dcm", f"s3://{bucket}/p/")[0] == 0
    names = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert names == ["p/a.dcm", "p/b.dcm"]
    code, _, error = s3_command("put", tmp_path / "*.dcm", f"s3://{bucket}/one-name")
    assert (code, "end the S3 name" in error) == (2, True)
    assert s3_command("put", tmp_path / "*.absent", f"s3://{bucket}/p/")[0] == 9


def test_nothing_is_replaced_without_force(
    s3_command: Callable[..., Any], bucket: str, client: Any, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"new")
    client.put_object(Bucket=bucket, Key="k", Body=b"old")
    code, _, error = s3_command("put", source, f"s3://{bucket}/k")
    assert (code, "PreconditionFailed" in error) == (11, True)
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"
    assert s3_command("get", f"s3://{bucket}/k", source)[0] == 9
    assert source.read_bytes() == b"new"
    assert s3_command("put", source, f"s3://{bucket}/k", "--force")[0] == 0
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"new"


def test_stdin_is_a_source(
    s3_command: Callable[..., Any], bucket: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    assert s3_command("put", "-", f"s3://{bucket}/k")[0] == 0
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"from a pipe"


def test_ls_tells_claimed_plaintext_lengths(s3_command: Callable[..., Any], bucket: str, client: Any) -> None:
    client.put_object(Bucket=bucket, Key="p/a", Body=b"x" * 1_234)
    code, out, _ = s3_command("ls", f"s3://{bucket}/p/", "--json")
    (entry,) = json.loads(out)
    assert code == 0
    assert (entry["object_key"], entry["plaintext_length_bytes"]) == ("p/a", 1_234)
    assert entry["stored_length_bytes"] > 1_234
    assert "1234" in s3_command("ls", f"s3://{bucket}")[1]


def test_contexts_are_bound_and_required(s3_command: Callable[..., Any], bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    assert s3_command("put", source, f"s3://{bucket}/k", "--context", "tenant=clinic-7")[0] == 0
    assert s3_command("cat", f"s3://{bucket}/k", "--context", "tenant=clinic-7")[:2] == (0, "x")
    code, out, error = s3_command("cat", f"s3://{bucket}/k", "--context", "tenant=clinic-8")
    assert (code, out) == (5, "")
    assert "clinic" not in error


def test_s3ec_objects_are_written_and_read_by_name(
    s3_command: Callable[..., Any], bucket: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"for the neighbours")
    assert s3_command("put", source, f"s3://{bucket}/k", "--s3ec")[0] == 0
    assert s3_command("cat", f"s3://{bucket}/k")[0] == 10
    assert s3_command("cat", f"s3://{bucket}/k", "--read-format", "s3ec-v3")[:2] == (0, "for the neighbours")


def test_rewrap_prints_what_it_costs_first(
    s3_command: Callable[..., Any], bucket: str, client: Any, aws: Any
) -> None:
    client.put_object(Bucket=bucket, Key="p/a", Body=b"x" * 1_000)
    new_key = aws.create_kms_key()
    code, out, _ = s3_command("rewrap", f"s3://{bucket}/p/", "--to", new_key, "--dry-run", "--json")
    (plan,) = json.loads(out)
    assert (code, plan["method"], plan["bytes_through_client"]) == (
        0,
        "re-encrypt",
        2 * plan["stored_length_bytes"],
    )
    assert client.get_object(Bucket=bucket, Key="p/a")["Body"].read() == b"x" * 1_000
    assert s3_command("rewrap", f"s3://{bucket}/p/", "--to", new_key)[0] == 0
    reader = PhiCrypt(KmsKeyring(new_key, client=aws.client("kms"))).s3(aws.client("s3"))
    assert reader.get_object(Bucket=bucket, Key="p/a")["Body"].read() == b"x" * 1_000


def test_abort_incomplete_finds_what_a_killed_upload_left(
    s3_command: Callable[..., Any], bucket: str, aws: Any
) -> None:
    raw = aws.client("s3")
    raw.create_multipart_upload(Bucket=bucket, Key="k")
    code, out, _ = s3_command("abort-incomplete", f"s3://{bucket}", "--dry-run", key=False)
    assert (code, "k" in out) == (1, True)
    code, _, error = s3_command("abort-incomplete", f"s3://{bucket}", key=False)
    assert (code, "1 incomplete" in error) == (0, True)
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)
    assert s3_command("abort-incomplete", f"s3://{bucket}", "--dry-run", key=False)[0] == 0


@pytest.mark.parametrize("name", ["bucket/key", "s3:/b/k", "https://b/k", "s3://"])
def test_names_that_are_not_of_s3_are_refused(s3_command: Callable[..., Any], name: str) -> None:
    assert s3_command("cat", name)[0] == 2


def test_a_plaintext_object_is_told_apart(s3_command: Callable[..., Any], bucket: str, aws: Any) -> None:
    aws.client("s3").put_object(Bucket=bucket, Key="k", Body=b"plain")
    code, out, error = s3_command("cat", f"s3://{bucket}/k")
    assert (code, out) == (3, "")
    assert "plaintext" in error
