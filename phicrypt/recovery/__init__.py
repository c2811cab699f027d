"""When the usual keys do not serve: break-glass access, and rehearsals of disaster recovery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.recovery.break_glass import BreakGlass, break_glass, record_review
    from phicrypt.recovery.drill import DrillReport, Sample, digest_of, parse_digests, rehearse

_HOMES = {
    "BreakGlass": "phicrypt.recovery.break_glass",
    "DrillReport": "phicrypt.recovery.drill",
    "Sample": "phicrypt.recovery.drill",
    "break_glass": "phicrypt.recovery.break_glass",
    "digest_of": "phicrypt.recovery.drill",
    "parse_digests": "phicrypt.recovery.drill",
    "record_review": "phicrypt.recovery.break_glass",
    "rehearse": "phicrypt.recovery.drill",
}

__all__ = [
    "BreakGlass",
    "DrillReport",
    "Sample",
    "break_glass",
    "digest_of",
    "parse_digests",
    "record_review",
    "rehearse",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
