"""A true log and a true trail with digests: two chains with anchors, two Regions, five hours.

Nothing here asks a KMS: events and records are made from one list of calls, as phicrypt and CloudTrail
write them, so that tests can change either side and know what is true.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from phicrypt.audit.events import AuditEvent, format_time, parse_time
from phicrypt.audit.sinks.chain import Chain
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.evidence.join import join, trail_source
from phicrypt.evidence.verdict import Verdict, verdict_of_join

ACCOUNT = "111122223333"
BUCKET = "trail"
REGIONS = ("eu-west-1", "us-east-1")
KEY_ARN = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ANCHOR_KEY_ARN = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/aaaaaaaa-12ab-34cd-56ef-1234567890ab"
OTHER_KEY_ARN = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/bbbbbbbb-12ab-34cd-56ef-1234567890ab"
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/Portal"
SINCE, UNTIL = parse_time("2026-01-31T00:00:00Z"), parse_time("2026-01-31T05:00:00Z")
_HOUR_NS = 3_600 * 10**9
_MINUTE_NS = 60 * 10**9
FINGERPRINT = "aa11"


@cache
def cloudtrails_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def trail_record(
    number: random.Random, time_ns: int, operation: str, key_arn: str, **members: Any
) -> dict[str, Any]:
    """A record with the members that AWS documents for KMS."""
    return {
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "AssumedRole",
            "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/Portal/i-0abc",
            "accountId": ACCOUNT,
            "sessionContext": {"sessionIssuer": {"type": "Role", "arn": ROLE_ARN}},
        },
        "eventTime": f"{format_time(time_ns)[:19]}Z",
        "eventSource": "kms.amazonaws.com",
        "eventName": operation,
        "awsRegion": key_arn.split(":")[3],
        "sourceIPAddress": "10.0.0.1",
        "userAgent": "Boto3/1.40",
        "requestParameters": {"encryptionContext": {"tenant": "clinic-7"}},
        "responseElements": None,
        "requestID": str(uuid.UUID(int=number.getrandbits(128))),
        "eventID": str(uuid.UUID(int=number.getrandbits(128))),
        "readOnly": True,
        "resources": [{"accountId": ACCOUNT, "type": "AWS::KMS::Key", "ARN": key_arn}],
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": ACCOUNT,
        "eventCategory": "Management",
        **members,
    }


@dataclass
class Evidence:
    """Both sides, to be changed: the log's bytes, and the bucket's objects with their metadata."""

    log: bytes
    objects: dict[str, tuple[bytes, dict[str, str]]]
    anchored_lines: int = 0
    """How many lines of the log lie up to the last anchor: these nobody can change unseen."""

    def copy(self) -> Evidence:
        return Evidence(self.log, dict(self.objects), self.anchored_lines)

    def log_keys(self) -> list[str]:
        return sorted(key for key in self.objects if "/CloudTrail/" in key)

    def digest_keys(self) -> list[str]:
        return sorted(key for key in self.objects if "/CloudTrail-Digest/" in key)

    def lines(self) -> list[bytes]:
        return self.log.splitlines(keepends=True)

    def document(self, object_key: str) -> Any:
        return json.loads(gzip.decompress(self.objects[object_key][0]))

    def put(self, object_key: str, document: Any) -> None:
        """Replace a file's content; its signature stays what it was."""
        content = gzip.compress(json.dumps(document).encode(), 1)
        self.objects[object_key] = (content, self.objects.get(object_key, (b"", {}))[1])

    # What the readers ask of boto3's clients

    def get_paginator(self, name: str) -> Evidence:
        return self

    def paginate(self, **question: str) -> Iterator[dict[str, Any]]:
        yield {"Contents": [{"Key": key} for key in sorted(self.objects) if key.startswith(question["Prefix"])]}

    def get_object(self, **question: str) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        if question["Key"] not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": ""}}, "GetObject")
        content, metadata = self.objects[question["Key"]]
        return {"Body": io.BytesIO(content), "Metadata": metadata}

    def list_public_keys(self, **question: Any) -> dict[str, Any]:
        key = cloudtrails_key().public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
        return {"PublicKeyList": [{"Fingerprint": FINGERPRINT, "Value": key}]}


@dataclass
class _Writer:
    """Writes both sides hour by hour."""

    random: random.Random
    lines: list[bytes] = field(default_factory=list)
    records: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    anchored_lines: int = 0

    def begin_chain(self, time_ns: int) -> Chain:
        chain = Chain()
        chain.chain_id = f"{self.random.getrandbits(128):032x}"
        chain._start = f'{{"phicrypt-audit":1,"chain":"{chain.chain_id}","sequence":'
        follows = json.loads(self.lines[-1])["sha256"] if self.lines else None
        self.append(chain, chain.start_event(follows=follows)._replace(time_ns=time_ns))
        return chain

    def append(self, chain: Chain, event: AuditEvent) -> None:
        (line,), hashes_of_lines = chain.lines([event])
        chain.advance(hashes_of_lines)
        self.lines.append(line)

    def call(self, chain: Chain, time_ns: int, number: int) -> None:
        """A use that called KMS, and two with the cached key."""
        operation = self.random.choice(["GenerateDataKey", "Decrypt"])
        record = trail_record(self.random, time_ns, operation, KEY_ARN)
        self.records.append((time_ns, record))
        origin = KeyOrigin("aws-kms", KEY_ARN, None, (record["requestID"],), operation=operation)
        for hit in range(3):
            use = AuditEvent(
                time_ns + hit * 10**9, "use", f"use-{number}-{hit}", "encrypt", "success", format="esdk"
            )
            actor = f"dr-{self.random.randrange(9)}"
            self.append(
                chain,
                use._replace(
                    origin=origin,
                    cache_hit=hit > 0,
                    actor=actor,
                    purpose="treatment",
                    principal=ROLE_ARN,
                    context={"tenant": "clinic-7"},
                ),
            )

    def anchor(self, chain: Chain, time_ns: int) -> None:
        head = chain.head
        assert head is not None
        self.anchored_lines = len(self.lines)
        operation = "GenerateDataKeyWithoutPlaintext"
        record = trail_record(self.random, time_ns, operation, ANCHOR_KEY_ARN)
        record["requestParameters"]["encryptionContext"] = {
            "phicrypt-audit-chain": head.chain_id,
            "phicrypt-audit-sequence": str(head.sequence),
            "phicrypt-audit-head": head.sha256,
        }
        self.records.append((time_ns, record))
        origin = KeyOrigin("aws-kms", ANCHOR_KEY_ARN, None, (record["requestID"],), operation=operation)
        detail = {"sequence": head.sequence, "sha256": head.sha256}
        event = AuditEvent(time_ns, "anchor", f"anchor-{head.sequence}", "audit.anchor", "success", origin=origin)
        self.append(chain, event._replace(principal=ROLE_ARN, detail=detail))


def true_evidence(seed: int = 7) -> Evidence:
    """Chain A ends anchored; of chain B two calls and what belongs to them lie behind its last anchor."""
    writer = _Writer(random.Random(seed))
    first = writer.begin_chain(SINCE)
    for number in range(8):
        writer.call(first, SINCE + (10 + 15 * number) * _MINUTE_NS, number)
        if number in (3, 7):
            writer.anchor(first, SINCE + (15 + 15 * number) * _MINUTE_NS)
    second = writer.begin_chain(SINCE + 140 * _MINUTE_NS)
    for number in range(8, 14):
        writer.call(second, SINCE + (30 + 15 * number) * _MINUTE_NS, number)
        if number == 11:
            writer.anchor(second, SINCE + (35 + 15 * number) * _MINUTE_NS)
    evidence = Evidence(b"".join(writer.lines), {}, writer.anchored_lines)
    for region in REGIONS:
        _deliver(evidence, writer, region)
    return evidence


def _deliver(evidence: Evidence, writer: _Writer, region: str) -> None:
    root = f"AWSLogs/{ACCOUNT}"
    previous: dict[str, Any] = dict.fromkeys(
        ("previousDigestS3Object", "previousDigestHashValue", "previousDigestSignature")
    )
    for hour in range(5):
        start = SINCE + hour * _HOUR_NS
        ours = [record for time_ns, record in writer.records if start <= time_ns < start + _HOUR_NS]
        records = ours if region == "us-east-1" else []
        records = [*records, trail_record(writer.random, start, "Decrypt", OTHER_KEY_ARN, awsRegion=region)]
        parts = [records[: len(records) // 2], records[len(records) // 2 :]]
        if len(records) > 1:
            parts[1].append(parts[0][0])  # delivered twice
        entries = []
        for part, delivered in enumerate(one for one in parts if one):
            name = f"{ACCOUNT}_CloudTrail_{region}_20260131T{hour:02}{5 + 30 * part:02}Z_{hour}{part}.json.gz"
            key = f"{root}/CloudTrail/{region}/2026/01/31/{name}"
            evidence.put(key, {"Records": delivered})
            sha256 = hashlib.sha256(gzip.decompress(evidence.objects[key][0])).hexdigest()
            entries.append({"s3Bucket": BUCKET, "s3Object": key, "hashValue": sha256, "hashAlgorithm": "SHA-256"})
        name = f"{ACCOUNT}_CloudTrail-Digest_{region}_main_{region}_20260131T{hour + 1:02}0000Z.json.gz"
        previous = _sign(evidence, f"{root}/CloudTrail-Digest/{region}/2026/01/31/{name}", hour, entries, previous)


def _sign(
    evidence: Evidence, key: str, hour: int, entries: list[dict[str, str]], previous: dict[str, Any]
) -> dict[str, Any]:
    digest = {
        "awsAccountId": ACCOUNT,
        "digestStartTime": f"2026-01-31T{hour:02}:00:00Z",
        "digestEndTime": f"2026-01-31T{hour + 1:02}:00:00Z",
        "digestS3Bucket": BUCKET,
        "digestS3Object": key,
        "digestPublicKeyFingerprint": FINGERPRINT,
        "digestSignatureAlgorithm": "SHA256withRSA",
        **previous,
        "previousDigestHashAlgorithm": "SHA-256",
        "logFiles": entries,
    }
    evidence.put(key, digest)
    sha256 = hashlib.sha256(gzip.decompress(evidence.objects[key][0])).hexdigest()
    before = previous["previousDigestSignature"] or "null"
    signed = f"{digest['digestEndTime']}\n{BUCKET}/{key}\n{sha256}\n{before}".encode()
    signature = cloudtrails_key().sign(signed, padding.PKCS1v15(), hashes.SHA256()).hex()
    evidence.objects[key] = (evidence.objects[key][0], {"signature": signature})
    return {
        "previousDigestS3Object": key,
        "previousDigestHashValue": sha256,
        "previousDigestSignature": signature,
    }


def judge(evidence: Evidence, folder: Path, **changes: Any) -> Verdict:
    """The verdict of the join of both sides, with the bucket's digests, over the five hours."""
    log = folder / "audit.jsonl"
    log.write_bytes(evidence.log)
    location = f"s3://{BUCKET}/AWSLogs"
    times = {"since_ns": SINCE, "until_ns": UNTIL} | changes
    read, check_digests = trail_source(location, client=lambda service: evidence)
    digests = check_digests(times["since_ns"], times["until_ns"])
    keys = [KEY_ARN]
    with join(log, read, key_arns=keys, principals=[ROLE_ARN], digests=digests, **times) as joined:
        return verdict_of_join(joined)
