"""phicrypt keystore on a local AWS."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phicrypt import BranchKeyStore
from phicrypt.cli import run
from phicrypt.evidence.join import log_events
from phicrypt.evidence.verify import verify

_numbers = itertools.count()


class Keystore:
    """Runs keystore commands on one new table."""

    def __init__(self, aws: Any, capfd: pytest.CaptureFixture[str]) -> None:
        self.aws = aws
        self.table = f"cli-keystore-{next(_numbers)}"
        self._capfd = capfd

    def __call__(self, command: str, *arguments: object, key: bool = True) -> tuple[int, str, str]:
        options = ["--table", self.table, "--endpoint-url", self.aws.endpoint_url]
        if key:
            options += ["--key", self.aws.kms_key_arn]
        self._capfd.readouterr()
        code = run(["keystore", command, *options, *map(str, arguments)])
        captured = self._capfd.readouterr()
        return code, captured.out, captured.err

    def json(self, command: str, *arguments: object, key: bool = True) -> Any:
        code, out, error = self(command, *arguments, "--json", key=key)
        assert code == 0, error
        return json.loads(out)

    def store(self) -> BranchKeyStore:
        return BranchKeyStore(
            self.table,
            self.table,
            self.aws.kms_key_arn,
            dynamodb_client=self.aws.client("dynamodb"),
            kms_client=self.aws.client("kms"),
        )


@pytest.fixture
def keystore(environment: dict[str, str], aws: Any, capfd: pytest.CaptureFixture[str]) -> Keystore:
    made = Keystore(aws, capfd)
    assert made("create-table", key=False)[0] == 0
    return made


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Pretend that somebody types on a terminal."""

    def types(text: str) -> None:
        stdin = io.StringIO(text)
        stdin.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", stdin)

    return types


def test_create_table_prints_the_arn_and_may_be_repeated(keystore: Keystore) -> None:
    code, out, _ = keystore("create-table", key=False)
    assert code == 0 and out.strip().endswith(f"table/{keystore.table}")
    assert keystore.json("create-table", key=False) == {"table_arn": out.strip()}


def test_create_rotate_list_and_show(keystore: Keystore) -> None:
    assert keystore.json("create-key", "clinic-7", "--context", "department=cardiology") == {
        "branch_key_id": "clinic-7"
    }
    _, drawn, _ = keystore("create-key")
    assert re.fullmatch(r"[0-9a-f-]{36}\n", drawn)
    _, version, _ = keystore("rotate", "clinic-7")
    assert keystore.store().fetch_active("clinic-7").version == version.strip()
    assert keystore.store().fetch_active("clinic-7").context == {"department": "cardiology"}
    listed = {row["branch_key_id"]: row for row in keystore.json("list", key=False)}
    assert set(listed) == {"clinic-7", drawn.strip()}
    assert listed["clinic-7"]["state"] == "active" and listed["clinic-7"]["version"] == version.strip()
    assert listed["clinic-7"]["kms_key_arn"] == keystore.aws.kms_key_arn
    rows = keystore.json("show", "clinic-7", key=False)
    assert len(rows) == 4 and rows[0]["version"] == version.strip()
    for command in (("list",), ("show", "clinic-7")):
        code, table, _ = keystore(*command, key=False)
        assert code == 0 and version.strip() in table


def test_list_and_show_ask_kms_nothing(keystore: Keystore) -> None:
    keystore("create-key", "clinic-7")
    keystore.aws.kms_requests.clear()
    keystore("list", key=False)
    keystore("show", "clinic-7", key=False)
    assert keystore.aws.kms_requests == []


@pytest.mark.parametrize("command", ["rotate", "show", "shred"])
def test_unknown_ids_end_with_the_key_access_code(keystore: Keystore, command: str) -> None:
    extra = ("--confirm", "clinic-9") if command == "shred" else ()
    code, out, error = keystore(command, "clinic-9", *extra, key=command != "show")
    assert (code, out) == (6, "") and "clinic-9" not in error.replace("--confirm", "")


def test_a_branch_key_id_that_looks_like_phi_is_refused(keystore: Keystore) -> None:
    code, _, error = keystore("create-key", "078-05-1120")
    assert code == 5 and "078-05-1120" not in error
    assert keystore.json("list", key=False) == []


def test_shred_dry_run_changes_nothing(keystore: Keystore) -> None:
    keystore("create-key", "clinic-7")
    plan = keystore.json("shred", "clinic-7", "--dry-run")
    assert plan["dry_run"] and len(plan["rows"]) == 3
    code, table, _ = keystore("shred", "clinic-7", "--dry-run")
    assert code == 0 and "branch:ACTIVE" in table and "Not examined" in table
    assert keystore.store().fetch_active("clinic-7")


def test_shred_asks_for_the_id_to_be_typed(keystore: Keystore, typing: Callable[[str], None]) -> None:
    keystore("create-key", "clinic-7")
    for typed in ("yes\n", "clinic-8\n", "\n", ""):
        typing(typed)
        code, out, error = keystore("shred", "clinic-7")
        assert code == 2 and out == "" and "nothing was changed" in error
    assert keystore.store().fetch_active("clinic-7")
    typing("clinic-7\n")
    code, out, error = keystore("shred", "clinic-7")
    assert code == 0 and "3 rows" in error
    assert "3 rows deleted" in json.loads(out)["statement"]
    assert keystore.json("list", key=False)[0]["state"] == "shredded"


def test_shred_in_a_script_needs_the_id_again(keystore: Keystore, monkeypatch: pytest.MonkeyPatch) -> None:
    keystore("create-key", "clinic-7")
    monkeypatch.setattr("sys.stdin", io.StringIO("clinic-7\n"))
    assert keystore("shred", "clinic-7")[0] == 2
    assert keystore("shred", "clinic-7", "--confirm", "clinic-8")[0] == 2
    assert keystore.store().fetch_active("clinic-7")
    assert keystore("shred", "clinic-7", "--confirm", "clinic-7")[0] == 0


def test_shred_writes_the_certificate_and_never_over_a_file(keystore: Keystore, tmp_path: Path) -> None:
    keystore("create-key", "clinic-7")
    certificate = tmp_path / "clinic-7.json"
    certificate.write_text("older")
    code, _, _ = keystore("shred", "clinic-7", "--confirm", "clinic-7", "--certificate", certificate)
    assert code == 9 and keystore.store().fetch_active("clinic-7")
    certificate.unlink()
    code, out, _ = keystore("shred", "clinic-7", "--confirm", "clinic-7", "--certificate", certificate)
    assert code == 0 and json.loads(certificate.read_text()) == json.loads(out)
    assert keystore("create-key", "clinic-7")[0] == 6


def test_an_alias_is_resolved_once_and_the_rows_pin_the_key(keystore: Keystore) -> None:
    alias = f"alias/{keystore.table}"
    keystore.aws.client("kms").create_alias(AliasName=alias, TargetKeyId=keystore.aws.kms_key_arn)
    code, _, error = keystore("create-key", "clinic-7", "--key", alias, key=False)
    assert code == 0, error
    assert keystore.json("list", key=False)[0]["kms_key_arn"] == keystore.aws.kms_key_arn


def test_an_audit_log_holds_each_operation_with_its_actor(keystore: Keystore, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    audit = ("--audit-log", log, "--actor", "ops-1", "--purpose", "maintenance")
    assert keystore("create-key", "clinic-7", *audit)[0] == 0
    assert keystore("rotate", "clinic-7", *audit)[0] == 0
    assert keystore("rotate", "clinic-8", *audit)[0] == 6
    assert keystore("shred", "clinic-7", "--dry-run", *audit)[0] == 0
    assert keystore("shred", "clinic-7", "--confirm", "clinic-7", *audit)[0] == 0
    assert verify(log).is_valid
    ends = [event for event in log_events(log) if event.kind == "end"]
    assert [(end.operation, end.outcome, end.actor, end.purpose) for end in ends] == [
        ("create-branch-key", "success", "ops-1", "maintenance"),
        ("rotate-branch-key", "success", "ops-1", "maintenance"),
        ("rotate-branch-key", "failed", "ops-1", "maintenance"),
        ("shred-branch-key", "success", "ops-1", "maintenance"),
    ]


def test_an_audit_log_that_cannot_be_written_leaves_the_store_as_it_was(
    keystore: Keystore, tmp_path: Path
) -> None:
    assert keystore("create-key", "clinic-7", "--audit-log", tmp_path / "missing" / "audit.jsonl")[0] == 8
    assert keystore.store().list_keys() == []
    assert keystore("create-key", "clinic-7", "--actor", "ops-1")[0] == 2
