"""One record and the proof that it stands in the log, for somebody who is not shown the others.

::

    proof = prove("audit.jsonl", "4f0c…-17")             # one file, C2SP's tlog-proof
    proven = check_proof(proof, log_keys=[key])          # offline, without the log
    proven.event(), proven.checkpoint.size, proven.cosigned

The record itself travels in the proof's extra line, from which its leaf hash is computed: nobody need trust
that line. The proof holds hashes of other records and nothing of their content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from phicrypt.audit.events import AuditEvent
from phicrypt.audit.sinks.chain import RECORD_START
from phicrypt.core.strict_json import parse_json
from phicrypt.errors import ConfigurationError, FormatError, LimitExceededError
from phicrypt.formats.checkpoints import Checkpoint, InclusionProof, open_checkpoint
from phicrypt.formats.merkle import ProofMismatchError, inclusion_ranges, leaf_hash, range_roots
from phicrypt.formats.notes import MAX_NOTE_LENGTH_BYTES, VerifierKey, parse_note
from phicrypt.witness.checkpoints import checkpoint_path, read_checkpoint_file
from phicrypt.witness.log_tree import LogTree

MAX_PROOF_LENGTH_BYTES: Final = 8_388_608
_MAX_LISTED: Final = 10
_PLACE: Final = re.compile(r"([0-9a-f]{32}):([0-9]{1,18})")


class ProvenRecord(NamedTuple):
    """A line of the log, after its proof and the checkpoint's signatures verified.

    Attributes:
        line: the record as it stands in the log, without its line feed.
        leaf_index: its place among all lines, from 0.
        checkpoint: the signed head that it stands under.
        cosigned: each witness that was asked for and signed, with the POSIX seconds that it signed along.
    """

    line: bytes
    leaf_index: int
    checkpoint: Checkpoint
    cosigned: tuple[tuple[str, int], ...]

    def fields(self) -> dict[str, Any]:
        """The event's fields; raises FormatError for a line that is no record, such as a torn write."""
        record = parse_json(self.line, field="record")
        event = record.get("event") if isinstance(record, dict) else None
        if not isinstance(event, dict):
            raise FormatError("the line that was proven is no record", field="record")
        return event

    def event(self) -> AuditEvent:
        """The event; raises FormatError, ValueError, KeyError or TypeError where it is none."""
        return AuditEvent.from_dict(self.fields())


def prove(log: str | Path, record: str, *, checkpoint: str | Path | None = None) -> bytes:
    """The proof of one record under a checkpoint, as a tlog-proof file with the record in it.

    Args:
        log: the log's current file.
        record: the record's ``CHAIN:SEQUENCE``, or a use id that one record has.
        checkpoint: a checkpoint's file; the newest of the log by default.

    Raises ConfigurationError where there is no such record or checkpoint, or several records have the use id;
    ProofMismatchError where the log is not the one that was signed; FormatError.
    """
    path = Path(log)
    try:
        note = read_checkpoint_file(Path(checkpoint) if checkpoint is not None else checkpoint_path(path))
    except OSError as error:
        reason = error.strerror
    else:
        head = Checkpoint.parse(parse_note(note).text)
        tree = _tree_under(path, head)
        index, line = _find(tree, head, record)
        hashes = tuple(range_roots(tree.leaves_after(), inclusion_ranges(index, head.size)))
        proof = InclusionProof(index, hashes, note, line)
        proof.check(leaf_hash(line), head)
        return proof.to_bytes()
    raise ConfigurationError(f"the checkpoint cannot be read ({reason}); 'phicrypt audit checkpoint' makes one")


def check_proof(
    content: bytes, *, log_keys: Sequence[VerifierKey], witness_keys: Sequence[VerifierKey] = ()
) -> ProvenRecord:
    """Verify a proof made by :func:`prove`, without the log.

    Args:
        content: the proof's file.
        log_keys: verifier keys of the log; from its owner, and not from whoever brought the proof.
        witness_keys: of witnesses whose cosignature is demanded, each of them.

    Raises FormatError, LimitExceededError, NoteSignatureError, ProofMismatchError; ConfigurationError for a
    witness that did not sign.
    """
    if len(content) > MAX_PROOF_LENGTH_BYTES:
        raise LimitExceededError(
            "the proof is too long in bytes", limit=MAX_PROOF_LENGTH_BYTES, actual=len(content)
        )
    proof = InclusionProof.parse(content)
    if not proof.extra:
        raise FormatError("the record in the line 'extra' was expected", field="proof")
    opened = open_checkpoint(proof.checkpoint, log_keys=log_keys, witness_keys=witness_keys)
    proof.check(leaf_hash(proof.extra), opened.checkpoint)
    require_witnesses(opened.cosigned, witness_keys)
    return ProvenRecord(proof.extra, proof.leaf_index, opened.checkpoint, opened.cosigned)


def require_witnesses(cosigned: Sequence[tuple[str, int]], witness_keys: Sequence[VerifierKey]) -> None:
    """Raise ConfigurationError unless every witness signed."""
    missing = {key.name for key in witness_keys} - {name for name, _ in cosigned}
    if missing:
        raise ConfigurationError(f"the checkpoint is not cosigned by {', '.join(sorted(missing))}")


def _tree_under(path: Path, head: Checkpoint) -> LogTree:
    """The tree of the log over all its lines, after it led to the head. Raises ProofMismatchError."""
    tree = LogTree.load(path).emptied()
    agrees = False
    for _ in tree.grow((head.size,)):
        agrees = tree.tree.root() == head.root
    if not agrees:
        raise ProofMismatchError("log")
    return tree


def _find(tree: LogTree, head: Checkpoint, record: str) -> tuple[int, bytes]:
    """The number and the line of a record among those under the head."""
    found = list(_matching(tree, head.size, record))
    if len(found) == 1:
        return found[0][0], found[0][1]
    if not found:
        raise ConfigurationError(
            f"no record {record!r} among the {head.size:,} lines under the checkpoint; name a record as "
            "CHAIN:SEQUENCE or by its use id, and make a new checkpoint if it is newer"
        )
    places = ", ".join(place for _, _, place in found)
    raise ConfigurationError(f"several records have this use id; name one of {places}")


def _matching(tree: LogTree, size: int, record: str) -> Iterator[tuple[int, bytes, str]]:
    place = _PLACE.fullmatch(record)
    if place is not None:
        start = RECORD_START + f'{place[1]}","sequence":{int(place[2])},'.encode()
        mark = start
    else:
        start, mark = RECORD_START, b'"use_id":' + json.dumps(record).encode()
    count = 0
    for index, line in enumerate(tree.lines()):
        if index == size or count == _MAX_LISTED:
            return
        if mark in line and line.startswith(start) and (described := _place_of(line, record, place is not None)):
            count += 1
            yield index, line, described


def _place_of(line: bytes, record: str, is_place: bool) -> str:
    """``CHAIN:SEQUENCE`` of a line that is the record; empty for one that only looks like it."""
    try:
        fields = parse_json(line, field="record", max_bytes=MAX_NOTE_LENGTH_BYTES * 4)
        described = f"{fields['chain']}:{fields['sequence']}"
        is_it = is_place or fields["event"]["use_id"] == record
    except (FormatError, KeyError, TypeError):
        return ""
    return described if is_it else ""
