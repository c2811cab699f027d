"""Audit events of signatures and MACs: one per use, with the KMS request ids of its call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from phicrypt.materials import KeyOrigin

if TYPE_CHECKING:
    from phicrypt.audit.trail import AuditTrail
    from phicrypt.keys.kms_client import KmsAnswer


_KMS_OPERATIONS: Final = {"sign": "Sign", "verify": "Verify", "mac": "GenerateMac", "verify-mac": "VerifyMac"}
"""What CloudTrail calls them: the join requires equal operations (rule 22)."""


@dataclass(slots=True)
class RecordedUse:
    """What is learned while the use runs: KMS's answer if it was asked, and the resource's length."""

    answer: KmsAnswer | None = None
    byte_count: int | None = None


@contextmanager
def recorded_use(trail: AuditTrail | None, operation: str, key_arn: str, resource: str) -> Iterator[RecordedUse]:
    """Record the block as one use of the key; without a trail, only run it.

    The resource's name enters the trail as a token only (rule 23). Raises AuditError if nobody acts
    where an actor is required, and if the event cannot be written.
    """
    use = RecordedUse()
    if trail is None:
        yield use
        return
    trail.check_actor()
    started_ns = time.perf_counter_ns()
    error: BaseException | None = None
    try:
        yield use
    except BaseException as caught:
        error = caught
        raise
    finally:
        origin = KeyOrigin(
            "aws-kms",
            key_arn,
            request_ids=use.answer.request_ids if use.answer is not None else (),
            correlation_id=use.answer.correlation_id if use.answer is not None else None,
            operation=_KMS_OPERATIONS.get(operation) if use.answer is not None else None,
        )
        trail.record(
            operation,
            format="dsse",
            resource=("signed", resource),
            origin=None if error is not None and use.answer is None else origin,
            byte_count=use.byte_count,
            started_ns=started_ns,
            error=error,
        )
