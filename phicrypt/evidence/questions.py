"""Questions that an auditor asks of the log: who, what, to whom, and what was within reach.

Each answer is a stream of :class:`Row`: one use of a key, with what CloudTrail says of the KMS call
behind it where both sides were joined.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from tempfile import TemporaryFile
from typing import Any, Final

from phicrypt.audit.events import (
    BRANCH_KEY_FORMAT,
    SIGNATURE_FORMAT,
    AuditEvent,
    Kind,
    Outcome,
    Purpose,
    format_time,
)
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.core.strict_json import parse_json
from phicrypt.evidence.join import whole_uses

_USES: Final = (Kind.USE, Kind.BEGIN, Kind.END)
_ITEMS: Final = "dbesdk"
_SEALING_VERBS: Final = ("encrypt", "put", "write", "upload", "create", "copy", "rewrap")
_BRANCH_KEY_FETCHES: Final = ("fetch-branch-key", "fetch-beacon-key")


@dataclass(frozen=True, slots=True)
class Row:
    """One use, in words; empty text where the log has nothing."""

    time: str
    actor: str
    purpose: str
    operation: str
    outcome: str
    resource: str
    context: dict[str, str]
    key: str
    recipient: str
    bytes: int | None
    message_id: str
    use_id: str
    break_glass: str
    cloudtrail: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON and CSV."""
        return asdict(self)


CloudTrailSays = Callable[[AuditEvent], str]
"""What the join found for the KMS call behind a use; empty without a join."""


def rows(
    events: Iterable[AuditEvent], wanted: Callable[[AuditEvent], bool], says: CloudTrailSays = lambda use: ""
) -> Iterator[Row]:
    """The uses that are wanted, in the order of the log."""
    for use in whole_uses(events):
        if use.kind in _USES and wanted(use):
            yield _row(use, says(use))


def who_used(tokens: Collection[str]) -> Callable[[AuditEvent], bool]:
    """Uses of a resource, by its tokens under every token key."""
    return lambda use: use.resource in tokens


def by_actor(actor: str) -> Callable[[AuditEvent], bool]:
    """Uses by one actor."""
    return lambda use: use.actor == actor


def is_disclosure(use: AuditEvent) -> bool:
    """Successful opening for a purpose that 45 CFR 164.528 wants accounted for.

    Treatment, payment and operations are exempt, and so are requests of the patients themselves.
    Research, legal and public health purposes are listed: whether an authorization exempts them is not in the log.
    """
    accountable = (Purpose.DISCLOSURE, Purpose.RESEARCH, Purpose.LEGAL, Purpose.PUBLIC_HEALTH)
    return (
        use.kind == Kind.END
        and use.outcome == Outcome.SUCCESS
        and use.purpose in accountable
        and use.format != BRANCH_KEY_FORMAT
        and opens(use)
        and (use.detail or {}).get("released") != 0  # a lookup opened it, and nobody got it (rule 37)
    )


class StoredRows:
    """Rows in a file without a name: an incident may have millions."""

    def __init__(self) -> None:
        self._file = TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - it lives as long as the rows
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        self._file.seek(0)
        for line in self._file:
            yield Row(**parse_json(line, field="row"))

    def append(self, row: Row) -> None:
        """Add a row behind the others."""
        self._file.write(json.dumps(row.as_dict()) + "\n")
        self._count += 1


class StoredCounts(Mapping[str, int]):
    """How often each name came, in a temporary database: there may be as many as patients."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("CREATE TABLE counts (name TEXT PRIMARY KEY, count INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def add(self, name: str) -> None:
        """Count a name once more."""
        self._database.execute(
            "INSERT INTO counts VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET count = count + 1", (name,)
        )

    def __getitem__(self, name: str) -> int:
        found = self._database.execute("SELECT count FROM counts WHERE name = ?", (name,)).fetchone()
        if found is None:
            raise KeyError
        return int(found[0])

    def __iter__(self) -> Iterator[str]:
        yield from (name for (name,) in self._database.execute("SELECT name FROM counts"))

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM counts").fetchone()[0])

    def most_common(self, limit: int) -> list[tuple[str, int]]:
        """The names that came most often."""
        return self._database.execute(
            "SELECT name, count FROM counts ORDER BY count DESC, name DESC LIMIT ?", (limit,)
        ).fetchall()


@dataclass(slots=True)
class Incident:
    """What a key that was exposed for a time put within reach.

    Attributes:
        decryptable: messages that were sealed for the key, alone or among others, up to the end of that
            time, whenever: who held the key could open all that they had of these.
        decrypted: uses that did open something under it within the time, branch keys included.
        refused: attempts to open within the time that did not succeed.
        actors: who opened.
    """

    key: str
    sealed_messages: int = 0
    decryptable: StoredCounts = field(default_factory=StoredCounts)
    decrypted: StoredRows = field(default_factory=StoredRows)
    refused: StoredRows = field(default_factory=StoredRows)
    actors: dict[str, int] = field(default_factory=dict)


def incident(
    events: Iterable[AuditEvent], key: str, from_ns: int, to_ns: int, says: CloudTrailSays = lambda use: ""
) -> Incident:
    """What was decryptable, and what was decrypted, while the key was exposed.

    ``key`` is a KMS key ARN, or a branch key's name as the log has it; an ARN also finds the branch
    keys under it. ``decryptable`` counts messages by resource token, or by context where there is none.
    """
    found = Incident(key)
    for use in whole_uses(events):
        if use.kind not in _USES or use.origin is None or not _is_under(use, use.origin, key):
            continue
        if use.format == SIGNATURE_FORMAT:
            continue
        if use.format == BRANCH_KEY_FORMAT and use.operation not in _BRANCH_KEY_FETCHES:
            continue
        if opens(use):
            if from_ns <= use.time_ns <= to_ns:
                row = _row(use, says(use))
                if use.outcome == Outcome.SUCCESS:
                    found.decrypted.append(row)
                    found.actors[row.actor] = found.actors.get(row.actor, 0) + 1
                else:
                    found.refused.append(row)
        elif use.outcome == Outcome.SUCCESS and use.time_ns <= to_ns:
            found.sealed_messages += 1
            name = use.resource or ", ".join(
                f"{pair}={value}" for pair, value in sorted((use.context or {}).items())
            )
            found.decryptable.add(name)
    return found


@dataclass(slots=True)
class Grant:
    """One break-glass grant and what became of it."""

    grant_id: str
    time: str = ""
    actor: str = ""
    reason: str = ""
    expires_in_seconds: int = 0
    uses: int = 0
    is_closed: bool = False
    reviewed_by: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def grants(events: Iterable[AuditEvent]) -> list[Grant]:
    """Every break-glass grant in the log; those without ``reviewed_by`` await review."""
    found: dict[str, Grant] = {}
    for event in whole_uses(events):
        if event.break_glass is None:
            continue
        grant = found.setdefault(event.break_glass, Grant(event.break_glass))
        detail = event.detail or {}
        if event.kind == Kind.BREAK_GLASS_OPEN:
            grant.time, grant.actor = format_time(event.time_ns), event.actor or ""
            grant.reason = str(detail.get("reason", ""))
            expiry = detail.get("expires_in_seconds")
            grant.expires_in_seconds = expiry if isinstance(expiry, int) else 0
        elif event.kind == Kind.BREAK_GLASS_CLOSE:
            grant.is_closed = True
        elif event.kind == Kind.BREAK_GLASS_REVIEW:
            # Nobody reviews their own grant.
            if event.actor != grant.actor:
                grant.reviewed_by = event.actor or ""
        else:
            grant.uses += 1
    return list(found.values())


def opens(use: AuditEvent) -> bool:
    """Whether a use opened rather than sealed; what is not known to seal counts as opening."""
    if use.format == _ITEMS:
        # One verb may do both: PutItem seals an item, and opens the one that it returns.
        return use.kind != Kind.USE
    return not any(verb in use.operation for verb in _SEALING_VERBS)


def _is_under(use: AuditEvent, origin: KeyOrigin, key: str) -> bool:
    """Whether the key opened, or is one of those for which the message was sealed."""
    recipients = (origin,) if opens(use) else (origin, *origin.other_calls)
    return any(
        one.key_id == key or one.key_id.startswith(f"{key}#") for one in recipients if one.error_code is None
    )


def _row(use: AuditEvent, cloudtrail: str) -> Row:
    return Row(
        time=format_time(use.time_ns),
        actor=use.actor or "",
        purpose=use.purpose or "",
        operation=use.operation,
        outcome=use.outcome,
        resource=use.resource or "",
        context=dict(use.context or {}),
        key=use.origin.key_id if use.origin else "",
        recipient=use.recipient or "",
        bytes=use.byte_count,
        message_id=use.message_id or "",
        use_id=use.use_id,
        break_glass=use.break_glass or "",
        cloudtrail=cloudtrail,
    )
