"""``find`` and ``find_one`` of typed tables: rules 36 to 38 without an expression to write."""

from __future__ import annotations

import uuid
import warnings
from datetime import date
from typing import Annotated, Any

import pytest
from support.dynamodb_support import Server

from phicrypt import PhiCrypt
from phicrypt.dynamodb import Encrypted, PartitionKey, PhiModel, Signed
from phicrypt.dynamodb import search as s
from phicrypt.dynamodb.model_search import Beacon
from phicrypt.dynamodb.models import Searchable
from phicrypt.dynamodb.typed_lookups import IncompleteSearchWarning
from phicrypt.errors import ConfigurationError, LimitExceededError, UnsupportedOperationError
from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
from phicrypt.testing import StaticBranchKeyStore


class Patient(
    PhiModel,
    table="patients",
    compounds=[
        s.CompoundBeacon("at_clinic", "^", [s.SignedPart("clinic", "C-")], [s.EncryptedPart("last_name", "L-")])
    ],
    indexes={"by-clinic-and-name": "at_clinic"},
    beacons={"phone": 10},
    complete_since=date(2026, 1, 1),
):
    patient_id: PartitionKey[str]
    clinic: Signed[str]
    mrn: Annotated[Encrypted[str], Beacon(bits=2, index="by-mrn")]
    email: Annotated[Encrypted[str], Beacon(bits=15, index="by-email", lower=True)]
    last_name: Annotated[Encrypted[str], Beacon(bits=1)]
    phone: Searchable[str]
    note: Encrypted[str] = ""


def phi() -> PhiCrypt:
    store = StaticBranchKeyStore("tenant-7", str(uuid.UUID(int=7)), bytes(range(32)), bytes(range(1, 33)))
    return PhiCrypt(HierarchicalKeyring(store, branch_key_id="tenant-7"))


def patient(number: int, **values: Any) -> Patient:
    fields: dict[str, Any] = {
        "patient_id": f"p{number}",
        "clinic": ["north", "south"][number % 2],
        "mrn": f"A-{number}",
        "email": f"User{number}@Example.org",
        "last_name": ["Smith", "Ng", "Garcia"][number % 3],
        "phone": f"555-{number}",
    }
    return Patient(**{**fields, **values})


@pytest.fixture(scope="module")
def patients(moto: Server) -> Any:
    table = phi().dynamodb.table(Patient, table_name=f"patients-{uuid.uuid4().hex[:8]}", **moto.options())
    table.create_table()
    for number in range(12):
        table.put(patient(number))
    return table


def ids(found: Any) -> list[str]:
    return sorted(one.patient_id for one in found)


def test_a_patient_is_found_by_number_mail_and_name_with_clinic(patients: Any) -> None:
    assert patients.find_one(mrn="A-7") == patient(7)
    assert ids(patients.find(email="USER3@example.ORG")) == ["p3"]
    assert ids(patients.find(last_name="Ng", clinic="south")) == ["p1", "p7"]
    assert ids(patients.find(mrn="A-7", last_name="Ng", phone="555-7")) == ["p7"]
    assert ids(patients.find(mrn="A-7", last_name="Smith")) == []
    assert patients.find_one(mrn="nobody") is None


def test_rule_38_what_no_index_answers_is_refused_or_read_whole_by_request(patients: Any) -> None:
    with pytest.raises(UnsupportedOperationError, match="by-mrn") as caught:
        patients.find(last_name="Ng")
    assert "Ng " not in str(caught.value)
    assert ids(patients.find(last_name="Ng", scan=True)) == ["p1", "p10", "p4", "p7"]
    with pytest.raises(UnsupportedOperationError, match="no Beacon"):
        patients.find(note="x", scan=True)


def test_rule_37_find_one_raises_when_two_match_and_tells_the_number_only(patients: Any) -> None:
    with pytest.raises(LimitExceededError) as caught:
        patients.find_one(last_name="Garcia", clinic="north")
    assert caught.value.actual == 2
    assert "Garcia" not in str(caught.value)


def test_bad_questions_are_refused_without_their_values(patients: Any) -> None:
    for question in ({}, {"mrm": "canary"}, {"mrn": 5}, {"mrn": None}):
        with pytest.raises(ConfigurationError) as caught:
            patients.find(**question)
        assert "canary" not in str(caught.value)


def test_a_change_is_found_by_its_new_value_only(patients: Any) -> None:
    patients.put(patient(40))

    def rename(one: Patient) -> None:
        one.mrn = "B-40"

    patients.update("p40", rename)
    assert (ids(patients.find(mrn="B-40")), ids(patients.find(mrn="A-40"))) == (["p40"], [])
    patients.delete("p40")
    assert ids(patients.scan(segments=3)) == sorted(f"p{number}" for number in range(12))


def test_every_partition_is_asked(moto: Server) -> None:
    search = Patient.search()
    assert search is not None
    spread = s.SearchConfig(
        search.config.standard,
        search.config.compound,
        search.config.virtual,
        max_partitions=4,
        complete_since=date(2026, 1, 1),
    )
    table = phi().dynamodb.table(
        Patient, table_name=f"patients-{uuid.uuid4().hex[:8]}", search=spread, **moto.options()
    )
    table.create_table()
    for number in range(10):
        table.put(patient(number, mrn="same"))
    assert len(ids(table.find(mrn="same"))) == 10


def test_rule_38_a_search_that_nobody_called_complete_warns(moto: Server) -> None:
    class Young(PhiModel, table="young"):
        patient_id: PartitionKey[str]
        mrn: Annotated[Encrypted[str], Beacon(bits=8, index="by-mrn")]

    table = phi().dynamodb.table(Young, table_name=f"young-{uuid.uuid4().hex[:8]}", **moto.options())
    table.create_table()
    with pytest.warns(IncompleteSearchWarning):
        list(table.find(mrn="A-1"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", IncompleteSearchWarning)
        with pytest.raises(IncompleteSearchWarning):
            table.find(mrn="A-1")


def test_the_definition_has_the_key_and_an_index_of_keys_for_each_beacon_that_has_one(patients: Any) -> None:
    indexes = patients.table_definition()["GlobalSecondaryIndexes"]
    assert {index["IndexName"]: index["KeySchema"][0]["AttributeName"] for index in indexes} == {
        "by-clinic-and-name": "aws_dbe_b_at_clinic",
        "by-mrn": "aws_dbe_b_mrn",
        "by-email": "aws_dbe_b_email_lower",
    }
    assert {index["Projection"]["ProjectionType"] for index in indexes} == {"KEYS_ONLY"}


def test_a_beacon_without_a_length_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="length"):

        class _Lacking(PhiModel, table="t"):
            patient_id: PartitionKey[str]
            mrn: Searchable[str]
