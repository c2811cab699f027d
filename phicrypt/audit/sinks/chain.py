"""The hash chain: each record carries the SHA-256 of the one before, and its own.

A record is one line of ASCII::

    {"phicrypt-audit":1,"chain":"…","sequence":7,"previous":"…","event":{…},"sha256":"…"}

    chain       32 hexadecimal digits, new for each process that writes
    sequence    from 0, without gaps
    previous    the ``sha256`` of the chain's record before; 64 zeros for the first
    sha256      SHA-256 of the line's bytes before ``,"sha256"``

Several chains may stand interleaved in one file. The first member is a name that no encryption
context may use, so the beginning of a record is recognized even behind the torn rest of another.

The chain has no secret: whoever may write the file can recompute it. It proves that nothing was
changed *without recomputing*; anchors prove more, see :mod:`phicrypt.witness.anchors` (rule 21).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from hashlib import sha256 as _sha256
from typing import Any, Final, NamedTuple

from phicrypt.audit.events import AuditEvent, Kind, Outcome

RECORD_START: Final = b'{"phicrypt-audit":1,"chain":"'
_SEAL: Final = b',"sha256":"'
_END: Final = b'"}\n'
FIRST_PREVIOUS: Final = "0" * 64


class ChainHead(NamedTuple):
    """The newest record of a chain: what an anchor shows to CloudTrail."""

    chain_id: str
    sequence: int
    sha256: str


class Chain:
    """The writing end of one chain. Not thread-safe: its sink holds a lock.

    Lines are computed first (:meth:`lines`) and counted once they are stored (:meth:`advance`), so a
    write that failed leaves the chain where it was.
    """

    __slots__ = ("_next_sequence", "_previous", "_start", "chain_id")

    def __init__(self) -> None:
        self.chain_id = os.urandom(16).hex()
        self._next_sequence = 0
        self._previous = FIRST_PREVIOUS
        self._start = f'{{"phicrypt-audit":1,"chain":"{self.chain_id}","sequence":'

    @property
    def head(self) -> ChainHead | None:
        """The newest stored record, or None for an empty chain."""
        if self._next_sequence == 0:
            return None
        return ChainHead(self.chain_id, self._next_sequence - 1, self._previous)

    def lines(self, events: Sequence[AuditEvent]) -> tuple[list[bytes], list[str]]:
        """The lines that would come next for these events, each with its line feed, and their hashes."""
        sequence, previous, start = self._next_sequence, self._previous, self._start
        lines: list[bytes] = []
        hashes: list[str] = []
        for event in events:
            body = f'{start}{sequence},"previous":"{previous}","event":{event.to_json()}'.encode()
            previous = _sha256(body).hexdigest()
            lines.append(b"".join((body, _SEAL, previous.encode(), _END)))
            hashes.append(previous)
            sequence += 1
        return lines, hashes

    def advance(self, stored_hashes: Sequence[str]) -> None:
        """Count the leading lines that were stored, by their hashes."""
        if stored_hashes:
            self._next_sequence += len(stored_hashes)
            self._previous = stored_hashes[-1]

    def start_event(self, **detail: Any) -> AuditEvent:
        """The record that begins a chain; ``detail`` says what the store held before."""
        return AuditEvent(
            time.time_ns(),
            Kind.CHAIN_START,
            self.chain_id,
            "audit.chain_start",
            Outcome.SUCCESS,
            detail={"pid": os.getpid(), **{name: value for name, value in detail.items() if value is not None}},
        )
