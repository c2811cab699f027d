"""The targets themselves: they read true inputs to their end, judge changed ones, and notice what they are for."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz import corpus
from fuzz.choices import Choices
from fuzz.run import MAX_ALLOCATION_BYTES, TooSlowError, Watched
from fuzz.targets import TARGETS, refusing
from phicrypt.core.limits import ReadLimits
from phicrypt.errors import FormatError
from phicrypt.evidence.log_lines import read_records
from phicrypt.formats.esdk.header import parse_header
from phicrypt.formats.reader import ByteReader
from phicrypt.posture.policies.document import parse_policy

ROOT = Path(__file__).parents[2]
CHANGES = 150


def changed(chance: random.Random, seed: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(data) + 1)
        data[at : at + chance.randrange(6)] = chance.randbytes(chance.randrange(8))
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_rule_32_true_and_changed_inputs_end_or_are_refused(name: str) -> None:
    judge, seeds = TARGETS[name].judge, list(TARGETS[name].seeds())
    chance = random.Random(name)
    for seed in seeds:
        judge(seed)
    for _ in range(CHANGES):
        judge(changed(chance, chance.choice(seeds)))


def test_seeds_are_true_so_that_what_lies_behind_a_check_is_reached() -> None:
    for header in corpus.HEADERS:
        parse_header(ByteReader(header), ReadLimits())
    for number, body in enumerate(list(corpus.bodies())[::2]):
        message = corpus.HEADERS[number] + body[1:]
        assert corpus.phi().decrypt(message, context=corpus.CONTEXT) == corpus.PLAINTEXT
    for item, table in zip(corpus.sealed_items(), corpus.TABLES, strict=True):
        assert corpus.phi_for_items().dynamodb.decrypt_item(item, table)["clinic"] == {"S": "north"}
    corpus.log_file().write_bytes(b"".join(corpus.audit_lines()))
    assert len(list(read_records(corpus.log_file()))) == 4
    assert parse_policy(corpus.POLICY)


def test_both_kinds_of_body_reader_are_chosen_by_its_first_byte() -> None:
    chosen = {(body[0] % len(corpus.HEADERS), body[0] >> 7) for body in corpus.bodies()}
    assert chosen == {(header, stream) for header in range(3) for stream in range(2)}


def test_edits_change_a_document_and_leave_the_original_alone() -> None:
    before = json.dumps(corpus.POLICY)
    edited = [Choices(random.Random(seed).randbytes(80)).edited(corpus.POLICY) for seed in range(20)]
    assert json.dumps(corpus.POLICY) == before
    assert sum(document != corpus.POLICY for document in edited) >= 15


def test_only_errors_of_phicrypt_pass_for_a_refusal() -> None:
    def refuse() -> None:
        raise FormatError("wrong", field="x")

    def fail() -> None:
        raise KeyError("UploadId")

    refusing(refuse, refuse)
    with pytest.raises(KeyError):
        refusing(refuse, fail)


def test_an_input_that_takes_more_than_a_second_of_the_processor_is_a_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Watched, "bound_memory", staticmethod(lambda: None))
    times = iter([0.0, 0.9, 10.0, 11.1])
    monkeypatch.setattr("fuzz.run.time.thread_time", lambda: next(times))
    watched = Watched(lambda data: None)
    watched(b"quick")
    with pytest.raises(TooSlowError, match="for 4 bytes"):
        watched(b"slow")


GREEDY = """
import sys
sys.path[:0] = sys.argv[2:]
from fuzz.run import Watched
Watched(lambda data: bytearray(int(data)))(sys.argv[1].encode())
"""


@pytest.mark.parametrize(
    ("wanted_bytes", "is_refused"), [(MAX_ALLOCATION_BYTES // 2, False), (MAX_ALLOCATION_BYTES, True)]
)
def test_an_input_that_wants_more_than_the_bound_of_memory_is_a_finding(
    wanted_bytes: int, is_refused: bool
) -> None:
    command = [sys.executable, "-c", GREEDY, str(wanted_bytes), str(ROOT), str(ROOT / "tests")]
    ending = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (b"MemoryError" in ending.stderr.encode()) == is_refused == bool(ending.returncode), ending.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed (pip install atheris)"
)
def test_a_short_run_under_atheris_counts_its_inputs() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "dbesdk-header", "--runs", "500", "--max-seconds", "60"]
    ending = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)
    result: dict[str, Any] = json.loads(ending.stdout)
    assert (result["target"], result["findings"]) == ("dbesdk-header", [])
    assert result["runs"] >= 500


def test_core_parsers_get_five_million_inputs_and_evidence_a_million() -> None:
    evidence = {name for name in TARGETS if name.startswith(("trail", "policy"))}
    assert {TARGETS[name].runs for name in TARGETS if name not in evidence} == {5_000_000}
    assert {TARGETS[name].runs for name in evidence} == {1_000_000}
