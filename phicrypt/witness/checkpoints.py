"""Checkpoints of a log: the root over all its lines in a signed note, which witnesses may cosign.

::

    key = LocalNoteKey.load("clinic.example/audit/portal", "portal.pem")
    checkpoints = Checkpoints("audit.jsonl", key, witnesses=[Witness("https://witness.example", vkey)])
    checkpoints.checkpoint()                          # audit.jsonl.checkpoint

A chain speaks for the records of one process; the tree speaks for every line of the log, from all processes
and segments, and one record can be proven under its root without the others. Whoever keeps a checkpoint
(an auditor, a witness, CloudTrail by way of an anchor) holds the log to it. See
:mod:`phicrypt.formats.checkpoints` for the formats, and docs/evidence.md for what it proves against whom.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from phicrypt.audit.acting import current_acting
from phicrypt.audit.events import AuditEvent, Kind, describe_error, refused_origin
from phicrypt.audit.trail import AuditTrail
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.errors import AuditError, ConfigurationError, FormatError, PhiCryptError
from phicrypt.formats.checkpoints import Checkpoint, OpenedCheckpoint, open_checkpoint
from phicrypt.formats.notes import MAX_NOTE_LENGTH_BYTES, Note, VerifierKey, with_signatures
from phicrypt.witness.cosigning import Witness
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

    Each time only the lines that are new are read, at two hashes each; the state in between is the tree's
    file (:mod:`phicrypt.witness.log_tree`). Nothing is signed that contradicts the checkpoint
    before: a log that was cut, or changed where it is read again, is an AuditError.

    Args:
        path: the log's current file, as of ``JsonlSink``; its segments are found by their manifest.
        key: signs; the log's origin is its name.
        earlier_keys: verifier keys of the same origin that signed before this one.
        witnesses: each is asked to cosign. One that refuses or is away is an AuditError once all were asked;
            the checkpoint stands, without its cosignature, and it is asked again next time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: NoteKey,
        *,
        earlier_keys: Iterable[str | VerifierKey] = (),
        witnesses: Iterable[Witness] = (),
    ) -> None:
        self.path = Path(path)
        self._key = key
        self._witnesses = tuple(witnesses)
        self.witness_error: AuditError | None = None
        self._earlier_keys = [VerifierKey.parse(one) if isinstance(one, str) else one for one in earlier_keys]

    def __repr__(self) -> str:
        return f"<Checkpoints of {str(self.path)!r} by {self._key!r}>"

    def checkpoint(self, *, trail: AuditTrail | None = None, tolerate_witnesses: bool = False) -> OpenedCheckpoint:
        """Sign the root over all whole lines that stand in the log now, unless that was done already.

        Args:
            trail: where the use of the signing key is recorded, once it was used. Where that is the log
                itself, the record is a line for the next checkpoint.
            tolerate_witnesses: do not raise for witnesses; ``witness_error`` has the first refusal.

        Raises AuditError where the log contradicts its last checkpoint, a file cannot be written, or a witness
        does not cosign; KeyAccessError where KMS refuses, ConfigurationError where there is no log.
        """
        verifier_key = self._key.verifier_key
        with self._alone():
            last = self._last(verifier_key)
            if last is None and not log_files(self.path):
                raise ConfigurationError("there is no such log file, or it holds no whole line")
            earlier = LogTree.load(self.path)
            now = self._grown(earlier.copy(), last)
            head = Checkpoint(verifier_key.name, now.tree.size, now.tree.root())
            if last is not None and last.checkpoint == head:
                note = last.note
            else:
                note = self._signed(head, trail)
                # The tree first: from a tree that is ahead of the checkpoint, the next one finds the way back.
                self._write(now, note)
            note = self._cosigned(note, last, now, earlier if _is_kept(earlier, last) else None)
        if self.witness_error is not None and not tolerate_witnesses:
            raise self.witness_error
        return OpenedCheckpoint(head, note)

    def _signed(self, head: Checkpoint, trail: AuditTrail | None) -> Note:
        """The log's own signature, and the record of its making; of an attempt that failed as well."""
        try:
            signed = self._key.sign(head)
        except BaseException as error:
            _record(trail, head, refused_origin(error), error)
            raise
        _record(trail, head, signed.origin, None)
        return Note(head.text(), (signed.signature,))

    def _cosigned(self, note: Note, last: OpenedCheckpoint | None, now: LogTree, earlier: LogTree | None) -> Note:
        """The note with the signatures of every witness that gives one; ``witness_error`` if one did not."""
        self.witness_error = None
        for witness in self._witnesses:
            if witness.has_cosigned(note):
                continue
            is_known = last is not None and witness.has_cosigned(last.note)
            known_size = last.checkpoint.size if last is not None and is_known else 0
            try:
                added = witness.cosign(
                    note, known_size=known_size, proof_from=lambda size: now.consistency_proof(size, earlier)
                )
            except AuditError as error:
                self.witness_error = self.witness_error or error
                continue
            note = with_signatures(note, added)
            self._write(now, note)
        return note

    def _grown(self, tree: LogTree, last: OpenedCheckpoint | None) -> LogTree:
        """The tree over all whole lines, after it agreed with the last checkpoint."""
        if not _is_kept(tree, last):
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
            how = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.open(f"{self.path}.checkpoint.lock", how, _FILE_MODE)
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


def _record(
    trail: AuditTrail | None, head: Checkpoint, origin: KeyOrigin | None, error: BaseException | None
) -> None:
    """A record of the log's own, as of anchors: it is no use of data."""
    if trail is None:
        return
    outcome, error_name, reason = describe_error(error)
    event = AuditEvent(
        time.time_ns(),
        Kind.ANCHOR,
        trail.next_use_id(),
        "audit.checkpoint",
        outcome,
        origin=origin,
        cache_hit=False,
        actor=current_acting().actor,
        application=trail.application,
        principal=trail.principal,
        error=error_name,
        reason=reason,
        detail={"tree_size": head.size, "tree_root": head.root.hex()},
    )
    trail.write(event)


def _is_kept(tree: LogTree, last: OpenedCheckpoint | None) -> bool:
    """Whether a kept tree is the one that was signed: then what lies before it need not be read again."""
    return last is not None and tree.tree.size == last.checkpoint.size and tree.tree.root() == last.checkpoint.root
