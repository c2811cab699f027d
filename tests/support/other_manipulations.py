"""Further changes, of kinds that the first list lacks: formats around records, digests, both sides at once.

They are kept apart from the first list: what was made safe against these must hold for those, and back.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from support.manipulations import (
    BOTH,
    HARMLESS,
    LOG,
    REPORTED,
    TRAIL,
    UNANCHORED,
    Change,
    Kind,
    anchored_line,
    beside,
    edit_digest,
    foreign_use,
    forged,
    forged_bytes,
    genuine,
    raw,
    recomputed,
    rewritten,
    tail_uses,
)
from support.true_evidence import ACCOUNT, BUCKET, KEY_ARN, Evidence, cloudtrails_key, trail_record

OTHER_KINDS: list[Kind] = []
_TIME = b"2026-01-31T00:00:00.000Z "


def kind(attacker: str, expected: str) -> Callable[[Change], Change]:
    def add(change: Change) -> Change:
        OTHER_KINDS.append(Kind(change.__name__, attacker, expected, change))
        return change

    return add


def many(attacker: str, expected: str, changes: dict[str, Change]) -> None:
    OTHER_KINDS.extend(Kind(name, attacker, expected, change) for name, change in changes.items())


# The log


def log_as(make: Callable[[list[bytes], random.Random], bytes]) -> Change:
    def change(evidence: Evidence, generator: random.Random) -> None:
        evidence.log = make(evidence.lines(), generator)

    return change


def dated(lines: list[bytes]) -> list[bytes]:
    return [_TIME + line for line in lines]


def as_events(lines: list[bytes]) -> bytes:
    return json.dumps({"events": [{"message": line.decode().rstrip("\n")} for line in lines]}).encode()


def without_one(lines: list[bytes], generator: random.Random) -> list[bytes]:
    at = generator.randrange(5, 15)
    return lines[:at] + lines[at + 1 :]


def interleaved(lines: list[bytes], generator: random.Random) -> bytes:
    """The second chain begins before the first one has ended, which its own beginning denies."""
    first = [line for line in lines if line.startswith(lines[0][:62])]
    second = [line for line in lines if not line.startswith(lines[0][:62])]
    return b"".join([*first[:-2], second[0], *first[-2:], *second[1:]])


many(
    LOG,
    REPORTED,
    {
        "other_bytes_behind_the_last_line_feed": log_as(lambda lines, _: b"".join(lines) + b"garbage"),
        "zeros_behind_the_last_line_feed": log_as(lambda lines, _: b"".join(lines) + bytes(512)),
        "half_a_foreign_line_at_the_end": log_as(lambda lines, _: b"".join(lines) + b'{"time":"2026'),
        "a_gzip_of_nothing": log_as(lambda lines, _: gzip.compress(b"")),
        "a_gzip_with_bytes_behind": log_as(lambda lines, _: gzip.compress(b"".join(lines)) + b"x"),
        "a_gzip_with_a_line_more": log_as(
            lambda lines, _: gzip.compress(b"".join(lines)) + gzip.compress(b"another program\n")
        ),
        "a_line_feed_removed": log_as(lambda lines, _: b"".join([*lines[:7], lines[7][:-1], *lines[8:]])),
        "all_line_feeds_removed": log_as(lambda lines, _: b"".join(lines).replace(b"\n", b"")),
        "a_date_before_the_first_line": log_as(lambda lines, _: _TIME + b"".join(lines)),
        "a_foreign_dated_line_before_all": log_as(lambda lines, _: _TIME + b"x\n" + b"".join(lines)),
        "exported_and_one_record_less": log_as(lambda lines, g: b"".join(dated(without_one(lines, g)))),
        "filtered_events_and_one_record_less": log_as(lambda lines, g: as_events(without_one(lines, g))),
        "filtered_events_cut_off": log_as(lambda lines, _: as_events(lines)[:-20]),
        "a_message_that_is_no_text": log_as(
            lambda lines, _: as_events(lines).replace(b'{"message": "', b'{"message": 5}, {"message": "', 1)
        ),
        "chains_interleaved": log_as(interleaved),
        "a_second_beginning_of_a_chain": log_as(lambda lines, _: b"".join([*lines[:9], lines[0], *lines[9:]])),
        "a_byte_order_mark_within": log_as(lambda lines, _: b"".join([*lines[:9], b"\xef\xbb\xbf", *lines[9:]])),
        "a_zero_within_a_record": log_as(
            lambda lines, _: b"".join([*lines[:9], lines[9].replace(b"clinic", b"cli\0ic"), *lines[10:]])
        ),
        "a_torn_write_with_another_predecessor": log_as(
            lambda lines, _: (
                b"".join([*lines[:9], lines[9].replace(b'"previous":"', b'"previous":"f')[:190] + b"\n"])
                + b"".join(lines[9:])
            )
        ),
        "the_log_twice": log_as(lambda lines, _: b"".join(lines) * 2),
        "a_lookalike_of_an_actor": log_as(
            lambda lines, _: b"".join(lines).replace(b'"actor":"dr-', '"actor":"\u0501r-'.encode(), 1)
        ),
        "escapes_instead_of_letters": log_as(
            lambda lines, _: b"".join(lines).replace(b"clinic-7", b"\\u0063linic-7", 1)
        ),
    },
)
many(
    LOG,
    HARMLESS,
    {
        "the_log_as_cloudwatch_exports_it": log_as(lambda lines, _: b"".join(dated(lines))),
        "the_log_as_filtered_events": log_as(lambda lines, _: as_events(lines)),
        "the_log_as_two_members_of_a_gzip": log_as(
            lambda lines, _: gzip.compress(b"".join(lines[:9])) + gzip.compress(b"".join(lines[9:]))
        ),
        "no_line_feed_at_the_end": log_as(lambda lines, _: b"".join(lines)[:-1]),
    },
)


def tail_record(cached: bool, edit: Callable[[dict[str, Any]], Any]) -> Change:
    def change(evidence: Evidence, generator: random.Random) -> None:
        at = generator.choice(tail_uses(evidence, cached=cached))
        rewritten(evidence, lambda records: edit(records[at]["event"]))

    return change


many(
    LOG,
    REPORTED,
    {
        "an_actor_that_is_a_number": tail_record(True, lambda event: event.update(actor=5)),
        "a_context_that_is_a_list": tail_record(True, lambda event: event.update(context=[])),
        "a_time_that_is_none": tail_record(True, lambda event: event.update(time="yesterday")),
        "a_kind_that_is_missing": tail_record(True, lambda event: event.pop("kind")),
        "a_request_id_of_nobody_behind_the_last_anchor": tail_record(
            False, lambda event: event.update(request_ids=["f" * 36])
        ),
        "another_operation_behind_the_last_anchor": tail_record(
            False, lambda event: event.update(kms_operation="Encrypt")
        ),
        "another_principal_behind_the_last_anchor": tail_record(
            False, lambda event: event.update(principal=f"arn:aws:iam::{ACCOUNT}:role/Other")
        ),
    },
)
many(
    LOG,
    UNANCHORED,
    {
        "a_cached_use_in_the_far_future": tail_record(
            True, lambda event: event.update(time="2099-01-01T00:00:00Z")
        ),
        "a_cached_use_for_another_purpose": tail_record(True, lambda event: event.update(purpose="research")),
    },
)


@kind(LOG, REPORTED)
def a_sequence_far_away_behind_the_last_anchor(evidence: Evidence, generator: random.Random) -> None:
    records = [json.loads(line) for line in evidence.lines()]
    records[-1]["sequence"] = 10**17
    evidence.log = b"".join(recomputed(records))


# The trail


def forged_at(place: Callable[[Evidence, random.Random], str]) -> Change:
    def change(evidence: Evidence, generator: random.Random) -> None:
        evidence.put(place(evidence, generator), foreign_use(evidence, generator))

    return change


def in_other_region(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"awsRegion": "eu-west-1"}


many(
    TRAIL,
    REPORTED,
    {
        "the_same_record_of_another_region": forged(lambda e, g: {"Records": [in_other_region(genuine(e, g))]}),
        "the_same_call_of_a_replica": forged(
            lambda e, g: {
                "Records": [
                    genuine(e, g) | {"eventID": "r", "resources": [{"ARN": KEY_ARN.replace("us-", "eu-")}]}
                ]
            }
        ),
        "the_same_call_of_another_account": forged(
            lambda e, g: {"Records": [genuine(e, g) | {"eventID": "r", "recipientAccountId": "444455556666"}]}
        ),
        "an_event_id_in_other_letters": forged(
            lambda e, g: {"Records": [(one := genuine(e, g)) | {"eventID": one["eventID"].upper()}]}
        ),
        "a_genuine_record_in_a_file_of_its_own": forged(lambda e, g: {"Records": [genuine(e, g)]}),
        "a_file_of_two_days_before": forged_at(
            lambda e, g: beside(e, g).replace("/2026/01/31/", "/2026/01/29/").replace("20260131T", "20260129T")
        ),
        "a_file_of_the_day_after": forged_at(
            lambda e, g: beside(e, g).replace("/2026/01/31/", "/2026/02/01/").replace("20260131T", "20260201T")
        ),
        "a_file_above_its_folder": forged_at(lambda e, g: f"AWSLogs/{ACCOUNT}/../../forged.json.gz"),
        "a_file_with_a_lookalike_name": forged_at(
            lambda e, g: g.choice(e.log_keys()).replace("_CloudTrail_", "_CloudTr\u0430il_")
        ),
        "a_file_with_a_dot_more": forged_at(lambda e, g: g.choice(e.log_keys()).replace(".json", "..json")),
        "a_file_named_as_a_digest": forged_at(
            lambda e, g: beside(e, g).replace("_CloudTrail_", "_CloudTrail-Digest_")
        ),
        "a_file_of_a_region_that_is_none": forged_at(lambda e, g: beside(e, g).replace("us-east-1", "us-east-9")),
        "a_file_without_a_time": forged_at(lambda e, g: "AWSLogs/x.json"),
        "a_file_of_no_length": forged_bytes(b""),
        "a_gzip_of_no_length": forged_bytes(gzip.compress(b"")),
        "half_a_header_of_gzip": forged_bytes(b"\x1f\x8b"),
        "one_byte": forged_bytes(b"\x1f"),
        "a_list_of_all_kinds": forged_bytes(b'[null, 5, "x", [], {}, true]'),
        "records_that_are_no_list": forged_bytes(b'{"Records": {}}'),
        "records_twice": forged_bytes(b'{"Records": [], "Records": []}'),
        "zeros": forged_bytes(bytes(4_096)),
        "a_long_line": forged_bytes(b'{"Records":[{"eventVersion":"' + b"x" * 5_000_000 + b'"}]}'),
        "bytes_behind_a_log_file": raw(lambda content: content + b"x"),
        "a_record_behind_a_log_file": raw(lambda content: content + gzip.compress(b'{"Records":[]}')),
        "a_byte_order_mark_before_a_log_file": raw(
            lambda content: gzip.compress(b"\xef\xbb\xbf" + gzip.decompress(content))
        ),
        "a_log_file_with_carriage_returns": raw(
            lambda content: gzip.compress(gzip.decompress(content).replace(b", ", b",\r\n"))
        ),
        "a_log_file_with_zeros_within": raw(lambda content: gzip.compress(gzip.decompress(content) + b"\0")),
        "a_log_file_compressed_twice": raw(gzip.compress),
    },
)
many(
    TRAIL,
    HARMLESS,
    {
        "zeros_behind_the_gzip_of_a_log_file": raw(
            lambda content: content + bytes(512) if content.startswith(b"\x1f\x8b") else content
        ),
        "an_empty_member_behind_the_gzip": raw(
            lambda content: content + gzip.compress(b"") if content.startswith(b"\x1f\x8b") else content
        ),
    },
)


@kind(TRAIL, REPORTED)
def a_log_file_split_in_two(evidence: Evidence, generator: random.Random) -> None:
    key = generator.choice([key for key in evidence.log_keys() if len(evidence.document(key)["Records"]) > 1])
    records = evidence.document(key)["Records"]
    evidence.put(key.replace(".json", "-1.json"), {"Records": records[:1]})
    evidence.put(key.replace(".json", "-2.json"), {"Records": records[1:]})
    del evidence.objects[key]


@kind(TRAIL, REPORTED)
def two_log_files_joined(evidence: Evidence, generator: random.Random) -> None:
    first, second = generator.sample(evidence.log_keys(), 2)
    records = evidence.document(first)["Records"] + evidence.document(second)["Records"]
    evidence.put(first, {"Records": records})
    del evidence.objects[second]


# Digests


def in_region(evidence: Evidence, region: str) -> list[str]:
    return [key for key in evidence.objects if f"/{region}/" in key]


many(
    TRAIL,
    REPORTED,
    {
        "an_entry_twice_in_a_digest": edit_digest(lambda one: one["logFiles"].append(one["logFiles"][0])),
        "a_hash_of_another_algorithm": edit_digest(
            lambda one: one["logFiles"][0].update(hashAlgorithm="MD5", hashValue="0" * 32)
        ),
        "a_signature_of_another_algorithm": edit_digest(lambda one: one.update(digestSignatureAlgorithm="none")),
        "a_public_key_that_is_not_found": edit_digest(lambda one: one.update(digestPublicKeyFingerprint="00")),
        "a_public_key_that_is_a_list": edit_digest(lambda one: one.update(digestPublicKeyFingerprint=[])),
        "a_digest_of_another_account": edit_digest(lambda one: one.update(awsAccountId="444455556666")),
        "a_digest_that_begins_later": edit_digest(lambda one: one.update(digestStartTime="2026-01-31T04:59:00Z")),
        "a_digest_that_ends_before_it_begins": edit_digest(
            lambda one: one.update(digestEndTime="2020-01-01T00:00:00Z")
        ),
        "a_log_file_of_another_bucket": edit_digest(lambda one: one["logFiles"][0].update(s3Bucket="elsewhere")),
        "a_log_file_that_is_text": edit_digest(lambda one: one["logFiles"].append("x")),
        "a_log_file_that_is_null": edit_digest(lambda one: one["logFiles"].append(None)),
    },
)


@kind(TRAIL, REPORTED)
def all_digests_and_log_files_removed(evidence: Evidence, generator: random.Random) -> None:
    evidence.objects.clear()


@kind(TRAIL, REPORTED)
def the_watched_region_removed(evidence: Evidence, generator: random.Random) -> None:
    for key in in_region(evidence, "us-east-1"):
        del evidence.objects[key]


@kind(TRAIL, REPORTED)
def the_first_hour_removed(evidence: Evidence, generator: random.Random) -> None:
    first = next(key for key in evidence.digest_keys() if "us-east-1" in key)
    for entry in evidence.document(first)["logFiles"]:
        del evidence.objects[entry["s3Object"]]
    del evidence.objects[first]


@kind(TRAIL, REPORTED)
def a_digest_copied_to_another_region(evidence: Evidence, generator: random.Random) -> None:
    key = generator.choice([key for key in evidence.digest_keys() if "us-east-1" in key])
    evidence.objects[key.replace("us-east-1", "us-west-2")] = evidence.objects[key]


@kind(TRAIL, REPORTED)
def a_digest_signed_over_another_hash(evidence: Evidence, generator: random.Random) -> None:
    """CloudTrail's key, but SHA-1: who finds a collision of that must not be believed."""
    key = generator.choice(evidence.digest_keys())
    document = evidence.document(key)
    sha256 = hashlib.sha256(gzip.decompress(evidence.objects[key][0])).hexdigest()
    before = document["previousDigestSignature"] or "null"
    signed = f"{document['digestEndTime']}\n{BUCKET}/{key}\n{sha256}\n{before}".encode()
    signature = cloudtrails_key().sign(signed, padding.PKCS1v15(), hashes.SHA1()).hex()
    evidence.objects[key] = (evidence.objects[key][0], {"signature": signature})


@kind(TRAIL, REPORTED)
def a_signature_of_another_digest(evidence: Evidence, generator: random.Random) -> None:
    first, second = generator.sample(evidence.digest_keys(), 2)
    evidence.objects[first] = (evidence.objects[first][0], evidence.objects[second][1])


# Both sides


@kind(BOTH, REPORTED)
def the_log_emptied_and_its_region_removed(evidence: Evidence, generator: random.Random) -> None:
    evidence.log = b""
    the_watched_region_removed(evidence, generator)


@kind(BOTH, REPORTED)
def everything_removed(evidence: Evidence, generator: random.Random) -> None:
    evidence.log = b""
    evidence.objects.clear()


@kind(BOTH, REPORTED)
def a_made_up_call_on_both_sides(evidence: Evidence, generator: random.Random) -> None:
    """Behind the last anchor in the log, and in a file of a day that only the difference of clocks makes read."""
    record = trail_record(generator, 1_769_821_200 * 10**9, "Decrypt", KEY_ARN)
    place = beside(evidence, generator).replace("/2026/01/31/", "/2026/01/29/").replace("20260131T", "20260129T")
    evidence.put(place, {"Records": [record]})
    at = tail_uses(evidence, cached=True)[0]
    members = {"request_ids": [record["requestID"]], "kms_operation": "Decrypt", "use_id": "made-up"}
    rewritten(evidence, lambda records: records[at]["event"].update(members))


@kind(BOTH, REPORTED)
def the_log_cut_off_and_the_last_anchors_file_removed(evidence: Evidence, generator: random.Random) -> None:
    evidence.log = b"".join(evidence.lines()[: anchored_line(evidence, generator) + 1])
    for key in evidence.log_keys()[-2:]:
        del evidence.objects[key]
