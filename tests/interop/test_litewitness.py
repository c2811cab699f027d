"""An unmodified litewitness cosigns a log that grows, and none that was changed, cut, or changed and grown."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop.litewitness import Litewitness, LitewitnessUnavailableError, litewitness

from phicrypt.audit import JsonlSink
from phicrypt.audit.events import AuditEvent
from phicrypt.core.primitives import LocalSigningKey, new_signing_key_pem
from phicrypt.errors import AuditError
from phicrypt.evidence.proofs import check_proof, prove
from phicrypt.formats.checkpoints import open_checkpoint
from phicrypt.formats.notes import VerifierKey, encode_base64
from phicrypt.witness import Checkpoints, LocalNoteKey, Witness
from phicrypt.witness.checkpoints import checkpoint_path
from phicrypt.witness.log_tree import tree_path


@pytest.fixture(scope="module")
def running() -> Iterator[Litewitness]:
    try:
        with litewitness() as witness:
            yield witness
    except LitewitnessUnavailableError as reason:
        pytest.skip(str(reason))


class Log:
    """A log with a key and an origin of its own, which the witness knows."""

    def __init__(self, folder: Path, name: str, witness: Litewitness) -> None:
        self.path = folder / "audit.jsonl"
        self.key = LocalNoteKey(f"clinic.example/audit/{name}", LocalSigningKey(new_signing_key_pem("ed25519")))
        self.origin = self.key.verifier_key.name
        self.witness = witness
        witness.add_log(self.origin, str(self.key.verifier_key))

    def write(self, count: int) -> None:
        sink = JsonlSink(self.path)
        events = [AuditEvent(time.time_ns(), "use", f"u-{one}", "encrypt", "success") for one in range(count)]
        sink.write(events)
        sink.close()

    def checkpoint(self) -> None:
        witness = Witness(self.witness.url, self.witness.vkey)
        checkpoint = Checkpoints(self.path, self.key, witnesses=[witness]).checkpoint().checkpoint
        assert self.witness.known(self.origin) == (checkpoint.size, encode_base64(checkpoint.root))

    def forget(self) -> None:
        """What whoever rewrites the log removes as well."""
        for file in (checkpoint_path(self.path), tree_path(self.path)):
            file.unlink()


def test_growth_is_cosigned_and_a_record_proven_under_the_cosignature(
    running: Litewitness, tmp_path: Path
) -> None:
    log = Log(tmp_path, "grows", running)
    for count in (1, 2, 3, 60, 1, 700):
        log.write(count)
        log.checkpoint()
        keys = {"log_keys": [log.key.verifier_key], "witness_keys": [VerifierKey.parse(running.vkey)]}
        opened = open_checkpoint(checkpoint_path(log.path).read_bytes(), **keys)
        ((_, seconds),) = opened.cosigned
        assert abs(seconds - time.time()) < 600
    proven = check_proof(prove(log.path, "u-650"), **keys)
    assert proven.fields()["use_id"] == "u-650"
    assert len(proven.cosigned) == 1


def test_growth_is_proven_anew_where_the_tree_s_file_was_lost(running: Litewitness, tmp_path: Path) -> None:
    log = Log(tmp_path, "recovers", running)
    log.write(30)
    log.checkpoint()
    log.forget()
    log.write(11)
    log.checkpoint()


@pytest.mark.parametrize("attack", ["changed", "cut", "changed and grown"])
def test_what_is_no_growth_is_refused(running: Litewitness, tmp_path: Path, attack: str) -> None:
    log = Log(tmp_path, attack.replace(" ", "-"), running)
    log.write(40)
    log.checkpoint()
    known = running.known(log.origin)
    lines = log.path.read_bytes().splitlines(keepends=True)
    if "changed" in attack:
        lines[7] = lines[7].replace(b'"u-6"', b'"u-X"')
    if attack == "cut":
        del lines[30:]
    log.path.write_bytes(b"".join(lines))
    if "grown" in attack:
        log.write(9)
    log.forget()
    with pytest.raises(AuditError, match="it was cut" if attack == "cut" else "does not continue"):
        log.checkpoint()
    assert running.known(log.origin) == known
    shutil.rmtree(tmp_path)


def test_a_log_that_it_does_not_know_is_told(running: Litewitness, tmp_path: Path) -> None:
    log = Log(tmp_path, "known", running)
    log.write(3)
    log.key = LocalNoteKey("clinic.example/audit/stranger", LocalSigningKey(new_signing_key_pem("ed25519")))
    with pytest.raises(AuditError, match="does not know this log"):
        log.checkpoint()
