"""KMS's own word on the last use of a key: a witness that needs no trail.

::

    ask_last_use(client, key_arn)        # operation, time, KMS request id, CloudTrail event id; or never used

``GetKeyLastUsage`` names one use: the last that succeeded, of this key in this Region, since KMS began to
track it. The caller needs ``kms:GetKeyLastUsage`` in the key's own account.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.kms.calls import call_kms

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

LAST_USE_OPERATION: Final = "GetKeyLastUsage"
LAST_USE_PERMISSION: Final = "kms:GetKeyLastUsage"


class LastUse(NamedTuple):
    """What KMS says of a key's last use.

    Attributes:
        key_arn: the key that was asked about.
        operation: such as ``"Decrypt"``; empty if KMS knows of no use.
        time_ns: when.
        request_id: KMS's request id, the one that the caller was answered with.
        event_id: the event in CloudTrail, where one looks for who it was.
        tracked_since_ns: from when on KMS would know; what lies before it is unknown.
    """

    key_arn: str
    operation: str
    time_ns: int
    request_id: str
    event_id: str
    tracked_since_ns: int


def ask_last_use(client: KMSClient, key_arn: str) -> LastUse:
    """Ask KMS for the last use of a key.

    Args:
        client: a KMS client of the key's Region.
        key_arn: the key's own ARN.

    Raises KeyAccessError where KMS refuses or its answer is of another key; ConfigurationError where the installed
    botocore does not know the operation.
    """
    if not hasattr(client, "get_key_last_usage"):
        raise ConfigurationError(f"the installed botocore does not know {LAST_USE_OPERATION}: update boto3")
    response = call_kms(client, LAST_USE_OPERATION, key_arn=key_arn, KeyId=key_arn).response
    if response.get("KeyId") not in (key_arn, key_arn.rpartition("/")[2]):
        raise KeyAccessError(
            "KMS answered about another key than was asked about",
            operation=LAST_USE_OPERATION,
            code="WrongKey",
            key_arn=key_arn,
        )
    used = response.get("KeyLastUsage") or {}
    return LastUse(
        key_arn,
        _text(used, "Operation"),
        _time_ns(used.get("Timestamp")),
        _text(used, "KmsRequestId"),
        _text(used, "CloudTrailEventId"),
        _time_ns(response.get("TrackingStartDate")),
    )


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else ""


def _time_ns(moment: object) -> int:
    return int(moment.timestamp()) * 10**9 if isinstance(moment, datetime) else 0
