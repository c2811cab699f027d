"""Whether a log still begins with what checkpoints and anchors said it held: its tree, computed anew.

::

    check = check_tree("audit.jsonl", [TreeHead(size, root, "checkpoint")])
    check.faults                      # heads that the log does not lead to

Whoever signed, kept or recorded a head holds the log to it: no line up to its size was changed, removed,
moved or inserted since.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from phicrypt.errors import ConfigurationError, FormatError, PhiCryptError
from phicrypt.evidence.trail_events import TrailEvent, same_key_everywhere
from phicrypt.formats.checkpoints import Checkpoint, open_checkpoint
from phicrypt.formats.notes import VerifierKey, parse_note
from phicrypt.witness.anchors import ANCHOR_OPERATION, CHAIN_NAME, TREE_ROOT_NAME, TREE_SIZE_NAME
from phicrypt.witness.checkpoints import read_checkpoint_file
from phicrypt.witness.log_tree import LogTree, tree_path

_TREE: Final = re.compile(r"[0-9]{1,18} [0-9a-f]{64}")


class TreeHead(NamedTuple):
    """Size and root of a log's tree, and who says so."""

    size: int
    root: bytes
    source: str


class AnchoredTree(NamedTuple):
    """What an anchor in CloudTrail shows of a log's tree; the chain tells whose log it was."""

    chain_id: str
    size: int
    root: bytes


@dataclass(slots=True)
class TreeCheck:
    """What :func:`check_tree` found.

    Attributes:
        size: how many whole lines the log has.
        confirmed: the largest head that the log leads to, per source.
        faults: heads that it does not lead to, in words.
    """

    size: int = 0
    confirmed: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def remarks(self) -> Iterable[str]:
        """What is shown up to which line, and how many lie behind."""
        for source, size in self.confirmed.items():
            yield (
                f"tree: the first {size:,} lines are those of {source}; {self.size - size:,} lines lie behind it, "
                "where rewriting and cutting off are not excluded."
            )


def anchored_tree_of(record: TrailEvent, key_arn: str | None = None) -> AnchoredTree | None:
    """The tree that an anchor shows, if it shows one."""
    if record.name != ANCHOR_OPERATION or record.error_code or record.is_network:
        return None
    if key_arn is not None and same_key_everywhere(record.key_arn) != same_key_everywhere(key_arn):
        return None
    size, root = record.context.get(TREE_SIZE_NAME, ""), record.context.get(TREE_ROOT_NAME, "")
    chain_id = record.context.get(CHAIN_NAME, "")
    if _TREE.fullmatch(f"{size} {root}") is None:
        return None
    return AnchoredTree(chain_id, int(size), bytes.fromhex(root))


def check_tree(path: str | Path, heads: Iterable[TreeHead]) -> TreeCheck:
    """Compute the tree of a log and compare it with heads, in one pass and the memory of a few hashes.

    Args:
        path: the log's current file; its segments are found by their manifest, their order by ``<log>.tree``.
        heads: what it must lead to.
    """
    check = TreeCheck()
    waiting: dict[int, list[TreeHead]] = {}
    for head in heads:
        waiting.setdefault(head.size, []).append(head)
    tree = LogTree.load(Path(path)).emptied()
    _compare(tree, waiting.pop(0, ()), check)
    try:
        for size in tree.grow(tuple(waiting)):
            _compare(tree, waiting.pop(size), check)
    except (ConfigurationError, FormatError) as error:
        check.faults.append(str(error))
    check.size = tree.tree.size
    if check.faults and not tree_path(tree.path).exists():
        check.faults.append(
            f"{tree_path(tree.path).name} is not beside the log: without it nobody knows in which order several "
            "processes wrote while the log was rotated"
        )
    for size, missed in sorted(waiting.items()):
        check.faults += [
            f"{head.source} is of {size:,} lines and the log has {check.size:,}: it was cut" for head in missed
        ]
    return check


def _compare(tree: LogTree, heads: Iterable[TreeHead], check: TreeCheck) -> None:
    for head in heads:
        if tree.tree.root() == head.root:
            check.confirmed[head.source] = head.size
        else:
            check.faults.append(
                f"the first {head.size:,} lines are not those of {head.source}: one was changed, removed, moved "
                "or inserted"
            )


@dataclass(slots=True)
class CheckpointReading:
    """What a checkpoint's file says, and who signed it.

    Attributes:
        head: what the log must lead to; None where the file was refused.
        faults: why it was refused, or which witness did not sign.
        remarks: who signed, or that nobody's signature was checked.
    """

    head: TreeHead | None = None
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def read_checkpoint(
    file: Path, *, log_keys: Sequence[VerifierKey] = (), witness_keys: Sequence[VerifierKey] = ()
) -> CheckpointReading:
    """Read a checkpoint to compare a log with. Raises OSError where there is no such file.

    Args:
        file: the signed note.
        log_keys: of the log. Without any, no signature is checked, and a remark says so.
        witness_keys: of witnesses that must have cosigned.
    """
    content, found = read_checkpoint_file(file), CheckpointReading()
    try:
        if not log_keys:
            checkpoint = Checkpoint.parse(parse_note(content).text)
            found.remarks.append(
                f"{file.name}: no signature was checked (no --checkpoint-key): it says what whoever can write it "
                "likes."
            )
            found.head = TreeHead(checkpoint.size, checkpoint.root, f"the unchecked {file.name}")
            return found
        opened = open_checkpoint(content, log_keys=log_keys, witness_keys=witness_keys)
    except PhiCryptError as error:
        found.faults.append(f"{file.name}: {error}")
        return found
    checkpoint = opened.checkpoint
    found.head = TreeHead(checkpoint.size, checkpoint.root, f"the checkpoint signed by {checkpoint.origin}")
    cosigned = dict(opened.cosigned)
    missing = [key.name for key in witness_keys if key.name not in cosigned]
    found.faults += [f"{file.name}: not cosigned by {name}" for name in missing]
    found.remarks += [f"{file.name}: cosigned by {name} at {_moment(at)}." for name, at in opened.cosigned]
    return found


def _moment(posix_seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(posix_seconds, 2**33)))
