"""Witnesses cosign growth and nothing else, and only what verifies is believed of their answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cloudtrail_records import record_of
from support.witness_server import WitnessServer

from phicrypt.audit import JsonlSink
from phicrypt.audit.events import AuditEvent
from phicrypt.cli import run
from phicrypt.core.primitives import LocalSigningKey, new_signing_key_pem
from phicrypt.errors import AuditError, ConfigurationError
from phicrypt.evidence.cloudtrail import parse_record
from phicrypt.evidence.tree_heads import anchored_tree_of, read_checkpoint
from phicrypt.formats.checkpoints import open_checkpoint
from phicrypt.formats.notes import ED25519, VerifierKey, parse_note
from phicrypt.testing import StrictKms
from phicrypt.witness import AnchoredSink, Checkpoints, LocalNoteKey, Witness
from phicrypt.witness.checkpoints import checkpoint_path
from phicrypt.witness.log_tree import tree_path

KEY = LocalNoteKey("clinic.example/audit/portal", LocalSigningKey(new_signing_key_pem("ed25519")))
ORIGIN = KEY.verifier_key.name


def write(path: Path, count: int) -> None:
    sink = JsonlSink(path)
    sink.write(
        [AuditEvent(1_700_000_000_000_000_000, "use", f"u-{n}", "encrypt", "success") for n in range(count)]
    )
    sink.close()


@pytest.fixture
def server() -> Iterator[WitnessServer]:
    with WitnessServer() as running:
        running.logs[ORIGIN] = KEY.verifier_key
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "audit.jsonl", 20)
    return tmp_path / "audit.jsonl"


def checkpoints(path: Path, *servers: WitnessServer) -> Checkpoints:
    return Checkpoints(path, KEY, witnesses=[Witness(one.url, str(one.key)) for one in servers])


def test_growth_is_cosigned_each_time(path: Path, server: WitnessServer) -> None:
    for count in range(1, 6):
        opened = checkpoints(path, server).checkpoint()
        assert server.known[ORIGIN] == opened.checkpoint
        stored = open_checkpoint(
            checkpoint_path(path).read_bytes(), log_keys=[KEY.verifier_key], witness_keys=[server.key]
        )
        assert [name for name, _ in stored.cosigned] == [server.key.name]
        write(path, count)
    assert server.asked == sorted(set(server.asked)), "the size that it knows was never asked for"


def test_what_was_cosigned_is_not_asked_for_again(path: Path, server: WitnessServer) -> None:
    first = checkpoints(path, server).checkpoint()
    assert checkpoints(path, server).checkpoint().note == first.note
    assert server.asked == [0]


def test_a_size_that_is_not_known_is_learned(path: Path, server: WitnessServer) -> None:
    checkpoints(path, server).checkpoint()
    write(path, 5)
    checkpoint_path(path).unlink()
    tree_path(path).unlink()
    checkpoints(path, server).checkpoint()
    assert server.asked == [0, 0, 21]


def test_a_witness_that_was_away_is_told_everything_later(path: Path, server: WitnessServer) -> None:
    checkpoints(path, server).checkpoint()
    write(path, 5)
    server.answers.append((503, b""))
    with pytest.raises(AuditError, match="status 503") as caught:
        checkpoints(path, server).checkpoint()
    assert (caught.value.sink, caught.value.where) == ("Witness", server.url.rstrip("/"))
    stored = read_checkpoint(checkpoint_path(path), log_keys=[KEY.verifier_key], witness_keys=[server.key])
    assert stored.faults == [f"audit.jsonl.checkpoint: not cosigned by {server.key.name}"]
    signed = parse_note(checkpoint_path(path).read_bytes()).signatures[0]
    assert checkpoints(path, server).checkpoint().note.signatures[0] == signed
    assert len(server.asked) == 4
    write(path, 5)
    checkpoints(path, server).checkpoint()
    assert server.known[ORIGIN].size == 33


def test_one_witness_that_is_away_does_not_keep_others_from_signing(path: Path, server: WitnessServer) -> None:
    with WitnessServer("witness.example/w2") as other:
        with pytest.raises(AuditError, match="does not know this log"):
            checkpoints(path, other, server).checkpoint()
        other.logs[ORIGIN] = KEY.verifier_key
        opened = checkpoints(path, other, server).checkpoint()
    assert {line.name for line in opened.note.signatures} == {ORIGIN, server.key.name, other.key.name}


@pytest.mark.parametrize(
    ("attack", "what"),
    [("changed", "does not continue"), ("cut", "it was cut"), ("changed and grown", "does not continue")],
)
def test_a_log_that_does_not_continue_is_not_cosigned(
    path: Path, server: WitnessServer, attack: str, what: str
) -> None:
    """Whoever writes the log also removed its own checkpoint and tree, and signs with its key."""
    checkpoints(path, server).checkpoint()
    known = server.known[ORIGIN]
    lines = path.read_bytes().splitlines(keepends=True)
    if "changed" in attack:
        lines[7] = lines[7].replace(b'"u-6"', b'"u-X"')
    if attack == "cut":
        del lines[15:]
    if "grown" in attack:
        lines += lines[5:9]
    path.write_bytes(b"".join(lines))
    checkpoint_path(path).unlink()
    tree_path(path).unlink()
    with pytest.raises(AuditError, match=what):
        checkpoints(path, server).checkpoint()
    assert server.known[ORIGIN] == known


@pytest.mark.parametrize(
    "answer",
    [
        (200, b""),
        (200, b"no signature\n"),
        (200, "— witness.example/w1 AAAAAAAAAAAA\n".encode()),
        (200, b"x" * 300_000),
        (409, b"many\n"),
        (409, b"99999\n"),
        (403, b""),
        (404, b""),
        (400, b""),
        (500, b"secret"),
        (302, b""),
    ],
)
def test_what_is_no_cosignature_is_refused(path: Path, server: WitnessServer, answer: tuple[int, bytes]) -> None:
    server.answers.append(answer)
    with pytest.raises(AuditError, match=r"witness\.example/w1") as caught:
        checkpoints(path, server).checkpoint()
    assert "secret" not in str(caught.value)
    assert len(parse_note(checkpoint_path(path).read_bytes()).signatures) == 1


def test_signatures_of_strangers_and_without_a_time_are_refused(path: Path, server: WitnessServer) -> None:
    with WitnessServer("witness.example/w2") as stranger:
        text = Checkpoints(path, KEY).checkpoint().note.text
        for lines in (stranger.signature(text, 7), server.signature(text, 0), server.signature("a\n1\nb\n", 7)):
            server.answers.append((200, lines))
            with pytest.raises(AuditError):
                checkpoints(path, server).checkpoint()
        server.answers.append((200, stranger.signature(text, 7) + server.signature(text, 7)))
        opened = checkpoints(path, server).checkpoint()
    assert [line.name for line in opened.note.signatures] == [ORIGIN, server.key.name]


def test_a_witness_that_names_ever_other_sizes_ends(path: Path, server: WitnessServer) -> None:
    server.answers += [(409, b"1\n"), (409, b"2\n"), (409, b"1\n"), (409, b"2\n")]
    with pytest.raises(AuditError, match="other sizes"):
        checkpoints(path, server).checkpoint()
    assert server.asked == [0, 1, 2]


def test_a_witness_that_nobody_runs_is_told_and_the_checkpoint_stands(path: Path) -> None:
    key = WitnessServer().key
    nobody = Witness(StrictKms.closed_endpoint(), key, timeout_seconds=2)
    with pytest.raises(AuditError, match="cannot be reached"):
        Checkpoints(path, KEY, witnesses=[nobody]).checkpoint()
    assert read_checkpoint(checkpoint_path(path), log_keys=[KEY.verifier_key]).faults == []


def test_an_anchor_shows_the_root_though_a_witness_is_away(path: Path, server: WitnessServer) -> None:
    server.answers.append((503, b""))
    with StrictKms() as kms:
        key_arn = kms.create_key()
        sink = AnchoredSink(
            JsonlSink(path), key_arn, client=kms.client(), checkpoints=checkpoints(path, server), every_seconds=600
        )
        sink.write([AuditEvent(1_700_000_000_000_000_000, "use", "u", "encrypt", "success")])
        assert sink.anchor() is not None
        assert isinstance(sink.last_error, AuditError)
        shown = [parse_record(record_of(request, key_arn)) for request in kms.requests]
        sink.close()
    assert any(anchored_tree_of(record) for record in shown if record is not None)


@pytest.mark.parametrize("url", ["http://witness.example", "ftp://127.0.0.1", "witness.example", "https://", ""])
def test_only_safe_addresses_are_asked(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Witness(url, WitnessServer().key)


def test_a_key_of_a_log_is_no_witness_s() -> None:
    with pytest.raises(ConfigurationError, match="0x01"):
        Witness("https://witness.example", KEY.verifier_key)
    with pytest.raises(ConfigurationError):
        Witness("https://witness.example", "nonsense")
    assert KEY.verifier_key.signature_type == ED25519
    assert (
        Witness("https://witness.example", VerifierKey("w", 0x06, bytes(1_312))).url == "https://witness.example"
    )


def test_the_commands(
    path: Path, server: WitnessServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    Path("portal.pem").write_bytes(new_signing_key_pem("ed25519"))
    key = LocalNoteKey.load(ORIGIN, "portal.pem")
    server.logs[ORIGIN] = key.verifier_key
    signing = ["audit", "checkpoint", "audit.jsonl", "--origin", ORIGIN, "--signing-key", "portal.pem"]
    assert run([*signing, "--witness", server.url]) == 2
    capsys.readouterr()
    assert run([*signing, "--witness", server.url, "--witness-key", str(server.key)]) == 0
    assert "cosigned by witness.example/w1" in capsys.readouterr().out
    demanded = ["--checkpoint-key", str(key.verifier_key), "--witness-key", str(server.key)]
    assert run(["audit", "verify", "audit.jsonl", *demanded, "--json"]) == 0
    remarks = json.loads(capsys.readouterr().out)["remarks"]
    assert any("cosigned by witness.example/w1 at 20" in one for one in remarks)
    path.write_bytes(path.read_bytes() + b"{}\n")
    server.answers.append((503, b""))
    assert run([*signing, "--witness", server.url, "--witness-key", str(server.key)]) == 8
