"""Audit events of signatures, MACs and branch keys, with the KMS request ids of their calls.

A signature or MAC is at most one KMS call and leaves one event. An operation on a branch key makes several
calls, and leaves a begin record before the first one and an end record that names them all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from phicrypt.audit.events import SIGNATURE_FORMAT
from phicrypt.core.key_origin import KMS_PROVIDER_ID, KeyOrigin

if TYPE_CHECKING:
    from phicrypt.audit.trail import AuditTrail
    from phicrypt.core.kms_calls import KmsAnswer

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

    operation: str
    key_arn: str
    answer: KmsAnswer | None = None
    byte_count: int | None = None

    def origin(self) -> KeyOrigin:
        """The KMS call, or the key alone where KMS was not asked."""
        if self.answer is None:
            return KeyOrigin(KMS_PROVIDER_ID, self.key_arn)
        return KeyOrigin(
            KMS_PROVIDER_ID,
            self.key_arn,
            request_ids=self.answer.request_ids,
            correlation_id=self.answer.correlation_id,
            operation=_KMS_OPERATIONS[self.operation],
            unanswered_attempts=self.answer.unanswered_attempts,
        )

    def origin_of_local_key(self, key_id: str) -> KeyOrigin:
        """The call that opened a local key, in that key's name."""
        return replace(self.origin(), key_id=f"{self.key_arn}#{key_id}")


@contextmanager
def recorded_use(trail: AuditTrail | None, operation: str, key_arn: str, resource: str) -> Iterator[RecordedUse]:
    """Record the block as one use of the key; without a trail, only run it.

    The resource's name enters the trail as a token only (rule 23). Raises AuditError if nobody acts
    where an actor is required, and if the event cannot be written.
    """
    use = RecordedUse(operation, key_arn)
    if trail is None:
        yield use
        return

    def known(error: BaseException | None) -> dict[str, Any]:
        return {"origin": _origin(use, error), "byte_count": use.byte_count}

    with _one_event(trail, operation, resource, known):
        yield use


@contextmanager
def recorded_local_use(
    trail: AuditTrail, operation: str, origin: KeyOrigin | None, resource: str
) -> Iterator[None]:
    """Record the block as one use of a key that was opened earlier, by the call of ``origin``."""
    with _one_event(trail, operation, resource, lambda error: {"origin": origin, "cache_hit": True}):
        yield


@contextmanager
def _one_event(
    trail: AuditTrail, operation: str, resource: str, known: Callable[[BaseException | None], dict[str, Any]]
) -> Iterator[None]:
    trail.check_actor()
    started_ns = time.perf_counter_ns()
    error: BaseException | None = None
    try:
        yield
    except BaseException as caught:
        error = caught
        raise
    finally:
        trail.record(
            operation,
            format=SIGNATURE_FORMAT,
            resource=("signed", resource),
            started_ns=started_ns,
            error=error,
            **known(error),
        )


def _origin(use: RecordedUse, error: BaseException | None) -> KeyOrigin | None:
    """The KMS call of the use. A bad signature or MAC is an error of KMS, kept as the error's cause."""
    if use.answer is not None or error is None:
        return use.origin()
    from phicrypt.audit.events import refused_origin

    return refused_origin(error) or refused_origin(error.__cause__)
