"""What KMS answered, checked before anything of it is used."""

from __future__ import annotations

from typing import Final

from phicrypt.core.kms_arn import KmsArn
from phicrypt.core.kms_calls import KmsAnswer
from phicrypt.errors import KeyAccessError

MAX_CIPHERTEXT_LENGTH_BYTES: Final = 6144
"""KMS's own bound on a CiphertextBlob."""


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


def check_key(answer: KmsAnswer, operation: str, key: KmsArn, *, also_by_id: bool = False) -> None:
    """KeyAccessError unless the answer names the key that was asked, by its ARN.

    ``also_by_id``: the bare key id will do, which is how moto names asymmetric and HMAC keys.
    """
    named = answer.response.get("KeyId")
    if named != str(key) and not (also_by_id and named == key.resource_id):
        raise unexpected_answer(operation, key, "the answer names another key than the one that was asked", answer)


def bytes_of(answer: KmsAnswer, operation: str, key: KmsArn, member: str, *, most_bytes: int) -> bytes:
    """A signature, MAC or public key of an answer; KeyAccessError if there is none of a possible length."""
    found = answer.response.get(member)
    if not isinstance(found, bytes) or not 0 < len(found) <= most_bytes:
        raise unexpected_answer(operation, key, f"the answer holds no {member} of a possible length", answer)
    return found


def openings_disagree(operation: str, key: KmsArn, what: str) -> KeyAccessError:
    """The error for two openings of one envelope that gave two keys, also when both were repeated (rule 28)."""
    return KeyAccessError(
        f"{operation} with KMS key {key}: two openings of {what} gave different keys, also when repeated; nothing "
        "is sealed or searched under a key that may not open again. Find out what changes KMS's answers: a "
        "proxy, a store in front of KMS, or this machine's memory",
        operation=operation,
        code="KeyOpeningsDisagree",
        key_arn=str(key),
    )


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
