"""A pydantic model as a table's schema: its markers say what is encrypted.

::

    class Patient(PhiModel, table="patients"):
        patient_id: PartitionKey[str]
        visit: SortKey[str]
        name: Encrypted[str]
        clinic: Signed[str]
        last_seen: Unsigned[datetime | None] = None

The markers are ``Annotated`` aliases: to type checkers ``Encrypted[str]`` is ``str``.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from datetime import date
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import InitErrorDetails, PydanticCustomError

from phicrypt.dynamodb.config import Action, TableConfig
from phicrypt.dynamodb.model_search import Beacon, ModelSearch, Searching, search_of_model, with_settings
from phicrypt.dynamodb.model_values import from_attribute, to_attribute
from phicrypt.dynamodb.search import CompoundBeacon, VirtualField
from phicrypt.dynamodb.shapes import Item, shape_of, to_low_level
from phicrypt.errors import ConfigurationError


class FieldRole(Enum):
    """What a model's field is in its table."""

    PARTITION_KEY = "PartitionKey"
    SORT_KEY = "SortKey"
    ENCRYPTED = "Encrypted"
    SIGNED = "Signed"
    UNSIGNED = "Unsigned"


Value = TypeVar("Value")
PartitionKey = Annotated[Value, FieldRole.PARTITION_KEY]
"""The partition key: readable, signed. Use an opaque identifier."""
SortKey = Annotated[Value, FieldRole.SORT_KEY]
"""The sort key: readable, signed."""
Encrypted = Annotated[Value, FieldRole.ENCRYPTED]
"""Encrypted and signed."""
Searchable = Annotated[Value, FieldRole.ENCRYPTED, Beacon()]
"""Encrypted, signed and searchable; the class keyword ``beacons={"field": bits}`` has the beacon's length."""
Signed = Annotated[Value, FieldRole.SIGNED]
"""Readable, signed."""
Unsigned = Annotated[Value, FieldRole.UNSIGNED]
"""Readable, and whoever writes the table may change it unseen. Can be changed without re-encryption."""

_ACTIONS = {
    FieldRole.PARTITION_KEY: Action.SIGN_ONLY,
    FieldRole.SORT_KEY: Action.SIGN_ONLY,
    FieldRole.ENCRYPTED: Action.ENCRYPT_AND_SIGN,
    FieldRole.SIGNED: Action.SIGN_ONLY,
    FieldRole.UNSIGNED: Action.DO_NOTHING,
}
_HIDDEN_PART = "…"


class PhiModel(BaseModel):
    """Base of the models of typed tables.

    Class keywords:
        table: the table's name. A class without it is a base for others.
        retired: actions of attributes that earlier versions of the model had and stored items still
            have. Attributes that were :data:`Unsigned` must stay here for good.
        beacons, compounds, virtual, indexes, complete_since: what the table is searched by, besides the fields'
            markers: lengths by field, compound beacons, virtual fields, the beacon that each index has as its key,
            and the day from which all items have their beacons. See ``docs/search.md``.
        settings: further arguments of :class:`~phicrypt.dynamodb.TableConfig`, such as
            ``logical_table_name``, ``signed``, ``require_signed``, ``plaintext_policy``.

    Each field carries exactly one marker and has the attribute's name. Neither ``repr`` nor a
    validation error shows a value. Raises ConfigurationError for a schema that is none.
    """

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        revalidate_instances="always",
        validate_assignment=True,
    )
    _phi_table: ClassVar[tuple[str, Mapping[str, Action], Mapping[str, Any]] | None] = None
    _phi_search: ClassVar[Searching] = Searching()

    def __init_subclass__(
        cls,
        *,
        table: str | None = None,
        retired: Mapping[str, Action] = types.MappingProxyType({}),
        settings: Mapping[str, Any] = types.MappingProxyType({}),
        beacons: Mapping[str, int] = types.MappingProxyType({}),
        compounds: Iterable[CompoundBeacon] = (),
        virtual: Iterable[VirtualField] = (),
        indexes: Mapping[str, str] = types.MappingProxyType({}),
        complete_since: date | None = None,
        **config: Any,
    ) -> None:
        super().__init_subclass__(**config)
        cls._phi_search = Searching(dict(beacons), tuple(compounds), tuple(virtual), dict(indexes), complete_since)
        cls._phi_table = None if table is None else (table, dict(retired), dict(settings))

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if cls._phi_table is not None and cls.__pydantic_complete__:
            cls.table_config()

    @classmethod
    def search(cls) -> ModelSearch | None:
        """What the fields' :class:`~phicrypt.dynamodb.model_search.Beacon` markers and the class keywords say."""
        marks = [
            (field, mark)
            for field, info in cls.model_fields.items()
            for mark in info.metadata
            if isinstance(mark, Beacon)
        ]
        return search_of_model(marks, cls._phi_search, cls.__name__)

    @classmethod
    def table_config(cls, table_name: str | None = None, *, search: Any = None) -> TableConfig:
        """The table's configuration as the fields say.

        Args:
            table_name: another physical table's name.
            search: where beacon keys come from (``SingleBeaconKey``, ``BeaconKeyByAttribute``), or a whole
                ``SearchConfig`` in place of the model's.
        """
        if cls._phi_table is None:
            raise ConfigurationError(f"{cls.__name__} has no table: class {cls.__name__}(PhiModel, table=…)")
        cls.model_rebuild()  # where a field's type was defined after the class
        name, retired, settings = cls._phi_table
        roles = {field: cls._role_of(field) for field in cls.model_fields}
        actions = {field: _ACTIONS[role] for field, role in roles.items()}
        both = sorted(actions.keys() & retired.keys())
        if both:
            raise ConfigurationError(f"{cls.__name__}: {', '.join(both)} is a field and retired at once")
        actions.update(retired)
        partition_keys = [field for field, role in roles.items() if role is FieldRole.PARTITION_KEY]
        sort_keys = [field for field, role in roles.items() if role is FieldRole.SORT_KEY]
        if len(partition_keys) != 1 or len(sort_keys) > 1:
            raise ConfigurationError(f"{cls.__name__} has exactly one PartitionKey and at most one SortKey")
        found = cls.search()
        return TableConfig(
            **{
                "search": None if found is None else with_settings(found, search).config,
                "table_name": table_name or name,
                "logical_table_name": name,
                "partition_key": partition_keys[0],
                "sort_key": sort_keys[0] if sort_keys else None,
                "actions": actions,
                "unsigned_attributes": tuple(n for n, a in actions.items() if a is Action.DO_NOTHING),
                **settings,
            }
        )

    @classmethod
    def fields_with(cls, role: FieldRole) -> tuple[str, ...]:
        """The fields with this marker."""
        return tuple(field for field in cls.model_fields if cls._role_of(field) is role)

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Self:
        """The model of a plaintext item, as boto3's client or its resource gives it.

        Attributes that are no fields are left out. Raises pydantic's ValidationError, without values, and
        ConfigurationError for what is no item.
        """
        if not isinstance(item, Mapping):
            raise ConfigurationError(f"an item is a mapping of attributes, {type(item).__name__} came")
        fields = {name: value for name, value in item.items() if name in cls.model_fields}
        if shape_of(fields, _partition_key(cls)) == "python":
            fields = to_low_level(fields)
        values = {}
        try:
            for name, value in fields.items():
                values[name] = from_attribute(value)
        except (ArithmeticError, AttributeError, TypeError, ValueError):
            pass
        else:
            return cls.model_validate(values)
        # Not in the handler: Python's error may show the value, and would stay with ours as its context.
        raise ConfigurationError(f"the field {name!r} of {cls.__name__} is no attribute value of DynamoDB")

    def to_item(self) -> Item:
        """The plaintext low-level item of this model, validated again. Raises as :meth:`from_item`."""
        values = type(self).model_validate(self).model_dump(round_trip=True, by_alias=True)
        item = {}
        for name, value in values.items():
            try:
                item[name] = to_attribute(value)
            except ConfigurationError as error:
                raise ConfigurationError(f"the field {name!r} of {type(self).__name__}: {error}") from None
        return item

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """As pydantic's; without the text in the error for what is no JSON."""
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as error:
            refusal = without_values(error, _names_within(cls))
        # Not in the handler, here and below: pydantic's error holds the values.
        raise refusal

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {', '.join(type(self).model_fields)}: values are not shown>"

    __str__ = __repr__

    @model_validator(mode="wrap")
    @classmethod
    def _hide_values_in_errors(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            refusal = without_values(error, _names_within(cls))
        raise refusal

    @classmethod
    def _role_of(cls, field: str) -> FieldRole:
        info = cls.model_fields[field]
        roles = [mark for mark in info.metadata if isinstance(mark, FieldRole)]
        if len(roles) != 1:
            raise ConfigurationError(
                f"the field {field!r} of {cls.__name__} has {len(roles) or 'no'} markers; exactly one of "
                f"{', '.join(role.value for role in FieldRole)} says what is done with it"
            )
        if info.alias is not None or info.serialization_alias is not None or info.exclude:
            raise ConfigurationError(f"the field {field!r} of {cls.__name__}: no alias and no exclude here")
        return roles[0]


@lru_cache(256)
def _partition_key(model: type[PhiModel]) -> str:
    return next(iter(model.fields_with(FieldRole.PARTITION_KEY)), "")


def without_values(error: ValidationError, names: frozenset[str]) -> ValidationError:
    """The same error with neither inputs, nor messages that a validator wrote, nor names of mappings.

    Args:
        names: of the fields that may stand in the error's locations.
    """
    details = []
    for line in error.errors(include_url=False, include_input=False, include_context=False):
        # Only pydantic's own messages are known to show no input, and even of these not all.
        message = line["msg"] if line["type"] in _TYPES_WITHOUT_INPUT else "the value is not valid"
        location = tuple(part if isinstance(part, int) or part in names else _HIDDEN_PART for part in line["loc"])
        details.append(
            InitErrorDetails(
                type=PydanticCustomError(line["type"], "{message}", {"message": message}), loc=location, input=None
            )
        )
    return ValidationError.from_exception_data(error.title, details, hide_input=True)


_TYPES_WITHOUT_INPUT = frozenset(
    {
        "missing", "none_required", "string_type", "string_too_short", "string_too_long", "int_type",
        "int_parsing", "int_from_float", "float_type", "float_parsing", "decimal_type", "decimal_parsing",
        "bool_type", "bool_parsing", "bytes_type", "list_type", "set_type", "dict_type", "tuple_type",
        "model_type", "datetime_type", "date_type", "time_type", "datetime_parsing", "date_parsing",
        "timezone_aware", "uuid_type", "greater_than", "greater_than_equal", "less_than", "less_than_equal",
        "too_short", "too_long", "frozen_instance", "frozen_field",
    }
)  # fmt: skip


@lru_cache(256)
def _names_within(model: type[BaseModel]) -> frozenset[str]:
    """The names of a model's fields and of all models nested in it."""
    names: set[str] = set()
    seen: set[type[BaseModel]] = set()
    waiting: list[Any] = [model]
    while waiting:
        current = waiting.pop()
        waiting.extend(typing.get_args(current))
        if isinstance(current, type) and issubclass(current, BaseModel) and current not in seen:
            seen.add(current)
            for name, info in current.model_fields.items():
                names.update(filter(None, (name, info.alias)))
                waiting.append(info.annotation)
    return frozenset(names)
