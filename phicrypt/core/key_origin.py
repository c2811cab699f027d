"""Where a data key came from: the calls that made or opened it, as the audit trail names them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

HIERARCHY_PROVIDER_ID: Final = "aws-kms-hierarchy"
"""Provider id of data keys that a branch key wraps."""


KMS_PROVIDER_ID: Final = "aws-kms"


@dataclass(frozen=True, slots=True)
class KeyOrigin:
    """Where a data key came from, for the audit trail.

    Attributes:
        provider_id: the provider id of the keyring that generated or opened it.
        key_id: KMS key ARN, branch key id and version, or wrapping key name.
        key_material_id: KMS's id of the key material, where KMS returned one.
        request_ids: KMS request ids of every attempt of the call that produced the key, in order;
            empty where the key came from a local operation.
        correlation_id: the id that the call carried in its user agent.
        operation: the AWS operation, such as ``"GenerateDataKey"``; None for a local operation.
        error_code: AWS's error code, for a refused call among ``other_calls``.
        other_calls: calls made on the way, which CloudTrail shows too: those that wrapped the key
            for further recipients, the earlier ones of an operation on a branch key, and those that
            were refused before one succeeded. A recipient that wraps without KMS stands here too,
            without any request id.
        unanswered_attempts: attempts of the call that got no answer, and so no request id here.
    """

    provider_id: str
    key_id: str
    key_material_id: str | None = None
    request_ids: tuple[str, ...] = ()
    correlation_id: str | None = None
    operation: str | None = None
    error_code: str | None = None
    other_calls: tuple[KeyOrigin, ...] = ()
    unanswered_attempts: int = 0


def joined_origin(origin: KeyOrigin | None, *calls: KeyOrigin) -> KeyOrigin:
    """A keyring's calls: as the origin where it generated, else beside that of the keyring that did."""
    first, *others = calls if origin is None else (origin, *calls)
    if not others:
        return first
    flat = [call for other in others for call in (replace(other, other_calls=()), *other.other_calls)]
    return replace(first, other_calls=(*first.other_calls, *flat))


def branch_key_origin(name: str, call: KeyOrigin | None) -> KeyOrigin:
    """The KMS call that made or opened a branch key, in the branch key's name; local without a call."""
    if call is None:
        return KeyOrigin(HIERARCHY_PROVIDER_ID, name)
    return replace(call, provider_id=HIERARCHY_PROVIDER_ID, key_id=f"{call.key_id}#{name}")
