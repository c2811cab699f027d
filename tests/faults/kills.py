"""Kill points: processes killed at seeded moments and at named requests; nothing acknowledged is lost.

A victim is killed either some time after it had so much acknowledged, or by the proxy: when it sends its n-th
request, before that arrives, or after it arrived and before its answer leaves.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from phicrypt import HierarchicalKeyring, PhiCrypt
from phicrypt.core.output_file import offers_unnamed_files
from phicrypt.dynamodb.migration import WalkOptions, migrate_table, verify_table
from phicrypt.errors import KeyAccessError
from phicrypt.evidence.log_lines import read_records
from phicrypt.evidence.verify import verify
from phicrypt.testing.local_stack import ACCESS_KEY_ID, SECRET_ACCESS_KEY

from .contents import Content, bytes_of
from .exchange import Incoming
from .kinds import Fault
from .proxy import DroppedError, Exchange
from .stage import BUCKET, CANARY, PART_SIZE_BYTES, PATIENTS, TO_MIGRATE, Desk, Stage, stage
from .victims import ACTIONS, TENANT

ROOT: Final = Path(__file__).parents[2]
SOURCE: Final = Content(7, 2 * PART_SIZE_BYTES + 17)
MESSAGE: Final = Content(8, 6_000_000)
ITEMS_TO_MIGRATE: Final = 24
_READY_SECONDS: Final = 60.0


@dataclass
class KillReport:
    """What came of the kills.

    Attributes:
        counts: kills by action and by how they were made; acknowledgements that were looked at.
        violations: what was lost, wrong or left behind.
    """

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def text(self) -> str:
        lines = [f"{self.counts['kills']} kills, {len(self.violations)} violations"]
        lines += [f"  {count:>6}  {name}" for name, count in sorted(self.counts.items())]
        return "\n".join([*lines, *(f"VIOLATION {one}" for one in self.violations)])


@dataclass
class Started:
    """A victim; ``exit_code`` is negative for one that was killed, and told when it has ended."""

    pid: int
    ended: threading.Event = field(default_factory=threading.Event)
    exit_code: int = 0


def run_kills(
    kills: int,
    seed: int,
    actions: tuple[str, ...] = tuple(ACTIONS),
    progress: Callable[[str], None] = lambda line: None,
) -> KillReport:
    """So many processes are killed, the actions in turn."""
    with tempfile.TemporaryDirectory(prefix="phicrypt-kills-") as name, stage(Path(name), seed) as made:
        made.store().create_key(TENANT)
        with _nursery() as start:
            grounds = KillingGround(made, Path(name), start, random.Random(f"{seed} kills"))
            for number, action in zip(range(kills), itertools.cycle(actions), strict=False):
                grounds.kill(number, action)
                if number % 10 == 9:
                    progress(f"{number + 1} kills, {len(grounds.report.violations)} violations")
        return grounds.report


class KillingGround:
    """The places that victims work on, and what is true of them afterwards."""

    def __init__(
        self, made: Stage, folder: Path, start: Callable[[dict[str, Any]], Started], chance: random.Random
    ) -> None:
        self.stage = made
        self.folder = folder
        self._start = start
        self.chance = chance
        self.report = KillReport()
        self.true = Desk(made, "", TENANT)
        (folder / "source").write_bytes(bytes_of(SOURCE))
        self.true.s3.upload_file(str(folder / "source"), BUCKET, "to-download")
        message = self.true.under_kms.encrypt(bytes_of(MESSAGE), context={"tenant": "clinic-7"})
        (folder / "message").write_bytes(message)

    def kill(self, number: int, action: str) -> None:
        name = f"k{number}"
        if action == "migration":
            self._lay_out_items()
        acknowledgements = self.folder / f"{name}.acknowledged"
        told = {
            "action": action,
            "name": name,
            "endpoint_url": self.stage.proxy.endpoint_url,
            "key_arn": self.stage.key_arn,
            "folder": str(self.folder),
            "acknowledgements": str(acknowledgements),
        }
        how = self._killed(told, acknowledgements, action)
        self.report.counts["kills"] += 1
        self.report.counts[f"killed {action}: {how}"] += 1
        lines = acknowledgements.read_text().splitlines() if acknowledgements.exists() else []
        acknowledged = [line for line in lines if line != "ready"]
        self.report.counts[f"acknowledged by {action}"] += len(acknowledged)
        checks = {
            "upload": self.check_uploads,
            "download": self.check_files,
            "command-line": self.check_files,
            "migration": self.check_migration,
            "key-store": self.check_branch_keys,
            "audit": self.check_audit,
            "update": self.check_count,
            "transactions": self.check_transactions,
        }
        try:
            checks[action](name, acknowledged)
        except Exception as error:
            self._violated(f"{name} {action} ({how}): {type(error).__name__}: {error}")
        acknowledgements.unlink(missing_ok=True)

    def _killed(self, told: dict[str, Any], acknowledgements: Path, action: str) -> str:
        """Kill it at a moment or at a request; how it was done."""
        name = told["name"]
        at_request = self.chance.random() < 0.6 and action not in ("audit", "command-line")
        nth, is_after = self.chance.randrange(1, 30), self.chance.random() < 0.5
        after_acknowledgements = self.chance.randrange(4) if action != "migration" else 0
        moment = self.chance.uniform(0.0, 0.5)
        victim = self._start(told)
        ended = victim.ended
        if at_request:
            self.stage.proxy.choose = _killing_at(name, victim.pid, nth, is_after)
        _wait_until(lambda: _lines_in(acknowledgements) > 0 or ended.is_set(), _READY_SECONDS)
        if at_request and ended.wait(6):
            how = f"{'after' if is_after else 'before'} a request"
        else:
            _wait_until(
                lambda: _lines_in(acknowledgements) > after_acknowledgements or ended.is_set(), _READY_SECONDS
            )
            ended.wait(moment)
            how = "at a moment" if not ended.is_set() else "it had ended"
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)
            ended.wait(30)
        self.stage.proxy.choose = lambda request, chance: None
        time.sleep(0.05)  # what the server had begun for it ends
        if victim.exit_code != -signal.SIGKILL and not (action == "migration" and victim.exit_code == 0):
            self._violated(f"{name} {action}: it ended by itself with exit code {victim.exit_code}")
        return how

    def _violated(self, what: str) -> None:
        self.report.violations.append(what)

    # --- what must be true ------------------------------------------------------------------------

    def check_uploads(self, name: str, acknowledged: list[str]) -> None:
        listed = self.true.raw_s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{name}/").get("Contents", [])
        there = {entry["Key"] for entry in listed}
        for lost in set(acknowledged) - there:
            self._violated(f"{name}: the acknowledged object {lost} is not there")
        for one in there:
            if self.true.s3.get_object(Bucket=BUCKET, Key=one)["Body"].read() != bytes_of(SOURCE):
                self._violated(f"{name}: the object {one} is another")
            self.true.raw_s3.delete_object(Bucket=BUCKET, Key=one)
        left = self.true.s3.abort_incomplete(BUCKET, older_than_seconds=0)
        self.report.counts["uploads that the sweep aborted"] += len(left)
        if self.true.s3.abort_incomplete(BUCKET, older_than_seconds=0, dry_run=True):
            self._violated(f"{name}: uploads are left after the sweep")
        self._check_disk(name)

    def check_files(self, name: str, acknowledged: list[str]) -> None:
        for target in acknowledged:
            if not (self.folder / target).exists():
                self._violated(f"{name}: the acknowledged file {target} is not there")
        for path in self.folder.glob(f"{name}-*"):
            if path.read_bytes() not in (bytes_of(SOURCE), bytes_of(MESSAGE)):
                self._violated(f"{name}: the file {path.name} is not whole")
            path.unlink()
        self._check_disk(name)

    def _check_disk(self, name: str) -> None:
        """Nothing but the source holds plaintext, where files can be without a name."""
        for path in self.folder.iterdir():
            if path.name == "source" or not path.is_file():
                continue
            if CANARY in path.read_bytes() and offers_unnamed_files():
                self._violated(f"{name}: plaintext is left in {path.name}")

    def _lay_out_items(self) -> None:
        raw = self.stage.client("dynamodb")
        for number in range(ITEMS_TO_MIGRATE):
            note = {"S": f"{CANARY.decode()} {number}"}
            item = {"clinic": {"S": f"c{number % 5}"}, "patient_id": {"S": str(number)}, "note": note}
            raw.put_item(TableName=TO_MIGRATE.table_name, Item=item)

    def check_migration(self, name: str, acknowledged: list[str]) -> None:
        """Every item is whole after the kill, and another run with the same checkpoint ends the work."""
        client = self.stage.client("dynamodb")
        self.true.under_branch_key.dynamodb.attach(client, [TO_MIGRATE], check_tables="never")
        checkpoint = self.folder / f"{name}.checkpoint"
        migrate_table(
            client, TO_MIGRATE.table_name, WalkOptions(segments=2, page_size=3, checkpoint_file=checkpoint)
        )
        report = verify_table(client, TO_MIGRATE.table_name)
        if not report.is_proven:
            self._violated(f"{name}: the second run left the table as {report}")
        notes = {item["note"]["S"] for item in client.scan(TableName=TO_MIGRATE.table_name)["Items"]}
        if notes != {f"{CANARY.decode()} {number}" for number in range(ITEMS_TO_MIGRATE)}:
            self._violated(f"{name}: items are lost or changed")

    def check_branch_keys(self, name: str, acknowledged: list[str]) -> None:
        states: dict[str, list[str]] = {}
        for line in acknowledged:
            verb, branch_key_id, *rest = line.split()
            states.setdefault(branch_key_id, []).append(verb)
            if verb == "rotated":
                states[f"{branch_key_id} version"] = rest
        for branch_key_id, verbs in states.items():
            if branch_key_id.endswith(" version") or "shredding" in verbs:
                continue
            active = self.true.store.fetch_active(branch_key_id)
            expected = states.get(f"{branch_key_id} version")
            if expected and active.version != expected[0]:
                self._violated(f"{name}: the acknowledged version of {branch_key_id} is not the active one")
            phi = PhiCrypt(HierarchicalKeyring(self.true.store, branch_key_id=branch_key_id))
            phi.decrypt(phi.encrypt(b"x", context={"a": "b"}), context={"a": "b"})
            self.true.store.fetch_beacon_key(branch_key_id)
        for branch_key_id, verbs in states.items():
            if "shredding" in verbs:
                self.true.store.shred(branch_key_id)  # finished by repeating it
                self._expect_refusal(name, branch_key_id)

    def _expect_refusal(self, name: str, branch_key_id: str) -> None:
        try:
            self.true.store.fetch_active(branch_key_id)
        except KeyAccessError as error:
            if error.code == "BranchKeyShredded":
                return
        self._violated(f"{name}: {branch_key_id} was shredded, and is served")

    def check_audit(self, name: str, acknowledged: list[str]) -> None:
        """Each acknowledged use has its three records; the log verifies, whatever was torn."""
        log = self.folder / "audit.jsonl"
        if not log.exists():
            return
        kinds: dict[str, Counter[str]] = {}
        for record in read_records(log):
            actor = record.fields.get("actor")
            if isinstance(actor, str) and actor.startswith(f"{name}-"):
                kinds.setdefault(actor, Counter())[record.fields["kind"]] += 1
        for actor in acknowledged:
            if kinds.get(actor) != Counter(use=1, begin=1, end=1):
                self._violated(f"{name}: the acknowledged use by {actor} left {kinds.get(actor)}")
        result = verify(log)
        if not result.is_valid:
            self._violated(f"{name}: {result.what_it_proves()}")
        for path in self.folder.glob("audit.jsonl*"):
            path.unlink()

    def check_count(self, name: str, acknowledged: list[str]) -> None:
        item_key = {"clinic": {"S": name}, "patient_id": {"S": "1"}}
        item = self.true.dynamodb.get_item(TableName=PATIENTS.table_name, Key=item_key, ConsistentRead=True).get(
            "Item"
        )
        if item is None:
            if acknowledged:
                self._violated(f"{name}: the item is not there")
        elif int(item["count"]["N"]) not in (len(acknowledged), len(acknowledged) + 1):
            self._violated(
                f"{name}: {len(acknowledged)} updates were acknowledged, {item['count']['N']} are there"
            )

    def check_transactions(self, name: str, acknowledged: list[str]) -> None:
        found = self.true.dynamodb.query(
            TableName=PATIENTS.table_name,
            KeyConditionExpression="clinic = :c",
            ExpressionAttributeValues={":c": {"S": name}},
        )["Items"]
        parts = Counter(item["patient_id"]["S"].partition("-")[0] for item in found)
        for number in acknowledged:
            if parts[number] != 2:
                self._violated(f"{name}: {parts[number]} of 2 items of an acknowledged transaction are there")
        if set(parts.values()) - {2}:
            self._violated(f"{name}: half a transaction is there")
        for item in found:
            opened = self.true.under_kms.decrypt(bytes.fromhex(item["note"]["S"]), context={"tenant": "7"})
            if opened != CANARY:
                self._violated(f"{name}: an item's message opened to something else")


def _killing_at(
    name: str, pid: int, nth: int, is_after: bool
) -> Callable[[Incoming, random.Random], Fault | None]:
    """The proxy kills the process when it sends its n-th request, before or after that arrives."""
    count = itertools.count(1)

    def kill(exchange: Exchange) -> None:
        if is_after:
            exchange.true_answer()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise DroppedError

    fault = Fault("killed", "transport", kill, 1)
    return lambda request, chance: fault if request.tag == name and next(count) == nth else None


def _lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


@contextmanager
def _nursery() -> Iterator[Callable[[dict[str, Any]], Started]]:
    """``start(told)`` starts a victim."""
    credentials = {"AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}
    environment = {**os.environ, **credentials, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "tests.faults.victims"]
    settings: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, **settings) as process:
        assert process.stdin is not None and process.stdout is not None

        def start(told: dict[str, Any]) -> Started:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()
            victim = Started(int(process.stdout.readline()))

            def wait_for_the_end() -> None:
                assert process.stdout is not None
                victim.exit_code = int(process.stdout.readline())
                victim.ended.set()

            threading.Thread(target=wait_for_the_end, daemon=True).start()
            return victim

        try:
            yield start
        finally:
            process.stdin.close()
