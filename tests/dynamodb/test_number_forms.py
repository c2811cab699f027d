"""Numbers in every form that DynamoDB takes, through every way in and out: exact, or refused in words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from support.dynamodb_support import Server, key, open_clinic, patient_config

from phicrypt import PhiCrypt
from phicrypt.dynamodb import Action
from phicrypt.dynamodb.shapes import to_low_level, to_python, with_exponents, without_last_zeros
from phicrypt.errors import ConfigurationError, FormatError
from phicrypt.formats.dbesdk.numbers import exponent_form

FORMS: list[Any] = [
    *(Decimal(text) for text in ("1E+38", "-12E+100", "9.9999999999999999999999999999999999999E+125", "1E-130")),
    *(
        Decimal(text)
        for text in ("0", "-0.0", "0E-30", "1.50", "100", "00012.3400", "-1E-7", "12345678901234567890")
    ),
    *(10**38, -(10**125), 12 * 10**60, 10**37, 7, Decimal(10**38), Decimal("1" + "0" * 45 + ".000")),
]
"""As Python writes them; the last ones have more than 38 digits, of which the last are zeros."""


def values_of_every_form() -> dict[str, Any]:
    return {
        "each": list(FORMS),
        "set": {*FORMS},
        "inner": {"largest": 10**125, "deep": [[{"n": Decimal("1E+38")}]]},
    }


@pytest.mark.parametrize("attribute", ["name", "conditions", "note"])
@pytest.mark.parametrize("way", ["resource", "attached resource", "attached table"])
def test_every_form_is_exact_through_a_resource_whoever_made_it(
    moto: Server, phi: PhiCrypt, attribute: str, way: str
) -> None:
    actions = {**patient_config("patients").actions, "conditions": Action.SIGN_ONLY}
    clinic = open_clinic(moto, phi, actions=actions)
    resource = clinic.resource
    if way != "resource":
        resource = moto.session().resource("dynamodb", endpoint_url=moto.endpoint_url)
        client = resource.meta.client if way == "attached resource" else resource.Table(clinic.name).meta.client
        phi.dynamodb.attach(client, tables=[clinic.config])
    table = resource.Table(clinic.name)
    item = {"patient_id": "p-1", "visit": Decimal(1), "clinic": "north", attribute: values_of_every_form()}
    table.put_item(Item=item)
    assert table.get_item(Key={"patient_id": "p-1", "visit": 1})["Item"] == item
    assert table.scan()["Items"] == [item]
    assert resource.batch_get_item(RequestItems={clinic.name: {"Keys": [{"patient_id": "p-1", "visit": 1}]}})[
        "Responses"
    ][clinic.name] == [item]
    low_level = clinic.client.get_item(TableName=clinic.name, Key=key())["Item"]
    assert [Decimal(one["N"]) for one in low_level[attribute]["M"]["each"]["L"]] == FORMS
    sealed = phi.dynamodb.encrypt_item(item, clinic.config)
    assert phi.dynamodb.decrypt_item(sealed, clinic.config) == item


def test_every_form_is_exact_in_an_update_of_python_values(moto: Server, phi: PhiCrypt) -> None:
    clinic = open_clinic(moto, phi)
    clinic.table.put_item(Item={"patient_id": "p-1", "visit": 10**37, "name": "x"})
    changed = clinic.table.update_encrypted(
        Key={"patient_id": "p-1", "visit": Decimal("1E+37")},
        change=lambda draft: draft | {"name": values_of_every_form()},
    )
    assert changed["name"] == values_of_every_form()
    found = clinic.table.get_item(Key={"patient_id": "p-1", "visit": 10**37})["Item"]
    assert found["name"] == values_of_every_form()


def test_maps_with_one_member_keep_it_whatever_its_name_is(moto: Server, phi: PhiCrypt) -> None:
    """A member called NS or N is no type tag; a resource's answers are walked without a schema."""
    clinic = open_clinic(moto, phi)
    maps = {name: {name: {"x": Decimal("1E+38")}} for name in ("NS", "N", "M", "L", "S", "BS", "")}
    texts = {name: {name: "text"} for name in ("NS", "N", "M")}
    item = {"patient_id": "p-1", "visit": Decimal(1), "name": {"maps": maps, "texts": texts}}
    clinic.table.put_item(Item=item)
    assert clinic.table.get_item(Key={"patient_id": "p-1", "visit": 1})["Item"] == item
    for value in (maps, texts):
        assert to_python(to_low_level({"a": value})["a"]) == value


@pytest.mark.parametrize(
    "text",
    ["", "abc", "NaN", "Infinity", "1" * 39, "1." + "0" * 38 + "1", "1E+126", "1e-131", "1 ", "--1", "\u0661"],
)
def test_texts_that_are_no_numbers_of_dynamodbs_are_format_errors(text: str) -> None:
    for value in ({"N": text}, {"NS": ["1", text]}, {"M": {"inner": {"L": [{"N": text}]}}}):
        with pytest.raises(FormatError) as caught:
            to_python(value)
        assert caught.value.__context__ is None
        with pytest.raises(FormatError):
            with_exponents({"Item": {"a": value}})


@pytest.mark.parametrize("number", [10**126, 10**38 + 1, Decimal("1E+126"), Decimal("1." + "0" * 38 + "1"), 1.5])
def test_numbers_that_dynamodb_does_not_keep_are_refused_and_not_rounded(phi: PhiCrypt, number: Any) -> None:
    for value in (number, {number}, [{"inner": number}]):
        with pytest.raises((ConfigurationError, FormatError)):
            phi.dynamodb.encrypt_item({"patient_id": "p", "visit": 1, "name": value}, patient_config("patients"))


def test_other_values_are_left_as_they_are() -> None:
    for value in (True, "1" * 50, b"1" * 50, None, 7, Decimal("0.1"), (1, 2), frozenset({1})):
        assert without_last_zeros(value) is value or without_last_zeros(value) == value
        assert type(without_last_zeros(value)) is type(value)
    assert without_last_zeros(Decimal("NaN")).is_nan()
    assert exponent_form("007.50") == "007.50"
