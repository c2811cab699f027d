"""CloudTrail-shaped records of the requests that a local KMS received, with the field names that AWS documents."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phicrypt.testing.strict_kms_operations import ACCOUNT_ID, Request

ROLE_ARN = f"arn:aws:iam::{ACCOUNT_ID}:role/Portal"
SESSION_ARN = f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/Portal/i-0abc"


def record_of(request: Request, key_arn: str, **changes: Any) -> dict[str, Any]:
    """One request as CloudTrail would log it; ``changes`` replace top-level members."""
    parameters = {
        name: request.parameters[name]
        for name in ("EncryptionContext", "EncryptionAlgorithm", "NumberOfBytes", "KeySpec")
        if name in request.parameters
    }
    record: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "AssumedRole",
            "principalId": "AROAEXAMPLE:i-0abc",
            "arn": SESSION_ARN,
            "accountId": ACCOUNT_ID,
            "accessKeyId": request.access_key_id,
            "sessionContext": {
                "sessionIssuer": {
                    "type": "Role",
                    "principalId": "AROAEXAMPLE",
                    "arn": ROLE_ARN,
                    "userName": "Portal",
                },
                "attributes": {"creationDate": "2026-01-31T00:00:00Z", "mfaAuthenticated": "false"},
            },
        },
        "eventTime": datetime.fromtimestamp(int(request.time), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": "kms.amazonaws.com",
        "eventName": request.operation,
        "awsRegion": request.region,
        "sourceIPAddress": "10.0.0.1",
        "userAgent": request.user_agent[:1024],
        "requestParameters": {name[0].lower() + name[1:]: value for name, value in parameters.items()},
        "responseElements": None,
        "requestID": request.request_id,
        "eventID": request.event_id,
        "readOnly": True,
        "resources": [{"accountId": ACCOUNT_ID, "type": "AWS::KMS::Key", "ARN": key_arn}],
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": ACCOUNT_ID,
        "eventCategory": "Management",
    }
    if request.error_code:
        record |= {"errorCode": request.error_code, "errorMessage": "refused"}
    return record | changes


def deliver(folder: Path, records: Iterable[dict[str, Any]], *, records_per_file: int = 1_000) -> None:
    """Write records as CloudTrail delivers them: gzip JSON, several files."""
    waiting = list(records)
    for number, start in enumerate(range(0, len(waiting), records_per_file)):
        path = folder / f"{ACCOUNT_ID}_CloudTrail_us-east-1_20260131T0000Z_{number:016d}.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            gzip.compress(json.dumps({"Records": waiting[start : start + records_per_file]}).encode(), 1)
        )
