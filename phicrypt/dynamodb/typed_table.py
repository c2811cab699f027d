"""``phi.dynamodb.table(Patient)``: get, put, query, update and delete models of one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.layer import layer_of
from phicrypt.dynamodb.model_search import ModelSearch
from phicrypt.dynamodb.model_values import to_attribute
from phicrypt.dynamodb.models import FieldRole, PhiModel, without_values
from phicrypt.dynamodb.shapes import Item
from phicrypt.dynamodb.table_definitions import definition_of
from phicrypt.dynamodb.typed_lookups import Ask, ask_of, with_partition
from phicrypt.dynamodb.updates import update_encrypted
from phicrypt.errors import ConfigurationError, LimitExceededError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

Model = TypeVar("Model", bound=PhiModel)


class TypedTable(Generic[Model]):
    """One table whose items are models. Made by ``phi.dynamodb.table``; safe to share among threads.

    Attributes that the model does not know are verified, left out of what is read, and kept by
    :meth:`update` if the model names them in ``retired``. :meth:`put` replaces the whole item.
    """

    def __init__(
        self, model: type[Model], config: TableConfig, client: DynamoDBClient, search: ModelSearch | None = None
    ) -> None:
        # A client that does not encrypt, or encrypts other tables, would store plaintext or nothing.
        if layer_of(client).book.resolve(config.table_name, "A typed table") is None:
            raise ConfigurationError(f"the table {config.table_name!r} is in the client's plaintext_tables")
        self.model = model
        self.config = config
        self.client = client
        self._search = search
        self._key_models = {name: _key_model(model, name) for name in config.key_names}

    def __repr__(self) -> str:
        return f"<TypedTable of {self.model.__name__} in {self.config.table_name!r}>"

    def get(self, partition: Any, sort: Any = None, *, consistent: bool = False) -> Model | None:
        """The model with this key, or None. ``consistent=True`` sees every write that has ended."""
        answer = self.client.get_item(
            TableName=self.config.table_name, Key=self._key(partition, sort), ConsistentRead=consistent
        )
        item = answer.get("Item")
        return None if item is None else self.model.from_item(item)

    def put(self, model: Model, *, only_if_new: bool = False) -> None:
        """Encrypt and write the model, in place of the whole item with its key.

        With ``only_if_new`` an existing item is kept, and boto3's ConditionalCheckFailedException raised.
        """
        if not isinstance(model, self.model):
            raise ConfigurationError(f"a {self.model.__name__} was expected, {type(model).__name__} came")
        condition: dict[str, Any] = {}
        if only_if_new:
            condition = {
                "ConditionExpression": "attribute_not_exists(#key)",
                "ExpressionAttributeNames": {"#key": self.config.partition_key},
            }
        self.client.put_item(TableName=self.config.table_name, Item=model.to_item(), **condition)

    def query(
        self,
        partition: Any,
        *,
        sort_begins_with: str | None = None,
        sort_from: Any = None,
        sort_to: Any = None,
        newest_first: bool = False,
        consistent: bool = False,
    ) -> Iterator[Model]:
        """The models of one partition in the order of their sort keys, fetched page by page.

        Args:
            partition: the partition key's value.
            sort_begins_with: only sort keys that begin so.
            sort_from, sort_to: only sort keys in this range, both ends included.
            newest_first: descending order.
            consistent: see every write that has ended.
        """
        condition, values = self._condition(partition, sort_begins_with, sort_from, sort_to)
        names = {f"#{place}": name for place, name in zip(("p", "s"), self.config.key_names, strict=False)}
        pages = self.client.get_paginator("query").paginate(
            TableName=self.config.table_name,
            KeyConditionExpression=condition,
            ExpressionAttributeNames={place: name for place, name in names.items() if place in condition},
            ExpressionAttributeValues=values,
            ScanIndexForward=not newest_first,
            ConsistentRead=consistent,
        )
        return (self.model.from_item(item) for page in pages for item in page["Items"])

    def scan(self, *, segments: int = 1, consistent: bool = False) -> Iterator[Model]:
        """Every model of the table, page by page; with ``segments`` that many parts of it, one after the other."""
        if not 1 <= segments <= 1_000_000:
            raise ConfigurationError("scan reads 1 to 1,000,000 segments")
        for segment in range(segments):
            pages = self.client.get_paginator("scan").paginate(
                TableName=self.config.table_name,
                ConsistentRead=consistent,
                Segment=segment,
                TotalSegments=segments,
            )
            for page in pages:
                yield from map(self.model.from_item, page["Items"])

    def table_definition(self, *, billing_mode: str = "PAY_PER_REQUEST") -> dict[str, Any]:
        """CreateTable's parameters: the key, and an index of keys only for each beacon that has one.

        ``patients.client.create_table(**patients.table_definition())``. Indexes of keys only are the default,
        because each copy of an item doubles its storage; :meth:`find` reads the whole items by their keys.
        """
        return definition_of(self.model, self.config, self._search, billing_mode)

    def create_table(self) -> None:
        """Create the table with its indexes, and wait until it is there. Raises boto3's ResourceInUseException."""
        self.client.create_table(**self.table_definition())
        self.client.get_waiter("table_exists").wait(TableName=self.config.table_name)

    def find(self, *, scan: bool = False, **question: Any) -> Iterator[Model]:
        """The models whose fields have these values: ``patients.find(mrn="A-77")``.

        Encrypted fields are asked for by their beacons; an index is chosen, every partition of it is asked, and
        what only has an equal hash is dropped (rule 37). A question by an index sees a write when the index does,
        usually within a second; :meth:`get` sees it at once.

        Args:
            scan: read the whole table where no index answers.
            question: values by field; all must be equal.

        Raises UnsupportedOperationError, naming the indexes, for what cannot be answered whole (rule 38), and
        ConfigurationError for values that do not fit. Warns with
        :class:`~phicrypt.dynamodb.typed_lookups.IncompleteSearchWarning` until ``complete_since`` is set.
        """
        if self._search is None:
            raise ConfigurationError(f"{self.model.__name__} has no field with a Beacon, so nothing can be found")
        unknown = sorted(question.keys() - self.model.model_fields.keys())
        if unknown or not question:
            raise ConfigurationError(
                f"find takes values of fields of {self.model.__name__}; {', '.join(unknown) or 'none'} came"
            )
        values = {field: self._value_of(field, value) for field, value in question.items()}
        ask = ask_of(values, self.config, self._search, scan=scan, model_name=self.model.__name__)
        return self._found(ask)

    def find_one(self, *, scan: bool = False, **question: Any) -> Model | None:
        """The one model with these values, or None; arguments as of :meth:`find`.

        Reads every candidate. Raises LimitExceededError if more than one matches: it tells the number only.
        """
        found = list(self.find(scan=scan, **question))
        if len(found) > 1:
            raise LimitExceededError(
                f"find_one: more than one {self.model.__name__} matches; use find", limit=1, actual=len(found)
            )
        return found[0] if found else None

    def _found(self, ask: Ask) -> Iterator[Model]:
        hydrating = ask.operation == "query" and not layer_of(self.client).reads_whole_items(
            self.config, ask.parameters["IndexName"]
        )
        for partition in ask.partitions:
            parameters = with_partition(ask.parameters, partition)
            if hydrating:
                parameters["hydrate"] = True
            pages = self.client.get_paginator(ask.operation).paginate(  # type: ignore[call-overload]
                TableName=self.config.table_name, **parameters
            )
            for page in pages:
                yield from map(self.model.from_item, page["Items"])

    def _value_of(self, field: str, value: Any) -> dict[str, Any]:
        try:
            return to_attribute(_validated(_key_model(self.model, field), value))
        except ValidationError as error:
            reason = error.errors(include_input=False)[0]["msg"]
        raise ConfigurationError(f"find: the field {field!r} of {self.model.__name__}: {reason}")

    @overload
    def update(self, partition: Any, change: Callable[[Model], Model | None], /) -> Model | None: ...

    @overload
    def update(self, partition: Any, sort: Any, change: Callable[[Model], Model | None], /) -> Model | None: ...

    def update(self, partition: Any, *sort_and_change: Any) -> Model | None:
        """Read, verify, change, encrypt and write one item, losing no concurrent change (rule 18).

        ``change`` gets the model and returns the changed one, or changes it and returns None. It is
        called again if somebody else wrote meanwhile, so it must do nothing else. It changes
        encrypted and signed fields only; see :meth:`set_unsigned`.

        Returns the changed model, or None if no item has the key: nothing is created. Raises
        ConfigurationError for a changed key or unsigned field, ValidationError for a changed model
        that is not valid, and boto3's ConditionalCheckFailedException after many collisions.
        """
        *sort, change = sort_and_change or (None,)
        if len(sort) > 1 or not callable(change):
            raise ConfigurationError(
                "update takes the partition key, the sort key if there is one, and a function"
            )

        def change_item(item: Item) -> Item:
            before, draft = self.model.from_item(item), self.model.from_item(item)
            changed = change(draft)
            return self._merged(item, before, draft if changed is None else changed)

        item = update_encrypted(self.client, self.config.table_name, self._key(partition, *sort), change_item)
        return None if item is None else self.model.from_item(item)

    def set_unsigned(self, partition: Any, sort: Any = None, /, **values: Any) -> None:
        """Write unsigned fields of an existing item, without reading or encrypting it.

        Raises ConfigurationError for other fields, ValidationError for values that do not fit, and
        boto3's ConditionalCheckFailedException if no item has the key.
        """
        unsigned = self.model.fields_with(FieldRole.UNSIGNED)
        others = sorted(values.keys() - set(unsigned))
        if others or not values:
            raise ConfigurationError(
                f"set_unsigned writes the unsigned fields of {self.model.__name__} "
                f"({', '.join(unsigned) or 'it has none'}); not {', '.join(others) or 'nothing'}"
            )
        attributes = [
            to_attribute(_validated(_key_model(self.model, name), value)) for name, value in values.items()
        ]
        self.client.update_item(
            TableName=self.config.table_name,
            Key=self._key(partition, sort),
            UpdateExpression="SET " + ", ".join(f"#u{i} = :u{i}" for i in range(len(values))),
            ExpressionAttributeNames={f"#u{i}": name for i, name in enumerate(values)},
            ExpressionAttributeValues={f":u{i}": attribute for i, attribute in enumerate(attributes)},
        )

    def delete(self, partition: Any, sort: Any = None) -> None:
        """Delete the item with this key, if there is one."""
        self.client.delete_item(TableName=self.config.table_name, Key=self._key(partition, sort))

    def _merged(self, item: Item, before: Model, after: Model) -> Item:
        """The item with those fields replaced that changed; others keep the very bytes they had."""
        written = after.to_item()
        unchanged = before.to_item()
        return {**item, **{name: value for name, value in written.items() if value != unchanged.get(name)}}

    def _key(self, partition: Any, sort: Any = None) -> Item:
        values = {self.config.partition_key: partition}
        if self.config.sort_key is not None:
            values[self.config.sort_key] = sort
        if (sort is None) != (self.config.sort_key is None):
            raise ConfigurationError(
                f"the key of {self.model.__name__} is {' and '.join(values)}; give exactly these values"
            )
        return {name: self._key_attribute(name, value) for name, value in values.items()}

    def _key_attribute(self, name: str, value: Any) -> dict[str, Any]:
        try:
            attribute, reason = to_attribute(_validated(self._key_models[name], value)), ""
        except ValidationError as error:
            attribute, reason = {}, error.errors(include_input=False)[0]["msg"]
        if reason:
            raise ConfigurationError(f"the key field {name!r} of {self.model.__name__}: {reason}")
        if not attribute.keys() <= {"S", "N", "B"}:
            raise ConfigurationError(f"the key field {name!r} is stored as text, number or binary")
        return attribute

    def _condition(
        self, partition: Any, begins_with: str | None, first: Any, last: Any
    ) -> tuple[str, dict[str, Any]]:
        values = {":p": self._key_attribute(self.config.partition_key, partition)}
        sort_key = self.config.sort_key
        bounds = {":a": first, ":b": last}
        given = {place: value for place, value in bounds.items() if value is not None}
        if begins_with is None and not given:
            return "#p = :p", values
        if sort_key is None or (begins_with is not None and given):
            raise ConfigurationError("a query limits the sort key by its beginning or by a range, if there is one")
        if begins_with is not None:
            if not isinstance(begins_with, str):
                raise ConfigurationError(f"the beginning of the sort key {sort_key!r} is text")
            return "#p = :p AND begins_with(#s, :a)", {**values, ":a": {"S": begins_with}}
        values.update({place: self._key_attribute(sort_key, value) for place, value in given.items()})
        if len(given) == 2:
            return "#p = :p AND #s BETWEEN :a AND :b", values
        return ("#p = :p AND #s >= :a" if ":a" in given else "#p = :p AND #s <= :b"), values


def config_of(model: type[PhiModel], table_name: str | None, search: Any = None) -> TableConfig:
    """The configuration of the model's table; ConfigurationError for what is no model of a table."""
    if not (isinstance(model, type) and issubclass(model, PhiModel)):
        raise ConfigurationError("a typed table takes a subclass of PhiModel")
    return model.table_config(table_name, search=search)


def _key_model(model: type[PhiModel], field: str) -> type[BaseModel]:
    """A model of one field, so that values given alone pass the same validation."""
    info = model.model_fields[field]
    annotation: Any = info.annotation
    for mark in info.metadata:
        annotation = _annotated(annotation, mark)
    settings = ConfigDict(hide_input_in_errors=True)
    definition: Any = {field: (annotation, ...)}
    created: type[BaseModel] = create_model(model.__name__, __config__=settings, **definition)
    return created


def _annotated(annotation: Any, mark: Any) -> Any:
    from typing import Annotated

    return Annotated[annotation, mark]


def _validated(key_model: type[BaseModel], value: Any) -> Any:
    (field,) = key_model.model_fields
    try:
        return key_model.model_validate({field: value}).model_dump(round_trip=True, by_alias=True)[field]
    except ValidationError as error:
        refusal = without_values(error, frozenset((field,)))
    # Not in the handler: pydantic's error holds the value, and would stay with ours as its context.
    raise refusal
