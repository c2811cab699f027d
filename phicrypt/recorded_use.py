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


_KMS_OPERATIONS: Final = {
    "sign": "Sign",
    "verify": "Verify",
    "mac": "GenerateMac",
    "verify-mac": "VerifyMac",
    "create-mac-key": "GenerateDataKey",
    "open-mac-key": "Decrypt",
}
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
        trail.record(
            operation,
            format="dsse",
            resource=("signed", resource),
            origin=_origin(use, operation, key_arn, error),
            byte_count=use.byte_count,
            started_ns=started_ns,
            error=error,
        )


def _origin(use: RecordedUse, operation: str, key_arn: str, error: BaseException | None) -> KeyOrigin | None:
    """The KMS call of the use. A bad signature or MAC is an error of KMS, kept as the error's cause."""
    if use.answer is not None:
        return KeyOrigin(
            "aws-kms",
            key_arn,
            request_ids=use.answer.request_ids,
            correlation_id=use.answer.correlation_id,
            operation=_KMS_OPERATIONS[operation],
        )
    if error is None:
        return KeyOrigin("aws-kms", key_arn)
    from phicrypt.audit.events import refused_origin

    return refused_origin(error) or refused_origin(error.__cause__)
