"""Rules for CloudTrail: each trail, and what all trails together record. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from phicrypt.posture.reading.settings import AccountSettings, TrailSettings
from phicrypt.posture.rules.findings import (
    ACCESS,
    ACTIVITY_REVIEW,
    AUDIT,
    ENCRYPTION,
    INTEGRITY,
    Rule,
    Severity,
    Unread,
)
from phicrypt.posture.write_guard import PUBLIC_ACCESS_SETTINGS, public_acl_permissions

_KMS: Final = "kms.amazonaws.com"
_NAMES_SHOWN: Final = 5


def _command(trail: TrailSettings, verb: str, *more: str) -> str:
    return " ".join(("aws cloudtrail", verb, "--name", trail.resource, *more, "--region", trail.region))


def _log_bucket_command(trail: TrailSettings) -> str:
    assert not isinstance(trail.described, Unread)
    block = ",".join(f"{name}=true" for name in PUBLIC_ACCESS_SETTINGS)
    return (
        f"aws s3api put-public-access-block --bucket {trail.described.get('S3BucketName')} "
        f"--public-access-block-configuration {block}"
    )


def _described(trail: TrailSettings, member: str, otherwise: str) -> str | None:
    assert not isinstance(trail.described, Unread)
    return None if trail.described.get(member) else otherwise


def _logging(trail: TrailSettings) -> str | None:
    assert not isinstance(trail.status, Unread)
    return None if trail.status.get("IsLogging") else "the trail has stopped logging"


def _kms_events(trail: TrailSettings) -> str | None:
    assert not isinstance(trail.selectors, Unread)
    if records_kms_events(trail.selectors):
        return None
    return "no event selector records all of KMS's management events (they are excluded, or only read or write)"


def _log_bucket(trail: TrailSettings) -> str | None:
    assert not isinstance(trail.log_bucket_block, Unread)
    assert not isinstance(trail.log_bucket_grants, Unread)
    switches = trail.log_bucket_block
    if trail.log_bucket_is_public and not switches.get("RestrictPublicBuckets"):
        return "the log bucket's policy is public"
    if public_acl_permissions(trail.log_bucket_grants) and not switches.get("IgnorePublicAcls"):
        return "the log bucket's ACL is public"
    return None


def records_kms_events(selectors: Mapping[str, Any]) -> bool:
    """Whether a trail's selectors together record every management event of KMS.

    Decrypt and GenerateDataKey are management events of the read kind, DisableKey and CreateGrant of
    the write kind, so both kinds are needed, by one selector or by several.
    """
    kinds: set[str] = set()
    for basic in selectors.get("EventSelectors") or ():
        excluded = basic.get("ExcludeManagementEventSources") or ()
        if basic.get("IncludeManagementEvents", True) and _KMS not in excluded:
            kinds |= _kinds_of(basic)
    for fields in _advanced(selectors, "Management"):
        kind = _read_only_kinds(fields)
        source = fields.pop("eventSource", None)
        names_kms = source is None or (
            set(source) <= {"Equals", "NotEquals"}
            and (_KMS in source["Equals"] if source.get("Equals") else True)
            and _KMS not in (source.get("NotEquals") or ())
        )
        # Any further field (eventName, …) narrows what is recorded.
        if names_kms and not fields:
            kinds |= kind
    return kinds == _BOTH_KINDS


def records_data_events(selectors: Mapping[str, Any], resource_type: str, arn: str) -> bool:
    """Whether a trail's selectors together record reads and writes of a bucket's objects or a table's items."""
    stem = f"{arn}/" if resource_type == "AWS::S3::Object" else arn
    kinds: set[str] = set()
    for basic in selectors.get("EventSelectors") or ():
        for data in basic.get("DataResources") or ():
            values = data.get("Values") or ()
            if data.get("Type") == resource_type and any(_takes_in(value, stem) for value in values):
                kinds |= _kinds_of(basic)
    for fields in _advanced(selectors, "Data"):
        recorded = _read_only_kinds(fields)
        kind = fields.pop("resources.type", {})
        arns = fields.pop("resources.ARN", None)
        if fields or resource_type not in (kind.get("Equals") or ()):
            continue
        if arns is None or (
            set(arns) <= {"Equals", "StartsWith"}
            and (
                any(stem.startswith(prefix) for prefix in arns.get("StartsWith") or ())
                or (resource_type != "AWS::S3::Object" and arn in (arns.get("Equals") or ()))
            )
        ):
            kinds |= recorded
    return kinds == _BOTH_KINDS


_BOTH_KINDS: Final = {"read", "write"}


def _kinds_of(basic: Mapping[str, Any]) -> set[str]:
    """What a basic selector records: ``All``, ``ReadOnly`` or ``WriteOnly``."""
    named = {"All": _BOTH_KINDS, "ReadOnly": {"read"}, "WriteOnly": {"write"}}
    return set(named.get(basic.get("ReadWriteType", "All"), ()))


def _read_only_kinds(fields: dict[str, Mapping[str, Any]]) -> set[str]:
    """What an advanced selector's ``readOnly`` leaves; takes the field away."""
    read_only = fields.pop("readOnly", None)
    if read_only is None:
        return set(_BOTH_KINDS)
    if set(read_only) != {"Equals"}:
        return set()
    return {{"true": "read", "false": "write"}.get(str(value).lower(), "") for value in read_only["Equals"]} - {""}


def _takes_in(value: str, stem: str) -> bool:
    """A basic selector's value: ``arn:aws:s3`` is everything, ``…:::bucket/`` one bucket's objects."""
    return stem == value or (stem.startswith(value) and (value.count(":") == 2 or value.endswith((":", "/"))))


def _advanced(selectors: Mapping[str, Any], category: str) -> Iterable[dict[str, Mapping[str, Any]]]:
    """Per advanced selector of this category: its other fields by name, operators in use only."""
    for advanced in selectors.get("AdvancedEventSelectors") or ():
        fields: dict[str, Mapping[str, Any]] = {
            str(entry.get("Field")): {name: value for name, value in entry.items() if name != "Field" and value}
            for entry in advanced.get("FieldSelectors") or ()
        }
        if category in (fields.pop("eventCategory", {}).get("Equals") or ()):
            yield fields


def _missing_data_events(account: AccountSettings, resource_type: str, arns: tuple[str, ...]) -> str | None:
    trails = account.selectors
    assert not isinstance(trails, Unread)
    missing = [
        arn.rsplit(":", 1)[-1]
        for arn in arns
        if not any(records_data_events(selectors, resource_type, arn) for selectors in trails)
    ]
    if not missing:
        return None
    more = f" and {len(missing) - _NAMES_SHOWN} more" if len(missing) > _NAMES_SHOWN else ""
    return f"no trail records data events of {', '.join(missing[:_NAMES_SHOWN])}{more}"


def _data_events_fix(account: AccountSettings, resource_type: str) -> str:
    seen = account.present_trails
    trail = "TRAIL-ARN" if isinstance(seen, Unread) or not seen else seen[0].resource
    return (
        f"aws cloudtrail put-event-selectors --trail-name {trail} --advanced-event-selectors "
        '\'[{"Name":"management","FieldSelectors":[{"Field":"eventCategory","Equals":["Management"]}]},'
        '{"Name":"data","FieldSelectors":[{"Field":"eventCategory","Equals":["Data"]},'
        f'{{"Field":"resources.type","Equals":["{resource_type}"]}}]}}]\' --region {account.region}'
    )


def _present(account: AccountSettings) -> str | None:
    return None if account.present_trails else "there is no trail"


RULES: Final[tuple[Rule[TrailSettings], ...]] = (
    Rule(
        "cloudtrail-logging",
        "The trail is logging",
        Severity.CRITICAL,
        "logging on",
        ("described", "status"),
        _logging,
        lambda trail: _command(trail, "start-logging"),
        ("CLOUD_TRAIL_ENABLED",),
        (AUDIT, ACTIVITY_REVIEW),
    ),
    Rule(
        "cloudtrail-multi-region",
        "The trail records every Region",
        Severity.MEDIUM,
        "a multi-Region trail",
        ("described",),
        lambda trail: _described(trail, "IsMultiRegionTrail", "the trail records one Region"),
        lambda trail: _command(trail, "update-trail", "--is-multi-region-trail"),
        ("MULTI_REGION_CLOUD_TRAIL_ENABLED",),
        (AUDIT,),
    ),
    Rule(
        "cloudtrail-log-validation",
        "Changes to log files are evident",
        Severity.HIGH,
        "log file validation on",
        ("described",),
        lambda trail: _described(trail, "LogFileValidationEnabled", "log file validation is off"),
        lambda trail: _command(trail, "update-trail", "--enable-log-file-validation"),
        ("CLOUD_TRAIL_LOG_FILE_VALIDATION_ENABLED",),
        (INTEGRITY, AUDIT),
    ),
    Rule(
        "cloudtrail-encryption",
        "Log files are encrypted with a KMS key",
        Severity.MEDIUM,
        "a KMS key on the trail",
        ("described",),
        lambda trail: _described(trail, "KmsKeyId", "the trail has no KMS key"),
        lambda trail: _command(trail, "update-trail", "--kms-key-id KEY-ARN"),
        ("CLOUD_TRAIL_ENCRYPTION_ENABLED",),
        (ENCRYPTION,),
    ),
    Rule(
        "cloudtrail-kms-events",
        "KMS events are recorded",
        Severity.HIGH,
        "management events of read and write kind, kms.amazonaws.com not excluded",
        ("selectors",),
        _kms_events,
        lambda trail: (
            f"aws cloudtrail put-event-selectors --trail-name {trail.resource} --event-selectors "
            '\'[{"ReadWriteType":"All","IncludeManagementEvents":true,"ExcludeManagementEventSources":[]}]\' '
            f"--region {trail.region}"
        ),
        ("CLOUDTRAIL_SECURITY_TRAIL_ENABLED",),
        (AUDIT, ACTIVITY_REVIEW),
    ),
    Rule(
        "cloudtrail-log-bucket-private",
        "The log bucket is not public",
        Severity.CRITICAL,
        "no public policy or ACL on the log bucket",
        ("log_bucket_block", "log_bucket_is_public", "log_bucket_grants"),
        _log_bucket,
        _log_bucket_command,
        ("CLOUDTRAIL_S3_BUCKET_PUBLIC_ACCESS_PROHIBITED",),
        (ACCESS, AUDIT),
    ),
)

ACCOUNT_RULES: Final[tuple[Rule[AccountSettings], ...]] = (
    Rule(
        "cloudtrail-present",
        "There is a trail",
        Severity.CRITICAL,
        "at least one trail, or the declared ones",
        ("present_trails",),
        _present,
        lambda account: (
            "aws cloudtrail create-trail --name account-trail --s3-bucket-name LOG-BUCKET --is-multi-region-trail "
            f"--enable-log-file-validation --kms-key-id KEY-ARN --region {account.region} && "
            f"aws cloudtrail start-logging --name account-trail --region {account.region}"
        ),
        ("CLOUD_TRAIL_ENABLED",),
        (AUDIT,),
    ),
    Rule(
        "cloudtrail-s3-data-events",
        "Reads and writes of declared buckets are recorded",
        Severity.MEDIUM,
        "data events of every declared bucket",
        ("trails", "selectors"),
        lambda account: _missing_data_events(account, "AWS::S3::Object", account.bucket_arns),
        lambda account: _data_events_fix(account, "AWS::S3::Object"),
        ("CLOUDTRAIL_S3_DATAEVENTS_ENABLED",),
        (AUDIT,),
        applies=lambda account: bool(account.bucket_arns),
    ),
    Rule(
        "cloudtrail-dynamodb-data-events",
        "Reads and writes of declared tables are recorded",
        Severity.MEDIUM,
        "data events of every declared table",
        ("trails", "selectors"),
        lambda account: _missing_data_events(account, "AWS::DynamoDB::Table", account.table_arns),
        lambda account: _data_events_fix(account, "AWS::DynamoDB::Table"),
        (),
        (AUDIT,),
        applies=lambda account: bool(account.table_arns),
    ),
)
