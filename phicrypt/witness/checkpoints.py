"""Checkpoints of a log: the root over all its lines in a signed note.

::

    key = LocalNoteKey.load("clinic.example/audit/portal", "portal.pem")
    checkpoints = Checkpoints("audit.jsonl", key)
    checkpoints.checkpoint()                          # audit.jsonl.checkpoint

A chain speaks for the records of one process; the tree speaks for every line of the log, from all processes
and segments, and one record can be proven under its root without the others. Whoever keeps a checkpoint
(an auditor, a witness, CloudTrail by way of an anchor) holds the log to it. See
:mod:`phicrypt.formats.checkpoints` for the formats, and docs/evidence.md for what it proves against whom.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from phicrypt.audit.trail import NO_TRAIL, Trail
from phicrypt.errors import AuditError, ConfigurationError, FormatError, PhiCryptError
from phicrypt.formats.checkpoints import Checkpoint, OpenedCheckpoint, open_checkpoint
from phicrypt.formats.merkle import CompactRange
from phicrypt.formats.notes import MAX_NOTE_LENGTH_BYTES, Note, VerifierKey
from phicrypt.witness.log_tree import LogTree, log_files, replace_file
from phicrypt.witness.note_keys import NoteKey

_FILE_MODE: Final = 0o600


def checkpoint_path(path: Path) -> Path:
    """Where the newest checkpoint of a log stands."""
    return path.with_name(f"{path.name}.checkpoint")


def read_checkpoint_file(path: Path) -> bytes:
    """At most one byte more than a note may have. Raises OSError."""
    with path.open("rb") as file:
        return file.read(MAX_NOTE_LENGTH_BYTES + 1)


class Checkpoints:
    """Makes the checkpoints of one log. Any process that can read the log can: one at a time, by a lock.

    Each time only the lines that are new are read, at about 1.5 microseconds each; the state in between is
    the tree's file (:mod:`phicrypt.witness.log_tree`). Nothing is signed that contradicts the checkpoint
    before: a log that was cut, or changed where it is read again, is an AuditError.

    Args:
        path: the log's current file, as of ``JsonlSink``; its segments are found by their manifest.
        key: signs; the log's origin is its name.
        earlier_keys: verifier keys of the same origin that signed before this one.
    """

    def __init__(
        self, path: str | os.PathLike[str], key: NoteKey, *, earlier_keys: Iterable[str | VerifierKey] = ()
    ) -> None:
        self.path = Path(path)
        self._key = key
        self._earlier_keys = [VerifierKey.parse(one) if isinstance(one, str) else one for one in earlier_keys]

    def __repr__(self) -> str:
        return f"<Checkpoints of {str(self.path)!r} by {self._key!r}>"

    def checkpoint(self, *, trail: Trail = NO_TRAIL) -> OpenedCheckpoint:
        """Sign the root over all whole lines that stand in the log now, unless that was done already.

        Args:
            trail: where the use of the signing key is recorded, once it was used. Where that is the log
                itself, the record is a line for the next checkpoint.

        Raises AuditError where the log contradicts its last checkpoint or a file cannot be written,
        KeyAccessError where KMS refuses, ConfigurationError where there is no log.
        """
        verifier_key = self._key.verifier_key
        with self._alone():
            last = self._last(verifier_key)
            if last is None and not log_files(self.path):
                raise ConfigurationError("there is no such log file, or it holds no whole line")
            now = self._grown(LogTree.load(self.path), last)
            head = Checkpoint(verifier_key.name, now.tree.size, now.tree.root())
            if last is not None and last.checkpoint == head:
                return last
            with trail.recorded("audit.checkpoint", sealing=True, at_once=True) as use:
                use.message_id = head.root.hex()
                signed = self._key.sign(head)
                use.origin = signed.origin
            opened = OpenedCheckpoint(head, Note(head.text(), (signed.signature,)))
            # The tree first: from a tree that is ahead of the checkpoint, the next one finds the way back.
            self._write(now, opened.note)
            return opened

    def _grown(self, tree: LogTree, last: OpenedCheckpoint | None) -> LogTree:
        """The tree over all whole lines, after it agreed with the last checkpoint."""
        if last is None or not _is_signed(tree.tree, last.checkpoint):
            tree = tree.emptied()
        agreed, reason = last is None or tree.tree.size == last.checkpoint.size, ""
        try:
            for _ in tree.grow(() if last is None else (last.checkpoint.size,)):
                agreed = last is not None and tree.tree.root() == last.checkpoint.root
        except (ConfigurationError, FormatError) as error:
            reason = str(error)
        if reason:
            raise self._refusal(f"the log contradicts its tree: {reason}. Nothing was signed; keep both")
        if agreed:
            return tree
        assert last is not None
        signed, found = last.checkpoint.size, tree.tree.size
        what = (
            f"it has {found:,} whole lines and had {signed:,}: it was cut"
            if found < signed
            else f"one of its first {signed:,} lines was changed, removed, moved or inserted, or the file "
            f"{self.path.name}.tree, which knows their order, is missing"
        )
        raise self._refusal(f"the log contradicts its last checkpoint: {what}. Nothing was signed; keep both")

    def _last(self, verifier_key: VerifierKey) -> OpenedCheckpoint | None:
        """The checkpoint before. Raises AuditError for one that this key did not sign."""
        try:
            content = read_checkpoint_file(checkpoint_path(self.path))
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = str(error.strerror)
        else:
            try:
                return open_checkpoint(content, log_keys=[verifier_key, *self._earlier_keys])
            except PhiCryptError as error:
                reason = f"{error}. After a change of keys, name the one before in earlier_keys= (--earlier-key)"
        raise self._refusal(f"the last checkpoint cannot be used: {reason}")

    def _write(self, tree: LogTree, note: Note) -> None:
        try:
            tree.save()
            replace_file(checkpoint_path(self.path), note.to_bytes())
        except OSError as error:
            reason = error.strerror
        else:
            return
        raise self._refusal(f"the checkpoint cannot be written: {reason}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            lock = os.open(f"{self.path}.checkpoint.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        except OSError as error:
            lock, reason = -1, error.strerror
        if lock < 0:
            raise self._refusal(f"the folder of the log cannot be written: {reason}")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _refusal(self, what: str) -> AuditError:
        return AuditError(f"{self.path.name}: {what}", sink="Checkpoints", where=str(self.path))


def _is_signed(tree: CompactRange, checkpoint: Checkpoint) -> bool:
    """Whether a kept tree is the one that was signed: then what lies before it need not be read again."""
    return tree.size == checkpoint.size and tree.root() == checkpoint.root
