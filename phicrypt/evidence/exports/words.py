"""What the export formats have in common: which way a use went, and HL7's code of its purpose."""

from __future__ import annotations

from typing import Final

from phicrypt.audit.events import AuditEvent, Kind
from phicrypt.evidence.questions import opens

PRODUCT: Final = "phicrypt"
PURPOSE_CODES: Final = {
    "treatment": "TREAT",
    "emergency": "ETREAT",
    "payment": "HPAYMT",
    "operations": "HOPERAT",
    "research": "HRESCH",
    "patient-request": "PATRQT",
    "legal": "HLEGAL",
    "maintenance": "HSYSADMIN",
    "public-health": "PUBHLTH",
}
"""HL7 v3-ActReason; a plain disclosure has none, its kind says it."""
BREAK_GLASS: Final = (Kind.BREAK_GLASS_OPEN, Kind.BREAK_GLASS_CLOSE, Kind.BREAK_GLASS_REVIEW)


def verb_of(event: AuditEvent) -> str:
    """``"decrypt"`` or ``"encrypt"``."""
    return "decrypt" if opens(event) else "encrypt"


def purpose_code(event: AuditEvent) -> str:
    """HL7's code, empty where there is none; under break-glass that is the purpose."""
    if event.break_glass is not None:
        return "BTG"
    return PURPOSE_CODES.get(event.purpose or "", "")


def request_ids(event: AuditEvent) -> tuple[str, ...]:
    """KMS's request ids of the call that gave the key."""
    return event.origin.request_ids if event.origin is not None else ()
