"""``patients.find(mrn="A-77")``: which index answers, what it is asked, and what cannot be answered whole.

Pure: a question and a configuration in, parameters of Query or Scan out. A field is asked by its beacon (through
the field's own transforms), a readable field as it is. A compound beacon answers only where every item that
matches must have exactly one value of it: one constructor, no optional parts, all of them asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.expressions import parse_condition
from phicrypt.dynamodb.lookups import PARTITION, number_of_queries
from phicrypt.dynamodb.model_search import ModelSearch
from phicrypt.dynamodb.search_plans import SearchPlan
from phicrypt.dynamodb.tables import is_encrypted_name
from phicrypt.errors import ConfigurationError, FormatError, UnsupportedOperationError
from phicrypt.formats.dbesdk.compound_beacons import Compound


class IncompleteSearchWarning(UserWarning):
    """Nobody said that every stored item has its beacons, so that what was written before may not be found."""


class Ask(NamedTuple):
    """What ``find`` asks.

    Attributes:
        operation: ``"query"`` or ``"scan"``.
        parameters: without table and partition.
        partitions: the values of ``:aws_dbe_partition`` to ask, one after the other; None for none.
    """

    operation: str
    parameters: dict[str, Any]
    partitions: tuple[int | None, ...]

    def __repr__(self) -> str:
        return f"<Ask by {self.operation}>"  # the parameters hold what is searched for


def ask_of(
    question: Mapping[str, Mapping[str, Any]],
    table: TableConfig,
    search: ModelSearch,
    *,
    scan: bool,
    model_name: str,
) -> Ask:
    """The way to answer: ``question`` has attribute values by field. Raises UnsupportedOperationError."""
    plan = table.search_plan
    assert plan is not None
    _check_complete(table)
    asked = {field: _asked_of(field, value, table, plan, search, model_name) for field, value in question.items()}
    index, key_text, rest, values = _indexed(asked, question, plan, search)
    if index is None and not scan:
        listed = ", ".join(f"{index} ({name})" for index, name in search.indexes.items()) or "it has none"
        raise UnsupportedOperationError(
            f"find: no index of {model_name} answers for {', '.join(question)}; its indexes: {listed}. Ask for "
            "one of these as well, or pass scan=True to read the whole table"
        )
    texts = [f"#f{place} = :f{place}" for place in range(len(rest))]
    values |= {f":f{place}": asked[field][1] for place, field in enumerate(rest)}
    names = {f"#f{place}": asked[field][0] for place, field in enumerate(rest)}
    parameters: dict[str, Any] = {"ExpressionAttributeValues": values}
    if key_text is not None:
        names["#key"] = key_text
        parameters |= {"IndexName": index, "KeyConditionExpression": "#key = :key"}
    if texts:
        parameters["FilterExpression"] = " AND ".join(texts)
    parameters["ExpressionAttributeNames"] = names
    if key_text is None:
        return Ask("scan", parameters, (None,))
    condition = parse_condition("#key = :key", {"#key": key_text})
    queries = number_of_queries(plan, condition)
    return Ask("query", parameters, (None,) if queries == 1 else tuple(range(queries)))


def with_partition(parameters: Mapping[str, Any], partition: int | None) -> dict[str, Any]:
    """The parameters for one partition."""
    if partition is None:
        return dict(parameters)
    values = {**parameters["ExpressionAttributeValues"], PARTITION: {"N": str(partition)}}
    return {**parameters, "ExpressionAttributeValues": values}


def _asked_of(
    field: str,
    value: Mapping[str, Any],
    table: TableConfig,
    plan: SearchPlan,
    search: ModelSearch,
    model_name: str,
) -> tuple[str, Mapping[str, Any]]:
    """The name to compare, and the value to compare it with: through the field's own transforms."""
    name = search.by_field.get(field)
    if name is None:
        if is_encrypted_name(table, field):
            raise UnsupportedOperationError(
                f"find: the field {field!r} of {model_name} is encrypted and has no Beacon: nothing finds it"
            )
        return field, value
    virtual = plan.standard[name].field
    if virtual is None:
        return name, value
    try:
        text = virtual.text_of({field: value})
    except FormatError as error:
        wrong = str(error)
    else:
        return name, {"S": text}
    raise ConfigurationError(
        f"find: the value of the field {field!r} of {model_name} cannot be asked for: {wrong}"
    )


def _indexed(
    asked: Mapping[str, tuple[str, Mapping[str, Any]]],
    question: Mapping[str, Mapping[str, Any]],
    plan: SearchPlan,
    search: ModelSearch,
) -> tuple[str | None, str | None, list[str], dict[str, Any]]:
    """An index, the name of its key, the fields that are left to filter, and the values so far."""
    for index, name in search.indexes.items():  # a compound first: it narrows by more
        compound = plan.compounds.get(name)
        if compound is not None and (text := _value_of(compound, question)) is not None:
            return index, name, list(asked), {":key": {"S": text}}
    for index, name in search.indexes.items():
        for field, (asked_name, value) in asked.items():
            if asked_name == name and name in plan.standard:
                return index, name, [other for other in asked if other != field], {":key": value}
    return None, None, list(asked), {}


def _value_of(compound: Compound, question: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The one value that every matching item has, or None if there may be others."""
    if len(compound.constructors) != 1:
        return None
    (constructor,) = compound.constructors
    if not all(is_required and len(part.location) == 1 for part, is_required in constructor):
        return None
    sources = {str(part.location[0]) for part, _ in constructor if part.field is None}
    if any(part.field is not None for part, _ in constructor) or not sources <= question.keys():
        return None
    try:
        return compound.text_of(question, None)
    except FormatError:
        return None


def _check_complete(table: TableConfig) -> None:
    assert table.search is not None
    if table.search.complete_since is None:
        warnings.warn(
            f"table {table.table_name!r}: items that were written without beacons are not found. Set "
            "complete_since once verify has found that every item has them",
            IncompleteSearchWarning,
            stacklevel=4,
        )
