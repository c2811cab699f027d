"""What is fuzzed: for each parser true inputs to begin with, and one call that judges any bytes.

A target returns for whatever phicrypt reads or refuses; every other exception is a finding.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from phicrypt.core.limits import ReadLimits
from phicrypt.dynamodb.expressions import parse_condition, parse_projection, parse_update
from phicrypt.errors import PhiCryptError
from phicrypt.evidence.cloudtrail import Reading, read_file
from phicrypt.evidence.digests import DigestFile, verify_digests
from phicrypt.evidence.log_lines import LogReading, read_records
from phicrypt.evidence.proofs import check_proof
from phicrypt.formats.checkpoints import open_checkpoint
from phicrypt.formats.dbesdk.attributes import deserialize
from phicrypt.formats.dbesdk.header import parse_header as parse_item_header
from phicrypt.formats.dbesdk.item_context import attributes_of_context
from phicrypt.formats.esdk.header import parse_header
from phicrypt.formats.esdk.summary import summarize
from phicrypt.formats.reader import ByteReader, StreamReader
from phicrypt.formats.s3ec.envelope import parse_envelope, parse_instruction_file
from phicrypt.keys.branch_keys.records import parse_record
from phicrypt.posture.policies.document import parse_policy
from phicrypt.posture.policies.lint import lint_policy
from phicrypt.witness.log_tree import LogTree, tree_path

from . import corpus
from .choices import Choices, without_bytes

LIMITS: Final = ReadLimits()
_NAMES: Final = {"#n": "name", "#p": "patient_id"}


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        judge: takes any bytes; raises only what is a finding.
        seeds: inputs to begin with, at least one of which is read to its end.
        runs: how many inputs are tried for acceptance.
    """

    name: str
    judge: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    runs: int


def refusing(*calls: Callable[[], object]) -> None:
    """Each call ends, or refuses in phicrypt's own words."""
    for call in calls:
        try:
            call()
        except PhiCryptError:
            continue


def esdk_header(data: bytes) -> None:
    """In memory, as a stream, or for its summary, as the last byte says."""
    how = (data[-1] if data else 0) % 3
    if how == 0:
        refusing(lambda: parse_header(ByteReader(data), LIMITS))
    elif how == 1:
        refusing(lambda: parse_header(StreamReader(io.BytesIO(data), read_ahead_bytes=512), LIMITS))
    else:
        refusing(lambda: summarize(data, LIMITS))


def esdk_body(data: bytes) -> None:
    """The first byte chooses the header (framed, signed, not framed) and how it is read, the rest is the body."""
    how = data[0] if data else 0
    header = corpus.HEADERS[how % len(corpus.HEADERS)]
    message = header + data[1:]
    phi = corpus.phi()
    if how & 0x80:
        refusing(lambda: phi.decrypt_stream(io.BytesIO(message), io.BytesIO(), context=corpus.CONTEXT))
    else:
        refusing(lambda: phi.decrypt(message, context=corpus.CONTEXT))


def dbesdk_header(data: bytes) -> None:
    refusing(lambda: parse_item_header(data, LIMITS))


def dbesdk_record(data: bytes) -> None:
    """An edited item, one attribute's body, or the context of an item, as the first number says."""
    choices = Choices(data)
    how = choices.below(4)
    if how < 2:
        item, table = choices.edited(corpus.sealed_items()[how]), corpus.TABLES[how]
        refusing(lambda: corpus.phi_for_items().dynamodb.decrypt_item(item, table, shape="low-level"))
    elif how == 2:
        type_id = choices.take(2)
        refusing(lambda: deserialize(type_id, choices.rest()))
    else:
        context = {str(name): str(value) for name, value in choices.edited(corpus.ITEM_CONTEXT).items()}
        refusing(lambda: attributes_of_context(context))


def s3ec_envelope(data: bytes) -> None:
    choices = Choices(data)
    metadata = choices.edited(corpus.S3EC_METADATA[choices.below(2)], most_edits=4)
    metadata = {str(name): str(value) for name, value in metadata.items()}  # S3 answers with text
    instruction = choices.rest()

    def with_instruction_file() -> None:
        parse_envelope(metadata, parse_instruction_file(instruction))

    refusing(lambda: parse_envelope(metadata), with_instruction_file)


def branch_key_row(data: bytes) -> None:
    choices = Choices(data)
    row = choices.edited(corpus.BRANCH_KEY_ROW)
    if isinstance(row, dict) and all(_is_attribute(value) for value in row.values()):  # as boto3 answers
        names = {"branch_key_id": "clinic-7", "row_type": "branch:ACTIVE", "logical_name": "clinic-keys"}
        refusing(lambda: parse_record(row, **names))


def _is_attribute(value: Any) -> bool:
    shapes = {"S": str, "N": str, "B": bytes, "BOOL": bool, "L": list, "M": dict}
    return isinstance(value, dict) and all(isinstance(value[tag], shapes.get(tag, ())) for tag in value)


def expression(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    refusing(
        lambda: parse_condition(text, _NAMES),
        lambda: parse_projection(text, _NAMES),
        lambda: parse_update(text, _NAMES),
    )


def audit_line(data: bytes) -> None:
    """The line alone, or before a true one, so that what a torn write leaves is judged as well."""
    behind = corpus.audit_lines()[1] if len(data) % 4 == 0 else b""
    corpus.log_file().write_bytes(data + b"\n" + behind)
    refusing(lambda: list(read_records(corpus.log_file(), LogReading())))


def trail_record(data: bytes) -> None:
    record = without_bytes(Choices(data).edited(corpus.trail_record()))
    reading = _read(json.dumps({"Records": [record]}).encode())
    assert reading.records + reading.of_other_services + reading.problem_count == 1


def trail_file(data: bytes) -> None:
    _read(data)


def trail_digest(data: bytes) -> None:
    """A digest of these bytes, or an edited one, before a true one."""
    choices, content, signature = Choices(data), data, None
    if not data.startswith((b"{", b"[")):
        signature = choices.text() if choices.below(2) else None
        content = json.dumps(without_bytes(choices.edited(corpus.digest()))).encode()
    files = [DigestFile(corpus.BUCKET, corpus.digest_key(), content, signature), corpus.next_digest()]
    report = verify_digests(files, lambda bucket, object_key: [])
    assert report.digests + len(report.unread) == len(files)
    "\n".join([*report.problems, *report.covered, *report.not_covered]).encode()


def trail_line(data: bytes) -> None:
    """One line of a log, with its members edited."""
    choices = Choices(data)
    lines = corpus.audit_lines()
    edited = json.dumps(without_bytes(choices.edited(json.loads(lines[1]))), separators=(",", ":")).encode()
    corpus.log_file().write_bytes(edited + b"\n")

    def read() -> None:
        for record in read_records(corpus.log_file(), LogReading()):
            _ = record.event

    refusing(read)


def tlog_proof(data: bytes) -> None:
    """A proof with its note and record, or a note alone; and the file that orders a log's lines."""
    refusing(
        lambda: check_proof(data, log_keys=[corpus.note_key()]),
        lambda: open_checkpoint(data, log_keys=[corpus.note_key()]),
    )
    if data.startswith(b"{"):
        tree_path(corpus.log_file()).write_bytes(data)
        tree = LogTree.load(corpus.log_file())
        assert len(tree.tree.hashes) == tree.tree.size.bit_count()
        tree_path(corpus.log_file()).unlink()


def policy(data: bytes) -> None:
    """A policy of these bytes, or an edited one, as the first byte says."""
    document: bytes | str = data
    if not data.startswith((b"{", b"[")):
        document = json.dumps(without_bytes(Choices(data).edited(corpus.POLICY)))
    refusing(lambda: parse_policy(document), lambda: lint_policy(document))


def _read(content: bytes) -> Reading:
    reading = Reading()
    for event in read_file(io.BytesIO(content), "file", reading):
        repr(event)
    "\n".join(reading.problems).encode()
    return reading


def _edits() -> Iterable[bytes]:
    return [bytes(40), bytes(range(64)), b"\x00\x02" * 40, b"\x00\x01\x00\x05" * 20]


def _log_seeds() -> Iterable[bytes]:
    return [line.rstrip(b"\n") for line in corpus.audit_lines()]


def _file_seeds() -> Iterable[bytes]:
    plain = json.dumps({"Records": [corpus.trail_record()] * 2}).encode()
    events = json.dumps({"Events": [{"CloudTrailEvent": json.dumps(corpus.trail_record())}]}).encode()
    return [plain, gzip.compress(plain, mtime=0), events, *(line for line in corpus.audit_lines())]


MILLION: Final = 1_000_000
TARGETS: Final = {
    target.name: target
    for target in (
        Target("esdk-header", esdk_header, lambda: corpus.HEADERS, 5 * MILLION),
        Target("esdk-body", esdk_body, corpus.bodies, 5 * MILLION),
        Target("dbesdk-header", dbesdk_header, corpus.item_headers, 5 * MILLION),
        Target("dbesdk-record", dbesdk_record, _edits, 5 * MILLION),
        Target("s3ec-envelope", s3ec_envelope, _edits, 5 * MILLION),
        Target("branch-key-row", branch_key_row, _edits, 5 * MILLION),
        Target("expression", expression, lambda: corpus.EXPRESSIONS, 5 * MILLION),
        Target("audit-line", audit_line, _log_seeds, 5 * MILLION),
        Target("trail-line", trail_line, _edits, MILLION),
        Target("trail-record", trail_record, _edits, MILLION),
        Target("trail-file", trail_file, _file_seeds, MILLION),
        Target("trail-digest", trail_digest, _edits, MILLION),
        Target("tlog-proof", tlog_proof, corpus.proofs, 5 * MILLION),
        Target("policy", policy, lambda: [json.dumps(corpus.POLICY).encode(), *_edits()], MILLION),
    )
}


def scratch_folder() -> Path:
    """Where targets keep the one file that they read: in memory where the machine has that."""
    return corpus.log_file().parent
