"""Migration of a table in use: nothing is lost, everything is reported, and the end is proven."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.dynamodb_support import Clinic, Server, key, open_clinic, patient

from phicrypt import PhiCrypt
from phicrypt.dynamodb.config import PlaintextPolicy
from phicrypt.dynamodb.migration import WalkOptions, migrate_table, verify_table
from phicrypt.dynamodb.survey import Checkpoint, ItemKind, Pace, Tally, item_size_bytes, kind_of
from phicrypt.errors import ConfigurationError, UnsupportedOperationError
from phicrypt.evidence.join import log_events, whole_uses

TOMORROW = (datetime.now(UTC) + timedelta(days=1)).date()
WHILE_MIGRATING = {
    "plaintext_policy": PlaintextPolicy.FORBID_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ,
    "plaintext_reads_until": TOMORROW,
}
SMALL_PAGES = WalkOptions(segments=2, page_size=3)


@pytest.fixture
def migrating(server: Server, phi: PhiCrypt) -> Clinic:
    return open_clinic(server, phi, **WHILE_MIGRATING)


@pytest.fixture
def moto_migrating(moto: Server, phi: PhiCrypt) -> Clinic:
    return open_clinic(moto, phi, **WHILE_MIGRATING)


def put_raw(clinic: Clinic, *items: dict[str, Any]) -> None:
    for item in items:
        clinic.raw.put_item(TableName=clinic.name, Item=item)


def everything(clinic: Clinic) -> dict[tuple[str, str], dict[str, Any]]:
    strict = clinic.phi.dynamodb.client([forbidding(clinic)], **clinic.server.options())
    items = strict.scan(TableName=clinic.name, ConsistentRead=True)["Items"]
    return {(item["patient_id"]["S"], item["visit"]["N"]): item for item in items}


def forbidding(clinic: Clinic) -> Any:
    return dataclasses.replace(
        clinic.config,
        plaintext_policy=PlaintextPolicy.FORBID_PLAINTEXT_WRITE_FORBID_PLAINTEXT_READ,
        plaintext_reads_until=None,
    )


def test_every_plaintext_item_is_encrypted_and_proven(migrating: Clinic) -> None:
    items = [patient(f"p-{n}", visit=n, scan={"B": b"\x00"}, x_free={"SS": ["a", "b"]}) for n in range(20)]
    put_raw(migrating, *items)
    migrating.client.put_item(TableName=migrating.name, Item=patient("p-new"))
    before = verify_table(migrating.client, migrating.name, SMALL_PAGES)
    assert (before.verified, before.plaintext, before.is_proven) == (1, 20, False)

    report = migrate_table(migrating.client, migrating.name, SMALL_PAGES)

    assert (report.encrypted_now, report.encrypted_before, report.is_complete) == (20, 1, True)
    after = verify_table(migrating.client, migrating.name, SMALL_PAGES)
    assert (after.verified, after.plaintext, after.is_proven) == (21, 0, True)
    found = everything(migrating)
    assert all(found[(item["patient_id"]["S"], item["visit"]["N"])] == item for item in items)
    again = migrate_table(migrating.client, migrating.name)
    assert (again.encrypted_now, again.encrypted_before) == (0, 21)


def test_a_dry_run_writes_nothing(migrating: Clinic, tmp_path: Path) -> None:
    put_raw(migrating, *(patient(f"p-{n}") for n in range(5)), patient("p-odd", ssn={"S": "1"}))
    options = WalkOptions(checkpoint_file=tmp_path / "checkpoint")
    migrating.sent_bodies.clear()
    report = migrate_table(migrating.client, migrating.name, options, dry_run=True)
    assert (report.encrypted_now, report.refused, report.is_complete) == (5, 1, False)
    assert any("'ssn'" in reason for reason in report.reasons)
    assert not any(b"UpdateExpression" in body for body in migrating.sent_bodies)
    assert migrating.stored("p-3") == patient("p-3")
    assert not (tmp_path / "checkpoint").exists()


def test_items_that_need_attention_are_reported_and_left(migrating: Clinic, tmp_path: Path) -> None:
    legacy = patient("p-legacy") | {"*amzn-ddb-map-desc*": {"B": b"d"}, "*amzn-ddb-map-sig*": {"B": b"s"}}
    damaged = patient("p-damaged") | {"aws_dbe_foot": {"B": b"f"}}
    unknown = patient("p-unknown", passport={"S": "x"})
    put_raw(migrating, legacy, damaged, unknown, patient())
    problems = tmp_path / "problems"
    report = migrate_table(migrating.client, migrating.name, WalkOptions(problems_file=problems))
    assert (report.encrypted_now, report.legacy, report.damaged, report.refused) == (1, 1, 1, 1)
    assert not report.is_complete
    assert migrating.stored("p-legacy") == legacy and migrating.stored("p-unknown") == unknown
    assert problems.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in problems.read_text().splitlines()]
    assert {line["key"]["patient_id"]["S"] for line in lines} == {"p-legacy", "p-damaged", "p-unknown"}
    assert "Ada" not in problems.read_text()
    assert "p-" not in str(report)
    verified = verify_table(migrating.client, migrating.name)
    assert (verified.verified, verified.legacy, verified.damaged, verified.plaintext) == (1, 1, 1, 1)


def test_verify_finds_tampered_and_misplaced_items(migrating: Clinic) -> None:
    for name in ("p-1", "p-2", "p-3"):
        migrating.client.put_item(TableName=migrating.name, Item=patient(name))
    put_raw(migrating, (migrating.stored("p-1") or {}) | {"clinic": {"S": "forged"}})
    put_raw(migrating, (migrating.stored("p-2") or {}) | key("p-4"))
    report = verify_table(migrating.client, migrating.name)
    assert (report.verified, report.damaged, report.is_proven) == (2, 2, False)
    assert "forged" not in str(report) and "p-4" not in str(report)


def test_rule_25_verification_names_the_place_of_the_first_item_that_is_not_proven(
    migrating: Clinic, tmp_path: Path
) -> None:
    for number in range(7):
        migrating.client.put_item(TableName=migrating.name, Item=patient(f"p-{number}"))
    options = WalkOptions(segments=1, page_size=3, problems_file=tmp_path / "problems")
    assert verify_table(migrating.client, migrating.name, options).first_problem == ""
    put_raw(migrating, *(patient(f"p-{number}") for number in (2, 5)))
    report = verify_table(migrating.client, migrating.name, options)
    found = re.fullmatch(r"segment 0, page (\d) of this run, item ([123])", report.first_problem)
    assert found is not None
    scanned = [item["patient_id"]["S"] for item in migrating.raw.scan(TableName=migrating.name)["Items"]]
    first = scanned[(int(found[1]) - 1) * 3 + int(found[2]) - 1]
    lines = [json.loads(line) for line in (tmp_path / "problems").read_text().splitlines()]
    assert lines[0]["key"]["patient_id"]["S"] == first
    assert "p-" not in report.first_problem


@pytest.mark.parametrize(
    "members",
    [
        {"counts": []},
        {"counts": {"verified": "5"}},
        {"counts": {"verified": True}},
        {"positions": [5]},
        {"positions": [{"patient_id": 5}]},
        {"positions": [{"patient_id": {"B": {"base64": "*"}}}]},
        {"finished": ["no"]},
        {"first_problem": 5},
        {"identity": []},
    ],
)
def test_rule_26_a_checkpoint_that_somebody_changed_is_refused(
    moto_migrating: Clinic, tmp_path: Path, members: dict[str, Any]
) -> None:
    path = tmp_path / "checkpoint"
    checkpoint = Checkpoint(path, {"table": "t"}, 1)
    checkpoint.save(0, {"patient_id": {"S": "p-1"}}, Tally(moto_migrating.config))
    assert Checkpoint(path, {"table": "t"}, 1).is_resumed
    path.write_text(json.dumps(json.loads(path.read_text()) | members))
    with pytest.raises(ConfigurationError, match="checkpoint") as caught:
        Checkpoint(path, {"table": "t"}, 1)
    assert caught.value.__context__ is None
    path.write_text('{"format": 1, "format": 1}')
    with pytest.raises(ConfigurationError, match="not a checkpoint"):
        Checkpoint(path, {"table": "t"}, 1)


def test_an_item_that_outgrows_dynamodb_is_refused(migrating: Clinic) -> None:
    if migrating.server.name == "moto":
        pytest.skip("moto bounds items at another size; DynamoDB Local runs this test")
    big = patient("p-big", name={"S": "x" * (400 * 1024 - 300)})
    put_raw(migrating, big)
    report = migrate_table(migrating.client, migrating.name, dry_run=True)
    assert report.refused == 1 and any("too large" in reason for reason in report.reasons)
    assert migrate_table(migrating.client, migrating.name).refused == 1
    assert migrating.stored("p-big") == big


def test_rule_18_the_backfill_keeps_concurrent_changes(migrating: Clinic) -> None:
    """Old writers change signed and unsigned attributes of plaintext items while the backfill runs."""
    if migrating.server.name == "moto":
        pytest.skip("moto checks conditions without a lock; DynamoDB Local runs this test")
    count = 40
    put_raw(migrating, *(patient(f"p-{n}") for n in range(count)))
    done, errors = threading.Event(), []
    signed: dict[str, str] = {}
    calls = dict.fromkeys((f"p-{n}" for n in range(count)), 0)

    def write_as_before() -> None:
        raw, source = migrating.server.raw_client(), random.Random(7)
        number = 0
        try:
            while not done.is_set():
                name, number = f"p-{source.randrange(count)}", number + 1
                raw.update_item(
                    TableName=migrating.name,
                    Key=key(name),
                    UpdateExpression="ADD x_calls :one",
                    ExpressionAttributeValues={":one": {"N": "1"}},
                )
                calls[name] += 1
                try:  # an old writer that knows not to touch encrypted items
                    raw.update_item(
                        TableName=migrating.name,
                        Key=key(name),
                        UpdateExpression="SET clinic = :c",
                        ConditionExpression="attribute_not_exists(aws_dbe_head)",
                        ExpressionAttributeValues={":c": {"S": f"c-{number}"}},
                    )
                    signed[name] = f"c-{number}"
                except raw.exceptions.ConditionalCheckFailedException:
                    pass
        except BaseException as error:
            errors.append(error)

    writer = threading.Thread(target=write_as_before)
    writer.start()
    try:
        report = migrate_table(
            migrating.client, migrating.name, WalkOptions(segments=2, page_size=5, items_per_second=20)
        )
    finally:
        done.set()
        writer.join()
    assert not errors and report.is_complete and report.encrypted_now == count
    found = everything(migrating)
    for name, times in calls.items():
        item = found[(name, "1")]
        assert item.get("x_calls", {"N": "0"}) == {"N": str(times)}
        assert item["clinic"] == {"S": signed.get(name, "north")}
    assert sum(calls.values()) > 10 and signed


@pytest.mark.parametrize("what", ["changed", "added", "removed"])
def test_a_signed_attribute_changed_meanwhile_is_read_again(moto_migrating: Clinic, what: str) -> None:
    clinic = moto_migrating
    put_raw(clinic, patient())
    newer = {
        "changed": patient(clinic={"S": "south"}),
        "added": patient(scan={"B": b"\x07"}),
        "removed": {name: value for name, value in patient().items() if name != "clinic"},
    }[what]
    raced = []

    def change_first(request: Any, **_: Any) -> None:
        if not raced:
            raced.append(True)
            put_raw(clinic, newer)

    clinic.client.meta.events.register_first("before-send.dynamodb.UpdateItem", change_first)
    report = migrate_table(clinic.client, clinic.name)
    assert report.encrypted_now == 1 and raced
    assert everything(clinic)[("p-1", "1")] == newer


def test_an_item_deleted_meanwhile_is_not_created_again(moto_migrating: Clinic) -> None:
    clinic = moto_migrating
    put_raw(clinic, patient())

    def delete_first(request: Any, **_: Any) -> None:
        clinic.raw.delete_item(TableName=clinic.name, Key=key())

    clinic.client.meta.events.register_first("before-send.dynamodb.UpdateItem", delete_first)
    report = migrate_table(clinic.client, clinic.name)
    assert (report.vanished, report.encrypted_now) == (1, 0)
    assert clinic.stored() is None


def test_tables_with_beacons_and_forced_plaintext_are_not_migrated(moto: Server, phi: PhiCrypt) -> None:
    clinic = open_clinic(moto, phi, **WHILE_MIGRATING)
    put_raw(clinic, patient() | {"aws_dbe_b_name": {"S": "1f"}})
    with pytest.raises(UnsupportedOperationError, match="beacons"):
        migrate_table(clinic.client, clinic.name)
    forced = open_clinic(
        moto,
        phi,
        plaintext_policy=PlaintextPolicy.FORCE_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ,
        plaintext_reads_until=TOMORROW,
    )
    with pytest.raises(ConfigurationError, match="FORBID_PLAINTEXT_WRITE_ALLOW"):
        migrate_table(forced.client, forced.name)


class InterruptionError(Exception):
    pass


def interrupt_after(pages: int) -> Any:
    seen = []

    def on_progress(_: int) -> None:
        seen.append(1)
        if len(seen) == pages:
            raise InterruptionError

    return on_progress


def test_a_walk_goes_on_from_its_checkpoint(moto_migrating: Clinic, tmp_path: Path) -> None:
    clinic = moto_migrating
    put_raw(clinic, *(patient(f"p-{n:02}") for n in range(30)))
    path = tmp_path / "checkpoint"
    options = WalkOptions(segments=1, page_size=5, checkpoint_file=path)
    with pytest.raises(InterruptionError):
        migrate_table(clinic.client, clinic.name, options, on_progress=interrupt_after(3))
    assert path.stat().st_mode & 0o777 == 0o600
    clinic.sent_bodies.clear()
    report = migrate_table(clinic.client, clinic.name, options)
    assert report.resumed and report.is_complete
    assert report.encrypted_now + report.encrypted_before == 30
    assert sum(b"UpdateExpression" in body for body in clinic.sent_bodies) <= 15
    assert not path.exists()
    assert verify_table(clinic.client, clinic.name).is_proven


@pytest.mark.parametrize("spoil", ["other segments", "other table", "other actions", "no json", "cut"])
def test_a_checkpoint_of_another_walk_is_refused(moto: Server, phi: PhiCrypt, tmp_path: Path, spoil: str) -> None:
    clinic = open_clinic(moto, phi, **WHILE_MIGRATING)
    put_raw(clinic, *(patient(f"p-{n}") for n in range(10)))
    options = WalkOptions(segments=1, page_size=2, checkpoint_file=tmp_path / "checkpoint")
    with pytest.raises(InterruptionError):
        migrate_table(clinic.client, clinic.name, options, on_progress=interrupt_after(2))
    if spoil == "other segments":
        options = dataclasses.replace(options, segments=2)
    elif spoil == "other table":
        clinic = open_clinic(moto, phi, **WHILE_MIGRATING)
    elif spoil == "other actions":
        config = dataclasses.replace(clinic.config, unsigned_prefix="y_")
        clinic.client = phi.dynamodb.client([config], **moto.options())
    else:
        content = options.checkpoint_file.read_text() if options.checkpoint_file else ""
        (tmp_path / "checkpoint").write_text("x" if spoil == "no json" else content[:-9])
    with pytest.raises(ConfigurationError, match="checkpoint"):
        migrate_table(clinic.client, clinic.name, options)


def test_an_error_in_one_segment_stops_the_walk_and_is_raised(moto_migrating: Clinic) -> None:
    put_raw(moto_migrating, *(patient(f"p-{n}") for n in range(30)))
    with pytest.raises(InterruptionError):
        migrate_table(
            moto_migrating.client,
            moto_migrating.name,
            WalkOptions(segments=4, page_size=1),
            on_progress=interrupt_after(4),
        )


def test_the_pace_spaces_items_over_all_threads() -> None:
    now = [100.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(4, clock=lambda: now[0], sleep=sleep)
    for _ in range(9):
        pace.wait()
    assert now[0] == pytest.approx(102.0)
    assert slept == [pytest.approx(0.25)] * 8
    with pytest.raises(ConfigurationError):
        Pace(0)


def test_kinds_of_items() -> None:
    head, foot = {"aws_dbe_head": {"B": b"h"}}, {"aws_dbe_foot": {"B": b"f"}}
    assert kind_of(patient() | head | foot) is ItemKind.ENCRYPTED
    assert kind_of(patient() | head) is kind_of(patient() | foot) is ItemKind.DAMAGED
    assert kind_of(patient()) is ItemKind.PLAINTEXT
    assert kind_of(patient() | {"*amzn-ddb-map-sig*": {"B": b"s"}}) is ItemKind.LEGACY


def test_item_sizes_follow_dynamodbs_documentation() -> None:
    assert item_size_bytes({"ab": {"S": "é"}}) == 4
    assert item_size_bytes({"n": {"N": "123"}}) == 1 + 3
    assert item_size_bytes({"b": {"B": b"123"}, "t": {"BOOL": True}, "z": {"NULL": True}}) == 4 + 2 + 2
    assert item_size_bytes({"l": {"L": [{"S": "x"}]}}) == 1 + 3 + 2
    assert item_size_bytes({"m": {"M": {"k": {"S": "v"}}}}) == 1 + 3 + 1 + 2


CONFIG_TOML = """
[table]
partition_key = "patient_id"
sort_key = "visit"
unsigned_attributes = ["note"]
unsigned_prefix = "x_"
[table.actions]
patient_id = "SIGN_ONLY"
visit = "SIGN_ONLY"
name = "ENCRYPT_AND_SIGN"
conditions = "ENCRYPT_AND_SIGN"
clinic = "SIGN_ONLY"
note = "DO_NOTHING"
"""


@pytest.fixture(scope="module")
def stack() -> Any:
    from phicrypt.testing import local_aws

    with local_aws() as aws:
        yield aws


def command(stack: Any, *arguments: str, key: str | None = "the stack's") -> subprocess.Popen[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PHICRYPT_"))
    } | {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "no-secret",
        "AWS_DEFAULT_REGION": stack.region,
    }
    if key is not None:
        environment["PHICRYPT_KEY"] = stack.kms_key_arn
    line = [sys.executable, "-c", "from phicrypt.cli import main; main()", "dynamodb", *arguments]
    line += ["--endpoint-url", stack.endpoint_url, "--json"]
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    output, errors = process.communicate(timeout=120)
    assert output, errors
    return process.returncode, json.loads(output)


def test_the_commands_leave_a_use_of_each_item_in_the_audit_log(stack: Any, phi: PhiCrypt, tmp_path: Path) -> None:
    clinic = open_clinic(Server("moto", stack.endpoint_url), phi)
    put_raw(clinic, *(patient(f"p-{n}") for n in range(3)))
    config, log = tmp_path / "patients.toml", tmp_path / "audit.jsonl"
    config.write_text(CONFIG_TOML)
    common = (clinic.name, "--config", str(config), "--audit-log", str(log), "--actor", "op-1")
    assert result(command(stack, "migrate", *common, "--purpose", "maintenance"))[0] == 0
    assert result(command(stack, "verify", *common))[0] == 0
    uses = [use for use in whole_uses(log_events(log)) if use.kind in ("use", "end")]
    found = Counter((use.operation, use.kind, use.outcome, use.actor) for use in uses)
    assert found == {
        ("dynamodb.migrate_table", "use", "success", "op-1"): 3,  # sealed
        ("dynamodb.migrate_table", "end", "success", "op-1"): 3,  # and opened again, before it is written
        ("dynamodb.verify_table", "end", "success", "op-1"): 3,
    }


def test_the_command_survives_a_kill_and_proves_the_end(stack: Any, phi: PhiCrypt, tmp_path: Path) -> None:
    clinic = open_clinic(Server("moto", stack.endpoint_url), phi)
    put_raw(clinic, *(patient(f"p-{n:02}") for n in range(40)))
    config, checkpoint = tmp_path / "patients.toml", tmp_path / "checkpoint"
    config.write_text(CONFIG_TOML)
    common = (clinic.name, "--config", str(config), "--segments", "2", "--page-size", "4")

    assert result(command(stack, "migrate", *common, "--dry-run")) == (
        0,
        {
            "can_be_encrypted": 40,
            "encrypted_before": 0,
            "legacy_client": 0,
            "damaged": 0,
            "refused": 0,
            "changed_too_often": 0,
            "deleted_meanwhile": 0,
            "reasons": {},
            "complete": True,
        },
    )
    code, report = result(command(stack, "verify", *common))
    assert (code, report["plaintext"], report["verified"]) == (1, 40, 0)

    slow = ("--checkpoint", str(checkpoint), "--items-per-second", "15")
    process = command(stack, "migrate", *common, *slow)
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert checkpoint.exists() and process.returncode == -signal.SIGKILL

    code, report = result(command(stack, "migrate", *common, "--checkpoint", str(checkpoint)))
    assert (code, report["complete"], report["encrypted_now"] + report["encrypted_before"]) == (0, True, 40)
    assert not checkpoint.exists()
    code, report = result(command(stack, "verify", *common))
    assert (code, report["verified"], report["plaintext"]) == (0, 40, 0)


def test_the_command_uses_the_branch_key_that_the_file_names(stack: Any, tmp_path: Path) -> None:
    from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
    from phicrypt.keys.branch_keys.store import BranchKeyStore

    store = BranchKeyStore(
        "branch-keys",
        "branch-keys",
        stack.kms_key_arn,
        dynamodb_client=stack.client("dynamodb"),
        kms_client=stack.client("kms"),
    )
    store.create_table(deletion_protection=False)
    branch_key_id = store.create_key()
    clinic = open_clinic(Server("moto", stack.endpoint_url), PhiCrypt(HierarchicalKeyring(store, branch_key_id)))
    put_raw(clinic, *(patient(f"p-{n}") for n in range(3)))
    config = tmp_path / "patients.toml"
    keyring = {
        "kms_key_arn": stack.kms_key_arn,
        "branch_key_store": "branch-keys",
        "logical_name": "branch-keys",
        "branch_key_id": branch_key_id,
    }
    lines = [f'{name} = "{value}"' for name, value in keyring.items()]
    config.write_text("\n".join([CONFIG_TOML, "[keyring]", *lines]))
    both = command(stack, "verify", clinic.name, "--config", str(config))
    assert both.communicate()[1].count("name the key once") == 1 and both.returncode == 2
    code, report = result(command(stack, "migrate", clinic.name, "--config", str(config), key=None))
    assert (code, report["encrypted_now"]) == (0, 3)
    assert clinic.client.get_item(TableName=clinic.name, Key=key("p-2"))["Item"] == patient("p-2")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.toml", CONFIG_TOML.replace("SIGN_ONLY", "SIGN_MAYBE")),
        ("a.toml", CONFIG_TOML + "surprise = 1"),
        ("a.toml", "[table"),
        ("a.json", CONFIG_TOML),
        ("a.json", '{"table": {"actions": {}}}'),
        ("a.json", '{"table": {}, "table": {}}'),
        ("a.json", "[" * 100_000),
    ],
)
def test_a_wrong_configuration_file_is_refused(tmp_path: Path, name: str, content: str) -> None:
    from phicrypt.dynamodb.config_file import read_config_file

    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError):
        read_config_file(tmp_path / name).table.for_table("patients")


def test_a_json_file_says_the_same_as_toml(tmp_path: Path) -> None:
    import tomllib

    from phicrypt.dynamodb.config_file import read_config_file

    (tmp_path / "a.toml").write_text(CONFIG_TOML)
    (tmp_path / "a.json").write_text(json.dumps(tomllib.loads(CONFIG_TOML)))
    assert read_config_file(tmp_path / "a.toml") == read_config_file(tmp_path / "a.json")
