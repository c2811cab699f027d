"""The guard: what may stand in clear, in contexts, names and audit events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.guard.phi_guard import PhiGuard

_HOMES = {
    "PhiGuard": "phicrypt.guard.phi_guard",
}

__all__ = [
    "PhiGuard",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
