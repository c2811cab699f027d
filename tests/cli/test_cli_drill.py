"""phicrypt drill: recovery is rehearsed by the recovery path alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.recovery_keys import RecoveryKey

from phicrypt import BranchKeyStore, HierarchicalKeyring, KmsKeyring, MultiKeyring, PhiCrypt
from phicrypt.cli import run
from phicrypt.evidence.join import log_events
from phicrypt.keys.kms.rsa_keyring import KmsRsaKeyring
from phicrypt.testing import StrictKms

CONTEXT = {"tenant": "clinic-7"}
EXPECT = ("--expect", "tenant=clinic-7")


@pytest.fixture(scope="module")
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


class Drill:
    """Runs the command; by default against the strict KMS."""

    def __init__(self, endpoint_url: str, capfd: pytest.CaptureFixture[str]) -> None:
        self.endpoint_url = endpoint_url
        self._capfd = capfd

    def __call__(self, *arguments: object, endpoint_url: str | None = None) -> tuple[int, str, str]:
        self._capfd.readouterr()
        code = run(["drill", "--endpoint-url", endpoint_url or self.endpoint_url, *map(str, arguments)])
        captured = self._capfd.readouterr()
        return code, captured.out, captured.err

    def report(self, *arguments: object, endpoint_url: str | None = None) -> tuple[int, dict[str, Any]]:
        code, out, error = self(*arguments, "--json", endpoint_url=endpoint_url)
        assert out, error
        report: dict[str, Any] = json.loads(out)
        return code, report


@pytest.fixture
def drill(environment: dict[str, str], kms: StrictKms, capfd: pytest.CaptureFixture[str]) -> Drill:
    return Drill(kms.endpoint_url, capfd)


class Archive:
    """Ten messages for a daily KMS key and an RSA recovery key, and their digests."""

    def __init__(self, kms: StrictKms, folder: Path) -> None:
        self.folder = folder
        self.recovery = RecoveryKey(kms)
        self.daily_arn = kms.create_key()
        self.digests = folder / "SHA256SUMS"
        daily = KmsKeyring(self.daily_arn, client=kms.client())
        rsa = KmsRsaKeyring(self.recovery.arn, public_key=self.recovery.public_key, client=kms.client())
        phi = PhiCrypt(MultiKeyring(daily, rsa))
        lines = []
        for number in range(10):
            plaintext = b"diagnosis %d " % number * 1_000
            name = f"sub/{number}.esdk" if number % 2 else f"{number}.esdk"
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(phi.encrypt(plaintext, context=CONTEXT))
            lines.append(f"{hashlib.sha256(plaintext).hexdigest()}  {name}\n")
        self.digests.write_text("".join(lines))
        kms.requests.clear()


@pytest.fixture
def archive(kms: StrictKms, tmp_path: Path) -> Archive:
    return Archive(kms, tmp_path)


def test_opens_everything_by_the_recovery_key_alone_and_compares(
    drill: Drill, archive: Archive, kms: StrictKms
) -> None:
    arguments = (archive.folder, "--recovery-key", archive.recovery.arn, *EXPECT)
    code, report = drill.report(*arguments, "--sample", "0", "--digests", archive.digests)
    assert code == 0 and report["passed"] and report["matched"] == report["available"] == 10
    assert archive.recovery.arn in report["recovery_path"]
    assert {(one.operation, one.parameters["KeyId"]) for one in kms.requests} == {
        ("Decrypt", archive.recovery.arn)
    }
    assert len(kms.requests) == 10  # no cache: each sample shows that the key opens it
    assert report["seconds"]["total"] >= report["seconds"]["longest"] > 0
    code, table, _ = drill(*arguments)
    assert code == 0 and "passed: 10 of 10 opened by the recovery path alone" in table
    assert "diagnosis" not in table


def test_an_audit_log_holds_each_message_that_was_opened(drill: Drill, archive: Archive, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    audit = ("--audit-log", log, "--actor", "ops-1", "--purpose", "maintenance")
    code, report = drill.report(archive.folder, "--recovery-key", archive.recovery.arn, *EXPECT, *audit)
    assert (code, report["opened"]) == (0, 10)
    ends = [event for event in log_events(log) if event.kind == "end"]
    assert {(end.operation, end.outcome, end.actor) for end in ends} == {("decrypt_stream", "success", "ops-1")}
    assert len(ends) == 10


def test_draws_a_sample_of_the_size_asked_for(drill: Drill, archive: Archive) -> None:
    code, report = drill.report(
        archive.folder, "--recovery-key", archive.recovery.arn, "--sample", "3", "--any-context"
    )
    names = {result["name"] for result in report["results"]}
    assert (code, report["sampled"], report["available"], len(names)) == (0, 3, 10, 3)
    assert report["opened"] == 3  # nothing to compare with


def test_compares_with_the_daily_path(drill: Drill, archive: Archive, kms: StrictKms) -> None:
    arguments = (archive.folder, "--recovery-key", archive.recovery.arn, "--daily-key", archive.daily_arn, *EXPECT)
    code, report = drill.report(*arguments)
    assert code == 0 and report["matched"] == 10
    kms.disable(archive.daily_arn)
    code, report = drill.report(*arguments)
    assert code == 1 and report["opened"] == 10 and not report["passed"]
    assert {result["error"] for result in report["results"]} == {"KeyAccessError DisabledException"}


def test_a_changed_message_and_a_wrong_digest_fail_the_drill(drill: Drill, archive: Archive) -> None:
    changed = archive.folder / "0.esdk"
    content = changed.read_bytes()
    changed.write_bytes(content[:-1] + bytes((content[-1] ^ 1,)))
    lines = archive.digests.read_text().splitlines()
    lines[2] = "0" * 64 + lines[2][64:]
    archive.digests.write_text("\n".join(lines))
    code, report = drill.report(
        archive.folder, "--recovery-key", archive.recovery.arn, "--digests", archive.digests, *EXPECT
    )
    outcomes = {result["name"]: result["outcome"] for result in report["results"]}
    assert code == 1 and not report["passed"]
    assert (outcomes["0.esdk"], outcomes["2.esdk"], report["matched"]) == ("failed", "different", 8)


def test_a_sample_without_a_recorded_digest_fails_a_comparing_drill(drill: Drill, archive: Archive) -> None:
    archive.digests.write_text("".join(archive.digests.read_text().splitlines(keepends=True)[1:]))
    code, report = drill.report(
        archive.folder, "--recovery-key", archive.recovery.arn, "--digests", archive.digests, *EXPECT
    )
    assert code == 1 and (report["matched"], report["opened"]) == (9, 1)


def test_a_recovery_key_that_may_not_decrypt_fails_the_drill(
    drill: Drill, archive: Archive, kms: StrictKms
) -> None:
    kms.disable(archive.recovery.arn)
    code, report = drill.report(archive.folder, "--recovery-key", archive.recovery.arn, *EXPECT)
    assert code == 1 and report["failed"] == 10
    assert report["results"][0]["error"] == "KeyAccessError DisabledException"


def test_a_message_without_the_recovery_recipient_fails_the_drill(
    drill: Drill, archive: Archive, kms: StrictKms
) -> None:
    lonely = PhiCrypt(KmsKeyring(archive.daily_arn, client=kms.client())).encrypt(b"x", context=CONTEXT)
    (archive.folder / "lonely.esdk").write_bytes(lonely)
    code, report = drill.report(archive.folder, "--recovery-key", archive.recovery.arn, *EXPECT)
    assert code == 1 and (report["opened"], report["failed"]) == (10, 1)


def test_an_empty_sample_proves_nothing(drill: Drill, archive: Archive, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    code, _, error = drill(empty, "--recovery-key", archive.recovery.arn, *EXPECT)
    assert code == 1 and "nothing" in error


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--any-context", *EXPECT),
        (*EXPECT, "--via", "magic"),
        (*EXPECT, "--via", "keystore"),
        (*EXPECT, "--padding", "none"),
    ],
)
def test_refuses_unclear_orders(drill: Drill, archive: Archive, arguments: tuple[str, ...]) -> None:
    code, out, _ = drill(archive.folder, "--recovery-key", archive.recovery.arn, *arguments)
    assert (code, out) == (2, "")


def test_refuses_a_file_of_digests_that_is_none(drill: Drill, archive: Archive) -> None:
    for text in ("x", "0" * 64 + " one-space", "0" * 64 + "  a\n" + "1" * 64 + "  a"):
        archive.digests.write_text(text)
        code, out, error = drill(
            archive.folder, "--recovery-key", archive.recovery.arn, "--digests", archive.digests, *EXPECT
        )
        assert (code, out) == (2, "") and "line" in error


def test_rehearses_the_key_store_of_another_region(
    drill: Drill, aws: Any, kms: StrictKms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first Region's key wrote; the replica of the other Region alone opens."""
    east = kms.create_key("us-east-1", replicas=("us-west-2",))
    west = east.replace("us-east-1", "us-west-2")
    tables = {region: aws.client("dynamodb", region_name=region) for region in ("us-east-1", "us-west-2")}
    store = BranchKeyStore(
        "drill-keys", "drill-keys", east, dynamodb_client=tables["us-east-1"], kms_client=kms.client()
    )
    store.create_table()
    store.create_key("clinic-7")
    replica = BranchKeyStore(
        "drill-keys", "drill-keys", west, dynamodb_client=tables["us-west-2"], kms_client=kms.client("us-west-2")
    )
    replica.create_table()
    for item in tables["us-east-1"].scan(TableName="drill-keys")["Items"]:  # as a global table replicates
        tables["us-west-2"].put_item(TableName="drill-keys", Item=item)
    (tmp_path / "a.esdk").write_bytes(
        PhiCrypt(HierarchicalKeyring(store, "clinic-7")).encrypt(b"note", context=CONTEXT)
    )
    monkeypatch.setattr(
        "phicrypt.cli.options.AwsAccess.client",
        lambda self, service, *, region=None: (
            kms.client(region) if service == "kms" else tables[region or "us-east-1"]
        ),
    )
    kms.requests.clear()
    code, report = drill.report(
        tmp_path, "--recovery-key", west, "--via", "keystore", "--table", "drill-keys",
        "--branch-key-id", "clinic-7", *EXPECT,
    )  # fmt: skip
    assert code == 0 and report["opened"] == 1
    assert kms.operations_called() == [("Decrypt", "us-west-2")]


def test_rehearses_s3_objects_at_their_bound_location(drill: Drill, aws: Any) -> None:
    s3 = aws.client("s3")
    for bucket in ("drill-objects", "drill-replica"):
        s3.create_bucket(Bucket=bucket)
    phi = PhiCrypt(KmsKeyring(aws.kms_key_arn, client=aws.client("kms")))
    for number in range(3):
        phi.s3(s3).put_object(Bucket="drill-objects", Key=f"notes/{number}", Body=b"note %d" % number)
        raw = s3.get_object(Bucket="drill-objects", Key=f"notes/{number}")
        s3.put_object(
            Bucket="drill-replica", Key=f"notes/{number}", Body=raw["Body"].read(), Metadata=raw["Metadata"]
        )
    options = ("--recovery-key", aws.kms_key_arn, "--via", "kms", "--any-context")

    def results(source: str, *more: str) -> tuple[int, int]:
        code, report = drill.report(source, *options, *more, endpoint_url=aws.endpoint_url)
        return code, report["opened"]

    assert results("s3://drill-objects/notes/") == (0, 3)
    assert results("s3://drill-replica/notes/") == (1, 0)
    assert results("s3://drill-replica/notes/", "--logical-bucket", "drill-objects") == (0, 3)
    assert results("s3://drill-objects/other/") == (1, 0)
