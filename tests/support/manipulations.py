"""Changes that somebody makes to a true log and a true trail: who must be able to write what, and what is due.

Each kind names the attacker that it needs, and what must come of it: ``reported``, because an anchor or a
digest lies behind it; ``unanchored``, because it lies behind the last anchor; or ``harmless``, because nothing
was changed that is evidence.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from support.true_evidence import ACCOUNT, BUCKET, KEY_ARN, OTHER_KEY_ARN, Evidence, trail_record

LOG, TRAIL, BOTH = "writer of the log", "writer of the trail's bucket", "writer of both"
REPORTED, UNANCHORED, HARMLESS = "reported", "unanchored", "harmless"
Change = Callable[[Evidence, random.Random], None]


class Kind(NamedTuple):
    """One kind of change. ``apply`` raises LookupError or ValueError where there is nothing to change."""

    name: str
    attacker: str
    expected: str
    apply: Change


KINDS: list[Kind] = []


def kind(attacker: str, expected: str) -> Callable[[Change], Change]:
    def add(change: Change) -> Change:
        KINDS.append(Kind(change.__name__, attacker, expected, change))
        return change

    return add


def many(attacker: str, expected: str, changes: dict[str, Change]) -> None:
    KINDS.extend(Kind(name, attacker, expected, change) for name, change in changes.items())


# The log, by somebody who does not recompute its hashes


def anchored_line(evidence: Evidence, generator: random.Random) -> int:
    return generator.randrange(min(evidence.anchored_lines, len(evidence.lines())))


def edit_line(edit: Callable[[bytes, random.Random], bytes]) -> Change:
    def change(evidence: Evidence, generator: random.Random) -> None:
        lines = evidence.lines()
        at = anchored_line(evidence, generator)
        lines[at] = edit(lines[at], generator)
        evidence.log = b"".join(lines)

    return change


def replace_in(old: bytes, new: bytes) -> Change:
    def change(evidence: Evidence, generator: random.Random) -> None:
        lines = evidence.lines()
        at = generator.choice([n for n, line in enumerate(lines[: evidence.anchored_lines]) if old in line])
        lines[at] = lines[at].replace(old, new)
        evidence.log = b"".join(lines)

    return change


def flipped(line: bytes, generator: random.Random) -> bytes:
    at = generator.randrange(len(line) - 1)
    flipped = line[at] ^ (1 << generator.randrange(7))
    return line[:at] + bytes([flipped if flipped != 10 else 11]) + line[at + 1 :]


many(
    LOG,
    REPORTED,
    {
        "another_actor": replace_in(b'"actor":"dr-', b'"actor":"mr-'),
        "another_purpose": replace_in(b'"treatment"', b'"research"'),
        "another_operation": replace_in(b'"operation":"encrypt"', b'"operation":"decrypt"'),
        "another_time": replace_in(b'"time":"2026-01-31T0', b'"time":"2026-01-30T0'),
        "another_context": replace_in(b'"clinic-7"', b'"clinic-8"'),
        "another_request_id": replace_in(b'"request_ids":["', b'"request_ids":["f'),
        "another_key": replace_in(b"1234abcd", b"1234abce"),
        "another_sequence": replace_in(b'"sequence":', b'"sequence":1'),
        "another_previous_hash": replace_in(b'"previous":"', b'"previous":"0'),
        "another_chain": replace_in(b'"chain":"', b'"chain":"f'),
        "another_version": replace_in(b'{"phicrypt-audit":1', b'{"phicrypt-audit":2'),
        "a_use_that_failed": replace_in(b'"outcome":"success"', b'"outcome":"denied"'),
        "a_member_twice": replace_in(b'"use_id":', b'"use_id":"x","use_id":'),
        "a_number_that_is_none": replace_in(b'"cache_hit":true', b'"cache_hit":NaN'),
        "a_flipped_bit": edit_line(flipped),
        "a_longer_line": edit_line(lambda line, _: line[:-1] + b"x" * 2_000_000 + b"\n"),
        "a_space_behind_a_record": edit_line(lambda line, _: line[:-1] + b" \n"),
        "a_carriage_return": edit_line(lambda line, _: line[:-1] + b"\r\n"),
        "a_line_in_utf_16": edit_line(lambda line, _: line.decode().encode("utf-16-le")),
        "a_line_of_garbage": edit_line(lambda line, _: b"garbage\n"),
        "a_deep_line": edit_line(lambda line, _: b"[" * 200_000 + b"\n"),
        "a_raw_half_pair": edit_line(lambda line, _: line.replace(b'"use-', b'"\xed\xa0\x80use-', 1)[:-9] + b"\n"),
        "a_line_cut_off": edit_line(lambda line, generator: line[: generator.randrange(40, 100)] + b"\n"),
        "two_lines_joined": edit_line(lambda line, _: line[:-1]),
    },
)


@kind(LOG, REPORTED)
def a_line_removed(evidence: Evidence, generator: random.Random) -> None:
    lines = evidence.lines()
    del lines[anchored_line(evidence, generator)]
    evidence.log = b"".join(lines)


@kind(LOG, REPORTED)
def several_lines_removed(evidence: Evidence, generator: random.Random) -> None:
    lines, at = evidence.lines(), anchored_line(evidence, generator)
    del lines[at : min(at + 5, evidence.anchored_lines)]
    evidence.log = b"".join(lines)


@kind(LOG, REPORTED)
def two_lines_swapped(evidence: Evidence, generator: random.Random) -> None:
    lines = evidence.lines()
    first, second = generator.sample(range(evidence.anchored_lines), 2)
    lines[first], lines[second] = lines[second], lines[first]
    evidence.log = b"".join(lines)


@kind(LOG, REPORTED)
def a_line_twice(evidence: Evidence, generator: random.Random) -> None:
    lines, at = evidence.lines(), anchored_line(evidence, generator)
    lines.insert(at, lines[at])
    evidence.log = b"".join(lines)


@kind(LOG, REPORTED)
def a_line_moved_to_the_end(evidence: Evidence, generator: random.Random) -> None:
    lines = evidence.lines()
    lines.append(lines.pop(anchored_line(evidence, generator)))
    evidence.log = b"".join(lines)


@kind(LOG, REPORTED)
def all_lines_reversed(evidence: Evidence, generator: random.Random) -> None:
    evidence.log = b"".join(reversed(evidence.lines()))


@kind(LOG, REPORTED)
def the_first_chain_removed(evidence: Evidence, generator: random.Random) -> None:
    lines = evidence.lines()
    first = lines[0][:62]
    evidence.log = b"".join(line for line in lines if not line.startswith(first))


@kind(LOG, REPORTED)
def the_second_chain_removed(evidence: Evidence, generator: random.Random) -> None:
    lines = evidence.lines()
    first = lines[0][:62]
    evidence.log = b"".join(line for line in lines if line.startswith(first))


@kind(LOG, REPORTED)
def the_whole_log_emptied(evidence: Evidence, generator: random.Random) -> None:
    evidence.log = b""


@kind(LOG, REPORTED)
def a_fresh_log_in_its_place(evidence: Evidence, generator: random.Random) -> None:
    evidence.log = b"".join(recomputed([json.loads(evidence.lines()[0]) | {"chain": "f" * 32}]))


@kind(LOG, REPORTED)
def cut_off_before_the_last_anchor(evidence: Evidence, generator: random.Random) -> None:
    evidence.log = b"".join(evidence.lines()[: generator.randrange(1, evidence.anchored_lines)])


@kind(LOG, REPORTED)
def the_log_in_utf_16(evidence: Evidence, generator: random.Random) -> None:
    evidence.log = evidence.log.decode("latin-1").encode("utf-16")


@kind(LOG, REPORTED)
def the_log_with_carriage_returns(evidence: Evidence, generator: random.Random) -> None:
    evidence.log = evidence.log.replace(b"\n", b"\r\n")


@kind(LOG, REPORTED)
def the_log_behind_a_byte_order_mark(evidence: Evidence, generator: random.Random) -> None:
    evidence.log = b"\xef\xbb\xbf" + evidence.log


@kind(LOG, REPORTED)
def zeros_behind_the_log(evidence: Evidence, generator: random.Random) -> None:
    evidence.log += bytes(4_096) + b"\n"


@kind(LOG, REPORTED)
def a_raw_half_pair_appended(evidence: Evidence, generator: random.Random) -> None:
    evidence.log += b'{"phicrypt-audit":1,"chain":"\xed\xa0\x80"}\n'


@kind(LOG, REPORTED)
def a_gzip_cut_off(evidence: Evidence, generator: random.Random) -> None:
    evidence.log = gzip.compress(evidence.log)[:-100]


@kind(LOG, HARMLESS)
def the_log_as_gzip(evidence: Evidence, generator: random.Random) -> None:
    evidence.log = gzip.compress(evidence.log) if not evidence.log.startswith(b"\x1f\x8b") else evidence.log


@kind(LOG, HARMLESS)
def empty_lines(evidence: Evidence, generator: random.Random) -> None:
    lines = evidence.lines()
    lines.insert(generator.randrange(len(lines)), b"\n")
    evidence.log = b"".join(lines)


# The log, by somebody who recomputes its hashes


def recomputed(records: list[dict[str, Any]]) -> list[bytes]:
    """Lines of records whose hashes fit again, chain by chain."""
    heads: dict[str, str] = {}
    lines = []
    for record in records:
        record["previous"] = heads.get(record["chain"], "0" * 64)
        record.pop("sha256", None)
        body = json.dumps(record, separators=(",", ":"))[:-1].encode()
        heads[record["chain"]] = hashlib.sha256(body).hexdigest()
        lines.append(body + b',"sha256":"' + heads[record["chain"]].encode() + b'"}\n')
    return lines


@kind(LOG, REPORTED)
def a_record_changed_and_only_its_own_hash_recomputed(evidence: Evidence, generator: random.Random) -> None:
    """Every record is intact by itself, and the anchored ones are those that were anchored: the link tells."""
    lines = evidence.lines()
    at = generator.choice([n for n, line in enumerate(lines[:30]) if b'"cache_hit":true' in line])
    body = lines[at].rpartition(b',"sha256"')[0].replace(b'"actor":"dr-', b'"actor":"mr-')
    lines[at] = body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    evidence.log = b"".join(lines)


def rewritten(evidence: Evidence, edit: Callable[[list[dict[str, Any]]], None]) -> None:
    records = [json.loads(line) for line in evidence.lines()]
    edit(records)
    sequences: dict[str, int] = {}
    for record in records:
        record["sequence"] = sequences.get(record["chain"], 0)
        sequences[record["chain"]] = record["sequence"] + 1
    evidence.log = b"".join(recomputed(records))


@kind(LOG, REPORTED)
def a_record_changed_and_all_recomputed(evidence: Evidence, generator: random.Random) -> None:
    at = anchored_line(evidence, generator)
    rewritten(evidence, lambda records: records[at]["event"].update(actor="innocent"))


@kind(LOG, REPORTED)
def a_record_removed_and_all_recomputed(evidence: Evidence, generator: random.Random) -> None:
    at = anchored_line(evidence, generator)
    rewritten(evidence, lambda records: records.pop(at) and None)


@kind(LOG, REPORTED)
def a_record_inserted_and_all_recomputed(evidence: Evidence, generator: random.Random) -> None:
    at = anchored_line(evidence, generator)
    rewritten(evidence, lambda records: records.insert(at, json.loads(json.dumps(records[at]))))


def tail_uses(evidence: Evidence, *, cached: bool) -> list[int]:
    records = [json.loads(line) for line in evidence.lines()]
    return [
        number
        for number in range(evidence.anchored_lines, len(records))
        if records[number]["event"].get("cache_hit") is cached and records[number]["event"]["kind"] == "use"
    ]


@kind(LOG, UNANCHORED)
def a_cached_use_behind_the_last_anchor_changed(evidence: Evidence, generator: random.Random) -> None:
    at = generator.choice(tail_uses(evidence, cached=True))
    rewritten(evidence, lambda records: records[at]["event"].update(actor="innocent"))


@kind(LOG, UNANCHORED)
def a_cached_use_behind_the_last_anchor_removed(evidence: Evidence, generator: random.Random) -> None:
    at = generator.choice(tail_uses(evidence, cached=True))
    rewritten(evidence, lambda records: records.pop(at) and None)


@kind(LOG, UNANCHORED)
def cached_uses_behind_the_last_anchor_cut_off(evidence: Evidence, generator: random.Random) -> None:
    tail_uses(evidence, cached=True)[-1]
    lines = evidence.lines()
    while b'"cache_hit":true' in lines[-1]:
        lines.pop()
    evidence.log = b"".join(lines)


@kind(LOG, UNANCHORED)
def the_last_line_torn(evidence: Evidence, generator: random.Random) -> None:
    *lines, last = evidence.lines()
    if b'"cache_hit":true' not in last:
        raise LookupError
    evidence.log = b"".join(lines) + last[: generator.randrange(1, len(last) - 1)]


@kind(LOG, UNANCHORED)
def a_made_up_chain_behind_the_last_anchor(evidence: Evidence, generator: random.Random) -> None:
    chain = f"{generator.getrandbits(128):032x}"
    start = json.loads(evidence.lines()[0]) | {"chain": chain, "sequence": 0}
    start["event"]["detail"] = {"follows": json.loads(evidence.lines()[-1])["sha256"]}
    use = json.loads(evidence.lines()[2]) | {"chain": chain, "sequence": 1}
    evidence.log += b"".join(recomputed([start, use]))


@kind(LOG, REPORTED)
def a_kms_call_behind_the_last_anchor_hidden(evidence: Evidence, generator: random.Random) -> None:
    """Recomputed, and all uses of its key gone: CloudTrail shows the call."""
    at = generator.choice(tail_uses(evidence, cached=False))
    request_ids = json.loads(evidence.lines()[at])["event"]["request_ids"]

    def hide(records: list[dict[str, Any]]) -> None:
        records[:] = [one for one in records if one["event"].get("request_ids") != request_ids]

    rewritten(evidence, hide)


# The trail, by somebody who can write its bucket and has not CloudTrail's key


def edit_record(**members: Any) -> Change:
    def change(evidence: Evidence, generator: random.Random) -> None:
        key = generator.choice(evidence.log_keys())
        document = evidence.document(key)
        at = generator.randrange(len(document["Records"]))
        document["Records"][at] |= members
        evidence.put(key, document)

    return change


def raw(edit: Callable[[bytes], bytes]) -> Change:
    def change(evidence: Evidence, generator: random.Random) -> None:
        key = generator.choice(evidence.log_keys())
        content, metadata = evidence.objects[key]
        evidence.objects[key] = (edit(content), metadata)

    return change


many(
    TRAIL,
    REPORTED,
    {
        "another_event_name": edit_record(eventName="DescribeKey"),
        "another_request_id_in_the_trail": edit_record(requestID="f"),
        "another_event_id": edit_record(eventID="f"),
        "another_principal": edit_record(
            userIdentity={"type": "IAMUser", "arn": f"arn:aws:iam::{ACCOUNT}:user/m"}
        ),
        "another_event_time": edit_record(eventTime="2020-01-31T00:00:00Z"),
        "an_error_code": edit_record(errorCode="AccessDenied"),
        "another_key_in_the_trail": edit_record(resources=[{"ARN": OTHER_KEY_ARN}]),
        "another_service": edit_record(eventSource="s3.amazonaws.com"),
        "a_record_as_network_activity": edit_record(eventCategory="NetworkActivity", eventType="AwsVpceEvent"),
        "a_record_by_a_service": edit_record(userIdentity={"type": "AWSService", "invokedBy": "s3.amazonaws.com"}),
        "an_unknown_version": edit_record(eventVersion="2.0"),
        "a_member_that_nobody_judges": edit_record(additionalEventData={"x": 1}),
        "a_log_file_cut_off": raw(lambda content: content[: len(content) // 2]),
        "a_log_file_with_a_changed_byte": raw(
            lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:]
        ),
        "a_log_file_emptied": raw(lambda content: b""),
        "a_log_file_without_records": raw(lambda content: gzip.compress(b'{"Records": []}')),
        "a_log_file_with_a_space_more": raw(lambda content: gzip.compress(gzip.decompress(content) + b" ")),
        "a_log_file_with_a_second_member": raw(lambda content: content + gzip.compress(b" ")),
        "a_log_file_in_utf_16": raw(lambda content: gzip.decompress(content).decode().encode("utf-16")),
        "a_log_file_in_other_order": raw(
            lambda content: gzip.compress(
                json.dumps({"Records": [*json.loads(gzip.decompress(content))["Records"][::-1], None]}).encode()
            )
        ),
    },
)
many(
    TRAIL,
    HARMLESS,
    {
        "a_log_file_without_gzip": raw(
            lambda content: gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        ),
        "a_log_file_compressed_anew": raw(
            lambda content: (
                gzip.compress(gzip.decompress(content), 9) if content.startswith(b"\x1f\x8b") else content
            )
        ),
    },
)


def beside(evidence: Evidence, generator: random.Random, time: str = "0130") -> str:
    key = generator.choice(evidence.log_keys())
    folder = key.rpartition("/")[0]
    region = folder.split("/")[3]
    return f"{folder}/{ACCOUNT}_CloudTrail_{region}_20260131T{time}Z_{generator.getrandbits(64):x}.json.gz"


def genuine(evidence: Evidence, generator: random.Random) -> dict[str, Any]:
    records = [
        one for key in evidence.log_keys() if "us-east-1" in key for one in evidence.document(key)["Records"]
    ]
    found: dict[str, Any] = generator.choice([one for one in records if one["resources"][0]["ARN"] == KEY_ARN])
    return found


def forged(make: Callable[[Evidence, random.Random], Any], time: str = "0130") -> Change:
    def change(evidence: Evidence, generator: random.Random) -> None:
        evidence.put(beside(evidence, generator, time), make(evidence, generator))

    return change


def forged_bytes(content: bytes) -> Change:
    def change(evidence: Evidence, generator: random.Random) -> None:
        evidence.objects[beside(evidence, generator)] = (content, {})

    return change


def foreign_use(evidence: Evidence, generator: random.Random) -> Any:
    time_ns = 1_769_821_200 * 10**9
    return {"Records": [trail_record(generator, time_ns, "Decrypt", KEY_ARN)]}


many(
    TRAIL,
    REPORTED,
    {
        "a_genuine_event_id_as_a_description": forged(
            lambda e, g: {"Records": [genuine(e, g) | {"eventName": "DescribeKey"}]}
        ),
        "a_genuine_event_id_of_another_key": forged(
            lambda e, g: {"Records": [genuine(e, g) | {"resources": [{"ARN": OTHER_KEY_ARN}], "requestID": "f"}]}
        ),
        "a_shared_id_of_a_genuine_event": forged(
            lambda e, g: {"Records": [genuine(e, g) | {"sharedEventID": genuine(e, g)["eventID"], "eventID": "f"}]}
        ),
        "a_made_up_use": forged(foreign_use),
        "a_made_up_use_in_a_file_of_the_future": forged(foreign_use, "2330"),
        "an_empty_file_more": forged(lambda e, g: {"Records": []}),
        "a_deep_file": forged_bytes(gzip.compress(b"[" * 200_000)),
        "a_file_that_expands": forged_bytes(gzip.compress(b'{"Records":[' + b"{}," * 1_000_000)),
        "a_file_with_a_raw_half_pair": forged_bytes(b'{"Records":[{"eventVersion":"1.0\xed\xa0\x80"}]}'),
        "a_file_with_a_member_twice": forged_bytes(b'{"Records":[{"eventVersion":"1.0","eventVersion":"1.1"}]}'),
        "a_file_that_is_no_json": forged_bytes(b"nothing"),
    },
)


@kind(TRAIL, REPORTED)
def a_record_removed_from_the_trail(evidence: Evidence, generator: random.Random) -> None:
    key = generator.choice(evidence.log_keys())
    document = evidence.document(key)
    document["Records"].pop(generator.randrange(len(document["Records"])))
    evidence.put(key, document)


@kind(TRAIL, REPORTED)
def a_log_file_removed(evidence: Evidence, generator: random.Random) -> None:
    del evidence.objects[generator.choice(evidence.log_keys())]


@kind(TRAIL, REPORTED)
def a_log_file_renamed(evidence: Evidence, generator: random.Random) -> None:
    key = generator.choice(evidence.log_keys())
    evidence.objects[key.replace(".json.gz", "x.json.gz")] = evidence.objects.pop(key)


@kind(TRAIL, REPORTED)
def a_log_file_hidden_among_the_digests(evidence: Evidence, generator: random.Random) -> None:
    key = generator.choice(evidence.log_keys())
    evidence.objects[key.replace("/CloudTrail/", "/CloudTrail-Digest/")] = evidence.objects.pop(key)


@kind(TRAIL, REPORTED)
def a_log_file_hidden_behind_another_name(evidence: Evidence, generator: random.Random) -> None:
    key = generator.choice(evidence.log_keys())
    evidence.objects[key.replace(".json.gz", ".bak")] = evidence.objects.pop(key)


@kind(TRAIL, REPORTED)
def two_log_files_exchanged(evidence: Evidence, generator: random.Random) -> None:
    first, second = generator.sample(evidence.log_keys(), 2)
    evidence.objects[first], evidence.objects[second] = evidence.objects[second], evidence.objects[first]


@kind(TRAIL, HARMLESS)
def a_log_file_copied(evidence: Evidence, generator: random.Random) -> None:
    key = generator.choice(evidence.log_keys())
    evidence.objects[key.replace(".json.gz", "-copy.json.gz")] = evidence.objects[key]


@kind(TRAIL, HARMLESS)
def a_note_beside_the_log_files(evidence: Evidence, generator: random.Random) -> None:
    evidence.objects[f"AWSLogs/{ACCOUNT}/CloudTrail/README.txt"] = (b"nothing", {})


# Digests


def digest_removed(choose: Callable[[list[str]], list[str]]) -> Change:
    def change(evidence: Evidence, generator: random.Random) -> None:
        region = generator.choice(["eu-west-1", "us-east-1"])
        for key in choose([key for key in evidence.digest_keys() if f"/{region}/" in key]):
            del evidence.objects[key]

    return change


def edit_digest(edit: Callable[[dict[str, Any]], Any]) -> Change:
    def change(evidence: Evidence, generator: random.Random) -> None:
        key = generator.choice(evidence.digest_keys())
        document = evidence.document(key)
        edit(document)
        evidence.put(key, document)

    return change


def signature_of(edit: Callable[[str], str | None]) -> Change:
    def change(evidence: Evidence, generator: random.Random) -> None:
        key = generator.choice(evidence.digest_keys())
        content, metadata = evidence.objects[key]
        signature = edit(metadata["signature"])
        evidence.objects[key] = (content, {} if signature is None else {"signature": signature})

    return change


many(
    TRAIL,
    REPORTED,
    {
        "the_first_digest_removed": digest_removed(lambda keys: keys[:1]),
        "the_first_two_digests_removed": digest_removed(lambda keys: keys[:2]),
        "the_last_digest_removed": digest_removed(lambda keys: keys[-1:]),
        "the_last_two_digests_removed": digest_removed(lambda keys: keys[-2:]),
        "a_digest_in_between_removed": digest_removed(lambda keys: keys[2:3]),
        "a_regions_digests_removed": digest_removed(lambda keys: keys),
        "another_hash_in_a_digest": edit_digest(lambda one: one["logFiles"][0].update(hashValue="0" * 64)),
        "an_entry_removed_from_a_digest": edit_digest(lambda one: one["logFiles"].pop()),
        "an_entry_without_hash": edit_digest(lambda one: one["logFiles"].append({"s3Bucket": BUCKET})),
        "a_digest_that_ends_at_another_time": edit_digest(
            lambda one: one.update(digestEndTime="2026-01-31T09:00:00Z")
        ),
        "a_digest_that_begins_a_chain": edit_digest(lambda one: one.update(previousDigestS3Object=None, x=1)),
        "log_files_that_are_a_number": edit_digest(lambda one: one.update(logFiles=5)),
        "a_previous_digest_that_is_a_list": edit_digest(lambda one: one.update(previousDigestS3Object=[])),
        "a_digest_without_end": edit_digest(lambda one: one.pop("digestEndTime")),
        "a_signature_removed": signature_of(lambda signature: None),
        "a_signature_of_zeros": signature_of(lambda signature: "00" * 256),
        "a_signature_that_is_no_number": signature_of(lambda signature: "xyz"),
    },
)


@kind(TRAIL, REPORTED)
def the_last_two_digests_and_their_log_files_removed(evidence: Evidence, generator: random.Random) -> None:
    for key in [key for key in evidence.digest_keys() if "us-east-1" in key][-2:]:
        for entry in evidence.document(key)["logFiles"]:
            evidence.objects.pop(entry["s3Object"], None)
        del evidence.objects[key]


@kind(TRAIL, REPORTED)
def a_digest_signed_by_somebody_else(evidence: Evidence, generator: random.Random) -> None:
    key = generator.choice(evidence.digest_keys())
    document = evidence.document(key)
    document["logFiles"] = []
    evidence.put(key, document)
    sha256 = hashlib.sha256(gzip.decompress(evidence.objects[key][0])).hexdigest()
    before = document["previousDigestSignature"] or "null"
    signed = f"{document['digestEndTime']}\n{BUCKET}/{key}\n{sha256}\n{before}".encode()
    other = rsa.generate_private_key(65537, 2048).sign(signed, padding.PKCS1v15(), hashes.SHA256()).hex()
    evidence.objects[key] = (evidence.objects[key][0], {"signature": other})


@kind(TRAIL, REPORTED)
def two_digests_exchanged(evidence: Evidence, generator: random.Random) -> None:
    first, second = generator.sample(evidence.digest_keys(), 2)
    evidence.objects[first], evidence.objects[second] = evidence.objects[second], evidence.objects[first]


@kind(TRAIL, REPORTED)
def a_digest_at_another_place(evidence: Evidence, generator: random.Random) -> None:
    key = generator.choice(evidence.digest_keys())
    evidence.objects[key.replace("T0", "T1")] = evidence.objects.pop(key)


@kind(TRAIL, REPORTED)
def a_deep_digest(evidence: Evidence, generator: random.Random) -> None:
    key = generator.choice(evidence.digest_keys())
    evidence.objects[key] = (b"[" * 200_000, evidence.objects[key][1])


@kind(TRAIL, REPORTED)
def a_digest_that_expands(evidence: Evidence, generator: random.Random) -> None:
    key = generator.choice(evidence.digest_keys())
    evidence.objects[key] = (gzip.compress(bytes(20_000_000)), evidence.objects[key][1])


@kind(TRAIL, HARMLESS)
def a_digest_without_gzip(evidence: Evidence, generator: random.Random) -> None:
    key = generator.choice(evidence.digest_keys())
    content, metadata = evidence.objects[key]
    if content.startswith(b"\x1f\x8b"):
        evidence.objects[key] = (gzip.decompress(content), metadata)


@kind(TRAIL, REPORTED)
def all_digests_removed(evidence: Evidence, generator: random.Random) -> None:
    for key in evidence.digest_keys():
        del evidence.objects[key]


@kind(BOTH, REPORTED)
def a_call_behind_the_last_anchor_hidden_on_both_sides(evidence: Evidence, generator: random.Random) -> None:
    at = generator.choice(tail_uses(evidence, cached=False))
    (request_id,) = json.loads(evidence.lines()[at])["event"]["request_ids"]
    a_kms_call = next(one for one in KINDS if one.name == "a_kms_call_behind_the_last_anchor_hidden")
    a_kms_call.apply(evidence, random.Random(0) if at == tail_uses(evidence, cached=False)[0] else generator)
    for key in evidence.log_keys():
        document = evidence.document(key)
        kept = [one for one in document["Records"] if one["requestID"] != request_id]
        if len(kept) < len(document["Records"]):
            evidence.put(key, {"Records": kept})


@kind(BOTH, REPORTED)
def an_anchor_removed_and_the_log_rewritten(evidence: Evidence, generator: random.Random) -> None:
    a_record_changed_and_all_recomputed(evidence, generator)
    for key in evidence.log_keys():
        document = evidence.document(key)
        kept = [one for one in document["Records"] if one["eventName"] != "GenerateDataKeyWithoutPlaintext"]
        if len(kept) < len(document["Records"]):
            evidence.put(key, {"Records": kept})


# What remains true of changed evidence


def inflated(content: bytes) -> bytes:
    try:
        return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, EOFError, zlib.error):
        return content


def is_log_changed(base: Evidence, now: Evidence) -> bool:
    """Whether anything up to the last anchor is not what it was."""
    before = base.lines()[: base.anchored_lines]
    after = [line for line in inflated(now.log).splitlines(keepends=True) if line.strip()]
    return after[: len(before)] != before


def is_trail_changed(base: Evidence, now: Evidence) -> bool:
    """Whether a file that stood there is gone or other, or one stands there that is no copy of one."""

    def state(evidence: Evidence) -> dict[str, tuple[bytes, Any]]:
        return {
            key: (inflated(content), metadata if "Digest" in key else None)
            for key, (content, metadata) in evidence.objects.items()
        }

    before, after = state(base), state(now)
    if any(after.get(key) != value for key, value in before.items()):
        return True
    copies = {content for content, _ in before.values()}
    return any(value[0] not in copies for key, value in after.items() if key not in before and ".json" in key)
