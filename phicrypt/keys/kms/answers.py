"""What KMS answered, checked before anything of it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from phicrypt.core.kms_arn import KmsArn
from phicrypt.core.materials import KeyOrigin
from phicrypt.errors import KeyAccessError
from phicrypt.keys.kms.calls import KmsAnswer
from phicrypt.keys.kms.errors import refused_calls

KMS_PROVIDER_ID: Final = "aws-kms"
MAX_CIPHERTEXT_LENGTH_BYTES: Final = 6144
"""KMS's own bound on a CiphertextBlob."""


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


def plaintext_of(answer: KmsAnswer, operation: str, key: KmsArn, length_bytes: int) -> bytes:
    """The plaintext key of an answer; KeyAccessError unless it has that length."""
    plaintext = answer.response.get("Plaintext")
    if not isinstance(plaintext, bytes) or len(plaintext) != length_bytes:
        raise unexpected_answer(operation, key, f"a plaintext key of {length_bytes} bytes was expected", answer)
    return plaintext


def ciphertext_of(answer: KmsAnswer, operation: str, key: KmsArn) -> bytes:
    """The wrapped key of an answer; KeyAccessError if there is none of a possible length."""
    ciphertext = answer.response.get("CiphertextBlob")
    if not isinstance(ciphertext, bytes) or not 0 < len(ciphertext) <= MAX_CIPHERTEXT_LENGTH_BYTES:
        raise unexpected_answer(operation, key, "the answer holds no ciphertext of KMS's length", answer)
    return ciphertext


def unexpected_answer(operation: str, key: KmsArn, what: str, *answers: KmsAnswer) -> KeyAccessError:
    """The error for an answer that KMS would not give."""
    request_ids = answers[0].request_ids if answers else ()
    return KeyAccessError(
        f"{operation} with KMS key {key}: {what}; nothing of it was used",
        operation=operation,
        code="UnexpectedAnswer",
        key_arn=str(key),
        request_id=request_ids[-1] if request_ids else None,
        request_ids=request_ids,
        correlation_id=answers[0].correlation_id if answers else None,
    )
