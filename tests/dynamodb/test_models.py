"""Typed tables: what a model says is what is stored, and what old and new models make of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, Field, SecretStr, ValidationError, computed_field, field_validator
from support.dbesdk_support import phi_with, static_keyring

from phicrypt.client import PhiCrypt
from phicrypt.dynamodb import (
    Action,
    Encrypted,
    PartitionKey,
    PhiModel,
    Signed,
    SortKey,
    TypedTable,
    Unsigned,
)
from phicrypt.dynamodb.model_values import to_attribute
from phicrypt.errors import AuthenticationError, ConfigurationError, PhiCryptError
from phicrypt.testing import local_aws
from phicrypt.testing.local_stack import LocalAws

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Severity(Enum):
    MILD = "mild"
    SEVERE = "severe"


class Triage(IntEnum):
    LOW = 1
    HIGH = 5


class Condition(BaseModel):
    code: str
    since: date
    severity: Severity = Severity.MILD


class Patient(PhiModel, table="patients"):
    patient_id: PartitionKey[str]
    visit: SortKey[str]
    name: Encrypted[str]
    conditions: Encrypted[list[Condition]] = Field(default_factory=list)
    clinic: Signed[str]
    last_seen: Unsigned[datetime]


class Everything(PhiModel, table="everything", settings={"signed": True}):
    id: PartitionKey[UUID]
    at: SortKey[datetime]
    text: Encrypted[str | None]
    whole: Encrypted[int]
    exact: Encrypted[Decimal]
    floating: Encrypted[float]
    flag: Encrypted[bool]
    content: Encrypted[bytes]
    day: Encrypted[date]
    clock: Encrypted[time]
    span: Encrypted[timedelta]
    severity: Encrypted[Severity]
    triage: Encrypted[Triage]
    codes: Encrypted[set[str]]
    none_yet: Encrypted[set[str]]
    doses: Encrypted[frozenset[Decimal]]
    days: Encrypted[set[date]]
    pair: Encrypted[tuple[int, str]]
    by_day: Encrypted[dict[date, float]]
    nested: Encrypted[dict[str, list[Condition]]]
    secret: Encrypted[SecretStr]
    signed: Signed[dict[str, int]]


def everything() -> Everything:
    return Everything(
        id=UUID(int=7), at=NOW, text=None, whole=10**30, exact=Decimal("1.10"), floating=0.1, flag=True,
        content=b"\x00\xff", day=NOW.date(), clock=time(1, 2, 3), span=timedelta(days=1, seconds=2),
        severity=Severity.SEVERE, triage=Triage.HIGH, codes={"a", "b"}, none_yet=set(),
        doses=frozenset((Decimal("1.5"), Decimal(2))), days={date(2026, 1, 1)}, pair=(1, "x"),
        by_day={date(2026, 1, 1): 36.6}, nested={"a": [Condition(code="c", since=NOW.date())]},
        secret=SecretStr("canary"), signed={"n": 1},
    )  # fmt: skip


def patient(**changes: Any) -> Patient:
    values = {"patient_id": "p-1", "visit": "2026-01-01", "name": "Ada", "clinic": "north", "last_seen": NOW}
    return Patient(**{**values, "conditions": [Condition(code="J45", since=date(2020, 1, 1))], **changes})


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    with local_aws() as stack:
        yield stack


@pytest.fixture
def phi() -> PhiCrypt:
    return phi_with(static_keyring())


class Later(PhiModel, table="later"):
    id: PartitionKey[str]
    parts: Encrypted[list[Part]]
    tags: Unsigned[set[str]]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def count(self) -> int:
        return len(self.parts)


class Part(BaseModel):
    text: str


def table_of(phi: PhiCrypt, aws: LocalAws, model: type[PhiModel], **options: Any) -> Any:
    """A typed table over an empty physical one."""
    config = model.table_config(options.get("table_name"))
    client = aws.client("dynamodb")
    if config.table_name in client.list_tables()["TableNames"]:
        client.delete_table(TableName=config.table_name)
    kinds = zip(config.key_names, ("HASH", "RANGE"), strict=False)
    client.create_table(
        TableName=config.table_name,
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in kinds],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in config.key_names],
        BillingMode="PAY_PER_REQUEST",
    )
    return again(phi, aws, model, **options)


def again(phi: PhiCrypt, aws: LocalAws, model: type[PhiModel], **options: Any) -> Any:
    return phi.dynamodb.table(model, session=aws.session(), endpoint_url=aws.endpoint_url, **options)


@pytest.fixture
def patients(phi: PhiCrypt, aws: LocalAws) -> TypedTable[Patient]:
    table: TypedTable[Patient] = table_of(phi, aws, Patient)
    return table


def stored_item(aws: LocalAws, table: Any) -> dict[str, Any]:
    (item,) = aws.client("dynamodb").scan(TableName=table.config.table_name)["Items"]
    assert isinstance(item, dict)
    return item


# The verbs


def test_put_and_get(patients: TypedTable[Patient], aws: LocalAws) -> None:
    patients.put(patient())
    assert patients.get("p-1", "2026-01-01") == patient()
    assert patients.get("p-1", "2026-01-01", consistent=True) == patient()
    assert patients.get("p-1", "1999-01-01") is None
    stored = stored_item(aws, patients)
    assert "Ada" not in repr(stored)
    assert stored["clinic"] == {"S": "north"}
    assert stored["last_seen"] == {"S": NOW.isoformat()}
    assert stored["name"].keys() == stored["conditions"].keys() == {"B"}


def test_put_only_if_new_keeps_what_is_there(patients: TypedTable[Patient]) -> None:
    patients.put(patient(), only_if_new=True)
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        patients.put(patient(name="Eve"), only_if_new=True)
    found = patients.get("p-1", "2026-01-01")
    assert found is not None
    assert found.name == "Ada"


def test_query_by_partition_and_sort_key(patients: TypedTable[Patient]) -> None:
    visits = ["2025-12-31", "2026-01-01", "2026-01-02", "2026-02-01"]
    for visit in visits:
        patients.put(patient(visit=visit))
    patients.put(patient(patient_id="p-2"))
    assert [found.visit for found in patients.query("p-1")] == visits
    assert [found.visit for found in patients.query("p-1", newest_first=True)] == visits[::-1]
    assert [found.visit for found in patients.query("p-1", sort_begins_with="2026-01")] == visits[1:3]
    assert [found.visit for found in patients.query("p-1", sort_from="2026-01-02")] == visits[2:]
    assert [found.visit for found in patients.query("p-1", sort_to="2026-01-01")] == visits[:2]
    between = patients.query("p-1", sort_from="2026-01-01", sort_to="2026-01-02", consistent=True)
    assert [found.visit for found in between] == visits[1:3]
    assert list(patients.query("p-3")) == []
    with pytest.raises(ConfigurationError):
        patients.query("p-1", sort_begins_with="2026", sort_to="2027")


def test_update_changes_signed_fields_and_keeps_the_rest(patients: TypedTable[Patient], aws: LocalAws) -> None:
    patients.put(patient())
    before = stored_item(aws, patients)

    def rename(found: Patient) -> None:
        found.name = "Grace"
        found.conditions.append(Condition(code="E11", since=date(2026, 1, 1)))

    changed = patients.update("p-1", "2026-01-01", rename)
    assert changed is not None
    assert changed.name == "Grace"
    assert [condition.code for condition in changed.conditions] == ["J45", "E11"]
    assert patients.get("p-1", "2026-01-01") == changed
    after = stored_item(aws, patients)
    assert before["aws_dbe_head"] != after["aws_dbe_head"]
    assert before["last_seen"] == after["last_seen"]


def test_update_takes_the_returned_model_and_validates_it(patients: TypedTable[Patient]) -> None:
    patients.put(patient())
    changed = patients.update("p-1", "2026-01-01", lambda found: found.model_copy(update={"clinic": "south"}))
    assert changed is not None
    assert changed.clinic == "south"
    with pytest.raises(ValidationError):
        patients.update("p-1", "2026-01-01", lambda found: found.model_copy(update={"clinic": 5}))


def test_update_of_a_missing_key_creates_nothing(patients: TypedTable[Patient], aws: LocalAws) -> None:
    assert patients.update("p-1", "2026-01-01", lambda found: found) is None
    assert aws.client("dynamodb").scan(TableName="patients")["Items"] == []


def test_update_refuses_unsigned_and_key_fields(patients: TypedTable[Patient]) -> None:
    patients.put(patient())
    with pytest.raises(ConfigurationError, match="last_seen"):
        patients.update(
            "p-1", "2026-01-01", lambda found: found.model_copy(update={"last_seen": NOW + timedelta(1)})
        )
    with pytest.raises(ConfigurationError, match="visit"):
        patients.update("p-1", "2026-01-01", lambda found: found.model_copy(update={"visit": "x"}))


def test_set_unsigned_writes_without_reencryption(patients: TypedTable[Patient], aws: LocalAws) -> None:
    patients.put(patient())
    before = stored_item(aws, patients)
    patients.set_unsigned("p-1", "2026-01-01", last_seen=NOW + timedelta(days=1))
    assert stored_item(aws, patients)["aws_dbe_foot"] == before["aws_dbe_foot"]
    found = patients.get("p-1", "2026-01-01")
    assert found == patient(last_seen=NOW + timedelta(days=1))
    with pytest.raises(ConfigurationError, match="name"):
        patients.set_unsigned("p-1", "2026-01-01", name="Eve")
    with pytest.raises(ValidationError):
        patients.set_unsigned("p-1", "2026-01-01", last_seen="yesterday")
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        patients.set_unsigned("p-9", "2026-01-01", last_seen=NOW)


def test_delete(patients: TypedTable[Patient]) -> None:
    patients.put(patient())
    patients.delete("p-1", "2026-01-01")
    patients.delete("p-1", "2026-01-01")
    assert patients.get("p-1", "2026-01-01") is None


@pytest.mark.parametrize("key", [("p-1",), ("p-1", None)])
def test_an_incomplete_key_is_refused_before_the_network(patients: TypedTable[Patient], key: tuple[Any]) -> None:
    with pytest.raises(ConfigurationError, match="visit"):
        patients.get(*key)


def test_tampered_item_is_refused(patients: TypedTable[Patient], aws: LocalAws) -> None:
    patients.put(patient())
    stored = stored_item(aws, patients)
    aws.client("dynamodb").put_item(TableName="patients", Item={**stored, "clinic": {"S": "south"}})
    with pytest.raises(AuthenticationError):
        patients.get("p-1", "2026-01-01")


def test_physical_table_of_another_name_keeps_the_logical_one(phi: PhiCrypt, aws: LocalAws) -> None:
    restored = table_of(phi, aws, Patient, table_name="patients-restored")
    original = table_of(phi, aws, Patient)
    original.put(patient())
    aws.client("dynamodb").put_item(TableName="patients-restored", Item=stored_item(aws, original))
    assert restored.get("p-1", "2026-01-01") == patient()


# Values


def test_every_kind_of_field_comes_back(phi: PhiCrypt, aws: LocalAws) -> None:
    table = table_of(phi, aws, Everything)
    table.put(everything())
    assert table.get(UUID(int=7), NOW) == everything()
    assert "canary" not in repr(stored_item(aws, table))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN")])
def test_numbers_without_a_form_are_refused_by_field(value: Any) -> None:
    class Reading(PhiModel, table="readings"):
        id: PartitionKey[str]
        value: Encrypted[float | Decimal]

    with pytest.raises((ConfigurationError, ValidationError), match="value"):
        Reading(id="r", value=value).to_item()


def test_key_fields_are_stored_as_text_number_or_binary(phi: PhiCrypt, aws: LocalAws) -> None:
    class Odd(PhiModel, table="odd"):
        id: PartitionKey[bool]

    odd: Any = again(phi, aws, Odd)
    with pytest.raises(ConfigurationError, match="'id'"):
        odd.get(True)


def test_table_without_sort_key_and_a_type_that_is_defined_later(phi: PhiCrypt, aws: LocalAws) -> None:
    table: TypedTable[Later] = table_of(phi, aws, Later)
    tags = {f"tag-{number}" for number in range(50)}
    table.put(Later(id="l", parts=[Part(text="canary")], tags=tags))
    assert "count" not in stored_item(aws, table)
    changed = table.update("l", lambda found: found.model_copy(update={"parts": [*found.parts, Part(text="b")]}))
    assert changed == table.get("l") == Later(id="l", parts=[Part(text="canary"), Part(text="b")], tags=tags)
    assert [found.count for found in table.query("l")] == [2]
    table.set_unsigned("l", tags={"one"})
    table.delete("l")
    assert table.get("l") is None
    with pytest.raises(ConfigurationError, match="exactly"):
        table.get("l", "sort")


# Errors and reprs show no value


class Guarded(PhiModel, table="guarded"):
    id: PartitionKey[str]
    name: Encrypted[str] = Field(max_length=3)
    born: Encrypted[date | None] = None
    conditions: Encrypted[list[Condition]] = Field(default_factory=list)
    by_name: Encrypted[dict[str, int]] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def quotes_the_value(cls, name: str) -> str:
        if name == "can":
            raise ValueError(f"canary {name}")
        return name


CANARIES: list[dict[str, Any]] = [
    {"name": "canary"},
    {"name": "can"},
    {"name": ["canary"]},
    {"born": "canary"},
    {"born": "2026-canary"},
    {"conditions": [{"code": "canary", "since": "canary", "severity": "canary"}]},
    {"conditions": "canary"},
    {"by_name": {"canary": "canary"}},
    {"canary": 1},
]


@pytest.mark.parametrize("values", CANARIES)
def test_validation_errors_show_no_value(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Guarded(**{"id": "g", "name": "Ada", **values})
    assert "canary" not in f"{caught.value} {caught.value!r} {caught.value.errors()} {caught.value.json()}"
    assert caught.value.errors()[0]["type"]
    other = Guarded(id="g", name="Ada")
    for name, value in values.items():
        if name in Guarded.model_fields:
            with pytest.raises(ValidationError) as caught:
                setattr(other, name, value)
            assert "canary" not in f"{caught.value} {caught.value.errors()}"


def test_validation_errors_of_json_show_no_value() -> None:
    for text in ('{"name": "canary"', '{"name": ["canary"]}'):
        with pytest.raises(ValidationError) as caught:
            Guarded.model_validate_json(text)
        assert "canary" not in f"{caught.value} {caught.value.errors()}"


def test_validation_errors_name_the_field() -> None:
    with pytest.raises(ValidationError) as caught:
        Guarded(id="g", name="Ada", conditions=[{"code": "x", "since": "?"}])  # type: ignore[list-item]
    assert caught.value.errors()[0]["loc"] == ("conditions", 0, "since")


def test_stored_values_that_no_longer_fit_show_no_value(phi: PhiCrypt, aws: LocalAws) -> None:
    class Older(PhiModel, table="guarded"):
        id: PartitionKey[str]
        name: Encrypted[str]

    table_of(phi, aws, Older).put(Older(id="g", name="canary"))
    with pytest.raises(ValidationError) as caught:
        again(phi, aws, Guarded).get("g")
    assert "canary" not in f"{caught.value} {caught.value.errors()}"


@pytest.mark.parametrize(
    ("use", "field"),
    [
        (lambda table: table.get(["canary"], "x"), "patient_id"),
        (lambda table: table.get(5, "x"), "patient_id"),
        (lambda table: table.get("p-1", ["canary"]), "visit"),
        (lambda table: table.delete("p-1", ["canary"]), "visit"),
        (lambda table: table.update("p-1", 5, lambda found: found), "visit"),
        (lambda table: table.set_unsigned(["canary"], "x", last_seen=NOW), "patient_id"),
        (lambda table: table.set_unsigned("p-1", "x", nmae=["canary"]), "nmae"),
        (lambda table: table.query(["canary"]), "patient_id"),
        (lambda table: table.query("p-1", sort_from=["canary"]), "visit"),
        (lambda table: table.query("p-1", sort_begins_with=["canary"]), "visit"),
        (lambda table: table.update("p-1"), "sort key"),
        (lambda table: table.update("p-1", lambda found: found), "visit"),
    ],
)
def test_keys_and_names_that_do_not_fit_are_refused_by_their_name(
    patients: TypedTable[Patient], use: Callable[[Any], object], field: str
) -> None:
    with pytest.raises(ConfigurationError, match=field) as caught:
        use(patients)
    assert "canary" not in shown_by(caught.value)


def test_no_value_stands_behind_an_error(patients: TypedTable[Patient]) -> None:
    unprintable: Any = object()
    for attempt in (
        lambda: patients.get(["canary"], "x"),
        lambda: patients.set_unsigned("p-1", "x", last_seen="canary"),
        lambda: Patient.model_validate_json('{"patient_id": "canary'),
        lambda: Patient.model_validate_json(b'{"patient_id": ["canary"]}'),
        lambda: Patient(patient_id=["canary"]),  # type: ignore[arg-type, call-arg]
        lambda: setattr(patient(), "name", ["canary"]),
        lambda: Patient.from_item({"patient_id": {"S": "p-1"}, "visit": "canary"}),
        lambda: Patient.from_item({"patient_id": {"S": "p-1"}, "visit": {"N": "canary"}}),
        lambda: Patient.from_item({"patient_id": "p-1", "visit": 0.5, "name": {"canary": 1.5}}),
        lambda: Patient.from_item(["canary"]),  # type: ignore[arg-type]
        lambda: patients.client.get_item(TableName="patients", Key={"patient_id": {"S": "\ud800canary"}}),
        lambda: to_attribute({"canary": unprintable}),
    ):
        with pytest.raises((PhiCryptError, ValidationError, BotoCoreError, ClientError)) as caught:
            attempt()
        assert "canary" not in shown_by(caught.value)


def shown_by(error: BaseException) -> str:
    """Everything that an error and those behind it hold."""
    shown = ""
    behind: list[BaseException | None] = [error]
    while behind:
        one = behind.pop()
        if one is not None:
            shown += f"{one!r} {one} {one.args} {vars(one)}"
            shown += str(one.errors()) if isinstance(one, ValidationError) else ""
            behind += [one.__cause__, one.__context__]
    return shown


def test_a_model_is_read_from_the_items_of_client_and_resource(phi: PhiCrypt, aws: LocalAws) -> None:
    table = table_of(phi, aws, Everything)
    table.put(everything())
    options = {"session": aws.session(), "endpoint_url": aws.endpoint_url}
    key = {"id": str(UUID(int=7)), "at": NOW.isoformat()}
    item = phi.dynamodb.resource([table.config], **options).Table("everything").get_item(Key=key)["Item"]
    assert Everything.from_item(item) == everything()
    assert Everything.from_item(table.client.scan(TableName="everything")["Items"][0]) == everything()


def test_repr_shows_no_value() -> None:
    for text in (repr(patient()), str(patient()), f"{patient()}"):
        assert "Ada" not in text
        assert "p-1" not in text
        assert "clinic" in text


# Schemas and their evolution


def test_schema_becomes_the_table_configuration() -> None:
    config = Patient.table_config()
    assert (config.table_name, config.partition_key, config.sort_key) == ("patients", "patient_id", "visit")
    assert config.actions["name"] is Action.ENCRYPT_AND_SIGN
    assert config.actions["clinic"] is Action.SIGN_ONLY
    assert config.unsigned_attributes == ("last_seen",)
    assert Everything.table_config().signed


@pytest.mark.parametrize(
    "fields",
    [
        {"id": PartitionKey[str], "plain": str},
        {"id": PartitionKey[str], "twice": Encrypted[Signed[str]]},
        {"name": Encrypted[str]},
        {"id": PartitionKey[str], "other": PartitionKey[str]},
        {"id": PartitionKey[str], "one": SortKey[str], "two": SortKey[str]},
        {"id": PartitionKey[str], "aws_dbe_x": Encrypted[str]},
    ],
)
def test_schemas_that_are_none_are_refused_when_the_class_is_made(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        type("Wrong", (PhiModel,), {"__annotations__": fields, "__module__": __name__}, table="wrong")


def test_aliases_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="alias"):

        class Aliased(PhiModel, table="aliased"):
            id: PartitionKey[str]
            name: Encrypted[str] = Field(alias="other")


def test_added_field_needs_a_default_for_older_items(phi: PhiCrypt, aws: LocalAws) -> None:
    class WithDefault(Patient, table="patients"):
        allergies: Encrypted[list[str]] = Field(default_factory=list)

    class WithoutDefault(Patient, table="patients"):
        allergies: Encrypted[list[str]]

    table_of(phi, aws, Patient).put(patient())
    found = again(phi, aws, WithDefault).get("p-1", "2026-01-01")
    assert found.allergies == []
    with pytest.raises(ValidationError, match="allergies"):
        again(phi, aws, WithoutDefault).get("p-1", "2026-01-01")


class PatientWithoutClinic(PhiModel, table="patients"):
    patient_id: PartitionKey[str]
    visit: SortKey[str]
    name: Encrypted[str]
    conditions: Encrypted[list[Condition]] = Field(default_factory=list)
    last_seen: Unsigned[datetime]


class PatientWithRetiredClinic(PatientWithoutClinic, table="patients", retired={"clinic": Action.SIGN_ONLY}):
    pass


def test_removed_field_is_verified_and_left_out_on_read(phi: PhiCrypt, aws: LocalAws) -> None:
    table_of(phi, aws, Patient).put(patient())
    found = again(phi, aws, PatientWithoutClinic).get("p-1", "2026-01-01")
    assert found is not None
    assert "clinic" not in found.model_dump()
    client = aws.client("dynamodb")
    (stored,) = client.scan(TableName="patients")["Items"]
    client.put_item(TableName="patients", Item={**stored, "clinic": {"S": "south"}})
    with pytest.raises(AuthenticationError):
        again(phi, aws, PatientWithoutClinic).get("p-1", "2026-01-01")


def test_update_keeps_removed_fields_only_if_they_are_retired(phi: PhiCrypt, aws: LocalAws) -> None:
    table_of(phi, aws, Patient).put(patient())
    with pytest.raises(ConfigurationError, match="clinic"):
        again(phi, aws, PatientWithoutClinic).update(
            "p-1", "2026-01-01", lambda found: found.model_copy(update={"name": "Grace"})
        )
    again(phi, aws, PatientWithRetiredClinic).update(
        "p-1", "2026-01-01", lambda found: found.model_copy(update={"name": "Grace"})
    )
    found = again(phi, aws, Patient).get("p-1", "2026-01-01")
    assert (found.name, found.clinic) == ("Grace", "north")


def test_field_may_move_between_encrypted_and_signed(phi: PhiCrypt, aws: LocalAws) -> None:
    class Moved(PhiModel, table="patients"):
        patient_id: PartitionKey[str]
        visit: SortKey[str]
        name: Signed[str]
        conditions: Encrypted[list[Condition]] = Field(default_factory=list)
        clinic: Encrypted[str]
        last_seen: Unsigned[datetime]

    table_of(phi, aws, Patient).put(patient())
    found = again(phi, aws, Moved).get("p-1", "2026-01-01")
    assert (found.name, found.clinic) == ("Ada", "north")


def test_retired_unsigned_attribute_keeps_older_items_readable(phi: PhiCrypt, aws: LocalAws) -> None:
    class Forgetful(PhiModel, table="patients"):
        patient_id: PartitionKey[str]
        visit: SortKey[str]
        name: Encrypted[str]

    class Careful(Forgetful, table="patients", retired={"last_seen": Action.DO_NOTHING}):
        pass

    table_of(phi, aws, Patient).put(patient())
    assert again(phi, aws, Careful).get("p-1", "2026-01-01").name == "Ada"
    with pytest.raises(Exception, match="signed attributes"):
        again(phi, aws, Forgetful).get("p-1", "2026-01-01")


def test_type_checkers_see_the_field_types(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "from datetime import datetime\n"
        "from phicrypt.client import PhiCrypt\n"
        "from phicrypt.dynamodb import Encrypted, PartitionKey, PhiModel, SortKey, Unsigned\n"
        "class Visit(PhiModel, table='visits'):\n"
        "    patient_id: PartitionKey[str]\n"
        "    number: SortKey[int]\n"
        "    names: Encrypted[list[str]]\n"
        "    seen: Unsigned[datetime | None] = None\n"
        "def use(phi: PhiCrypt) -> None:\n"
        "    visits = phi.dynamodb.table(Visit)\n"
        "    found = visits.get('p', 1)\n"
        "    reveal_type(found)\n"
        "    if found:\n"
        "        reveal_type(found.names)\n"
        "    reveal_type(visits.update('p', 1, lambda visit: visit))\n"
        "    for visit in visits.query('p'):\n"
        "        reveal_type(visit.seen)\n"
        "        visit.number = 'text'\n"
    )
    root = Path(__file__).parents[2]
    outcome = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml"), str(snippet)],
        capture_output=True, text=True, cwd=root, timeout=300,
    )  # fmt: skip
    lines = [line.split(": ", 1)[1] for line in outcome.stdout.splitlines() if "snippet.py" in line]
    assert lines[:-1] == [
        'note: Revealed type is "snippet.Visit | None"',
        'note: Revealed type is "list[str]"',
        'note: Revealed type is "snippet.Visit | None"',
        'note: Revealed type is "datetime.datetime | None"',
    ]
    assert "Incompatible types in assignment" in lines[-1]
