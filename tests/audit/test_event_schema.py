"""The published schema describes what is written: every field of every kind of record, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from phicrypt.audit import AuditEvent, AuditTrail, JsonlSink, Purpose, acting_as
from phicrypt.audit.events import Kind, Outcome
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.errors import AuthenticationError
from phicrypt.witness import ResourceTokens

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "audit-event.schema.json").read_text())


def check(value: Any, schema: dict[str, Any], where: str = "record") -> None:
    """The part of JSON Schema that the published one uses."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    kinds = {"object": dict, "string": str, "integer": int, "boolean": bool, "array": list}
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), where
    if "const" in schema:
        assert value == schema["const"], where
    if "enum" in schema:
        assert value in schema["enum"], where
    if "pattern" in schema:
        assert re.search(schema["pattern"], value), where
    if "minimum" in schema:
        assert value >= schema["minimum"], where
    for name in schema.get("required", ()):
        assert name in value, f"{where} lacks {name}"
    if isinstance(value, dict):
        extra = schema.get("additionalProperties", True)
        for name, member in value.items():
            if name in schema.get("properties", {}):
                check(member, schema["properties"][name], f"{where}.{name}")
            else:
                assert extra is not False, f"{where} has the unknown field {name}"
                if isinstance(extra, dict):
                    check(member, extra, f"{where}.{name}")
    if isinstance(value, list) and "items" in schema:
        for member in value:
            check(member, schema["items"], f"{where}[]")


@pytest.fixture
def lines(tmp_path: Path) -> list[dict[str, Any]]:
    trail = AuditTrail(
        [JsonlSink(tmp_path / "audit.jsonl")],
        application="portal",
        principal="arn:aws:iam::111122223333:role/Portal",
        resource_tokens=ResourceTokens({"k1": bytes(32)}),
    )
    refused = KeyOrigin(
        "aws-kms", "arn", "material-0", ("r0",), "d" * 32, operation="Decrypt", error_code="AccessDenied"
    )
    origin = KeyOrigin(
        *("aws-kms", "arn", "material", ("r1", "r2"), "c" * 32),
        operation="Decrypt",
        other_calls=(refused,),
        unanswered_attempts=1,
    )
    with acting_as("dr-1", Purpose.DISCLOSURE, recipient="authority", break_glass="g-1"):
        use = trail.begin(
            "decrypt",
            format="esdk",
            suite_id=0x0478,
            message_id=b"\x01\x02",
            resource=("s3", "b", "k"),
            context={"a": "b"},
            required_names=("patient",),
        )
        use.end(origin=origin, cache_hit=False, byte_count=7)
        trail.begin("decrypt").end(error=AuthenticationError("frame tag"))
        trail.record("encrypt", opening=True)
    trail.write(AuditEvent(1, Kind.ANCHOR, "x", "audit.anchor", Outcome.SUCCESS, detail={"sequence": 1}))
    return [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]


def test_every_record_fits_the_published_schema(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        check(line, SCHEMA)


def test_every_field_of_the_schema_is_written(lines: list[dict[str, Any]]) -> None:
    written = {name for line in lines for name in line["event"]}
    assert written | {"kms_error"} == set(SCHEMA["$defs"]["event"]["properties"])


def test_events_survive_the_way_through_json(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        event = AuditEvent.from_dict(line["event"])
        assert json.loads(event.to_json()) == line["event"]


@pytest.mark.parametrize("missing", ["time", "kind", "use_id", "operation", "outcome"])
def test_an_event_without_what_it_needs_is_refused(lines: list[dict[str, Any]], missing: str) -> None:
    fields = dict(lines[1]["event"])
    del fields[missing]
    with pytest.raises((KeyError, ValueError)):
        AuditEvent.from_dict(fields)
