"""A Query or Scan that names beacons: what is sent in its place, and by what its answer is judged.

Items are spread over partitions, if the configuration says so; an item's beacons hash its partition's number. A
question by a beacon as key is asked for one partition at a time (``":aws_dbe_partition"`` among the values, as
AWS's libraries have it); a filter is asked for all of them at once, joined by OR.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import lcm
from typing import Any, Final

from phicrypt.dynamodb.beacon_queries import Question, beacon_names, leaves
from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.expression_text import Placeholders
from phicrypt.dynamodb.expression_tree import And, Call, Comparison, Condition, Path, Value, paths, placeholders
from phicrypt.dynamodb.expressions import MAX_EXPRESSION_LENGTH_BYTES, parse_projection
from phicrypt.dynamodb.item_beacons import judged
from phicrypt.dynamodb.matching import matches
from phicrypt.dynamodb.search import BeaconKeyByAttribute
from phicrypt.dynamodb.search_plans import SearchPlan
from phicrypt.dynamodb.tables import is_encrypted_name
from phicrypt.errors import ConfigurationError, LimitExceededError, UnsupportedOperationError
from phicrypt.formats.dbesdk.beacon_values import BeaconHash
from phicrypt.formats.dbesdk.compound_beacons import Compound, Hashes

Parameters = Mapping[str, Any]
HashesOf = Callable[[TableConfig, str | None, tuple[str, ...]], Hashes]
"""``(table, tenant or None, beacons that are asked)``: opens the beacon key, and says so in the audit trail."""

PARTITION: Final = ":aws_dbe_partition"
"""AWS's name of the partition that a query asks, among ExpressionAttributeValues; never sent."""
_MAX_OPTIONS: Final = 100
_TEXTS: Final = ("KeyConditionExpression", "ProjectionExpression")
_NAME: Final = re.compile(r"#[A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Lookup:
    """How the answer is judged.

    Attributes:
        plan: of the table.
        key_condition, filter_condition: the caller's own.
        values: the caller's own; not in ``repr``, like everything here.
        names: the beacons that they name.
        has_key_beacon: whether the key condition names one, so that others than asked for may come.
        is_count: the caller wants the number only.
    """

    plan: SearchPlan
    key_condition: Condition | None
    filter_condition: Condition | None
    values: Mapping[str, Any]
    names: tuple[str, ...]
    has_key_beacon: bool
    is_count: bool

    def __repr__(self) -> str:
        return f"<Lookup by {', '.join(self.names)}>"

    def matches(self, item: Mapping[str, Any]) -> bool:
        """Whether a verified plaintext item meets the caller's own conditions."""
        seen = judged(self.plan, item, self.names)
        conditions = (self.key_condition, self.filter_condition)
        return all(condition is None or matches(condition, seen, self.values) for condition in conditions)


def touches_hidden(condition: Condition | None, table: TableConfig) -> bool:
    """Whether a condition names a beacon or an encrypted attribute."""
    plan = table.search_plan
    if condition is None or plan is None:
        return False
    names = (path.attribute for path in paths(condition))
    return any(plan.is_hashed(name) or is_encrypted_name(table, name) for name in names)


def number_of_queries(plan: SearchPlan, key_condition: Condition | None) -> int:
    """How many partitions a key condition has to be asked for, one by one."""
    counts = [1]
    for name in beacon_names(key_condition, plan):
        if name in plan.standard:
            counts.append(plan.standard[name].beacon.partitions or plan.config.partitions)
        else:
            hashed = (part.beacon for part in plan.compounds[name].parts if part.beacon is not None)
            counts += [beacon.partitions or plan.config.partitions for beacon in hashed]
    return min(plan.config.max_partitions, lcm(*counts))


def looked_up(
    asked: Parameters,
    key_condition: Condition | None,
    filter_condition: Condition | None,
    table: TableConfig,
    hashes_of: HashesOf,
    operation: str,
    *,
    is_blind: bool = False,
) -> tuple[dict[str, Any], Lookup]:
    """The parameters to send, and the judge of the answer.

    ``is_blind``: the index does not copy what the filter compares, so that the filter is judged afterwards only.

    Raises UnsupportedOperationError, ConfigurationError, LimitExceededError and what ``hashes_of`` raises, all of
    it before anything is sent.
    """
    plan = table.search_plan
    assert plan is not None
    values = dict(asked.get("ExpressionAttributeValues") or {})
    queries = number_of_queries(plan, key_condition)
    partition = _partition(values.pop(PARTITION, None), queries, operation)
    names = tuple(dict.fromkeys((*beacon_names(key_condition, plan), *beacon_names(filter_condition, plan))))
    tenant = _tenant(plan, (key_condition, filter_condition), values, operation) if names else None
    _check_options((key_condition, filter_condition), operation)
    hashes = _WhenAsked(partial(hashes_of, table, tenant, names))
    rendered = Placeholders()
    question = partial(Question, plan, partial(is_encrypted_name, table), values, hashes, placeholders=rendered)
    sent = {name: value for name, value in asked.items() if name not in _RENDERED}
    if key_condition is not None:
        where = f"KeyConditionExpression of {operation}"
        asked_for = question(partition=partition, where=where, placeholders=rendered).sent(key_condition)
        sent["KeyConditionExpression"] = rendered.text(asked_for)
    if filter_condition is not None:
        where = f"FilterExpression of {operation}"
        own = Placeholders() if is_blind else rendered
        texts = [
            own.text(question(partition=one, where=where, placeholders=own).sent(filter_condition))
            for one in range(partition, plan.config.max_partitions, queries)
        ]
        texts = list(dict.fromkeys(texts))
        if not is_blind:
            sent["FilterExpression"] = texts[0] if len(texts) == 1 else " OR ".join(f"({text})" for text in texts)
    if "ProjectionExpression" in asked:
        projected = parse_projection(asked["ProjectionExpression"], asked.get("ExpressionAttributeNames") or {})
        sent["ProjectionExpression"] = ", ".join(map(rendered.path, projected))
    if rendered.names:
        sent["ExpressionAttributeNames"] = rendered.names
    if rendered.values:
        sent["ExpressionAttributeValues"] = rendered.values
    _check_lengths(sent, operation)
    is_count = sent.get("Select") == "COUNT"
    if is_count:
        del sent["Select"]
    has_key_beacon = bool(beacon_names(key_condition, plan))
    return sent, Lookup(plan, key_condition, filter_condition, values, names, has_key_beacon, is_count)


_RENDERED: Final = frozenset(
    {
        "KeyConditionExpression",
        "FilterExpression",
        "ProjectionExpression",
        "ExpressionAttributeNames",
        "ExpressionAttributeValues",
    }
)


def without_filter(sent: Parameters, key_condition: Condition | None) -> dict[str, Any]:
    """The parameters without filter, and without the names and values that only it used."""
    kept = {name: value for name, value in sent.items() if name != "FilterExpression"}
    used = {
        "ExpressionAttributeNames": set(_NAME.findall(" ".join(str(kept.get(member, "")) for member in _TEXTS))),
        "ExpressionAttributeValues": placeholders(key_condition),
    }
    for member, wanted in used.items():
        entries = {name: value for name, value in (kept.pop(member, None) or {}).items() if name in wanted}
        if entries:
            kept[member] = entries
    return kept


class _WhenAsked(Mapping[str, BeaconHash]):
    """Hashes whose key is opened by the first value that needs one: a question that is refused opens none."""

    def __init__(self, open_key: Callable[[], Hashes]) -> None:
        self._open_key = open_key
        self._hashes: Hashes | None = None

    def __getitem__(self, name: str) -> BeaconHash:
        if self._hashes is None:
            self._hashes = self._open_key()
        return self._hashes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._hashes or ())

    def __len__(self) -> int:
        return len(self._hashes or ())


def _partition(value: Any, queries: int, operation: str) -> int:
    if value is None:
        if queries > 1:
            raise UnsupportedOperationError(
                f"{operation}: the beacon's values are spread over {queries} partitions, and one query asks one "
                f"of them: pass {PARTITION!r} ({{'N': '0'}} to {{'N': '{queries - 1}'}}) and join the answers, or "
                "use find of a typed table; nothing was sent"
            )
        return 0
    number = value.get("N") if isinstance(value, Mapping) else None
    if not isinstance(number, str) or not number.isdecimal() or not 0 <= int(number) < queries:
        raise ConfigurationError(
            f"{operation}: {PARTITION!r} is a number below {queries} here, the number of queries; nothing was sent"
        )
    return int(number)


def _tenant(
    plan: SearchPlan, conditions: tuple[Condition | None, ...], values: Mapping[str, Any], operation: str
) -> str | None:
    """The tenant that a question names in every branch of it; None where the table has one beacon key."""
    source = plan.config.beacon_key
    if not isinstance(source, BeaconKeyByAttribute):
        return None
    named = set()
    for condition in conditions:
        for part in condition.conditions if isinstance(condition, And) else [condition]:
            if part is not None and (tenant := _named_tenant(part, source.attribute, plan, values)) is not None:
                named.add(tenant)
    if len(named) != 1:
        raise UnsupportedOperationError(
            f"{operation}: each tenant's beacons have a key of their own, so the question names one tenant: "
            f"{source.attribute} = :value, joined by AND to the rest, and no other; nothing was sent"
        )
    return str(named.pop())


def _named_tenant(condition: Condition, attribute: str, plan: SearchPlan, values: Mapping[str, Any]) -> str | None:
    path, value = None, None
    if isinstance(condition, Comparison) and condition.comparator == "=":
        path, value = condition.left, condition.right
        if isinstance(path, Value):
            path, value = value, path
    elif isinstance(condition, Call) and condition.function == "begins_with":
        path, value = condition.arguments
    if not isinstance(path, Path) or path.is_nested or not isinstance(value, Value):
        return None
    text = (values.get(value.placeholder) or {}).get("S")
    if not isinstance(text, str):
        return None
    if path.attribute == attribute:
        return text if isinstance(condition, Comparison) else None
    compound = plan.compounds.get(path.attribute)
    if compound is None:
        return None
    return _tenant_in(compound, attribute, text, is_whole=isinstance(condition, Comparison))


def _tenant_in(compound: Compound, attribute: str, text: str, *, is_whole: bool) -> str | None:
    """The tenant in a compound value; the last piece of ``begins_with`` may be half a name, and is none."""
    pieces = compound.pieces_of(text)
    for part, piece in pieces if is_whole else pieces[:-1]:
        if part.beacon is None and part.location == (attribute,):
            return piece
    return None


def _check_options(conditions: tuple[Condition | None, ...], operation: str) -> None:
    """DynamoDB's bound on IN, before a key is opened for it."""
    for condition in conditions:
        if condition is None:
            continue
        for leaf in leaves(condition):
            options = getattr(leaf, "options", ())
            if len(options) > _MAX_OPTIONS:
                raise LimitExceededError(
                    f"{operation}: IN takes fewer values", limit=_MAX_OPTIONS, actual=len(options)
                )


def _check_lengths(sent: Mapping[str, Any], operation: str) -> None:
    for member in ("KeyConditionExpression", "FilterExpression"):
        length = len(sent.get(member, ""))
        if length > MAX_EXPRESSION_LENGTH_BYTES:
            raise LimitExceededError(
                f"{operation}: {member} is too long once it asks every partition; ask for less at once",
                limit=MAX_EXPRESSION_LENGTH_BYTES,
                actual=length,
            )
