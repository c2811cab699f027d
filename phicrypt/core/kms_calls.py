"""Calls of KMS as values: their answers, their refusals, and the origin that an operation gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

from phicrypt.core.key_origin import KMS_PROVIDER_ID, KeyOrigin
from phicrypt.core.kms_arn import KmsArn
from phicrypt.errors import KeyAccessError


class KmsAnswer(NamedTuple):
    """What came back from one call.

    Attributes:
        response: the response as boto3 gives it.
        request_ids: AWS's request id of each answered attempt, retries included, in order.
        correlation_id: what the user agent carried; CloudTrail shows it.
        unanswered_attempts: how many earlier attempts were given up without an answer.
    """

    response: dict[str, Any]
    request_ids: tuple[str, ...]
    correlation_id: str
    unanswered_attempts: int = 0

    def __repr__(self) -> str:
        return f"<KmsAnswer, request ids {self.request_ids}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a KmsAnswer may hold a plaintext key and cannot be copied or pickled")


def combined_refusal(refusals: Sequence[KeyAccessError]) -> KeyAccessError:
    """One error for several refusals; a single one stands for itself.

    Its code, key and request id are those of the first refusal by a service, because "no matching
    data key" of another keyring says less.
    """
    if len(refusals) == 1:
        return refusals[0]
    causes = tuple(single for refusal in refusals for single in refusal.causes or (refusal,))
    telling = next((cause for cause in causes if cause.code != "NoMatchingDataKey"), causes[0])
    reasons = "; ".join(f"({number}) {cause}" for number, cause in enumerate(causes, 1))
    return KeyAccessError(
        f"none of the keys opened the message: {reasons}",
        operation=telling.operation,
        code=telling.code,
        key_arn=telling.key_arn,
        request_id=telling.request_id,
        is_retryable=any(cause.is_retryable for cause in causes),
        is_outage=all(cause.is_outage for cause in causes),
        request_ids=tuple(request_id for cause in causes for request_id in cause.request_ids),
        correlation_id=telling.correlation_id,
        causes=causes,
    )


def refused_calls(refusals: Sequence[KeyAccessError]) -> tuple[KeyOrigin, ...]:
    """The refusals that were calls, as the audit trail lists them."""
    return tuple(
        KeyOrigin(
            "aws-kms",
            cause.key_arn or "",
            request_ids=cause.request_ids,
            correlation_id=cause.correlation_id,
            operation=cause.operation,
            error_code=cause.code,
            unanswered_attempts=cause.unanswered_attempts,
        )
        for refusal in refusals
        for cause in refusal.causes or (refusal,)
        if cause.correlation_id is not None
    )


def origin_of(
    answer: KmsAnswer, operation: str, key: KmsArn, *, other_calls: tuple[KeyOrigin, ...] = ()
) -> KeyOrigin:
    """The call as the audit trail names it."""
    return KeyOrigin(
        KMS_PROVIDER_ID,
        str(key),
        key_material_id=answer.response.get("KeyMaterialId"),
        request_ids=answer.request_ids,
        correlation_id=answer.correlation_id,
        operation=operation,
        other_calls=other_calls,
        unanswered_attempts=answer.unanswered_attempts,
    )


class KmsCalls:
    """The KMS calls of one operation in order, answered and refused: CloudTrail shows each of them."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: list[KeyOrigin] = []

    def add_answer(self, answer: KmsAnswer, operation: str, key: KmsArn) -> None:
        self._calls.append(origin_of(answer, operation, key))

    def add_refusals(self, refusals: Sequence[KeyAccessError]) -> None:
        self._calls.extend(refused_calls(refusals))

    @property
    def origin(self) -> KeyOrigin | None:
        """The last call, and the earlier ones as its ``other_calls``; None if none was made."""
        if not self._calls:
            return None
        *earlier, last = self._calls
        return replace(last, other_calls=tuple(earlier))
