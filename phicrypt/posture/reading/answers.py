"""Turns responses into settings. Pure: an unread answer stays unread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from phicrypt.errors import PhiCryptError
from phicrypt.posture.policies.document import Statement, parse_policy
from phicrypt.posture.reading.settings import Answer
from phicrypt.posture.rules.findings import Unread

T = TypeVar("T")


def member(answer: Answer, name: str) -> Answer:
    """One member of a response; ``{}`` where it is missing."""
    return answer if isinstance(answer, Unread) else dict(answer.get(name) or {})


def convert(answer: Answer, change: Callable[[Mapping[str, Any]], T]) -> T | Unread:
    """The changed response."""
    return answer if isinstance(answer, Unread) else change(answer)


def statements(answer: Answer, name: str = "Policy") -> tuple[Statement, ...] | Unread:
    """The statements of the policy text in a response; none where there is no policy."""
    if isinstance(answer, Unread):
        return answer
    if not answer.get(name):
        return ()
    try:
        return parse_policy(answer[name])
    except PhiCryptError as error:
        return Unread(f"its policy could not be read: {error}")


def is_public(status: Mapping[str, Any]) -> bool:
    """GetBucketPolicyStatus: S3's own judgement."""
    return bool(status.get("PolicyStatus", {}).get("IsPublic", False))


def acl_grants(acl: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """GetBucketAcl: the grants."""
    return tuple(acl.get("Grants") or ())


def object_ownership(controls: Mapping[str, Any]) -> str:
    """GetBucketOwnershipControls: the setting, or no text where there is none."""
    rules: Any = controls.get("OwnershipControls", {}).get("Rules") or ({},)
    return str(rules[0].get("ObjectOwnership", ""))


def table_tags(listed: Mapping[str, Any]) -> Mapping[str, str]:
    """ListTagsOfResource: name to value."""
    return {tag["Key"]: tag["Value"] for tag in listed.get("Tags") or ()}
