"""Reads what holds for the whole account: trails, IAM policies, S3's account block. No judgement here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

from phicrypt.errors import PhiCryptError
from phicrypt.posture.declaration import Declaration
from phicrypt.posture.policies.document import Statement, parse_policy
from phicrypt.posture.reading.answers import acl_grants, convert, is_public, member
from phicrypt.posture.reading.aws_account import AwsAccount
from phicrypt.posture.reading.settings import AccountSettings, Answer, IamPolicy, TrailSettings
from phicrypt.posture.rules.findings import Unread

T = TypeVar("T")


def read_trails(account: AwsAccount, declaration: Declaration) -> tuple[TrailSettings, ...] | Unread:
    """The declared trails, or every trail that the Region shows where none is declared."""
    if not declaration.trails:
        answer = account.ask(
            "cloudtrail", "describe_trails", "cloudtrail:DescribeTrails", region=declaration.region
        )
        if isinstance(answer, Unread):
            return answer
        return tuple(_read_trail(account, entry, declaration.region) for entry in answer.get("trailList", ()))
    trails = []
    for declared in declaration.trails:
        region = declared.region or declaration.region
        answer = account.ask(
            "cloudtrail",
            "describe_trails",
            "cloudtrail:DescribeTrails",
            region=region,
            trailNameList=[declared.name],
        )
        listed = () if isinstance(answer, Unread) else answer.get("trailList", ())
        found = next((e for e in listed if declared.name in (e.get("Name"), e.get("TrailARN"))), None)
        if found is not None:
            trails.append(_read_trail(account, found, region))
            continue
        missing = answer if isinstance(answer, Unread) else Unread("it does not exist", is_gone=True)
        trails.append(TrailSettings(declared.name, region, missing, missing, missing, missing, missing, missing))
    return tuple(trails)


def _read_trail(account: AwsAccount, described: Mapping[str, Any], region: str) -> TrailSettings:
    home = str(described.get("HomeRegion") or region)
    arn = str(described["TrailARN"])
    bucket = described.get("S3BucketName")

    def ask(operation: str, permission: str, *absent: str) -> Answer:
        return account.ask(
            "s3", operation, f"{permission} on the log bucket", region=home, absent=absent, Bucket=bucket
        )

    return TrailSettings(
        resource=arn,
        region=home,
        described=described,
        status=account.ask("cloudtrail", "get_trail_status", "cloudtrail:GetTrailStatus", region=home, Name=arn),
        selectors=account.ask(
            "cloudtrail", "get_event_selectors", "cloudtrail:GetEventSelectors", region=home, TrailName=arn
        ),
        log_bucket_block=_still_there(
            member(
                ask(
                    "get_public_access_block",
                    "s3:GetBucketPublicAccessBlock",
                    "NoSuchPublicAccessBlockConfiguration",
                ),
                "PublicAccessBlockConfiguration",
            )
        ),
        log_bucket_is_public=_still_there(
            convert(ask("get_bucket_policy_status", "s3:GetBucketPolicyStatus", "NoSuchBucketPolicy"), is_public)
        ),
        log_bucket_grants=_still_there(convert(ask("get_bucket_acl", "s3:GetBucketAcl"), acl_grants)),
    )


def _still_there(answer: T | Unread) -> T | Unread:
    """A log bucket that is gone does not make the trail gone."""
    if isinstance(answer, Unread) and answer.is_gone:
        return Unread("the log bucket no longer exists")
    return answer


def read_account(
    account: AwsAccount, declaration: Declaration, account_id: str, trails: tuple[TrailSettings, ...] | Unread
) -> AccountSettings:
    """What holds for the whole account."""
    partition = account.partition()
    return AccountSettings(
        account_id=account_id,
        region=declaration.region,
        partition=partition,
        account_block=member(
            account.ask(
                "s3control",
                "get_public_access_block",
                "s3:GetAccountPublicAccessBlock",
                region=declaration.region,
                absent=("NoSuchPublicAccessBlockConfiguration",),
                AccountId=account_id,
            ),
            "PublicAccessBlockConfiguration",
        ),
        iam_policies=_read_iam(account),
        trails=trails,
        bucket_arns=tuple(f"arn:{partition}:s3:::{bucket.name}" for bucket in declaration.buckets),
        table_arns=tuple(
            f"arn:{partition}:dynamodb:{table.region or declaration.region}:{account_id}:table/{table.name}"
            for table in declaration.tables
        ),
    )


def _read_iam(account: AwsAccount) -> tuple[IamPolicy, ...] | Unread:
    """Customer managed policies and every inline policy, by one paged question."""
    found: list[IamPolicy] = []
    marker: dict[str, Any] = {}
    while True:
        page = account.ask(
            "iam",
            "get_account_authorization_details",
            "iam:GetAccountAuthorizationDetails",
            Filter=["LocalManagedPolicy", "User", "Role", "Group"],
            **marker,
        )
        if isinstance(page, Unread):
            return page
        try:
            found += [*_managed(page), *_inline(page)]
        except PhiCryptError as error:
            return Unread(f"an IAM policy could not be read: {error}")
        if not page.get("IsTruncated"):
            return tuple(found)
        marker = {"Marker": page["Marker"]}


def _managed(page: Mapping[str, Any]) -> list[IamPolicy]:
    return [
        IamPolicy(policy["Arn"], False, _document(version["Document"]))
        for policy in page.get("Policies") or ()
        for version in policy.get("PolicyVersionList") or ()
        if version.get("IsDefaultVersion")
    ]


def _inline(page: Mapping[str, Any]) -> list[IamPolicy]:
    return [
        IamPolicy(f"{owner['Arn']}/{policy['PolicyName']}", True, _document(policy["PolicyDocument"]))
        for owners, policies in (
            ("UserDetailList", "UserPolicyList"),
            ("RoleDetailList", "RolePolicyList"),
            ("GroupDetailList", "GroupPolicyList"),
        )
        for owner in page.get(owners) or ()
        for policy in owner.get(policies) or ()
    ]


def _document(document: str | Mapping[str, Any]) -> tuple[Statement, ...]:
    """IAM returns documents URL-encoded; boto3 decodes them into objects where it can."""
    return parse_policy(unquote(document) if isinstance(document, str) else document)
