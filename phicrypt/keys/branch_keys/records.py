"""The rows of a branch key store, as AWS publishes them; pure, no AWS.

A tenant's branch key is a set of rows under one partition key (``framework/branch-key-store.md``,
section "Record Format")::

    branch-key-id       S, partition key
    type                S, sort key: "branch:ACTIVE", "branch:version:" + UUID, or "beacon:ACTIVE"
    version             S, only with "branch:ACTIVE": "branch:version:" + UUID
    enc                 B, the key as KMS wrapped it
    kms-arn             S, the KMS key that wrapped it
    create-time         S, ISO 8601 in UTC, such as 2026-01-31T12:00:00.123456Z
    hierarchy-version   N, 1
    aws-crypto-ec:NAME  S, the custom context that was given at creation

Every attribute but ``enc``, and ``tablename`` with the logical name of the store, is the encryption
context under which KMS wrapped ``enc``. So a changed attribute makes KMS refuse the row.

phicrypt adds one row of its own under a branch key that was shredded, with the type
``phicrypt:tombstone``. AWS's libraries never ask for it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from phicrypt.errors import KeyAccessError
from phicrypt.keys.branch_keys.values import check_version

Item = Mapping[str, Mapping[str, Any]]
"""A row in the low-level form: attribute name -> {type: value}."""

ACTIVE_TYPE: Final = "branch:ACTIVE"
BEACON_TYPE: Final = "beacon:ACTIVE"
VERSION_PREFIX: Final = "branch:version:"
TOMBSTONE_TYPE: Final = "phicrypt:tombstone"
CUSTOM_PREFIX: Final = "aws-crypto-ec:"
PARTITION_KEY: Final = "branch-key-id"
SORT_KEY: Final = "type"
LISTED_NAMES: Final = (PARTITION_KEY, SORT_KEY, "create-time", "kms-arn", "version")
"""What a listing reads of each row."""

_REQUIRED: Final = frozenset((PARTITION_KEY, SORT_KEY, "enc", "kms-arn", "create-time", "hierarchy-version"))
_CREATE_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")
_NAMED_VERSION: Final = re.compile(VERSION_PREFIX + r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAX_WRAPPED_LENGTH_BYTES: Final = 6_144
_HIERARCHY_VERSION: Final = "1"


@dataclass(frozen=True, slots=True)
class BranchKeyRow:
    """One row of a branch key, as the table says it: not authenticated, for operators' eyes.

    Attributes:
        branch_key_id, row_type, create_time, kms_key_arn: the row's attributes.
        version: the UUID of the version, for version and ACTIVE rows.
    """

    branch_key_id: str
    row_type: str
    create_time: str
    kms_key_arn: str
    version: str | None


@dataclass(frozen=True, slots=True)
class BranchKeyRecord:
    """One row whose shape and identity were checked; what it says is true only once KMS has opened it.

    Attributes:
        context: the encryption context for KMS, with ``tablename``.
        wrapped_key: the value of ``enc``.
    """

    context: Mapping[str, str]
    wrapped_key: bytes

    @property
    def kms_key_arn(self) -> str:
        return self.context["kms-arn"]

    @property
    def create_time(self) -> str:
        return self.context["create-time"]

    @property
    def version(self) -> str:
        """The UUID of the version, for version and ACTIVE rows."""
        return self.context.get("version", self.context[SORT_KEY]).removeprefix(VERSION_PREFIX)

    @property
    def custom_context(self) -> dict[str, str]:
        """The pairs that were given at creation, without the prefix."""
        return {
            name.removeprefix(CUSTOM_PREFIX): value
            for name, value in self.context.items()
            if name.startswith(CUSTOM_PREFIX)
        }


def check_row(item: Item, branch_key_id: str, row_type: str) -> None:
    """KeyAccessError unless it is the row that was asked for: another one's answer says nothing about it."""
    values = [item.get(name) for name in (PARTITION_KEY, SORT_KEY)]
    found = tuple(value.get("S") if isinstance(value, Mapping) else None for value in values)
    if found != (branch_key_id, row_type):
        raise another_row()


def another_row() -> KeyAccessError:
    """The error for a row that was not asked for."""
    return _refused("is not the one that was asked for: its branch-key-id or type differs")


def parse_record(item: Item, *, branch_key_id: str, row_type: str, logical_name: str) -> BranchKeyRecord:
    """The row as a record; KeyAccessError unless it is well formed and the one that was asked for (rule 14)."""
    missing = _REQUIRED - item.keys()
    if missing:
        raise _refused(f"lacks {', '.join(sorted(missing))}")
    if "tablename" in item:
        raise _refused("holds tablename, which only the logical name of the store may fill")
    context = {"tablename": logical_name}
    for name, value in item.items():
        expected = {"enc": "B", "hierarchy-version": "N"}.get(name, "S")
        kind = bytes if expected == "B" else str
        if not isinstance(value, Mapping) or len(value) != 1 or not isinstance(value.get(expected), kind):
            raise _refused(f"holds {name} in another type than {expected}")
        if name != "enc":
            context[name] = value[expected]
    check_row(item, branch_key_id, row_type)
    if context["hierarchy-version"] != _HIERARCHY_VERSION:
        raise _refused("has another hierarchy-version than 1")
    if ("version" in context) != (row_type == ACTIVE_TYPE):
        raise _refused("holds version where its type forbids it, or lacks it where its type needs it")
    named_version = context.get("version", row_type)
    if row_type != BEACON_TYPE and not _NAMED_VERSION.fullmatch(named_version):
        raise _refused("does not name its version as branch:version: and a UUID")
    time_of(context["create-time"])
    wrapped_key: bytes = item["enc"]["B"]
    if not 1 <= len(wrapped_key) <= _MAX_WRAPPED_LENGTH_BYTES:
        raise _refused(f"holds {len(wrapped_key)} bytes of enc, 1 to {_MAX_WRAPPED_LENGTH_BYTES} are possible")
    return BranchKeyRecord(context, wrapped_key)


def to_item(record: BranchKeyRecord) -> dict[str, dict[str, Any]]:
    """The row of a record, in the low-level form."""
    item: dict[str, dict[str, Any]] = {
        name: {"N" if name == "hierarchy-version" else "S": value}
        for name, value in record.context.items()
        if name != "tablename"
    }
    item["enc"] = {"B": record.wrapped_key}
    return item


def version_type(version: str) -> str:
    """The ``type`` of a version's row; ConfigurationError unless it is a UUID in lower-case text form."""
    return VERSION_PREFIX + check_version(version)


def first_version_context(
    branch_key_id: str, *, logical_name: str, kms_key_arn: str, custom_context: Mapping[str, str]
) -> dict[str, str]:
    """The context of the first version's row of a new branch key, created now."""
    return {
        PARTITION_KEY: branch_key_id,
        SORT_KEY: VERSION_PREFIX + str(uuid.uuid4()),
        "create-time": create_time_after(None),
        "tablename": logical_name,
        "kms-arn": kms_key_arn,
        "hierarchy-version": _HIERARCHY_VERSION,
        **{CUSTOM_PREFIX + name: value for name, value in custom_context.items()},
    }


def next_version_context(active: BranchKeyRecord) -> dict[str, str]:
    """The context of a new version's row: that of the ACTIVE row, with its own version and time."""
    return {
        **{name: value for name, value in active.context.items() if name != "version"},
        SORT_KEY: VERSION_PREFIX + str(uuid.uuid4()),
        "create-time": create_time_after(active.create_time),
    }


def active_context(version_context: Mapping[str, str]) -> dict[str, str]:
    """The context of the ACTIVE row that copies a version's row."""
    return {**version_context, "version": version_context[SORT_KEY], SORT_KEY: ACTIVE_TYPE}


def beacon_context(version_context: Mapping[str, str]) -> dict[str, str]:
    """The context of the beacon key's row that is created with a first version."""
    return {**version_context, SORT_KEY: BEACON_TYPE}


def create_time_after(previous: str | None) -> str:
    """Now, in the rows' form, or one microsecond after ``previous`` where this clock is behind it.

    Readers refuse an ACTIVE row that is older than one they have seen (rule 14), so a rotation by a
    machine whose clock is behind must not go back.
    """
    now = datetime.now(UTC)
    if previous is not None:
        now = max(now, time_of(previous) + timedelta(microseconds=1))
    return format_time(now)


def format_time(when: datetime) -> str:
    """A time in the rows' form, in UTC to the microsecond."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def time_of(create_time: str) -> datetime:
    """A row's create-time as a datetime; KeyAccessError unless it is one."""
    match = _CREATE_TIME.fullmatch(create_time)
    if match is None:
        raise _refused("has a create-time that is not ISO 8601 in UTC")
    seconds = None
    with suppress(ValueError):
        seconds = datetime.strptime(match[1] + "+0000", "%Y-%m-%dT%H:%M:%S%z")
    if seconds is None:
        raise _refused("has a create-time that is no date")
    return seconds.replace(microsecond=int((match[2] or "").ljust(9, "0")[:6]))


def listed_row(item: Item) -> BranchKeyRow:
    """A row as an operator sees it."""

    def text(name: str) -> str:
        value = item.get(name)
        return str(value.get("S", "")) if isinstance(value, Mapping) else ""

    version = text("version") or text(SORT_KEY)
    return BranchKeyRow(
        text(PARTITION_KEY),
        text(SORT_KEY),
        text("create-time"),
        text("kms-arn"),
        version.removeprefix(VERSION_PREFIX) if version.startswith(VERSION_PREFIX) else None,
    )


def _refused(what: str) -> KeyAccessError:
    return KeyAccessError(
        f"the branch key store's row {what}; it was changed, or was not written by a branch key store",
        operation="GetItem",
        code="InvalidBranchKeyRecord",
    )
