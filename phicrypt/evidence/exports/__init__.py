"""Audit events in the formats that others read: FHIR AuditEvent, OCSF and the Elastic Common Schema.

::

    for document in exported(read_records("audit.jsonl"), "ocsf"):
        print(json.dumps(document))

One document for each use (its end record; the begin of one that has no end), and for the opening, closing and
review of break-glass. Anchors and the starts of chains are of the log itself, and are not exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from phicrypt.audit.events import AuditEvent, Kind
from phicrypt.errors import ConfigurationError
from phicrypt.evidence.exports.ecs import ecs_document
from phicrypt.evidence.exports.fhir import audit_event_r4, audit_event_r5
from phicrypt.evidence.exports.ocsf import ocsf_event
from phicrypt.evidence.exports.patients import with_patient
from phicrypt.evidence.log_lines import LogReading, Record

FORMATS: Final[dict[str, Callable[[Record, AuditEvent], dict[str, Any]]]] = {
    "fhir": audit_event_r4,
    "fhir-r5": audit_event_r5,
    "ocsf": ocsf_event,
    "ecs": ecs_document,
}
_OF_THE_LOG: Final = (Kind.ANCHOR, Kind.CHAIN_START)
_MAX_REMEMBERED: Final = 10_000


def exported(
    records: Iterable[Record],
    name: str,
    reading: LogReading | None = None,
    *,
    patients: Mapping[str, str] | None = None,
) -> Iterator[dict[str, Any]]:
    """The documents of a log, in its order; records that hold no event are counted in ``reading``.

    ``patients`` are references by resource token (:func:`phicrypt.evidence.exports.patients.read_patient_map`),
    for the format ``fhir``. Raises ConfigurationError for a format that is not known, and patients for another.
    """
    if name not in FORMATS:
        raise ConfigurationError(f"a format is one of {', '.join(FORMATS)}")
    if patients is not None and name != "fhir":
        raise ConfigurationError("a patient map is for --format fhir: IHE's disclosure profile is of FHIR R4")
    write = FORMATS[name]
    if patients is not None:
        write = partial(_with_patient, patients)
    begun: dict[str, tuple[Record, AuditEvent]] = {}
    recent: dict[str, None] = {}
    for record in records:
        try:
            event = record.event()
        except (ValueError, KeyError, TypeError):
            if reading is not None:
                reading.add_unread(record.place)
            continue
        if event.kind == Kind.BEGIN:
            begun[event.use_id] = (record, event)
        elif event.kind not in _OF_THE_LOG:
            begun.pop(event.use_id, None)
            if event.use_id not in recent:  # written twice after an interruption
                yield write(record, event)
            recent[event.use_id] = None
            if len(recent) > _MAX_REMEMBERED:
                del recent[next(iter(recent))]
    yield from (write(record, event) for record, event in begun.values())


def _with_patient(patients: Mapping[str, str], record: Record, event: AuditEvent) -> dict[str, Any]:
    return with_patient(audit_event_r4(record, event), event, patients)
