"""The two transactions that write branch keys: all rows of one, or none, and never over another's.

Each is refused where a tombstone says that the branch key was shredded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from phicrypt.errors import KeyAccessError
from phicrypt.keys.branch_keys.records import PARTITION_KEY, SORT_KEY, TOMBSTONE_TYPE, BranchKeyRecord, to_item
from phicrypt.keys.branch_keys.table import BranchKeyTable, ConditionFailed, shredded

_NOT_THERE: Final = "attribute_not_exists(#partition_key)"
_NAMES: Final = {"#partition_key": PARTITION_KEY}


def write_new_branch_key(table: BranchKeyTable, rows: Sequence[BranchKeyRecord]) -> None:
    """The first rows of a branch key. Raises KeyAccessError, also where there are some already."""
    puts = [{"Put": {"Item": to_item(row), **_condition(_NOT_THERE)}} for row in rows]
    try:
        table.write([*puts, _no_tombstone(rows[0])])
    except ConditionFailed as refusal:
        raise _lost(
            table,
            refusal,
            "BranchKeyExists",
            "a branch key of that id exists already; rotate it, or choose another id",
        ) from None


def write_next_version(
    table: BranchKeyTable, old: BranchKeyRecord, version_row: BranchKeyRecord, active_row: BranchKeyRecord
) -> None:
    """A new version and the ACTIVE row that replaces ``old``. Raises KeyAccessError, also if ``old`` changed."""
    unchanged = {
        "ConditionExpression": "attribute_exists(#partition_key) AND #enc = :old",
        "ExpressionAttributeNames": {**_NAMES, "#enc": "enc"},
        "ExpressionAttributeValues": {":old": {"B": old.wrapped_key}},
    }
    try:
        table.write(
            [
                {"Put": {"Item": to_item(version_row), **_condition(_NOT_THERE)}},
                {"Put": {"Item": to_item(active_row), **unchanged}},
                _no_tombstone(old),
            ]
        )
    except ConditionFailed as refusal:
        raise _lost(
            table,
            refusal,
            "BranchKeyChanged",
            "the active branch key changed while it was being rotated: another rotation won, and a new "
            "version is active already",
        ) from None


def _lost(table: BranchKeyTable, refusal: ConditionFailed, code: str, text: str) -> KeyAccessError:
    """The error for a transaction that a condition refused; the tombstone's is the last one."""
    if refusal.failed[-1]:
        return shredded()
    return KeyAccessError(text, operation="TransactWriteItems", code=code, key_arn=table.name)


def _condition(expression: str) -> dict[str, Any]:
    return {"ConditionExpression": expression, "ExpressionAttributeNames": _NAMES}


def _no_tombstone(row: BranchKeyRecord) -> dict[str, Any]:
    tombstone = {PARTITION_KEY: {"S": row.context[PARTITION_KEY]}, SORT_KEY: {"S": TOMBSTONE_TYPE}}
    return {"ConditionCheck": {"Key": tombstone, **_condition(_NOT_THERE)}}
