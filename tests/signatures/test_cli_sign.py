"""``phicrypt sign``, ``verify`` and ``mac`` on the local AWS."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from phicrypt.cli import run
from phicrypt.evidence.join import log_events
from phicrypt.testing import local_aws
from phicrypt.testing.local_stack import ACCESS_KEY_ID, SECRET_ACCESS_KEY


@pytest.fixture(scope="module")
def aws():
    with local_aws() as running:
        yield running


@pytest.fixture(scope="module")
def key(aws):
    return aws.create_kms_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")


@pytest.fixture
def phicrypt(aws, key, monkeypatch, tmp_path, capfd):
    """Runs a command in an empty folder; (exit code, stdout, stderr)."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("PHICRYPT_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("report.pdf").write_bytes(b"potassium 4.1")

    def command(*arguments: str, key_arn: str = key):
        capfd.readouterr()
        code = run([*arguments, "--key", key_arn, "--endpoint-url", aws.endpoint_url])
        return (code, *capfd.readouterr())

    return command


def test_sign_and_verify_by_cached_key_by_kms_and_offline(phicrypt):
    assert phicrypt("sign", "report.pdf", "--purpose", "release", "--public-key-out", "key.der")[0] == 0
    assert sorted(os.listdir()) == ["key.der", "report.pdf", "report.pdf.sig"]
    for more in ([], ["--by-kms"], ["--public-key", "key.der"]):
        code, out, error = phicrypt("verify", "report.pdf", "--purpose", "release", *more)
        assert (code, error) == (0, "")
        assert "verified: report.pdf" in out


def test_verify_prints_json(phicrypt):
    phicrypt("sign", "report.pdf", "--purpose", "release")
    _, out, _ = phicrypt("verify", "report.pdf", "--purpose", "release", "--json")
    facts = json.loads(out)
    assert (facts["resource"], facts["purpose"], facts["length_bytes"]) == ("report.pdf", "release", 13)


def test_changed_file_other_purpose_or_no_signature_fails(phicrypt):
    phicrypt("sign", "report.pdf", "--purpose", "release")
    assert phicrypt("verify", "report.pdf", "--purpose", "billing")[0] == 4
    Path("report.pdf").write_bytes(b"potassium 4.2")
    assert phicrypt("verify", "report.pdf", "--purpose", "release")[0] == 4
    Path("report.pdf.sig").write_text("{}")
    assert phicrypt("verify", "report.pdf", "--purpose", "release")[0] == 3
    Path("report.pdf.sig").unlink()
    assert phicrypt("verify", "report.pdf", "--purpose", "release")[0] == 9


def test_existing_signature_is_not_replaced_without_force(phicrypt):
    phicrypt("sign", "report.pdf", "--purpose", "release")
    before = Path("report.pdf.sig").read_bytes()
    assert phicrypt("sign", "report.pdf", "--purpose", "release")[0] == 9
    assert Path("report.pdf.sig").read_bytes() == before
    assert phicrypt("sign", "report.pdf", "--purpose", "release", "--force")[0] == 0


def test_manifest_names_what_changed(phicrypt):
    for name in "abc":
        Path(name).write_text(name)
    named = ("--purpose", "archive", "--manifest", "study.json")
    assert phicrypt("sign", "a", "b", "c", *named)[0] == 0
    assert phicrypt("verify", "a", "b", "c", *named)[0] == 0
    Path("b").write_text("B")
    code, _, error = phicrypt("verify", "a", "c", "b", *named)
    assert code == 4
    assert "bytes: b" in error
    assert "order: b (found: c)" in error


def test_several_files_need_a_manifest(phicrypt):
    Path("a").write_text("a")
    assert phicrypt("sign", "a", "report.pdf", "--purpose", "p")[0] == 2
    assert phicrypt("verify", "a", "report.pdf", "--purpose", "p")[0] == 2


def test_name_that_looks_like_phi_is_refused(phicrypt):
    Path("mrn-12345678.pdf").write_bytes(b"x")
    assert phicrypt("sign", "mrn-12345678.pdf", "--purpose", "p")[0] == 5


def test_alias_is_refused_for_signing(phicrypt):
    assert phicrypt("sign", "report.pdf", "--purpose", "p", key_arn="alias/signing")[0] == 2


def test_mac_generate_and_verify(phicrypt, aws):
    hmac_key = aws.create_kms_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")
    code, out, _ = phicrypt("mac", "generate", "report.pdf", "--purpose", "integrity", key_arn=hmac_key)
    assert code == 0
    mac = out.strip()
    assert len(bytes.fromhex(mac)) == 32
    assert phicrypt("mac", "verify", "report.pdf", mac, "--purpose", "integrity", key_arn=hmac_key)[0] == 0
    assert phicrypt("mac", "verify", "report.pdf", mac, "--purpose", "other", key_arn=hmac_key)[0] == 4
    assert phicrypt("mac", "verify", "report.pdf", "xyz", "--purpose", "integrity", key_arn=hmac_key)[0] == 2


def test_signatures_and_macs_leave_their_events_in_the_audit_log(phicrypt, aws, tmp_path):
    log = tmp_path / "audit.jsonl"
    hmac_key = aws.create_kms_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")
    recorded = ("--audit-log", str(log), "--actor", "dr-1")
    named = ("report.pdf", "--purpose", "release")
    assert phicrypt("sign", *named, *recorded)[0] == 0
    assert phicrypt("verify", *named, "--by-kms", *recorded)[0] == 0
    _, out, _ = phicrypt("mac", "generate", *named, *recorded, key_arn=hmac_key)
    assert phicrypt("mac", "verify", "report.pdf", out.strip(), *named[1:], *recorded, key_arn=hmac_key)[0] == 0
    assert phicrypt("mac", "verify", "report.pdf", "00" * 32, *named[1:], *recorded, key_arn=hmac_key)[0] == 4
    uses = [event for event in log_events(log) if event.kind == "use"]
    assert [use.operation for use in uses] == ["sign", "verify", "mac", "verify-mac", "verify-mac"]
    assert [use.outcome for use in uses] == ["success"] * 4 + ["failed"]
    assert {use.actor for use in uses} == {"dr-1"}
    assert "report.pdf" not in log.read_text()
    assert phicrypt("sign", *named, "--force", "--audit-log", str(tmp_path / "no-folder" / "log"))[0] == 8
