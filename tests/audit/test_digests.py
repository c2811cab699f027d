"""CloudTrail's digest files: signatures, chains of digests, and the hashes of log files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from phicrypt.audit.events import parse_time
from phicrypt.evidence.digests import verify_bucket, verify_folder

BUCKET = "trail"
FINGERPRINT = "aa11"


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class Trail:
    """A bucket with two hours of log files, and their digests as CloudTrail makes them."""

    def __init__(self, private_key: rsa.RSAPrivateKey, region: str = "us-east-1", minute: int = 0) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.public_key = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
        previous: dict[str, Any] = dict.fromkeys(
            ("previousDigestS3Object", "previousDigestHashValue", "previousDigestSignature")
        )
        for hour in (1, 2):
            log_key = f"AWSLogs/1/CloudTrail/{region}/2026/01/31/log-{hour}.json.gz"
            log = json.dumps({"Records": [{"hour": hour}]}).encode()
            self.objects[log_key] = (gzip.compress(log), {})
            digest_key = f"AWSLogs/1/CloudTrail-Digest/{region}/2026/01/31/digest-{hour}.json.gz"
            digest = {
                "digestEndTime": f"2026-01-31T0{hour}:{minute:02}:00Z",
                "digestS3Bucket": BUCKET,
                "digestS3Object": digest_key,
                "digestPublicKeyFingerprint": FINGERPRINT,
                **previous,
                "logFiles": [
                    {
                        "s3Bucket": BUCKET,
                        "s3Object": log_key,
                        "hashValue": hashlib.sha256(log).hexdigest(),
                        "hashAlgorithm": "SHA-256",
                    }
                ],
            }
            content = json.dumps(digest).encode()
            content_hash = hashlib.sha256(content).hexdigest()
            signed = "\n".join(
                (
                    digest["digestEndTime"],
                    f"{BUCKET}/{digest_key}",
                    content_hash,
                    previous["previousDigestSignature"] or "null",
                )
            )
            signature = private_key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()).hex()
            self.objects[digest_key] = (gzip.compress(content), {"signature": signature})
            previous = {
                "previousDigestS3Object": digest_key,
                "previousDigestHashValue": content_hash,
                "previousDigestSignature": signature,
            }

    def get_paginator(self, name: str) -> Trail:
        return self

    def paginate(self, **question: str) -> Iterator[dict[str, Any]]:
        yield {"Contents": [{"Key": name} for name in self.objects if name.startswith(question["Prefix"])]}

    def get_object(self, **question: str) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        if question["Key"] not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": ""}}, "GetObject")
        content, metadata = self.objects[question["Key"]]
        return {"Body": io.BytesIO(content), "Metadata": metadata}

    def list_public_keys(self, **question: Any) -> dict[str, Any]:
        return {"PublicKeyList": [{"Fingerprint": FINGERPRINT, "Value": self.public_key}]}

    def replace(self, name: str, change: bytes) -> None:
        object_key = next(key for key in self.objects if name in key)
        content, metadata = self.objects[object_key]
        self.objects[object_key] = (gzip.compress(gzip.decompress(content) + change), metadata)


@pytest.fixture
def trail(private_key: rsa.RSAPrivateKey) -> Trail:
    return Trail(private_key)


def problems(trail: Trail) -> list[str]:
    report = verify_bucket(trail, f"s3://{BUCKET}/AWSLogs", trail)
    assert report is not None
    return report.problems


def test_unchanged_digests_and_log_files_verify(trail: Trail) -> None:
    report = verify_bucket(trail, f"s3://{BUCKET}/AWSLogs", trail)
    assert report is not None
    assert report.is_valid, report.problems
    assert (report.digests, report.signatures, report.unsigned, report.log_files) == (2, 2, 0, 2)


def test_rule_24_a_changed_log_file_is_named(trail: Trail) -> None:
    trail.replace("log-1", b" ")
    assert problems(trail) == ["log-1.json.gz: the log file was changed"]


def test_rule_24_a_removed_log_file_is_named(trail: Trail) -> None:
    del trail.objects[next(key for key in trail.objects if "log-2" in key)]
    assert problems(trail) == ["log-2.json.gz: the log file is missing"]


def test_rule_24_a_changed_digest_is_named(trail: Trail) -> None:
    trail.replace("digest-1", b" ")
    assert set(problems(trail)) == {
        "digest-1.json.gz: the signature is not CloudTrail's",
        "digest-1.json.gz: the digest was changed",
    }


def test_rule_24_a_removed_signature_is_named(trail: Trail) -> None:
    object_key = next(key for key in trail.objects if "digest-2" in key)
    trail.objects[object_key] = (trail.objects[object_key][0], {})
    assert problems(trail) == ["digest-2.json.gz: the signature is not CloudTrail's"]


def test_rule_24_a_digest_moved_to_another_place_is_named(trail: Trail) -> None:
    object_key = next(key for key in trail.objects if "digest-2" in key)
    trail.objects[object_key.replace("digest-2", "digest-3")] = trail.objects.pop(object_key)
    assert problems(trail) == ["digest-3.json.gz: the digest belongs to another place"]


def test_rule_24_a_removed_digest_in_between_is_named(trail: Trail) -> None:
    report_before = problems(trail)
    assert report_before == []
    first = next(key for key in trail.objects if "digest-1" in key)
    earlier = first.replace("digest-1", "digest-0")
    content = json.loads(gzip.decompress(trail.objects[first][0])) | {
        "digestS3Object": earlier,
        "digestEndTime": "2026-01-31T00:00:00Z",
        "logFiles": [],
    }
    del trail.objects[first]
    trail.objects[earlier] = (gzip.compress(json.dumps(content).encode()), {"signature": "00"})
    assert "digest-1.json.gz: the digest is missing" in problems(trail)


def test_rule_24_a_foreign_public_key_does_not_verify(trail: Trail) -> None:
    other = rsa.generate_private_key(65537, 2048)
    trail.public_key = other.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    assert len(problems(trail)) == 2


def test_unreadable_digests_are_named(trail: Trail) -> None:
    for name, content in (("digest-8", b"\x1f\x8bxx"), ("digest-9", b"{}")):
        trail.objects[f"AWSLogs/1/CloudTrail-Digest/us-east-1/2026/01/31/{name}.json.gz"] = (content, {})
    assert [problem.partition(":")[0] for problem in problems(trail)] == ["digest-8.json.gz", "digest-9.json.gz"]


def test_each_region_has_a_chain_of_digests_of_its_own(trail: Trail, private_key: rsa.RSAPrivateKey) -> None:
    """Of a bucket whose older days expired, the first digest of each Region names one that is gone."""
    other = Trail(private_key, "eu-west-1", minute=20)
    trail.objects |= other.objects
    expired = [key for key in trail.objects if key.endswith("-1.json.gz")]
    assert len(expired) == 4
    for object_key in expired:
        del trail.objects[object_key]
    assert problems(trail) == []


def test_only_the_days_that_are_asked_are_checked(trail: Trail) -> None:
    trail.replace("log-1", b" ")
    for since, until, expected in (
        ("2026-01-31T12:00:00Z", None, 1),
        (None, "2026-01-31T12:00:00Z", 1),
        ("2026-02-03T00:00:00Z", None, 0),
        (None, "2026-01-29T00:00:00Z", 0),
    ):
        times = {"since_ns": since and parse_time(since), "until_ns": until and parse_time(until)}
        report = verify_bucket(trail, f"s3://{BUCKET}/AWSLogs", trail, **times)
        assert len(report.problems if report is not None else ()) == expected


def test_copies_in_a_folder_have_their_hashes_checked_and_no_signature(trail: Trail, tmp_path: Path) -> None:
    for object_key, (content, _) in trail.objects.items():
        (tmp_path / object_key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / object_key).write_bytes(content)
    report = verify_folder(tmp_path)
    assert report is not None
    assert report.is_valid, report.problems
    assert (report.digests, report.signatures, report.unsigned, report.log_files) == (2, 0, 2, 2)
    log = next(tmp_path.rglob("log-1.json.gz"))
    log.write_bytes(gzip.compress(b"{}"))
    changed = verify_folder(tmp_path)
    assert changed is not None
    assert changed.problems == ["log-1.json.gz: the log file was changed"]


def test_without_digests_there_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text("{}")
    assert verify_folder(tmp_path) is None
