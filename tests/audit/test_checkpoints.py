"""Checkpoints: the root over all lines of a log in a signed note, and what a log must not do behind one."""

from __future__ import annotations

import functools
import json
import os
import random
import time
from hashlib import sha256
from pathlib import Path

import pytest
from support.cloudtrail_records import record_of
from support.forks import in_child
from support.manipulations import KINDS
from support.other_manipulations import OTHER_KINDS
from support.true_evidence import true_evidence

from phicrypt.audit import AuditTrail, JsonlSink
from phicrypt.audit.events import AuditEvent
from phicrypt.audit.sinks.chain import Chain
from phicrypt.audit.sinks.jsonl import rotated_segments
from phicrypt.core.primitives import LocalSigningKey, new_signing_key_pem
from phicrypt.errors import AuditError, AuthenticationError, ConfigurationError, KeyAccessError
from phicrypt.evidence.anchors import anchors_in
from phicrypt.evidence.cloudtrail import parse_record
from phicrypt.evidence.exports import exported
from phicrypt.evidence.join import log_events
from phicrypt.evidence.log_lines import read_records
from phicrypt.evidence.tree_heads import TreeHead, anchored_tree_of, check_tree, read_checkpoint
from phicrypt.evidence.verdict import verdict_of_chain
from phicrypt.evidence.verify import verify
from phicrypt.formats.checkpoints import open_checkpoint
from phicrypt.formats.merkle import CompactRange, leaf_hash
from phicrypt.testing import StrictKms, mark_as_double
from phicrypt.witness import AnchoredSink, CheckpointedSink, Checkpoints, KmsNoteKey, LocalNoteKey
from phicrypt.witness.checkpoints import checkpoint_path
from phicrypt.witness.log_tree import LogTree, log_files, tree_path

ORIGIN = "clinic.example/audit/portal"
evidence = functools.cache(true_evidence)
KEY = LocalNoteKey(ORIGIN, LocalSigningKey(new_signing_key_pem("ed25519")))


def event(number: int) -> AuditEvent:
    return AuditEvent(1_700_000_000_000_000_000 + number, "use", f"u-{number}", "encrypt", "success")


def write(path: Path, count: int, *, first: int = 0) -> None:
    sink = JsonlSink(path)
    sink.write([event(first + number) for number in range(count)])
    sink.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "audit.jsonl", 20)
    return tmp_path / "audit.jsonl"


def root_over(content: bytes) -> bytes:
    tree = CompactRange()
    for line in content.split(b"\n")[:-1]:
        tree.append(leaf_hash(line))
    return tree.root()


def kept(path: Path) -> TreeHead:
    """The newest checkpoint as an auditor keeps it."""
    head = read_checkpoint(checkpoint_path(path), log_keys=[KEY.verifier_key]).head
    assert head is not None
    return head


def rechained(lines: list[bytes]) -> list[bytes]:
    """The lines of one chain as its writer could have written them: every hash fits."""
    chain = Chain()
    chain.chain_id = json.loads(lines[0])["chain"]
    chain._start = f'{{"phicrypt-audit":1,"chain":"{chain.chain_id}","sequence":'
    events = [AuditEvent.from_dict(json.loads(line)["event"]) for line in lines]
    return chain.lines(events)[0]


def test_a_checkpoint_is_the_root_over_all_lines(path: Path) -> None:
    checkpoint = Checkpoints(path, KEY).checkpoint().checkpoint
    content = path.read_bytes()
    assert (checkpoint.origin, checkpoint.size) == (ORIGIN, content.count(b"\n")) == (ORIGIN, 21)
    assert checkpoint.root == root_over(content)
    opened = open_checkpoint(checkpoint_path(path).read_bytes(), log_keys=[KEY.verifier_key])
    assert opened.checkpoint == checkpoint
    for file in (checkpoint_path(path), tree_path(path)):
        assert file.stat().st_mode & 0o777 == 0o600


def test_it_goes_on_where_the_last_one_stood(path: Path) -> None:
    for count in range(5):
        checkpoint = Checkpoints(path, KEY).checkpoint().checkpoint
        assert checkpoint.root == root_over(path.read_bytes())
        assert len(json.loads(tree_path(path).read_bytes())["runs"]) == 1
        write(path, count, first=count)


def test_nothing_new_is_not_signed_again(path: Path) -> None:
    checkpoints = Checkpoints(path, KEY)
    first = checkpoints.checkpoint()
    signed_at = checkpoint_path(path).stat().st_mtime_ns
    assert checkpoints.checkpoint() == first
    assert checkpoint_path(path).stat().st_mtime_ns == signed_at


def test_a_line_is_a_leaf_once_it_is_ended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"torn')
    whole = path.read_bytes().rpartition(b"\n")[0] + b"\n"
    assert Checkpoints(path, KEY).checkpoint().checkpoint.root == root_over(whole)
    write(path, 1)
    checkpoint = Checkpoints(path, KEY).checkpoint().checkpoint
    assert checkpoint.root == root_over(path.read_bytes())
    assert checkpoint.size == 21 + 1 + 2


def test_lines_longer_than_a_block_are_leaves_too(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x" * 2_500_000 + b"\n" + b"y" * 1_048_575 + b"\n\n")
    assert Checkpoints(path, KEY).checkpoint().checkpoint.root == root_over(path.read_bytes())


class TestALogThatContradictsItsCheckpoint:
    """The writer of the log has everything but the checkpoint that somebody kept."""

    def attack(self, path: Path, kind: str) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        if kind == "changed":
            lines[7] = lines[7].replace(b'"u-6"', b'"u-X"')
        elif kind == "cut":
            del lines[15:]
        elif kind == "removed":
            del lines[7]
        elif kind == "moved":
            lines[7], lines[8] = lines[8], lines[7]
        elif kind == "inserted":
            lines.insert(7, lines[7])
        elif kind == "changed and grown":
            lines[7] = lines[7].replace(b'"u-6"', b'"u-X"')
            lines += lines[10:]
        path.write_bytes(b"".join(rechained(lines)))

    KINDS = ("changed", "cut", "removed", "moved", "inserted", "changed and grown")

    @pytest.mark.parametrize("kind", KINDS)
    def test_rule_21_is_found_by_verify_though_its_chain_was_recomputed(self, path: Path, kind: str) -> None:
        Checkpoints(path, KEY).checkpoint()
        head = kept(path)
        assert verify(path, tree_heads=[head]).is_valid
        self.attack(path, kind)
        for file in (tree_path(path), checkpoint_path(path)):
            assert verify(path).is_valid
            result = verify(path, tree_heads=[head])
            assert not result.is_valid
            assert verdict_of_chain(result).word == "broken"
            file.unlink()

    @pytest.mark.parametrize("kind", KINDS)
    def test_rule_21_gets_no_further_checkpoint(self, path: Path, kind: str) -> None:
        Checkpoints(path, KEY).checkpoint()
        self.attack(path, kind)
        tree_path(path).unlink()
        before = checkpoint_path(path).read_bytes()
        with pytest.raises(AuditError) as caught:
            Checkpoints(path, KEY).checkpoint()
        assert caught.value.sink == "Checkpoints"
        assert checkpoint_path(path).read_bytes() == before

    def test_a_cut_is_found_with_the_tree_s_file_as_well(self, path: Path) -> None:
        Checkpoints(path, KEY).checkpoint()
        self.attack(path, "cut")
        with pytest.raises(AuditError, match="cut"):
            Checkpoints(path, KEY).checkpoint()

    def test_growth_is_no_contradiction(self, path: Path) -> None:
        heads = []
        for count in range(1, 6):
            Checkpoints(path, KEY).checkpoint()
            heads.append(kept(path))
            write(path, count)
        check = check_tree(path, heads)
        assert check.faults == []
        assert check.confirmed == {f"the checkpoint signed by {ORIGIN}": heads[-1].size}
        assert verify(path, tree_heads=heads).is_valid

    def test_a_log_that_is_gone_is_cut(self, path: Path) -> None:
        Checkpoints(path, KEY).checkpoint()
        path.unlink()
        tree_path(path).unlink()
        with pytest.raises(AuditError, match="it has 0 whole lines and had 21"):
            Checkpoints(path, KEY).checkpoint()


@pytest.mark.parametrize("with_tree", [True, False])
def test_rule_21_every_manipulation_of_a_log_but_growth_is_found(tmp_path: Path, with_tree: bool) -> None:
    """Those that the chains and anchors are tried with; here nothing is asked but the tree."""
    path, base = tmp_path / "audit.jsonl", evidence()
    path.write_bytes(base.log)
    Checkpoints(path, KEY).checkpoint()
    head = kept(path)
    if not with_tree:
        tree_path(path).unlink()
    found = {True: 0, False: 0}
    of_the_log = [one for one in [*KINDS, *OTHER_KINDS] if one.attacker != "writer of the trail's bucket"]
    for kind in of_the_log:
        changed = base.copy()
        kind.apply(changed, random.Random(kind.name))
        path.write_bytes(changed.log)
        has_faults = bool(check_tree(path, [head]).faults)
        assert has_faults != changed.log.startswith(base.log), kind.name
        found[has_faults] += 1
    assert found[True] > 60
    assert found[False] > 5


def test_no_line_hides_between_the_runs_of_the_tree_s_file(path: Path) -> None:
    """Who can write the log can write the file that orders its lines, too."""
    Checkpoints(path, KEY).checkpoint()
    head, document = kept(path), json.loads(tree_path(path).read_bytes())
    lines = path.read_bytes().splitlines(keepends=True)
    before, added = len(b"".join(lines[:7])), lines[3]
    path.write_bytes(b"".join([*lines[:7], added, *lines[7:]]))
    (file_id, _, end), after = document["runs"][0], before + len(added)
    for runs in (
        [[file_id, 0, before], [file_id, after, end + len(added)]],
        [[file_id, 0, before], [file_id, before, before], [file_id, after, end + len(added)]],
        [[file_id, after, end + len(added)], [file_id, 0, before]],
    ):
        tree_path(path).write_text(json.dumps({**document, "runs": runs}))
        assert check_tree(path, [head]).faults
    path.write_bytes(b"".join(lines))
    tree_path(path).write_text(json.dumps(document))
    assert check_tree(path, [head]).faults == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"size": 21, "hashes": [], "runs": []}',
        b'{"size": -1, "hashes": [], "runs": []}',
        b'{"size": 0, "hashes": [], "runs": [["00", 0, 1]]}',
        b'{"size": 0, "hashes": [], "runs": [[5, 0, 1]]}',
        b'{"size": 1, "hashes": ["zz"], "runs": []}',
        b'{"size": 1, "hashes": ["' + b"0" * 64 + b'"], "runs": []}',
        b'{"size": true, "hashes": "' + b"0" * 64 + b'", "runs": {}}',
    ],
)
def test_a_damaged_tree_s_file_is_made_anew(path: Path, content: bytes) -> None:
    Checkpoints(path, KEY).checkpoint()
    tree_path(path).write_bytes(content)
    write(path, 3)
    assert Checkpoints(path, KEY).checkpoint().checkpoint.root == root_over(path.read_bytes())


@pytest.mark.parametrize("older", [checkpoint_path, tree_path])
def test_a_crash_between_both_files_is_made_good(path: Path, older) -> None:
    Checkpoints(path, KEY).checkpoint()
    before = older(path).read_bytes()
    write(path, 3)
    Checkpoints(path, KEY).checkpoint()
    older(path).write_bytes(before)
    write(path, 3)
    assert Checkpoints(path, KEY).checkpoint().checkpoint.root == root_over(path.read_bytes())


def test_segments_are_read_in_order_and_a_removed_one_is_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonlSink(path)
    whole = b""
    for number in range(4):
        sink.write([event(number)] * 3)
        Checkpoints(path, KEY).checkpoint()
        whole = b"".join(part.read_bytes() for part in log_files(path).values())
        sink.rotate()
    assert kept(path).root == root_over(whole)
    assert len(rotated_segments(path)) == 4
    assert check_tree(path, [kept(path)]).faults == []
    tree_path(path).unlink()
    assert check_tree(path, [kept(path)]).faults == []
    rotated_segments(path)[1].path.unlink()
    assert check_tree(path, [kept(path)]).faults


def test_lines_that_a_slow_process_adds_to_a_rotated_segment_come_after_what_was_signed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    quick, slow = JsonlSink(path), JsonlSink(path)
    slow.write([event(0)])
    quick.write([event(1)])
    quick.rotate()
    quick.write([event(2)])
    Checkpoints(path, KEY).checkpoint()
    early = kept(path)
    slow._next_check_ns = 2**63
    slow._writes_until_check = 10
    slow.write([event(3)])
    assert rotated_segments(path)[0].path.read_bytes().count(b"\n") == 5
    quick.write([event(4)])
    checkpoint = Checkpoints(path, KEY).checkpoint().checkpoint
    assert checkpoint.size == early.size + 2
    assert verify(path, tree_heads=[early, kept(path)]).is_valid
    document = tree_path(path).read_bytes()
    tree_path(path).unlink()
    assert "audit.jsonl.tree is not beside the log" in str(check_tree(path, [kept(path)]).faults)
    with pytest.raises(AuditError, match=r"audit\.jsonl\.tree"):
        Checkpoints(path, KEY).checkpoint()
    tree_path(path).write_bytes(document)
    assert Checkpoints(path, KEY).checkpoint().checkpoint == checkpoint


def test_a_file_is_found_that_is_rotated_while_the_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonlSink(path)
    sink.write([event(1)])
    sink.rotate()
    sink.write([event(2), event(3)])
    Checkpoints(path, KEY).checkpoint()
    whole = b"".join(part.read_bytes() for part in log_files(path).values()).splitlines()
    lines = LogTree.load(path).lines()
    found = [next(lines)]
    sink.rotate()
    sink.write([event(number) for number in range(4, 9)])
    assert [*found, *lines] == whole


def test_every_checkpoint_holds_while_processes_write_and_rotate(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    JsonlSink(path)

    def work() -> None:
        sink = JsonlSink(path, max_segment_bytes=8_192)
        for number in range(600):
            sink.write([event(number)])
        sink.close()

    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                work()
            finally:
                os._exit(0)
        children.append(pid)
    heads = []
    while children:
        done, _ = os.waitpid(children[0], os.WNOHANG)
        children = children[1:] if done else children
        if log_files(path):
            Checkpoints(path, KEY).checkpoint()
            heads.append(kept(path))
        time.sleep(0.01)
    Checkpoints(path, KEY).checkpoint()
    heads.append(kept(path))
    lines = sum(part.read_bytes().count(b"\n") for part in log_files(path).values())
    assert heads[-1].size == lines == 3 * 601
    assert check_tree(path, heads).faults == []
    assert len(rotated_segments(path)) >= 2


def test_two_files_with_one_beginning_are_refused(path: Path) -> None:
    sink = JsonlSink(path)
    sink.write([event(1)])
    sink.rotate()
    path.write_bytes(rotated_segments(path)[0].path.read_bytes())
    with pytest.raises(ConfigurationError, match="begin with the same line"):
        log_files(path)


def test_no_link_that_somebody_prepared_is_written_through(path: Path, tmp_path: Path) -> None:
    """Who signs may be another user than the log's writer, who owns the folder."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for file in (checkpoint_path(path), tree_path(path)):
        file.symlink_to(victim)
        file.with_name(f"{file.name}.new").symlink_to(victim)
    checkpoint_path(path).unlink()
    Checkpoints(path, KEY).checkpoint()
    assert victim.read_bytes() == b"precious"
    assert not tree_path(path).is_symlink()
    path.with_name("audit.jsonl.checkpoint.lock").unlink()
    path.with_name("audit.jsonl.checkpoint.lock").symlink_to(tmp_path / "made")
    with pytest.raises(AuditError):
        Checkpoints(path, KEY).checkpoint()
    assert not (tmp_path / "made").exists()


def test_a_failure_leaves_no_file_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name for file in path.parent.iterdir()} | {"audit.jsonl.checkpoint.lock"}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AuditError, match="No space left"):
        Checkpoints(path, KEY).checkpoint()
    assert {file.name for file in path.parent.iterdir()} == before


def test_a_log_that_is_not_there_has_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such log file"):
        Checkpoints(tmp_path / "none.jsonl", KEY).checkpoint()
    with pytest.raises(AuditError):
        Checkpoints(tmp_path / "no" / "none.jsonl", KEY).checkpoint()


class TestKeys:
    def test_a_checkpoint_of_another_key_is_not_gone_on_from(self, path: Path) -> None:
        Checkpoints(path, KEY).checkpoint()
        write(path, 1)
        other = LocalNoteKey(ORIGIN, LocalSigningKey(new_signing_key_pem("ed25519")))
        with pytest.raises(AuditError, match="earlier_keys"):
            Checkpoints(path, other).checkpoint()
        changed = Checkpoints(path, other, earlier_keys=[str(KEY.verifier_key)]).checkpoint()
        assert open_checkpoint(changed.note.to_bytes(), log_keys=[other.verifier_key]).checkpoint.size == 23

    @pytest.mark.parametrize("algorithm", ["ed25519", "ml-dsa-44"])
    def test_a_key_in_a_file(self, path: Path, tmp_path: Path, algorithm: str) -> None:
        if algorithm == "ml-dsa-44":
            pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
        file = tmp_path / "portal.key"
        made = LocalNoteKey.create(ORIGIN, file, algorithm=algorithm)
        assert file.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ConfigurationError):
            LocalNoteKey.create(ORIGIN, file)
        loaded = LocalNoteKey.load(ORIGIN, file)
        assert loaded.verifier_key == made.verifier_key
        opened = Checkpoints(path, loaded).checkpoint()
        assert open_checkpoint(opened.note.to_bytes(), log_keys=[made.verifier_key]).checkpoint.size == 21

    def test_what_is_no_key_is_refused_without_its_content(self, tmp_path: Path) -> None:
        (tmp_path / "k").write_text("-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n")
        for file in (tmp_path / "k", tmp_path / "none"):
            with pytest.raises(ConfigurationError) as caught:
                LocalNoteKey.load(ORIGIN, file)
            assert "secret" not in str(caught.value)
        with pytest.raises(ConfigurationError):
            LocalNoteKey.create(ORIGIN, tmp_path / "rsa", algorithm="rsa")
        for name in ("", "a b", "a+b", "x" * 256, "a\nb"):
            with pytest.raises(ConfigurationError):
                LocalNoteKey(name, LocalSigningKey(new_signing_key_pem("ed25519")))

    @pytest.mark.parametrize("spec", ["ECC_NIST_EDWARDS25519", "ML_DSA_44"])
    def test_a_key_in_kms_and_the_record_of_its_use(self, path: Path, spec: str) -> None:
        with StrictKms() as kms:
            key_arn = kms.create_signing_key(spec)
            key = KmsNoteKey(ORIGIN, key_arn, client=kms.client())
            Checkpoints(path, key).checkpoint(trail=AuditTrail([JsonlSink(path)], application="portal"))
            opened = open_checkpoint(checkpoint_path(path).read_bytes(), log_keys=[key.verifier_key])
            (asked,) = (request for request in kms.requests if request.operation == "Sign")
        recorded = list(log_events(path))[-1]
        assert (recorded.operation, recorded.outcome) == ("audit.checkpoint", "success")
        assert recorded.origin is not None
        assert recorded.origin.request_ids == (asked.request_id,)
        assert recorded.origin.key_id == key_arn
        assert recorded.detail == {"tree_size": 21, "tree_root": opened.checkpoint.root.hex()}
        assert "audit.checkpoint" not in str(list(exported(read_records(path), "fhir")))

    def test_a_kms_that_refuses_is_recorded_and_nothing_is_signed(self, path: Path) -> None:
        with StrictKms() as kms:
            key_arn = kms.create_signing_key("ECC_NIST_EDWARDS25519")
            kms.deny(key_arn, "Sign")
            with pytest.raises(KeyAccessError):
                Checkpoints(path, KmsNoteKey(ORIGIN, key_arn, client=kms.client())).checkpoint(
                    trail=AuditTrail([JsonlSink(path)])
                )
            with pytest.raises(ConfigurationError, match="ECC_NIST_P256"):
                _ = KmsNoteKey(ORIGIN, kms.create_signing_key("ECC_NIST_P256"), client=kms.client()).verifier_key
        assert list(log_events(path))[-1].outcome == "denied"
        assert not checkpoint_path(path).exists()

    def test_an_answer_that_is_no_signature_is_not_written(self, path: Path) -> None:
        key_arn = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
        der = LocalSigningKey(new_signing_key_pem("ed25519")).public_key_der()

        @mark_as_double
        class WrongKms:
            def get_public_key(self, **question: str) -> dict[str, object]:
                return {
                    "PublicKey": der,
                    "KeySpec": "ECC_NIST_EDWARDS25519",
                    "SigningAlgorithms": ["ED25519_PH_SHA_512", "ED25519_SHA_512"],
                }

            def sign(self, **question: str) -> dict[str, bytes]:
                assert question["SigningAlgorithm"] == "ED25519_SHA_512"
                return {"Signature": bytes(64)}

        with pytest.raises(AuthenticationError):
            Checkpoints(path, KmsNoteKey(ORIGIN, key_arn, client=WrongKms())).checkpoint()
        assert not checkpoint_path(path).exists()


class TestSinks:
    def test_a_checkpointed_sink_signs_periodically_and_at_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "audit.jsonl"
        sink = CheckpointedSink(JsonlSink(path), Checkpoints(path, KEY), every_records=5, every_seconds=600)
        for number in range(6):
            sink.write([event(number)])
        deadline = time.monotonic() + 10
        while not checkpoint_path(path).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        first = kept(path)
        sink.write([event(7)])
        sink.close()
        assert sink.last_error is None
        assert kept(path).size > first.size
        assert verify(path, tree_heads=[first, kept(path)]).is_valid
        assert [one.operation for one in log_events(path)].count("audit.checkpoint") >= 2

    def test_a_log_that_was_cut_stops_no_operation_and_is_told(self, path: Path) -> None:
        sink = CheckpointedSink(JsonlSink(path), Checkpoints(path, KEY), every_seconds=600)
        sink.write([event(1)])
        Checkpoints(path, KEY).checkpoint()
        os.truncate(path, 2_000)
        sink.write([event(2)])
        sink.close()
        assert isinstance(sink.last_error, AuditError)

    def test_a_forked_child_signs_the_same_log(self, path: Path) -> None:
        sink = CheckpointedSink(JsonlSink(path), Checkpoints(path, KEY), every_seconds=600)
        sink.write([event(1)])

        def work() -> None:
            sink.write([event(2)])
            sink.close()

        assert in_child(work) == "None"
        first = kept(path)
        sink.write([event(3)])
        sink.close()
        assert verify(path, tree_heads=[first, kept(path)]).is_valid

    def test_checkpoints_of_another_log_are_refused(self, path: Path, tmp_path: Path) -> None:
        elsewhere = Checkpoints(tmp_path / "other.jsonl", KEY)
        with pytest.raises(ConfigurationError, match=r"other\.jsonl"):
            CheckpointedSink(JsonlSink(path), elsewhere)
        with pytest.raises(ConfigurationError, match=r"other\.jsonl"):
            AnchoredSink(JsonlSink(path), "arn", checkpoints=elsewhere)

    def test_anchors_show_the_root_beside_the_head_and_bind_every_chain_of_the_log(self, path: Path) -> None:
        """Of the chain of another process no anchor was made; the tree speaks for it all the same."""
        with StrictKms() as kms:
            key_arn = kms.create_key()
            sink = AnchoredSink(
                JsonlSink(path),
                key_arn,
                client=kms.client(),
                checkpoints=Checkpoints(path, KEY),
                every_seconds=600,
            )
            sink.write([event(100)])
            sink.close()
            records = [parse_record(record_of(request, key_arn)) for request in kms.requests]
        shown = [record for record in records if record is not None and record.name != "CreateKey"]
        anchors = list(anchors_in(shown))
        (tree,) = filter(None, map(anchored_tree_of, shown))
        assert (tree.size, tree.root) == (kept(path).size, kept(path).root)
        anchored = next(one for one in log_events(path) if one.operation == "audit.anchor")
        assert anchored.detail is not None
        assert anchored.detail["tree_root"] == tree.root.hex()
        result = verify(path, anchors=anchors, anchored_trees=[tree])
        assert result.is_valid
        assert any("CloudTrail's anchors" in remark for remark in verdict_of_chain(result).remarks)

        lines = path.read_bytes().splitlines(keepends=True)
        lines[7] = lines[7].replace(b'"u-6"', b'"u-X"')
        forged = rechained(lines[:21])
        follows = f'"follows":"{sha256(forged[-1][:-78]).hexdigest()}"'.encode()
        assert b'"follows":"' in lines[21]
        path.write_bytes(b"".join([*forged, *lines[21:]]))
        assert follows not in lines[21]
        assert not verify(path, anchors=anchors, anchored_trees=[tree]).is_valid
        assert "tree" in str(verify(path, anchors=anchors, anchored_trees=[tree]).faults)
        stranger = tree._replace(chain_id="0" * 32)
        assert verify(path, anchors=anchors, anchored_trees=[stranger]).tree is None

    def test_an_anchor_is_made_though_the_log_was_cut(self, path: Path) -> None:
        with StrictKms() as kms:
            key_arn = kms.create_key()
            Checkpoints(path, KEY).checkpoint()
            os.truncate(path, 2_000)
            sink = AnchoredSink(
                JsonlSink(path),
                key_arn,
                client=kms.client(),
                checkpoints=Checkpoints(path, KEY),
                every_seconds=600,
            )
            sink.write([event(1)])
            assert sink.anchor() is not None
            assert isinstance(sink.last_error, AuditError)
            sink.close()
            shown = [parse_record(record_of(request, key_arn)) for request in kms.requests]
        assert len(list(anchors_in(record for record in shown if record is not None))) >= 1
        assert [anchored_tree_of(record) for record in shown if record is not None and record.context] != []
        assert not any(anchored_tree_of(record) for record in shown if record is not None)


def test_hashing_a_line_costs_no_memory_of_the_log(tmp_path: Path) -> None:
    tree = LogTree(tmp_path / "audit.jsonl")
    (tmp_path / "audit.jsonl").write_bytes(b"".join(b"%d\n" % number for number in range(5_000)))
    assert list(tree.grow((1, 77, 5_000, 6_000))) == [1, 77, 5_000]
    assert tree.tree.size == 5_000
    assert len(tree.tree.hashes) == (5_000).bit_count()
    assert len(tree.runs) == 1
