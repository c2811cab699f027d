"""Rehearsing recovery: a sample is decrypted by the recovery path alone, and compared.

A recovery key that was never tried is a hope. A drill opens messages or objects with a client whose
keyring holds nothing but the recovery key (a ``KmsRsaKeyring``, a replica of a multi-Region key, a
key store in another Region), takes the digest of the plaintext without keeping it, compares it with
the digest that is expected, and says how long everything took.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from statistics import median
from typing import Any

from phicrypt.errors import KeyAccessError


class Outcome(StrEnum):
    """How one sample went."""

    MATCHED = "matched"
    """It opened, and its digest is the expected one."""
    OPENED = "opened"
    """It opened; there was no digest to compare with."""
    DIFFERENT = "different"
    """It opened to other bytes than were expected."""
    FAILED = "failed"
    """The recovery path did not open it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One message or object to open.

    Attributes:
        name: how the report calls it.
        open_with: reads it with the client's recovery path and hands each piece of plaintext on:
            ``open_with(take_piece)``.
        expected_digest: gives the expected SHA-256 in hexadecimal, or None where nobody knows it.
    """

    name: str
    open_with: Callable[[Callable[[bytes], object]], None]
    expected_digest: Callable[[], str | None] = field(default=lambda: None)


@dataclass(frozen=True, slots=True)
class SampleResult:
    """What became of one sample.

    Attributes:
        name: the sample's.
        outcome: an :class:`Outcome`.
        sha256: digest of the plaintext, for whatever opened.
        byte_count: plaintext bytes.
        seconds: from the first byte read to the last one verified, by the recovery path.
        error: class and code of the error, for whatever failed; never its text.
    """

    name: str
    outcome: Outcome
    sha256: str | None
    byte_count: int
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DrillReport:
    """A drill's results.

    Attributes:
        recovery_path: the keyring that opened, by its ``repr``.
        started: in UTC.
        available: how many messages or objects the sample was drawn from.
        must_match: whether digests were to be compared, so that merely opening is not enough.
        results: one per sample.
    """

    recovery_path: str
    started: str
    available: int
    must_match: bool
    results: tuple[SampleResult, ...]

    @property
    def passed(self) -> bool:
        """Whether there was a sample, and all of it opened to what was expected."""
        good = (Outcome.MATCHED,) if self.must_match else (Outcome.MATCHED, Outcome.OPENED)
        return bool(self.results) and all(result.outcome in good for result in self.results)

    def count(self, outcome: Outcome) -> int:
        """How many samples ended so."""
        return sum(result.outcome is outcome for result in self.results)

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON, with counts and times."""
        seconds = [result.seconds for result in self.results] or [0.0]
        return {
            "recovery_path": self.recovery_path,
            "started": self.started,
            "passed": self.passed,
            "available": self.available,
            "sampled": len(self.results),
            **{str(outcome): self.count(outcome) for outcome in Outcome},
            "byte_count": sum(result.byte_count for result in self.results),
            "seconds": {"total": sum(seconds), "median": median(seconds), "longest": max(seconds)},
            "results": [asdict(result) for result in self.results],
        }


def rehearse(
    recovery_path: str,
    samples: Iterable[Sample],
    *,
    available: int,
    must_match: bool,
    after_each: Callable[[], object] = lambda: None,
) -> DrillReport:
    """Open every sample, one after the other; a failure is a result and stops nothing.

    Args:
        recovery_path: how the report names the keyring that the samples are opened with.
        samples: what to open.
        available: how many there were to choose from.
        must_match: a sample without an expected digest fails the drill.
        after_each: called after each sample, for progress.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    results = []
    for sample in samples:
        results.append(_open(sample))
        after_each()
    return DrillReport(recovery_path, started, available, must_match, tuple(results))


def _open(sample: Sample) -> SampleResult:
    digest = hashlib.sha256()
    byte_count = 0

    def take_piece(piece: bytes) -> int:
        nonlocal byte_count
        digest.update(piece)
        byte_count += len(piece)
        return len(piece)

    began = time.perf_counter()
    try:
        sample.open_with(take_piece)
    except Exception as error:  # noqa: BLE001  (whatever a key, a file or a store raises is this drill's finding)
        return SampleResult(sample.name, Outcome.FAILED, None, 0, time.perf_counter() - began, _described(error))
    seconds = time.perf_counter() - began
    found = digest.hexdigest()
    try:
        expected = sample.expected_digest()
    except Exception as error:  # noqa: BLE001
        # The recovery path did its part; that the other side could not be read is said, and compares nothing.
        return SampleResult(sample.name, Outcome.OPENED, found, byte_count, seconds, _described(error))
    outcome = Outcome.OPENED if expected is None else Outcome.MATCHED if expected == found else Outcome.DIFFERENT
    return SampleResult(sample.name, outcome, found, byte_count, seconds)


def digest_of(sample: Sample) -> str:
    """SHA-256 of a sample's plaintext in hexadecimal, opened by whatever path it was made for."""
    digest = hashlib.sha256()
    sample.open_with(digest.update)
    return digest.hexdigest()


def parse_digests(text: str) -> dict[str, str]:
    """Lines of ``sha256sum``, ``<64 hexadecimal digits>  <name>``, by name. Raises ValueError."""
    digests: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        digest, separator, name = line.partition("  ")
        if (
            len(digest) != 64
            or not set(digest) <= set("0123456789abcdef")
            or not separator
            or not name
            or name in digests
        ):
            raise ValueError(f"line {number} is not a new line of sha256sum")
        digests[name] = digest
    return digests


def _described(error: Exception) -> str:
    name = type(error).__name__
    return f"{name} {error.code}" if isinstance(error, KeyAccessError) else name
