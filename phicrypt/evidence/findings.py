"""What the join says of a KMS call or of a record of CloudTrail."""

from __future__ import annotations

from typing import Final, NamedTuple


class Category:
    """What the comparison says of a call or a record."""

    MATCHED: Final = "matched"
    ATTEMPT: Final = "attempt"
    """An earlier, refused attempt of a call of ours, by its own request id."""
    PROBABLE: Final = "probable"
    LOCAL_ONLY: Final = "used here but not in CloudTrail"
    TRAIL_ONLY: Final = "in CloudTrail but not here"
    DENIED: Final = "denied or failed"
    SERVICE: Final = "by an AWS service"
    ADMINISTRATION: Final = "key administration"
    EXCEPTION: Final = "exception"
    ENDPOINT: Final = "refused at a VPC endpoint"
    """The endpoint's policy refused: the call may never have reached KMS."""


EXCEPTIONS_FIRST: Final = (
    Category.EXCEPTION,
    Category.TRAIL_ONLY,
    Category.LOCAL_ONLY,
    Category.DENIED,
    Category.ADMINISTRATION,
    Category.ENDPOINT,
    Category.SERVICE,
    Category.PROBABLE,
    Category.ATTEMPT,
    Category.MATCHED,
)
NEED_EXPLANATION: Final = EXCEPTIONS_FIRST[:3]
"""The findings with which both sides do not agree."""


class Finding(NamedTuple):
    """One call or record, and what it was found to be.

    ``actor``, ``purpose`` and ``use_id`` are those of the first local use of the call.
    """

    category: str
    time_ns: int
    operation: str
    key_arn: str
    request_id: str
    event_id: str
    principal: str
    actor: str
    purpose: str
    use_id: str
    note: str
