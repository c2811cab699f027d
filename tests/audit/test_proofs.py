"""One record and its proof: made from the log, checked without it, by functions and commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phicrypt.audit import JsonlSink
from phicrypt.audit.events import AuditEvent
from phicrypt.cli import run
from phicrypt.core.primitives import LocalSigningKey, new_signing_key_pem
from phicrypt.errors import ConfigurationError, FormatError, LimitExceededError, PhiCryptError
from phicrypt.evidence.log_lines import read_records
from phicrypt.evidence.proofs import MAX_PROOF_LENGTH_BYTES, check_proof, prove
from phicrypt.formats.checkpoints import InclusionProof, NoteSignatureError, made_signature, signed_message
from phicrypt.formats.merkle import ProofMismatchError
from phicrypt.formats.notes import ED25519_COSIGNATURE, VerifierKey, parse_note, with_signatures
from phicrypt.witness import Checkpoints, LocalNoteKey
from phicrypt.witness.checkpoints import checkpoint_path

CASES = int(os.environ.get("PHICRYPT_FUZZ_CASES", "100"))
KEY = LocalNoteKey("clinic.example/audit/portal", LocalSigningKey(new_signing_key_pem("ed25519")))
OTHER = LocalNoteKey("clinic.example/audit/portal", LocalSigningKey(new_signing_key_pem("ed25519")))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of a pair and 20 uses, with its checkpoint, and one record behind it."""
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    sink = JsonlSink(path)
    for kind in ("begin", "end"):
        sink.write([AuditEvent(1_700_000_000_000_000_000, kind, "pair", "decrypt", "success", actor="dr-1")])
    for number in range(20):
        sink.write([AuditEvent(1_700_000_000_000_000_000, "use", f"u-{number}", "encrypt", "success")])
    Checkpoints(path, KEY).checkpoint()
    sink.write([AuditEvent(1_700_000_000_000_000_000, "use", "newest", "encrypt", "success")])
    sink.close()
    return path


def test_every_record_is_proven_without_the_log(signed: Path) -> None:
    lines = signed.read_bytes().splitlines()
    for record in list(read_records(signed))[:-1]:
        proof = prove(signed, f"{record.chain_id}:{record.sequence}")
        proven = check_proof(proof, log_keys=[KEY.verifier_key])
        assert proven.line == lines[proven.leaf_index]
        assert proven.event() == record.event()
        assert proven.checkpoint.size == 23
        others = [line for line in lines if line != proven.line]
        assert not any(line in proof for line in others)


def test_a_use_id_names_a_record_unless_several_have_it(signed: Path) -> None:
    assert check_proof(prove(signed, "u-7"), log_keys=[KEY.verifier_key]).fields()["use_id"] == "u-7"
    with pytest.raises(ConfigurationError, match=r"name one of [0-9a-f]{32}:1, [0-9a-f]{32}:2"):
        prove(signed, "pair")
    for unknown in ("u-", "none", "newest", "0" * 32 + ":1", "encrypt", '"', "x" * 10_000):
        with pytest.raises(ConfigurationError, match="no record"):
            prove(signed, unknown)


def test_a_proof_under_a_checkpoint_that_was_kept(signed: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(checkpoint_path(signed).read_bytes())
    assert prove(signed, "u-3", checkpoint=tmp_path / "kept") == prove(signed, "u-3")
    with pytest.raises(ConfigurationError, match="audit checkpoint"):
        prove(signed, "u-3", checkpoint=tmp_path / "none")


def test_a_log_that_was_changed_proves_nothing(signed: Path, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    checkpoint_path(path).write_bytes(checkpoint_path(signed).read_bytes())
    path.write_bytes(signed.read_bytes().replace(b'"u-9"', b'"u-X"'))
    for record in ("u-3", "u-X"):
        with pytest.raises(ProofMismatchError):
            prove(path, record)


def test_a_proof_of_another_key_or_record_is_refused(signed: Path) -> None:
    proof = prove(signed, "u-7")
    with pytest.raises(NoteSignatureError):
        check_proof(proof, log_keys=[OTHER.verifier_key])
    with pytest.raises(NoteSignatureError):
        check_proof(proof, log_keys=[])
    parsed = InclusionProof.parse(proof)
    forged = parsed._replace(extra=parsed.extra.replace(b'"u-7"', b'"u-8"'))
    with pytest.raises(ProofMismatchError):
        check_proof(forged.to_bytes(), log_keys=[KEY.verifier_key])
    with pytest.raises(FormatError, match="extra"):
        check_proof(parsed._replace(extra=b"").to_bytes(), log_keys=[KEY.verifier_key])
    with pytest.raises(LimitExceededError):
        check_proof(b"x" * (MAX_PROOF_LENGTH_BYTES + 1), log_keys=[KEY.verifier_key])


def test_a_witness_that_is_demanded_must_have_cosigned(signed: Path) -> None:
    private_key = LocalSigningKey(new_signing_key_pem("ed25519"))
    witness = VerifierKey.from_der("witness.example", ED25519_COSIGNATURE, private_key.public_key_der())
    proof = InclusionProof.parse(prove(signed, "u-7"))
    with pytest.raises(ConfigurationError, match=r"witness\.example"):
        check_proof(proof.to_bytes(), log_keys=[KEY.verifier_key], witness_keys=[witness])
    note = parse_note(proof.checkpoint)
    line = made_signature(witness, private_key.sign(signed_message(witness, note.text, 7)), 7)
    cosigned = proof._replace(checkpoint=with_signatures(note, [line]).to_bytes()).to_bytes()
    proven = check_proof(cosigned, log_keys=[KEY.verifier_key], witness_keys=[witness])
    assert proven.cosigned == (("witness.example", 7),)


@settings(max_examples=CASES, deadline=None)
@given(st.data())
def test_damaged_proofs_prove_nothing_else(signed: Path, data: st.DataObject) -> None:
    proof = bytearray(prove(signed, "u-7"))
    line = InclusionProof.parse(bytes(proof)).extra
    for _ in range(data.draw(st.integers(1, 3))):
        proof[data.draw(st.integers(0, len(proof) - 1))] = data.draw(st.integers(0, 255))
    try:
        proven = check_proof(bytes(proof), log_keys=[KEY.verifier_key])
    except PhiCryptError:
        return
    assert proven.line == line


class TestCommands:
    """What a user types, from the key to the proof."""

    ORIGIN = ("--origin", "clinic.example/audit/portal")

    @pytest.fixture
    def log(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        sink = JsonlSink("audit.jsonl")
        sink.write(
            [
                AuditEvent(1_700_000_000_000_000_000, "use", f"u-{number}", "encrypt", "success")
                for number in (1, 2)
            ]
        )
        sink.close()
        return tmp_path / "audit.jsonl"

    def command(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
        code = run(["audit", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    def test_from_the_key_to_the_proof(self, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
        signing = (*self.ORIGIN, "--signing-key", "portal.pem")
        code, vkey, _ = self.command(capsys, "checkpoint-key", *signing, "--create")
        assert code == 0
        assert self.command(capsys, "checkpoint-key", *signing) == (0, vkey, "")
        key = ("--checkpoint-key", vkey.strip())
        assert self.command(capsys, "verify", "audit.jsonl", *key)[0] == 2
        code, said, _ = self.command(capsys, "checkpoint", "audit.jsonl", *signing)
        assert (code, said[:8]) == (0, "3 lines ")
        code, said, _ = self.command(capsys, "verify", "audit.jsonl", *key, "--json")
        assert code == 0
        assert any(
            "the first 3 lines are those of the checkpoint signed by" in one for one in json.loads(said)["remarks"]
        )
        assert self.command(capsys, "prove", "u-2", "--log", "audit.jsonl", "--out", "p.tlog-proof")[0] == 0
        assert self.command(capsys, "prove", "u-2", "--log", "audit.jsonl", "--out", "p.tlog-proof")[0] == 9
        assert (
            self.command(capsys, "prove", "u-2", "--log", "audit.jsonl", "--out", "p.tlog-proof", "--force")[0]
            == 0
        )
        log.unlink()
        code, said, _ = self.command(capsys, "check-proof", "p.tlog-proof", *key, "--json")
        assert code == 0
        assert json.loads(said)["event"]["use_id"] == "u-2"
        code, said, _ = self.command(capsys, "check-proof", "p.tlog-proof", *key)
        assert "proven: line 2 of the 3 that clinic.example/audit/portal signed" in said
        assert (
            self.command(capsys, "check-proof", "p.tlog-proof", "--checkpoint-key", str(OTHER.verifier_key))[0]
            == 4
        )

    def test_a_log_behind_its_checkpoint_is_refused(self, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Checkpoints(log, KEY).checkpoint()
        vkey, line = str(KEY.verifier_key), log.read_bytes().splitlines(keepends=True)
        log.write_bytes(b"".join(line[:2]))
        for chosen in ((), ("--checkpoint-key", vkey)):
            code, said, _ = self.command(capsys, "verify", "audit.jsonl", *chosen)
            assert code == 1
            assert "it was cut" in said
        log.write_bytes(b"".join(line))
        code, said, _ = self.command(capsys, "verify", "audit.jsonl")
        assert code == 0
        assert "no signature was checked" in said
        code, said, _ = self.command(capsys, "verify", "audit.jsonl", "--checkpoint-key", str(OTHER.verifier_key))
        assert code == 1
        assert "not signed by the expected key" in said
        witness = VerifierKey("witness.example", ED25519_COSIGNATURE, bytes(32))
        demanded = ("--checkpoint-key", vkey, "--witness-key", str(witness))
        code, said, _ = self.command(capsys, "verify", "audit.jsonl", *demanded)
        assert code == 1
        assert "not cosigned by witness.example" in said

    @pytest.mark.parametrize(
        "arguments",
        [
            ("checkpoint", "audit.jsonl", *ORIGIN),
            ("checkpoint", "audit.jsonl", *ORIGIN, "--signing-key", "a", "--key", "b"),
            ("checkpoint", "audit.jsonl", *ORIGIN, "--signing-key", "none.pem"),
            ("checkpoint-key", *ORIGIN, "--create"),
            ("verify", "audit.jsonl", "--checkpoint-key", "nonsense"),
            ("verify", ".", "--checkpoint", "x"),
            ("verify", "audit.jsonl", "--witness-key", str(KEY.verifier_key)),
            ("prove", "u-1", "--log", "audit.jsonl"),
        ],
    )
    def test_mistakes_are_told(
        self, log: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
    ) -> None:
        code, _, said = self.command(capsys, *arguments)
        assert code == 2
        assert said.startswith("phicrypt: ")

    def test_a_proof_goes_to_a_pipe(self, log: Path) -> None:
        Checkpoints(log, KEY).checkpoint()
        command = [sys.executable, "-m", "phicrypt", "audit", "prove", "u-1", "--log", "audit.jsonl"]
        ended = subprocess.run(command, capture_output=True, check=True)
        assert ended.stdout == prove(log, "u-1")
