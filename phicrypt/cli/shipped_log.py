"""``phicrypt doctor --shipped-log``: whether the log's copies in the audit buckets are whole and locked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from phicrypt.posture.declaration import BucketDeclaration
from phicrypt.posture.rules.findings import AUDIT, DOCUMENTATION, INTEGRITY, Finding, Outcome, Severity

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

RULE_ID: Final = "audit-log-shipped"
_READS: Final = "s3:ListBucket, s3:GetObject, s3:GetObjectRetention"


def shipped_finding(
    s3_client: S3Client, declared: BucketDeclaration, prefix: str, log: Path, *, region: str
) -> Finding:
    """One finding for a bucket that is declared as audit. Raises ConfigurationError if there is no such log."""
    from botocore.exceptions import BotoCoreError, ClientError

    from phicrypt.evidence.shipped import read_shipped

    try:
        shipped = read_shipped(s3_client, declared.name, prefix, log=log)
    except ClientError as error:
        outcome, found = Outcome.NOT_CHECKED, f"could not check: {error.response['Error']['Code']}, needs {_READS}"
    except BotoCoreError as error:
        outcome, found = Outcome.NOT_CHECKED, f"could not check: {type(error).__name__}"
    else:
        problems = list(shipped.problems())
        outcome = Outcome.FAILED if problems else Outcome.PASSED
        found = (
            "; ".join(problems) or f"{shipped.segments:,} segments with {shipped.records:,} records, all locked"
        )
    return Finding(
        rule_id=RULE_ID,
        title="The log's copies are whole and locked",
        severity=Severity.HIGH,
        outcome=outcome,
        resource=f"arn:aws:s3:::{declared.name}",
        region=region,
        expected="every event of the log in whole chains, each object in compliance mode for six years",
        found=found,
        hipaa=(AUDIT, INTEGRITY, DOCUMENTATION),
    )
