"""Exports: FHIR R4 and R5, OCSF and ECS, validated by others' schemas where they are installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phicrypt.audit import AuditTrail, JsonlSink, acting_as
from phicrypt.audit.events import AuditEvent, Purpose
from phicrypt.cli import run
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.errors import ConfigurationError
from phicrypt.evidence.exports import FORMATS, exported
from phicrypt.evidence.exports.patients import DISCLOSURE_PROFILE
from phicrypt.evidence.log_lines import LogReading, read_records

KEY_ARN = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ORIGIN = KeyOrigin("aws-kms", KEY_ARN, None, ("r-1", "r-2"), "c" * 32, operation="Decrypt")
BASE = AuditEvent(
    1_769_821_200_123_456_000,
    "use",
    "u-0",
    "encrypt",
    "success",
    format="esdk",
    suite_id=0x0478,
    origin=ORIGIN,
    cache_hit=False,
    context={"tenant": "clinic-7"},
    actor="dr-1",
    purpose="treatment",
    application="portal",
    principal="arn:aws:iam::111122223333:role/Portal",
    byte_count=5,
    duration_us=1_500,
)
SAMPLES = {
    "message": BASE,
    "read": BASE._replace(kind="end", operation="s3.get_object", resource="rt1-k1-abc"),
    "write": BASE._replace(operation="s3.put_object", resource="rt1-k1-abc"),
    "item": BASE._replace(operation="dynamodb.update_encrypted", format="dbesdk", resource="rt1-k1-def"),
    "items read": BASE._replace(kind="end", operation="dynamodb.query", format="dbesdk", resource="rt1-k1-def"),
    "denied": BASE._replace(
        kind="end", operation="decrypt", outcome="denied", error="KeyAccessError", reason="AccessDeniedException"
    ),
    "no end": BASE._replace(kind="begin", operation="s3.get_object", outcome="begun", resource="rt1-k1-abc"),
    "disclosure": BASE._replace(kind="end", operation="decrypt", purpose="public-health", recipient="authority"),
    "bare": AuditEvent(1_769_821_200 * 10**9, "use", "u", "sign", "success"),
    "glass open": BASE._replace(kind="break-glass-open", operation="break_glass", break_glass="g-1", origin=None),
    "glass close": BASE._replace(
        kind="break-glass-close", operation="break_glass", break_glass="g-1", origin=None
    ),
    "glass review": BASE._replace(
        kind="break-glass-review", operation="break_glass", break_glass="g-1", origin=None
    ),
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "audit.jsonl"
    sink = JsonlSink(path)
    sink.write([event._replace(use_id=f"use-{number}") for number, event in enumerate(SAMPLES.values())])
    sink.close()
    return path


@pytest.fixture(scope="module")
def documents(log: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """By format, and by the name of the sample."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    names = [*(name for name in SAMPLES if name != "no end"), "no end"]  # found out at the end of the log
    for name in FORMATS:
        found[name] = dict(zip(names, exported(read_records(log), name), strict=True))
    return found


def test_fhir_documents_are_what_the_specification_says(documents: dict[str, dict[str, dict[str, Any]]]) -> None:
    r4 = pytest.importorskip("fhir.resources.R4B.auditevent", reason="fhir.resources is not installed")
    r5 = pytest.importorskip("fhir.resources.auditevent")
    for document in documents["fhir"].values():
        r4.AuditEvent.model_validate(document)
    for document in documents["fhir-r5"].values():
        r5.AuditEvent.model_validate(document)


def test_ocsf_events_fit_their_classes(documents: dict[str, dict[str, dict[str, Any]]]) -> None:
    schemas = pytest.importorskip("ocsf_json_schema", reason="ocsf-json-schema is not installed")
    jsonschema = pytest.importorskip("jsonschema")
    names = {6005: "datastore_activity", 6003: "api_activity", 3005: "user_access"}
    embedded = schemas.OcsfJsonSchemaEmbedded(schemas.get_ocsf_schema("1.5.0"))
    for name, document in documents["ocsf"].items():
        schema = embedded.get_class_schema(class_name=names[document["class_uid"]], profiles=["cloud"])
        errors = [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]
        assert errors == [], name


def test_what_each_use_becomes(documents: dict[str, dict[str, dict[str, Any]]]) -> None:
    fhir, ocsf, ecs = documents["fhir"], documents["ocsf"], documents["ecs"]
    assert {name: (one["type"]["code"], one["action"], one["outcome"]) for name, one in fhir.items()} == {
        "message": ("encrypt", "C", "0"),
        "read": ("decrypt", "R", "0"),
        "write": ("encrypt", "C", "0"),
        "item": ("encrypt", "U", "0"),
        "items read": ("decrypt", "R", "0"),
        "denied": ("decrypt", "R", "4"),
        "no end": ("decrypt", "R", "12"),
        "disclosure": ("decrypt", "R", "0"),
        "bare": ("decrypt", "R", "0"),
        "glass open": ("110113", "E", "0"),
        "glass close": ("110113", "E", "0"),
        "glass review": ("110113", "E", "0"),
    }
    assert {name: one["type_uid"] for name, one in ocsf.items()} == {
        "message": 600399,
        "read": 600510,
        "write": 600509,
        "item": 600509,
        "items read": 600510,
        "denied": 600399,
        "no end": 600510,
        "disclosure": 600399,
        "bare": 600399,
        "glass open": 300501,
        "glass close": 300502,
        "glass review": 300599,
    }
    assert [one["subtype"][0]["code"] for one in (fhir["glass open"], fhir["glass close"])] == ["110127", "110138"]
    assert fhir["glass open"]["purposeOfEvent"][0]["coding"][0]["code"] == "BTG"
    assert fhir["disclosure"]["purposeOfEvent"][0]["coding"][0]["code"] == "PUBHLTH"
    assert {entity.get("role", {}).get("code") for entity in fhir["read"]["entity"]} == {"4", "13", None}
    assert fhir["read"]["agent"][1]["type"]["coding"][0]["code"] == "110150"
    assert ocsf["read"]["api"]["request"]["uid"] == "r-2"
    assert (ecs["no end"]["event"]["outcome"], ecs["denied"]["event"]["outcome"]) == ("unknown", "failure")
    assert ecs["item"]["event"]["type"] == ["change"]
    assert ecs["read"]["related"]["hash"] == ["rt1-k1-abc"]


TOKEN = "rt1-k1-" + "ab" * 16
DISCLOSED = BASE._replace(
    kind="end", operation="s3.get_object", purpose="public-health", recipient="health authority", resource=TOKEN
)


def exported_with(patients: dict[str, str], event: AuditEvent, folder: Path) -> dict[str, Any]:
    sink = JsonlSink(folder / "audit.jsonl")
    sink.write([event])
    sink.close()
    (document,) = exported(read_records(folder / "audit.jsonl"), "fhir", patients=patients)
    return document


def test_a_disclosure_of_a_mapped_resource_is_in_ihes_profile(tmp_path: Path) -> None:
    """The constraints of IHE.BasicAudit.PrivacyDisclosure.Source, one by one."""
    document = exported_with({TOKEN: "Patient/4711"}, DISCLOSED, tmp_path)
    assert document["meta"]["profile"] == [DISCLOSURE_PROFILE]
    assert (document["type"]["code"], document["action"], document["outcome"]) == ("110106", "R", "0")
    assert [one["code"] for one in document["subtype"]] == ["disclose", "s3.get_object"]
    agents = {agent["type"]["coding"][0]["code"]: agent for agent in document["agent"]}
    assert len(agents) == len(document["agent"]) == 4
    assert agents["110153"]["who"] == document["source"]["observer"]
    assert agents["110153"]["network"] == {"address": "portal", "type": "1"}
    assert agents["110152"]["who"]["identifier"]["value"] == "health authority"
    assert agents["110152"]["network"] == {"address": "urn:phicrypt:recipient:health%20authority", "type": "5"}
    patients = [entity for entity in document["entity"] if entity.get("type", {}).get("code") == "1"]
    assert [(one["what"], one["role"]["code"]) for one in patients] == [({"reference": "Patient/4711"}, "1")]
    assert len(document["entity"]) >= 2
    r4 = pytest.importorskip("fhir.resources.R4B.auditevent", reason="fhir.resources is not installed")
    r4.AuditEvent.model_validate(document)


@pytest.mark.parametrize(
    "event",
    [
        DISCLOSED._replace(purpose="treatment"),
        DISCLOSED._replace(recipient=None),
        DISCLOSED._replace(outcome="denied"),
        DISCLOSED._replace(kind="use", operation="s3.put_object"),
    ],
    ids=["treatment", "nobody named", "refused", "sealed"],
)
def test_what_is_no_disclosure_names_the_patient_and_no_profile(event: AuditEvent, tmp_path: Path) -> None:
    document = exported_with({TOKEN: "https://fhir.example.org/r4/Patient/4711"}, event, tmp_path)
    assert "meta" not in document
    assert document["entity"][0]["what"] == {"reference": "https://fhir.example.org/r4/Patient/4711"}
    (tmp_path / "again").mkdir()
    unmapped = exported_with({TOKEN[:-1] + "c": "Patient/1"}, event, tmp_path / "again")
    assert "Patient" not in json.dumps(unmapped)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{",
        b'{"rt1-k1-x": "Patient/1"}',
        json.dumps({TOKEN: "Person/jane-doe"}).encode(),
        json.dumps({TOKEN: "Patient/jane doe"}).encode(),
        json.dumps({TOKEN: 5}).encode(),
        f'{{"{TOKEN}": "Patient/1", "{TOKEN}": "Patient/2"}}'.encode(),
    ],
)
def test_a_patient_map_is_read_strictly_and_never_quoted(
    content: bytes, log: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "map.json").write_bytes(content)
    command = [
        "audit",
        "export",
        "--log",
        str(log),
        "--format",
        "fhir",
        "--patient-map",
        str(tmp_path / "map.json"),
    ]
    assert run(command) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert not any(part in captured.err for part in ("jane", "Patient/1", TOKEN))


def test_a_patient_map_is_for_fhir_alone(log: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "map.json").write_text(json.dumps({"rt1-k1-" + "0" * 32: "Patient/1"}))
    option = ("--patient-map", str(tmp_path / "map.json"))
    assert run(["audit", "export", "--log", str(log), "--format", "fhir", *option]) == 0
    assert run(["audit", "export", "--log", str(log), "--format", "ocsf", *option]) == 2


def test_every_purpose_but_plain_disclosure_has_hl7s_code() -> None:
    from phicrypt.evidence.exports.words import PURPOSE_CODES

    assert set(PURPOSE_CODES) == {purpose.value for purpose in Purpose} - {"disclosure"}
    for name, code in PURPOSE_CODES.items():
        assert Purpose(code) == name


def test_a_log_whose_chain_does_not_hold_is_not_exported(
    log: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "export", "--log", str(log), "--format", "ecs"]) == 0
    whole = capfd.readouterr().out.splitlines()
    assert len(whole) == len(SAMPLES)
    assert json.loads(whole[0])["event"]["id"] == "use-0-use"
    path = tmp_path / "audit.jsonl"
    path.write_bytes(log.read_bytes().replace(b"dr-1", b"dr-2", 1) + b"garbage\n")
    assert run(["audit", "export", "--log", str(path), "--format", "ecs"]) == 1
    assert capfd.readouterr().out == ""
    assert run(["audit", "export", "--log", str(path), "--format", "ecs", "--unverified"]) == 12
    assert len(capfd.readouterr().out.splitlines()) == len(SAMPLES)
    assert run(["audit", "export", "--log", str(path), "--format", "xml", "--unverified"]) == 2


def test_pairs_are_one_document_and_lines_without_event_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    trail = AuditTrail([JsonlSink(path)])
    with acting_as("dr-1", "TREAT"):
        trail.begin("decrypt").end()
    trail.close()
    assert [one["event"]["id"].rpartition("-")[2] for one in exported(read_records(path), "ecs")] == ["end"]
    sink = JsonlSink(path)
    sink.write([BASE._replace(actor=5)])  # type: ignore[arg-type]
    sink.close()
    reading = LogReading()
    assert len(list(exported(read_records(path, reading), "fhir", reading))) == 1
    assert reading.unread == 1
    with pytest.raises(ConfigurationError):
        list(exported([], "xml"))
