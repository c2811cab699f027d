"""How the TLS connections of our KMS calls agreed on keys: with ML-KEM, or as a quantum computer could break.

CloudTrail says it of each call since it knows ``tlsDetails.keyExchange``. Whoever records such a connection today
reads it on the day that classical key exchange falls, and plaintext data keys travel in KMS's answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

_POST_QUANTUM: Final = ("MLKEM", "KYBER")
_MAX_NAMES: Final = 50
_OTHERS: Final = "(others)"


class KeyExchanges:
    """Counts of calls by the key exchange of their connection.

    Attributes:
        by_name: CloudTrail's names; of calls of which it says none there is no entry.
        not_said: calls of which CloudTrail says no key exchange.
    """

    def __init__(self) -> None:
        self.by_name: Counter[str] = Counter()
        self.not_said = 0

    def add(self, name: str) -> None:
        """Count one call; an empty name is one that CloudTrail does not say."""
        if not name:
            self.not_said += 1
        else:
            self.by_name[name if name in self.by_name or len(self.by_name) < _MAX_NAMES else _OTHERS] += 1

    @property
    def post_quantum(self) -> int:
        """Calls whose key exchange was a hybrid with ML-KEM."""
        return sum(count for name, count in self.by_name.items() if is_post_quantum(name))

    @property
    def said(self) -> int:
        """Calls of which CloudTrail says a key exchange."""
        return self.by_name.total()

    @property
    def share(self) -> float | None:
        """Post-quantum calls among those of which it is said; None where it is said of none."""
        return self.post_quantum / self.said if self.said else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "post_quantum": self.post_quantum,
            "classical": self.said - self.post_quantum,
            "not_said": self.not_said,
            "post_quantum_share": self.share,
            "by_name": dict(self.by_name.most_common()),
        }

    def sentences(self) -> Iterator[str]:
        """In words; nothing where there was no call."""
        if self.share is not None:
            yield (
                f"post-quantum TLS: {self.post_quantum:,} of {self.said:,} of our KMS calls "
                f"({self.share:.0%}) agreed on keys with ML-KEM."
            )
        if self.not_said:
            yield f"Of {self.not_said:,} of our KMS calls CloudTrail does not say how TLS agreed on keys."


def is_post_quantum(name: str) -> bool:
    """Whether a key exchange of CloudTrail's holds against a quantum computer, by its name."""
    return any(mark in name.upper().replace("-", "").replace("_", "") for mark in _POST_QUANTUM)
