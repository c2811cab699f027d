"""Processes that are killed: each works until it is, and appends a line to a file after each acknowledgement.

``python -m tests.faults.victims`` is a nursery: it loads everything once, and forks a victim for each line of
JSON on its standard input. It answers with the victim's pid, and when the victim is gone with how.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))  # for what all tests share

import boto3  # noqa: F401 - loaded once, for all victims
from botocore.config import Config

from phicrypt import BranchKeyStore, HierarchicalKeyring, KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.audit import AuditTrail, Delivery, JsonlSink, acting_as
from phicrypt.cli import run as run_command
from phicrypt.dynamodb.migration import WalkOptions, migrate_table
from phicrypt.dynamodb.updates import update_encrypted
from phicrypt.testing.local_stack import session_without_profile

from .stage import BRANCH_KEY_TABLE, BUCKET, PART_SIZE_BYTES, PATIENTS, TO_MIGRATE

TENANT: Final = "tenant-killed"
MAX_ROUNDS: Final = 10_000


class Victim:
    """What a victim was told, and the clients that it makes of it."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.endpoint_url: str = told["endpoint_url"]
        self.key_arn: str = told["key_arn"]
        self.folder = Path(told["folder"])
        self.name: str = told["name"]
        self._acknowledgements = os.open(told["acknowledgements"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._session = session_without_profile("us-east-1")

    def acknowledge(self, what: str) -> None:
        os.write(self._acknowledgements, f"{what}\n".encode())

    def client(self, service: str) -> Any:
        extra = f"lab/{self.name}"
        config = Config(proxies={}, user_agent_extra=extra, s3={"addressing_style": "path"}, read_timeout=20)
        return self._session.client(service, endpoint_url=self.endpoint_url, config=config)

    def store(self) -> BranchKeyStore:
        clients = {"dynamodb_client": self.client("dynamodb"), "kms_client": self.client("kms")}
        return BranchKeyStore(BRANCH_KEY_TABLE, "clinic-keys", self.key_arn, **clients)

    def phi(self) -> PhiCrypt:
        return PhiCrypt(HierarchicalKeyring(self.store(), branch_key_id=TENANT))

    def items(self, table: Any) -> Any:
        client = self.client("dynamodb")
        self.phi().dynamodb.attach(client, [table], check_tables="never")
        return client


def upload(victim: Victim) -> None:
    s3 = victim.phi().s3(victim.client("s3"), part_size_bytes=PART_SIZE_BYTES)
    victim.acknowledge("ready")
    for number in range(MAX_ROUNDS):
        s3.upload_file(str(victim.folder / "source"), BUCKET, f"{victim.name}/{number}")
        victim.acknowledge(f"{victim.name}/{number}")


def download(victim: Victim) -> None:
    s3 = victim.phi().s3(victim.client("s3"), part_size_bytes=PART_SIZE_BYTES)
    victim.acknowledge("ready")
    for number in range(MAX_ROUNDS):
        target = f"{victim.name}-{number}"
        s3.download_file(BUCKET, "to-download", str(victim.folder / target))
        victim.acknowledge(target)


def command_line(victim: Victim) -> None:
    options = ("--key", victim.key_arn, "--endpoint-url", victim.endpoint_url, "--expect", "tenant=clinic-7")
    victim.acknowledge("ready")
    for number in range(MAX_ROUNDS):
        target = f"{victim.name}-{number}"
        code = run_command(["decrypt", str(victim.folder / "message"), str(victim.folder / target), *options])
        if code != 0:
            raise SystemExit(code)
        victim.acknowledge(target)


def migrate(victim: Victim) -> None:
    client = victim.items(TO_MIGRATE)
    checkpoint = victim.folder / f"{victim.name}.checkpoint"
    victim.acknowledge("ready")
    options = WalkOptions(segments=2, page_size=3, checkpoint_file=checkpoint)
    report = migrate_table(client, TO_MIGRATE.table_name, options)
    victim.acknowledge(f"encrypted {report.encrypted_now}")


def keep_branch_keys(victim: Victim) -> None:
    """Keys are created, rotated and shredded in turn."""
    store = victim.store()
    victim.acknowledge("ready")
    for number in range(MAX_ROUNDS):
        branch_key_id = f"{victim.name}-{number}"
        store.create_key(branch_key_id)
        victim.acknowledge(f"created {branch_key_id}")
        victim.acknowledge(f"rotated {branch_key_id} {store.rotate(branch_key_id)}")
        if number % 3 == 2:
            victim.acknowledge(f"shredding {branch_key_id}")
            store.shred(branch_key_id)
            victim.acknowledge(f"shredded {branch_key_id}")


def write_audit(victim: Victim) -> None:
    sink = JsonlSink(victim.folder / "audit.jsonl", max_segment_bytes=60_000)
    trail = AuditTrail([sink], encrypt_policy=Delivery(max_buffered_events=0))
    phi = PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(range(32))), audit=trail)
    victim.acknowledge("ready")
    for number in range(MAX_ROUNDS):
        actor = f"{victim.name}-{number}"
        with acting_as(actor=actor):
            phi.decrypt(phi.encrypt(b"x", context={"tenant": "7"}), context={"tenant": "7"})
        victim.acknowledge(actor)


def update(victim: Victim) -> None:
    client = victim.items(PATIENTS)
    item_key = {"clinic": {"S": victim.name}, "patient_id": {"S": "1"}}
    item = {**item_key, "note": {"S": "canary-9f2c7b41"}, "count": {"N": "0"}}
    client.put_item(TableName=PATIENTS.table_name, Item=item)
    victim.acknowledge("ready")

    def increment(item: dict[str, Any]) -> None:
        item["count"] = {"N": str(int(item["count"]["N"]) + 1)}

    for number in range(1, MAX_ROUNDS):
        update_encrypted(client, PATIENTS.table_name, item_key, increment)
        victim.acknowledge(str(number))


def write_items(victim: Victim) -> None:
    """Messages under KMS in batches and transactions, as an application writes them."""
    client = victim.items(PATIENTS)
    phi = PhiCrypt(KmsKeyring(victim.key_arn, client=victim.client("kms")))
    victim.acknowledge("ready")
    for number in range(MAX_ROUNDS):
        sealed = phi.encrypt(b"canary-9f2c7b41", context={"tenant": "7"})
        items = [
            {
                "clinic": {"S": victim.name},
                "patient_id": {"S": f"{number}-{part}"},
                "note": {"S": sealed.hex()},
                "count": {"N": "0"},
            }
            for part in range(2)
        ]
        puts = [{"Put": {"TableName": PATIENTS.table_name, "Item": item}} for item in items]
        client.transact_write_items(TransactItems=puts)
        victim.acknowledge(str(number))


ACTIONS: Final[dict[str, Callable[[Victim], None]]] = {
    "upload": upload,
    "download": download,
    "command-line": command_line,
    "migration": migrate,
    "key-store": keep_branch_keys,
    "audit": write_audit,
    "update": update,
    "transactions": write_items,
}


def nursery() -> None:
    for line in sys.stdin:
        told = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _live(told)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _live(told: dict[str, Any]) -> None:
    code = 1
    try:
        ACTIONS[told["action"]](Victim(told))
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    nursery()
