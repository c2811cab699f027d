"""A synthetic patient bundle in the shape of FHIR R4. Nobody in it exists."""

from __future__ import annotations

import json
import random
from typing import Any

_GIVEN = ("Ada", "Bela", "Chidi", "Dalia", "Emre", "Freya", "Goro", "Hana", "Ivo", "Jun")
_FAMILY = ("Example", "Sample", "Specimen", "Placeholder", "Testcase")
_OBSERVATIONS = (
    ("718-7", "Hemoglobin", "g/dL", 11.0, 17.5),
    ("2345-7", "Glucose", "mg/dL", 70.0, 190.0),
    ("8867-4", "Heart rate", "/min", 52.0, 110.0),
)


def patient_bundle(patients: int = 8) -> bytes:
    """A FHIR Bundle of patients and observations as JSON; the same for the same count."""
    source = random.Random(20_240_229)  # noqa: S311 - invented people, no secrets
    entries: list[dict[str, Any]] = []
    for number in range(1, patients + 1):
        entries.append({"resource": _patient(number, source)})
        entries += [{"resource": _observation(number, index, source)} for index in range(len(_OBSERVATIONS))]
    bundle = {"resourceType": "Bundle", "type": "collection", "total": len(entries), "entry": entries}
    return json.dumps(bundle, indent=1, ensure_ascii=False).encode()


def _patient(number: int, source: random.Random) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "id": f"patient-{number}",
        "identifier": [{"system": "urn:example:mrn", "value": f"MRN-{900_000 + number}"}],
        "name": [{"family": source.choice(_FAMILY), "given": [source.choice(_GIVEN)]}],
        "gender": source.choice(("female", "male", "other")),
        "birthDate": f"{source.randint(1935, 2015)}-{source.randint(1, 12):02}-{source.randint(1, 28):02}",
    }


def _observation(number: int, index: int, source: random.Random) -> dict[str, Any]:
    code, name, unit, low, high = _OBSERVATIONS[index]
    return {
        "resourceType": "Observation",
        "id": f"observation-{number}-{index}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": name}]},
        "subject": {"reference": f"Patient/patient-{number}"},
        "valueQuantity": {"value": round(source.uniform(low, high), 1), "unit": unit},
    }
