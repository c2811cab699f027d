"""FHIR AuditEvent, R4 and R5, by the patterns of IHE's Basic Audit Log Patterns.

A resource stands as its token, never as a patient: phicrypt knows none. So these are base AuditEvents, not the
patient profiles.
"""

from __future__ import annotations

import re
from typing import Any, Final

from phicrypt.audit.events import AuditEvent, Kind, Outcome, format_time
from phicrypt.evidence.exports.words import BREAK_GLASS, PRODUCT, purpose_code, request_ids, verb_of
from phicrypt.evidence.log_lines import Record

_DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_TERMS: Final = "http://terminology.hl7.org/CodeSystem"
_OUTCOMES: Final = {Outcome.SUCCESS: "0", Outcome.DENIED: "4", Outcome.FAILED: "8", Outcome.INTERRUPTED: "8"}
_GLASS: Final = {
    Kind.BREAK_GLASS_OPEN: ("110127", "Emergency Override Started"),
    Kind.BREAK_GLASS_CLOSE: ("110138", "Emergency Override Stopped"),
}
_NO_ID: Final = re.compile(r"[^A-Za-z0-9.-]")


def audit_event_r4(record: Record, event: AuditEvent) -> dict[str, Any]:
    """One event as an R4 AuditEvent."""
    document: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": _NO_ID.sub("-", f"{event.use_id}-{event.kind}")[-64:],
        **_kind_of(event),
        "recorded": _instant(event.time_ns),
        "outcome": _OUTCOMES.get(event.outcome, "12"),
        "agent": _agents(event),
        "source": {
            "site": record.chain_id,
            "observer": {"display": event.application or PRODUCT},
            "type": [{"system": f"{_TERMS}/security-source-type", "code": "4"}],
        },
        "entity": _entities(record, event),
    }
    reason = "no end record" if event.outcome == Outcome.BEGUN else event.reason or event.error
    if reason:
        document["outcomeDesc"] = reason
    if event.duration_us:
        # An end is recorded when the use was over.
        start = event.time_ns - event.duration_us * 1_000
        document["period"] = {"start": _instant(start), "end": _instant(event.time_ns)}
    if purpose_code(event):
        document["purposeOfEvent"] = [_purpose(event)]
    return document


def _kind_of(event: AuditEvent) -> dict[str, Any]:
    if event.kind in BREAK_GLASS:
        code, display = _GLASS.get(event.kind, ("", ""))
        subtype = {"system": _DCM, "code": code, "display": display} if code else _operation(event)
        kind = {"system": _DCM, "code": "110113", "display": "Security Alert"}
        return {"type": kind, "subtype": [subtype], "action": "E"}
    verb = verb_of(event)
    action = "R" if verb == "decrypt" else "U" if "update" in event.operation else "C"
    kind = {"system": f"{_TERMS}/iso-21089-lifecycle", "code": verb}
    return {"type": kind, "subtype": [_operation(event)], "action": action}


def _operation(event: AuditEvent) -> dict[str, str]:
    return {"system": "urn:phicrypt:operation", "code": event.operation}


def _purpose(event: AuditEvent) -> dict[str, Any]:
    return {"coding": [{"system": f"{_TERMS}/v3-ActReason", "code": purpose_code(event)}]}


def _agents(event: AuditEvent) -> list[dict[str, Any]]:
    user: dict[str, Any] = {
        "type": {"coding": [{"system": f"{_TERMS}/v3-ParticipationType", "code": "IRCP"}]},
        "who": _identifier("actor", event.actor) if event.actor else {"display": "nobody named"},
        "requestor": True,
    }
    if purpose_code(event):
        user["purposeOfUse"] = [_purpose(event)]
    program: dict[str, Any] = {
        "type": {"coding": [{"system": _DCM, "code": "110150", "display": "Application"}]},
        "who": _identifier("application", event.application or PRODUCT),
        "requestor": False,
    }
    if event.principal:
        program["altId"] = event.principal
    recipient = {
        "type": {"coding": [{"system": _DCM, "code": "110152", "display": "Destination Role ID"}]},
        "who": _identifier("recipient", event.recipient or ""),
        "requestor": False,
    }
    return [user, program, *([recipient] if event.recipient else ())]


def _entities(record: Record, event: AuditEvent) -> list[dict[str, Any]]:
    found = []
    context = [(f"context.{name}", value) for name, value in (event.context or {}).items() if name and value]
    if event.resource or context:
        what = _identifier("resource-token", event.resource) if event.resource else {"display": "message"}
        found.append({**_entity("2", "4", what), "detail": _details(context)})
    facts = [("chain-sequence", str(record.sequence)), ("chain-sha256", record.sha256)]
    facts += [("kms-request-id", one) for one in request_ids(event)]
    for name, value in (("cache-hit", event.cache_hit), ("bytes", event.byte_count), ("suite", event.suite_id)):
        if value is not None:
            facts.append((name, str(value).lower()))
    key = _identifier("key", event.origin.key_id) if event.origin is not None else {"display": "no key"}
    found.append({**_entity("2", "13", key), "detail": _details(facts)})
    if event.origin is not None and event.origin.correlation_id:
        kind = {
            "system": "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType",
            "code": "XrequestId",
        }
        found.append({"type": kind, "what": _identifier("correlation-id", event.origin.correlation_id)})
    return [{name: value for name, value in entity.items() if value} for entity in found]


def _entity(kind: str, role: str, what: dict[str, Any]) -> dict[str, Any]:
    return {
        "what": what,
        "type": {"system": f"{_TERMS}/audit-entity-type", "code": kind},
        "role": {"system": f"{_TERMS}/object-role", "code": role},
    }


def _details(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"type": name, "valueString": value} for name, value in pairs]


def _identifier(kind: str, value: str) -> dict[str, Any]:
    return {"identifier": {"system": f"urn:phicrypt:{kind}", "value": value}}


def _instant(time_ns: int) -> str:
    return format_time(max(0, time_ns))


_SEVERITY: Final = {"0": "success", "4": "warning", "8": "error", "12": "fatal"}


def audit_event_r5(record: Record, event: AuditEvent) -> dict[str, Any]:
    """One event as an R5 AuditEvent: the same facts under R5's names."""
    r4 = audit_event_r4(record, event)
    outcome: dict[str, Any] = {
        "code": {"system": "http://hl7.org/fhir/issue-severity", "code": _SEVERITY[r4["outcome"]]}
    }
    if "outcomeDesc" in r4:
        outcome["detail"] = [{"text": r4["outcomeDesc"]}]
    document = {
        "resourceType": "AuditEvent",
        "id": r4["id"],
        "category": [{"coding": [r4["type"]]}],
        "code": {"coding": r4["subtype"]},
        "action": r4["action"],
        "recorded": r4["recorded"],
        "outcome": outcome,
        "agent": [_agent_r5(agent) for agent in r4["agent"]],
        "source": {
            "site": {"display": r4["source"]["site"]},
            "observer": r4["source"]["observer"],
            "type": [{"coding": r4["source"]["type"]}],
        },
        "entity": [_entity_r5(entity) for entity in r4["entity"]],
    }
    if "period" in r4:
        document["occurredPeriod"] = r4["period"]
    if "purposeOfEvent" in r4:
        document["authorization"] = r4["purposeOfEvent"]
    return document


def _agent_r5(agent: dict[str, Any]) -> dict[str, Any]:
    moved = {"type": agent["type"], "who": dict(agent["who"]), "requestor": agent["requestor"]}
    if "purposeOfUse" in agent:
        moved["authorization"] = agent["purposeOfUse"]
    if "altId" in agent:
        moved["who"]["display"] = agent["altId"]
    return moved


def _entity_r5(entity: dict[str, Any]) -> dict[str, Any]:
    moved: dict[str, Any] = {"what": entity["what"]}
    if "role" in entity:
        moved["role"] = {"coding": [entity["role"]]}
    if "detail" in entity:
        moved["detail"] = [
            {"type": {"text": one["type"]}, "valueString": one["valueString"]} for one in entity["detail"]
        ]
    return moved
