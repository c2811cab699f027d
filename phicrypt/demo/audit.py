"""The audit chapter: who used which key, a log that tells when it was altered, and CloudTrail's side of it."""

from __future__ import annotations

import gzip
import json
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phicrypt import CachePolicy, KmsKeyring, PhiCrypt, Purpose
from phicrypt.audit import AuditTrail, JsonlSink
from phicrypt.audit.events import format_time
from phicrypt.demo.stage import Stage
from phicrypt.evidence.findings import Category
from phicrypt.evidence.join import join, log_events, trail_source
from phicrypt.evidence.report import render
from phicrypt.evidence.verify import verify

_ROLE_ARN = "arn:aws:iam::123456789012:role/Portal"


def tell(stage: Stage) -> None:
    """Uses with actors and purposes, a verified chain, an altered line, and a join with one foreign use."""
    stage.chapter("Audit: who used which key, when, why, and does CloudTrail agree")
    log, trail_folder = stage.folder / "audit.jsonl", stage.folder / "cloudtrail"
    first_request = len(stage.aws.kms_requests)
    _use_keys(stage, log)
    _verify_and_alter(stage, log)
    # Somebody with access to the key, but without phicrypt: CloudTrail sees it, the log does not.
    stage.aws.client("kms").generate_data_key(KeyId=stage.aws.kms_key_arn, KeySpec="AES_256")
    _deliver(stage.aws.kms_requests[first_request:], stage.aws.kms_key_arn, trail_folder)
    _join(stage, log, trail_folder)


def _use_keys(stage: Stage, log: Path) -> None:
    trail = AuditTrail([JsonlSink(log)], application="portal", principal=_ROLE_ARN)
    keyring = KmsKeyring(stage.aws.kms_key_arn, client=stage.aws.client("kms"))
    with PhiCrypt(keyring=keyring, cache=CachePolicy(max_messages=1_000), audit=trail) as phi:
        context = {"tenant": "clinic-7", "resource-type": "DiagnosticReport"}
        with phi.acting_as(actor="dr-4711", purpose=Purpose.TREATMENT):
            messages = [phi.encrypt(f"report {number}".encode(), context=context) for number in range(20)]
        with phi.acting_as(actor="billing-2", purpose=Purpose.PAYMENT):
            for message in messages:
                phi.decrypt(message, context={"tenant": "clinic-7"})
    uses = [event for event in log_events(log) if event.kind in ("use", "end")]
    stage.say("Each use of a key leaves an event: who, why, on what, under which key, with which result.")
    stage.table(
        "",
        ("Time", "Actor", "Purpose", "Operation", "Key from cache", "KMS request"),
        (
            (
                format_time(use.time_ns)[11:23],
                use.actor,
                use.purpose,
                use.operation,
                use.cache_hit,
                use.origin.request_ids[-1][:8] if use.origin and use.origin.request_ids else "",
            )
            for use in (*uses[:2], *uses[-2:])
        ),
    )
    stage.check(
        len(uses) == 40, "40 uses of keys, 40 events, though CloudTrail saw only the KMS calls behind them"
    )


def _verify_and_alter(stage: Stage, log: Path) -> None:
    whole = log.read_bytes()
    stage.check(verify(log).is_valid, "the hash chain of the log is intact")
    log.write_bytes(whole.replace(b"billing-2", b"billing-3", 1))
    altered = verify(log)
    log.write_bytes(whole)
    stage.check(not altered.is_valid, "one actor's name altered: the chain says where")
    stage.show("First broken record", altered.faults[0])


def _join(stage: Stage, log: Path, trail_folder: Path) -> None:
    read, _ = trail_source(str(trail_folder), client=stage.aws.client)
    with join(log, read) as joined:
        counts = joined.matcher.counts()
        stage.table("The log joined with CloudTrail", ("Finding", "KMS calls"), counts.items())
        stage.check(
            counts[Category.MATCHED] == 2, "every KMS call of ours is matched one to one by its request id"
        )
        stage.check(
            counts[Category.LOCAL_ONLY] == 0 and counts[Category.TRAIL_ONLY] == 1,
            "the one use of our key outside phicrypt is found",
        )
        page = render(joined, title="Audit of the demo", verification=verify(log))
    # Not in the stage's folder, which is removed when the demo ends.
    report = Path(tempfile.mkdtemp(prefix="phicrypt-audit-report-")) / "report.html"
    report.write_text(page, encoding="utf-8")
    stage.show("Report to open", report)


def _deliver(requests: list[dict[str, Any]], key_arn: str, folder: Path) -> None:
    """What CloudTrail would deliver for these requests: the local AWS has no CloudTrail of its own."""
    account = key_arn.split(":")[4]
    records = [
        {
            "eventVersion": "1.11",
            "userIdentity": {
                "type": "AssumedRole",
                "arn": f"arn:aws:sts::{account}:assumed-role/Portal/demo",
                "sessionContext": {"sessionIssuer": {"type": "Role", "arn": _ROLE_ARN}},
            },
            "eventTime": datetime.fromtimestamp(int(request["time"]), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "eventSource": "kms.amazonaws.com",
            "eventName": request["operation"],
            "awsRegion": request["region"],
            "userAgent": request["user_agent"],
            "requestParameters": {"encryptionContext": request["parameters"].get("EncryptionContext")},
            "requestID": request["request_id"],
            "eventID": str(uuid.uuid4()),
            "resources": [{"type": "AWS::KMS::Key", "ARN": key_arn}],
            "recipientAccountId": account,
        }
        for request in requests
    ]
    folder.mkdir()
    (folder / "trail.json.gz").write_bytes(gzip.compress(json.dumps({"Records": records}).encode()))
