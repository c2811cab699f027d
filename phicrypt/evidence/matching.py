"""Matching of local KMS calls with CloudTrail's records (rule 22), in bounded memory.

Both sides are streamed into a temporary SQLite file and compared there. The unit is a **KMS call**:
thousands of uses of one cached key belong to the one call that fetched it.

Only a one-to-one request id with equal operation, key and principal is *matched*. A correlation id
stands in the user agent, which every caller chooses, so by itself it is at most *probable*.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from phicrypt.audit.events import AuditEvent
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.evidence.cloudtrail import CLOCKS_DIFFER_NS
from phicrypt.evidence.findings import EXCEPTIONS_FIRST, Category, Finding
from phicrypt.evidence.key_exchanges import KeyExchanges
from phicrypt.evidence.trail_events import TrailEvent, is_principal, same_key_everywhere

__all__ = ["EXCEPTIONS_FIRST", "Category", "Finding", "Matcher"]

PROBABLE_WINDOW_NS: Final = CLOCKS_DIFFER_NS
"""How far apart the two clocks may be where only a correlation id speaks for a call."""
_BATCH: Final = 2_000
_REMEMBERED_CALLS: Final = 20_000
_OTHER_CONTENT: Final = "an event id comes again with other content: one of the two records was made up"


_SCHEMA: Final = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -32000;
CREATE TABLE calls (id INTEGER PRIMARY KEY, time_ns INTEGER, operation TEXT, key_arn TEXT, correlation TEXT,
  principal TEXT, error TEXT, actor TEXT, purpose TEXT, use_id TEXT, last_request TEXT, unanswered INTEGER,
  found INTEGER DEFAULT 0, probable INTEGER DEFAULT 0);
CREATE TABLE requests (request_id TEXT PRIMARY KEY, call INTEGER, event_id TEXT, claims INTEGER DEFAULT 1,
  is_repeated INTEGER DEFAULT 0) WITHOUT ROWID;
CREATE TABLE correlations (correlation TEXT PRIMARY KEY, call INTEGER) WITHOUT ROWID;
CREATE TABLE seen (event_id TEXT PRIMARY KEY, content BLOB) WITHOUT ROWID;
CREATE TABLE findings (category TEXT, time_ns INTEGER, operation TEXT, key_arn TEXT, request_id TEXT,
  event_id TEXT, principal TEXT, call INTEGER, note TEXT);
"""
_CALL: Final = "SELECT operation, key_arn, principal, last_request, error FROM calls WHERE id = ?"


class Matcher:
    """Takes every local event, then every record of CloudTrail, then answers. A context manager.

    Args:
        key_arns: further keys to watch, besides those of the local log: records of these that the
            log does not know are *in CloudTrail but not here*.
        principals: the ARNs under which phicrypt's own calls run, for logs that do not name theirs.
            Without any principal nothing is more than probable.
        since_ns, until_ns: only what happened between is judged; the other side may lie outside.
    """

    def __init__(
        self,
        *,
        key_arns: Iterable[str] = (),
        principals: Iterable[str] = (),
        since_ns: int | None = None,
        until_ns: int | None = None,
    ) -> None:
        self._keys: set[str] = set()
        self.regions: set[str] = set()
        """Of the keys that are watched: each has its records in the trail of its own Region."""
        for key_arn in key_arns:
            self._watch(key_arn)
        self._principals = tuple(principals)
        self._since_ns = since_ns if since_ns is not None else -(2**62)
        self._until_ns = until_ns if until_ns is not None else 2**62
        self._folder = tempfile.TemporaryDirectory(prefix="phicrypt-join-")
        self._database = sqlite3.connect(Path(self._folder.name) / "join.sqlite", isolation_level=None)
        self._database.executescript(_SCHEMA)
        self._remembered: dict[KeyOrigin, None] = {}
        self._findings: list[tuple[Any, ...]] = []
        self.of_other_keys = 0
        self.duplicates = 0
        self.network_records = 0
        self.key_exchanges = KeyExchanges()

    def __enter__(self) -> Self:
        self._database.execute("BEGIN")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._folder.cleanup()

    def add_use(self, event: AuditEvent) -> None:
        """One event of the local log."""
        origin = event.origin
        if origin is None or origin in self._remembered:
            return
        if len(self._remembered) >= _REMEMBERED_CALLS:
            self._remembered.clear()
        self._remembered[origin] = None
        for call in (origin, *origin.other_calls):
            self._add_call(event, call)

    def _add_call(self, event: AuditEvent, call: KeyOrigin) -> None:
        if not call.request_ids and call.correlation_id is None:
            return  # a local operation: no KMS call belongs to it
        key_arn = call.key_id.partition("#")[0]
        if key_arn.startswith("arn:"):
            self._watch(key_arn)
        if self._is_known(call):
            return
        database = self._database
        cursor = database.execute(
            "INSERT INTO calls (time_ns, operation, key_arn, correlation, principal, error, actor, purpose,"
            " use_id, last_request, unanswered) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.time_ns,
                call.operation or "",
                key_arn,
                call.correlation_id or "",
                event.principal or "",
                call.error_code or "",
                event.actor or "",
                event.purpose or "",
                event.use_id,
                call.request_ids[-1] if call.request_ids else "",
                # Where nothing was answered, at least one attempt was made.
                max(call.unanswered_attempts, 0 if call.request_ids else 1),
            ),
        )
        for request_id in call.request_ids:
            database.execute(
                "INSERT INTO requests (request_id, call) VALUES (?, ?)"
                " ON CONFLICT (request_id) DO UPDATE SET claims = claims + 1",
                (request_id, cursor.lastrowid),
            )
        if call.correlation_id is not None:
            database.execute(
                "INSERT OR IGNORE INTO correlations VALUES (?, ?)", (call.correlation_id, cursor.lastrowid)
            )

    def _watch(self, key_arn: str) -> None:
        self._keys.add(same_key_everywhere(key_arn))
        _, separator, place = key_arn.partition(":kms:")
        if separator:
            self.regions.add(place.partition(":")[0])

    def _is_known(self, call: KeyOrigin) -> bool:
        """Whether an earlier event named the same call: many uses share the one that fetched their key."""
        if call.correlation_id is not None:
            question, identifier = "SELECT call FROM correlations WHERE correlation = ?", call.correlation_id
        else:
            question, identifier = "SELECT call FROM requests WHERE request_id = ?", call.request_ids[-1]
        known = self._database.execute(question, (identifier,)).fetchone()
        if known is None:
            return False
        (last_request,) = self._database.execute(
            "SELECT last_request FROM calls WHERE id = ?", (known[0],)
        ).fetchone()
        return bool(last_request == (call.request_ids[-1] if call.request_ids else ""))

    def add_record(self, record: TrailEvent) -> None:
        """One record of CloudTrail; every local event must have been added before."""
        watched = self._watched_key(record)
        if record.is_network:
            self.network_records += 1
        claimed = self._claims(record)
        if not watched and not (record.is_network and record.error_code) and claimed is None:
            self.of_other_keys += 1
            if self._seen_content(record.event_id) in (None, record.sha256):
                return
            self._add_finding(record, watched, Category.EXCEPTION, None, _OTHER_CONTENT)
            return
        is_new = self._note_seen(record)
        if is_new is None:
            self._add_finding(record, watched, Category.EXCEPTION, None, _OTHER_CONTENT)
            return
        if not is_new:
            self.duplicates += 1
            return
        category, call, note = self._judge(record, claimed)
        if category is not None:
            self._add_finding(record, watched, category, call, note)

    def _watched_key(self, record: TrailEvent) -> str:
        """The key of the record that is watched: ReEncrypt has two, a multi-Region key stands in each Region."""
        for arn in (record.key_arn, *record.other_key_arns):
            if same_key_everywhere(arn) in self._keys:
                return arn
        return ""

    def _note_seen(self, record: TrailEvent) -> bool | None:
        """Whether a record is new; None for another record under an id that was there already."""
        is_new = self._note(record.event_id, record.sha256) if record.event_id else True
        if is_new and record.shared_event_id:
            # The caller's account and the key's owner each have a record, which are one call.
            shared = f"{record.shared_event_id}\n{record.is_network}"
            call = repr((record.name, record.request_id, record.time_ns, record.error_code)).encode()
            if not self._note(f"{shared}\n{record.account}", record.sha256):
                return None
            return self._note(shared, call)
        return is_new

    def _note(self, name: str, content: bytes) -> bool | None:
        known = self._seen_content(name)
        if known is None:
            self._database.execute("INSERT INTO seen VALUES (?, ?)", (name, content))
            return True
        return False if known == content else None

    def _seen_content(self, name: str) -> bytes | None:
        found = self._database.execute("SELECT content FROM seen WHERE event_id = ?", (name,)).fetchone()
        return None if found is None else found[0]

    def _add_finding(self, record: TrailEvent, watched: str, category: str, call: int | None, note: str) -> None:
        if not self._since_ns <= record.time_ns <= self._until_ns:
            return
        if call is not None and category != Category.EXCEPTION:
            self.key_exchanges.add(record.key_exchange)
        self._findings.append(
            (
                category,
                record.time_ns,
                record.name,
                watched or record.key_arn,
                record.request_id,
                record.event_id,
                record.principal,
                call,
                note,
            )
        )
        if len(self._findings) >= _BATCH:
            self._store_findings()

    def _judge(
        self, record: TrailEvent, claimed: tuple[int, str | None, int] | None
    ) -> tuple[str | None, int | None, str]:
        if record.is_network:
            return (Category.ENDPOINT if record.error_code else None), None, record.error_code
        if not record.is_use:
            return (None if record.is_description else Category.ADMINISTRATION), None, record.error_code
        if claimed is not None:
            return self._judge_request(record, *claimed)
        if record.invoked_by:
            return Category.SERVICE, None, record.invoked_by
        if record.correlation_id:
            by_correlation = self._judge_correlation(record)
            if by_correlation is not None:
                return by_correlation
        if record.error_code:
            return Category.DENIED, None, record.error_code
        return Category.TRAIL_ONLY, None, "user agent names phicrypt" if record.correlation_id else ""

    @staticmethod
    def _is_of_unknown_key(record: TrailEvent) -> bool:
        """Whether CloudTrail names no key at all, as it does for some refused calls."""
        return bool(record.error_code) and ":key/" not in record.key_arn

    def _claims(self, record: TrailEvent) -> tuple[int, str | None, int] | None:
        """The call with this request id, the record already found for it, and how many calls claim it."""
        if not record.request_id:
            return None
        found: tuple[int, str | None, int] | None = self._database.execute(
            "SELECT call, event_id, claims FROM requests WHERE request_id = ?", (record.request_id,)
        ).fetchone()
        return found

    def _judge_request(
        self, record: TrailEvent, call: int, earlier_event: str | None, claims: int
    ) -> tuple[str, int | None, str]:
        if claims > 1:
            return Category.EXCEPTION, call, "the log claims this request id for several calls"
        if earlier_event is not None:
            self._database.execute(
                "UPDATE requests SET is_repeated = 1 WHERE request_id = ?", (record.request_id,)
            )
            return Category.EXCEPTION, call, "CloudTrail shows this request id twice"
        *expected, last_request, error = self._database.execute(_CALL, (call,)).fetchone()
        mismatch, principal_is_known = self._compare(record, *expected)
        if mismatch:
            return Category.EXCEPTION, call, f"the request id is ours, {mismatch} differs"
        self._database.execute(
            "UPDATE requests SET event_id = ? WHERE request_id = ?", (record.event_id or "-", record.request_id)
        )
        if record.request_id != last_request:
            return Category.ATTEMPT, call, record.error_code
        if bool(record.error_code) != bool(error):
            return (
                Category.EXCEPTION,
                call,
                f"CloudTrail says {record.error_code or 'success'}, the log {error or 'success'}",
            )
        self._database.execute("UPDATE calls SET found = ? WHERE id = ?", (1 if principal_is_known else 2, call))
        if error:
            return Category.DENIED, call, record.error_code
        if not principal_is_known:
            return Category.PROBABLE, call, "no principal to compare with"
        return Category.MATCHED, call, ""

    def _judge_correlation(self, record: TrailEvent) -> tuple[str, int | None, str] | None:
        """A call of ours whose answer never arrived, or somebody who copied its correlation id."""
        found = self._database.execute(
            "SELECT calls.id, time_ns, probable, unanswered FROM correlations JOIN calls ON calls.id = call"
            " WHERE correlations.correlation = ?",
            (record.correlation_id,),
        ).fetchone()
        if found is None:
            return None
        call, time_ns, probable, unanswered = found
        mismatch, _ = self._compare(record, *self._database.execute(_CALL, (call,)).fetchone()[:3])
        if not mismatch and abs(record.time_ns - time_ns) > PROBABLE_WINDOW_NS:
            mismatch = "the time"
        if not mismatch and probable >= unanswered:
            mismatch = "the number of unanswered attempts"
        if mismatch:
            return Category.EXCEPTION, call, f"a correlation id of ours was reused, {mismatch} differs"
        self._database.execute("UPDATE calls SET probable = probable + 1 WHERE id = ?", (call,))
        return Category.PROBABLE, call, record.error_code or "by correlation id only"

    def _compare(self, record: TrailEvent, operation: str, key_arn: str, principal: str) -> tuple[str, bool]:
        """What differs between record and call, if anything, and whether a principal could be compared."""
        if operation and operation != record.name:
            return "the operation", True
        if key_arn.startswith("arn:") and key_arn != record.key_arn and not self._is_of_unknown_key(record):
            return "the key", True
        expected = (principal,) if principal else self._principals
        is_named = bool(record.principal or record.issuer)
        if expected and is_named and not any(is_principal(one, record) for one in expected):
            return "the principal", True
        return "", bool(expected) and is_named and bool(operation) and key_arn.startswith("arn:")

    def _store_findings(self) -> None:
        self._database.executemany("INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self._findings)
        self._findings.clear()

    def finish(self) -> None:
        """Both sides are complete: calls that CloudTrail did not show become findings."""
        self._store_findings()
        self._withdraw_repeated()
        self._database.execute(
            "INSERT INTO findings SELECT ?, time_ns, operation, key_arn, last_request, '', principal, id,"
            " CASE WHEN error = '' THEN '' ELSE 'the call was refused: ' || error END"
            " FROM calls WHERE found = 0 AND probable = 0 AND time_ns BETWEEN ? AND ?"
            " AND NOT (error <> '' AND last_request = '')"  # never answered: KMS may never have seen it
            " AND id NOT IN (SELECT call FROM findings WHERE call IS NOT NULL AND category = ?)",
            (Category.LOCAL_ONLY, self._since_ns, self._until_ns, Category.EXCEPTION),
        )

    def _withdraw_repeated(self) -> None:
        """What was matched by a request id that CloudTrail shows again is not one to one (rule 22)."""
        repeated = "IN (SELECT request_id FROM requests WHERE is_repeated)"
        self._database.execute(
            f"UPDATE findings SET category = ?, note = ? WHERE category = ? AND request_id {repeated}",  # noqa: S608
            (Category.EXCEPTION, "CloudTrail shows this request id twice", Category.MATCHED),
        )
        self._database.execute(f"UPDATE calls SET found = 2 WHERE found = 1 AND last_request {repeated}")  # noqa: S608

    def category_of(self, origin: KeyOrigin | None) -> str:
        """What was found for the KMS call behind a use; empty for a local key. After :meth:`finish`."""
        if origin is None or (not origin.request_ids and origin.correlation_id is None):
            return ""
        row = self._database.execute(
            "SELECT found, probable, error FROM calls WHERE id IN (SELECT call FROM requests WHERE request_id = ?)"
            " OR id IN (SELECT call FROM correlations WHERE correlation = ?)",
            (origin.request_ids[-1] if origin.request_ids else "", origin.correlation_id or ""),
        ).fetchone()
        if row is None:
            return ""
        found, probable, error = row
        if error:
            return Category.DENIED
        return Category.MATCHED if found == 1 else Category.PROBABLE if found or probable else Category.LOCAL_ONLY

    def counts(self) -> dict[str, int]:
        """How many findings of each category, exceptions first; categories without any count 0."""
        found = dict(self._database.execute("SELECT category, count(*) FROM findings GROUP BY category"))
        return {category: found.get(category, 0) for category in EXCEPTIONS_FIRST}

    def findings(self, *categories: str, limit: int | None = None) -> Iterator[Finding]:
        """Findings of these categories (all by default) in order of time, streamed."""
        wanted = categories or EXCEPTIONS_FIRST
        cursor = self._database.execute(
            "SELECT category, f.time_ns, f.operation, f.key_arn, request_id, event_id, f.principal,"
            " coalesce(actor, ''), coalesce(purpose, ''), coalesce(use_id, ''), note"
            " FROM findings f LEFT JOIN calls ON calls.id = f.call"
            " WHERE category IN (SELECT value FROM json_each(?)) ORDER BY f.time_ns LIMIT ?",
            (json.dumps(wanted), -1 if limit is None else limit),
        )
        for row in cursor:
            yield Finding(*row)
