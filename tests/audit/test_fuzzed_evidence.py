"""Lines, records, files and digests of any content: a count of what could not be read, or nothing; no crash.

``PHICRYPT_FUZZ_CASES=1000000`` is the full number of cases.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.true_evidence import BUCKET, KEY_ARN, true_evidence

from phicrypt.core.strict_json import parse_json
from phicrypt.errors import FormatError
from phicrypt.evidence.cloudtrail import Reading, read_file
from phicrypt.evidence.digests import DigestFile, verify_digests
from phicrypt.evidence.join import log_events
from phicrypt.evidence.log_lines import LogReading
from phicrypt.evidence.matching import Matcher
from phicrypt.evidence.questions import grants, incident
from phicrypt.evidence.verify import verify

CASES = int(os.environ.get("PHICRYPT_FUZZ_CASES", "150"))
fuzzed = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
BASE = true_evidence()
LINES = b"".join(BASE.lines()[:6])
LOG_FILE = BASE.objects[BASE.log_keys()[-1]][0]
RECORD = BASE.document(BASE.log_keys()[-1])["Records"][0]
DIGEST = BASE.document(BASE.digest_keys()[1])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within a JSON value."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        found += places(inner, (*path, name))
    return found


@st.composite
def edited(draw: st.DrawFn, document: Any) -> Any:
    """A document with up to three of its values replaced, removed or doubled."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(document)))
        if not path:
            return draw(VALUES)
        parent = document
        for name in path[:-1]:
            parent = parent[name]
        if draw(st.booleans()):
            parent[path[-1]] = draw(VALUES)
        else:
            del parent[path[-1]]
    return document


@st.composite
def mangled(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with some changed, cut out, or put in."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 40))
        content = content[:at] + draw(st.binary(max_size=20)) + content[at + length :]
    return content


def judged_log(path: Path) -> None:
    result = verify(path)
    reading = LogReading()
    events = list(log_events(path, reading))
    assert len(events) + reading.unread >= result.records
    assert result.what_it_proves().encode()
    incident(events, KEY_ARN, 0, 2**62)
    grants(events)
    with Matcher(key_arns=[KEY_ARN]) as matcher:
        for event in events:
            matcher.add_use(event)
        matcher.finish()
        json.dumps([found._asdict() for found in matcher.findings()])


@fuzzed
@given(content=mangled(LINES) | mangled(gzip.compress(LINES, mtime=0)) | st.binary())
def test_rule_26_a_log_of_any_bytes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_bytes(content)
    judged_log(tmp_path / "audit.jsonl")


@fuzzed
@given(document=edited(json.loads(BASE.lines()[1])))
def test_rule_26_a_line_with_any_members(document: Any, tmp_path: Path) -> None:
    lines = BASE.lines()[:3]
    lines[1] = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines))
    judged_log(tmp_path / "audit.jsonl")


def judged_file(content: bytes) -> Reading:
    reading = Reading()
    with Matcher(key_arns=[KEY_ARN]) as matcher:
        for event in read_file(io.BytesIO(content), "file", reading):
            matcher.add_record(event)
        matcher.finish()
        json.dumps([found._asdict() for found in matcher.findings()])
    "\n".join(reading.problems).encode()
    return reading


@fuzzed
@given(document=edited(RECORD))
def test_rule_26_a_record_with_any_members(document: Any) -> None:
    reading = judged_file(json.dumps({"Records": [document, RECORD]}).encode())
    assert reading.records + reading.of_other_services + reading.problem_count == 2


@fuzzed
@given(content=mangled(LOG_FILE) | mangled(json.dumps({"Records": [RECORD] * 2}).encode()))
def test_rule_26_a_file_of_any_bytes(content: bytes) -> None:
    judged_file(content)


@fuzzed
@given(
    document=VALUES | edited({"Records": [RECORD]}) | edited({"Events": [{"CloudTrailEvent": json.dumps(RECORD)}]})
)
def test_rule_26_a_file_of_any_json(document: Any) -> None:
    judged_file(json.dumps(document).encode())


@fuzzed
@given(document=edited(DIGEST), signature=st.none() | st.text(max_size=8) | st.just("00" * 256))
def test_rule_26_a_digest_with_any_members(document: Any, signature: str | None) -> None:
    key = BASE.digest_keys()[1]
    digests = [
        DigestFile(BUCKET, key, json.dumps(document).encode(), signature),
        *(DigestFile(BUCKET, one, BASE.objects[one][0], None) for one in BASE.digest_keys() if one != key),
    ]

    def load(bucket: str, name: str) -> list[io.BytesIO]:
        return [io.BytesIO(BASE.objects[name][0])] if name in BASE.objects else []

    report = verify_digests(digests, load)
    assert report.digests + len(report.unread) == len(digests)
    "\n".join([*report.problems, *report.covered, *report.not_covered]).encode()


@fuzzed
@given(content=st.binary() | st.text().map(str.encode) | mangled(json.dumps(RECORD).encode()))
def test_rule_26_json_of_any_bytes(content: bytes) -> None:
    try:
        value = parse_json(content, field="x")
    except FormatError as error:
        assert error.__cause__ is None
        return
    assert parse_json(json.dumps(value), field="x") == value
    json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.parametrize("content", [b"\x1f\x8b", b"\x1f\x8b\x08\x00" + bytes(20), gzip.compress(b"", mtime=0)])
def test_rule_26_a_gzip_of_nothing(content: bytes) -> None:
    assert judged_file(content).problem_count == 1
