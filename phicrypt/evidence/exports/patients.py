"""Patients in an export: a customer's own map from resource tokens to patients, and IHE's disclosure profile.

::

    patients = read_patient_map("patients.json")      # {"rt1-k1-0123…": "Patient/4711"}
    for document in exported(read_records("audit.jsonl"), "fhir", patients=patients): …

phicrypt knows resources by their tokens and no patients. Whoever keeps such a map gets each patient as an entity,
and for what was disclosed to a named recipient IHE BALP's *Privacy Disclosure at Source*
(``IHE.BasicAudit.PrivacyDisclosure.Source``, FHIR R4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from phicrypt.audit.events import AuditEvent
from phicrypt.core.strict_json import parse_json
from phicrypt.errors import ConfigurationError, FormatError
from phicrypt.evidence.questions import is_disclosure

DISCLOSURE_PROFILE: Final = (
    "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.PrivacyDisclosure.Source"
)
_MAX_MAP_BYTES: Final = 128 * 2**20
_REFERENCE: Final = re.compile(r"(?:https?://[^\s/]{1,255}(?:/[^\s/]{1,64}){0,8}/)?Patient/[A-Za-z0-9.-]{1,64}")
_TOKEN: Final = re.compile(r"rt1-[A-Za-z0-9]{1,64}-[0-9a-f]{32}")
_DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_TERMS: Final = "http://terminology.hl7.org/CodeSystem"
_MACHINE_NAME, _URI = "1", "5"


def read_patient_map(path: str | Path) -> dict[str, str]:
    """Patient references by resource token: ``{"rt1-…": "Patient/4711"}``, or with the server's address.

    Raises ConfigurationError for anything else, without naming a token or a patient; OSError.
    """
    with open(path, "rb") as file:
        content = file.read(_MAX_MAP_BYTES + 1)
    try:
        members = parse_json(content, field="patient map", max_bytes=_MAX_MAP_BYTES)
    except FormatError as error:
        raise ConfigurationError(f"the patient map is no JSON object: {error}") from None
    if not isinstance(members, dict):
        raise ConfigurationError("the patient map is a JSON object of references by resource token")
    for number, (token, reference) in enumerate(members.items(), 1):
        if _TOKEN.fullmatch(token) is None:
            raise ConfigurationError(f"entry {number} of the patient map: a resource token (rt1-…) was expected")
        if not isinstance(reference, str) or _REFERENCE.fullmatch(reference) is None:
            raise ConfigurationError(f"entry {number} of the patient map: Patient/ID was expected, or its address")
    return members


def with_patient(document: dict[str, Any], event: AuditEvent, patients: Mapping[str, str]) -> dict[str, Any]:
    """An R4 AuditEvent with the patient whose resource it is about, as a disclosure where it is one."""
    reference = patients.get(event.resource or "")
    if reference is None:
        return document
    entity = {
        "what": {"reference": reference},
        "type": {"system": f"{_TERMS}/audit-entity-type", "code": "1"},
        "role": {"system": f"{_TERMS}/object-role", "code": "1"},
    }
    document = document | {"entity": [entity, *document["entity"]]}
    return _disclosed(document, event.recipient) if event.recipient and is_disclosure(event) else document


def _disclosed(document: dict[str, Any], recipient: str) -> dict[str, Any]:
    source = document["source"]["observer"]
    others = [agent for agent in document["agent"] if agent["type"]["coding"][0]["code"] != "110152"]
    released = {
        "type": {"coding": [{"system": _DCM, "code": "110153", "display": "Source Role ID"}]},
        "who": source,
        "requestor": False,
        "network": {"address": source["display"], "type": _MACHINE_NAME},
    }
    received = {
        "type": {"coding": [{"system": _DCM, "code": "110152", "display": "Destination Role ID"}]},
        "who": {"identifier": {"system": "urn:phicrypt:recipient", "value": recipient}},
        "requestor": False,
        # The log knows the recipient by the name that acting_as was given, and no address.
        "network": {"address": f"urn:phicrypt:recipient:{quote(recipient, safe='')}", "type": _URI},
    }
    disclose = {
        "system": f"{_TERMS}/iso-21089-lifecycle",
        "code": "disclose",
        "display": "Disclose Record Lifecycle Event",
    }
    return {
        **document,
        "meta": {"profile": [DISCLOSURE_PROFILE]},
        "type": {"system": _DCM, "code": "110106", "display": "Export"},
        "subtype": [disclose, *document["subtype"]],
        "action": "R",
        "agent": [released, received, *others],
    }
