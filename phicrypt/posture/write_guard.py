"""``require_private_bucket=True``: refuse to write to a bucket that is public or takes plain HTTP.

Client-side encryption protects what is stored; it does not hide names, sizes and times from whoever
may list the bucket, nor the bytes of a request from whoever may delete or replace them. The guard
reads the bucket's settings before the first write and keeps the answer for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from phicrypt.errors import ConfigurationError, PhiCryptError
from phicrypt.posture.policies.document import Statement, parse_policy, requires_tls

if TYPE_CHECKING:
    from botocore.client import BaseClient

_PUBLIC_GRANTEES: Final = (
    "http://acs.amazonaws.com/groups/global/AllUsers",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
)
_REFUSAL_TTL_SECONDS: Final = 30.0
_MAX_ENTRIES: Final = 1_000
PUBLIC_ACCESS_SETTINGS: Final = (
    "BlockPublicAcls",
    "IgnorePublicAcls",
    "BlockPublicPolicy",
    "RestrictPublicBuckets",
)
"""The four switches of S3's Block Public Access."""


@dataclass(frozen=True, slots=True)
class BucketExposure:
    """What decides whether a bucket is private: all read from S3, none inferred.

    Attributes:
        public_access_block: the bucket's four switches; empty when it has none.
        policy: the statements of the bucket policy; empty when it has none.
        policy_is_public: S3's own judgement of the policy; False when there is none.
        acl_grants: the grants of the bucket's ACL, as S3 returns them.
    """

    public_access_block: Mapping[str, bool]
    policy: tuple[Statement, ...]
    policy_is_public: bool
    acl_grants: tuple[Mapping[str, Any], ...]


def public_acl_permissions(grants: tuple[Mapping[str, Any], ...]) -> tuple[str, ...]:
    """The permissions that the ACL gives to everyone, or to every AWS account."""
    return tuple(
        sorted(
            {
                str(grant.get("Permission"))
                for grant in grants
                if grant.get("Grantee", {}).get("URI") in _PUBLIC_GRANTEES
            }
        )
    )


def reasons_to_refuse(exposure: BucketExposure, bucket: str, *, partition: str = "aws") -> tuple[str, ...]:
    """Why nothing should be written there; empty for a private, TLS-only bucket.

    A public policy or ACL that Block Public Access overrides is not public.
    """
    reasons = []
    switches = exposure.public_access_block
    if exposure.policy_is_public and not switches.get("RestrictPublicBuckets"):
        reasons.append("its policy is public")
    permissions = public_acl_permissions(exposure.acl_grants)
    if permissions and not switches.get("IgnorePublicAcls"):
        reasons.append(f"its ACL gives everyone {', '.join(permissions)}")
    if not requires_tls(exposure.policy, bucket, partition=partition):
        reasons.append("its policy does not deny requests without TLS (aws:SecureTransport)")
    return tuple(reasons)


class BucketWriteGuard:
    """Asks S3 once per bucket and TTL whether the bucket is private, and refuses writes if not.

    What cannot be read counts as a refusal that names the missing permission, never as a pass.
    Safe to share among threads and after a fork: single dictionary operations, no lock.

    Args:
        s3_client: the boto3 S3 client that will write.
        ttl_seconds: how long a private bucket is believed to stay so, at most an hour. A refusal is
            kept for 30 seconds at most, so that a repaired bucket is soon usable.
        clock: seconds that only go forward.

    Raises ConfigurationError for a TTL out of bounds.
    """

    def __init__(
        self,
        s3_client: BaseClient,
        *,
        ttl_seconds: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < ttl_seconds <= 3600:
            raise ConfigurationError("the write guard's ttl_seconds is above 0 and at most 3,600")
        self._s3: Any = s3_client
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._answers: dict[str, tuple[float, tuple[str, ...]]] = {}

    def check(self, bucket: str) -> None:
        """Return if the bucket is private and TLS-only; raise ConfigurationError with the reasons if not."""
        reasons = self._reasons(bucket)
        if reasons:
            raise ConfigurationError(
                f"require_private_bucket refused the write to bucket {bucket!r}: {'; '.join(reasons)}. "
                "Repair the bucket ('phicrypt doctor' prints the commands) or drop require_private_bucket"
            )

    def clear(self) -> None:
        """Forget every answer."""
        self._answers.clear()

    def _reasons(self, bucket: str) -> tuple[str, ...]:
        now = self._clock()
        expires, reasons = self._answers.get(bucket, (0.0, ()))
        if expires > now:
            return reasons
        reasons = self._ask(bucket)
        lifetime = min(self._ttl_seconds, _REFUSAL_TTL_SECONDS) if reasons else self._ttl_seconds
        if len(self._answers) >= _MAX_ENTRIES:
            self._answers.clear()
        self._answers[bucket] = (now + lifetime, reasons)
        return reasons

    def _ask(self, bucket: str) -> tuple[str, ...]:
        if bucket.startswith("arn:"):
            return ("an access point hides which bucket it leads to; write to the bucket by its name",)
        try:
            return reasons_to_refuse(
                read_exposure(self._s3, bucket), bucket, partition=self._s3.meta.partition or "aws"
            )
        except ExposureUnreadableError as error:
            return (str(error),)


class ExposureUnreadableError(Exception):
    """A setting could not be read; the text says which permission or answer is missing."""


def read_exposure(s3_client: BaseClient, bucket: str) -> BucketExposure:
    """Read the four settings; raise ExposureUnreadableError for what could not be read."""
    s3: Any = s3_client
    switches = _ask_for(
        s3.get_public_access_block, bucket, "s3:GetBucketPublicAccessBlock", "NoSuchPublicAccessBlockConfiguration"
    )
    policy = _ask_for(s3.get_bucket_policy, bucket, "s3:GetBucketPolicy", "NoSuchBucketPolicy")
    status = (
        _ask_for(s3.get_bucket_policy_status, bucket, "s3:GetBucketPolicyStatus", "NoSuchBucketPolicy")
        if policy
        else {}
    )
    acl = _ask_for(s3.get_bucket_acl, bucket, "s3:GetBucketAcl", None)
    try:
        statements = parse_policy(policy["Policy"]) if policy else ()
    except PhiCryptError as error:
        raise ExposureUnreadableError(f"its policy could not be read: {error}") from None
    return BucketExposure(
        public_access_block=switches.get("PublicAccessBlockConfiguration", {}),
        policy=statements,
        policy_is_public=bool(status.get("PolicyStatus", {}).get("IsPublic", False)),
        acl_grants=tuple(acl.get("Grants", ())),
    )


def _ask_for(call: Callable[..., Any], bucket: str, permission: str, absent_code: str | None) -> Mapping[str, Any]:
    """The answer, ``{}`` where S3 says that the bucket has no such setting."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer: Mapping[str, Any] = call(Bucket=bucket)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "Unknown")
        if absent_code is not None and code == absent_code:
            return {}
        if code in ("AccessDenied", "403"):
            raise ExposureUnreadableError(f"could not check it: needs {permission}") from None
        raise ExposureUnreadableError(f"could not check it: {permission} answered {code}") from None
    except BotoCoreError as error:
        raise ExposureUnreadableError(f"could not check it: {type(error).__name__}") from None
    return answer
