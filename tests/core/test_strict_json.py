"""The one strict reader (rule 26): what it refuses, what it bounds, and that it never quotes what it read."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phicrypt.core import strict_json
from phicrypt.core.strict_json import (
    InflatedStream,
    JsonArray,
    inflated,
    parse_document,
    parse_json,
    parse_toml,
)
from phicrypt.errors import FormatError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def elements(content: bytes, *names: str, max_bytes: int = 2**28) -> list[tuple[str, Any]]:
    stream = InflatedStream(io.BytesIO(content), max_bytes=max_bytes, field="file")
    return list(JsonArray(stream, names or ("Records",), field="file"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a": "\xff"}', "not UTF-8"),
        ('{"a": "x"}'.encode("utf-16"), "not UTF-8"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": {"b": 1, "b": 1}}', "twice"),
        (b'{"a": NaN}', "number"),
        (b'{"a": -Infinity}', "number"),
        (b'{"a": ' + b"1" * 10_000 + b"}", "number"),
        (b"[" * 200_000, "deeper"),
        (b"[" * 65 + b"]" * 65, "deeper"),
        (b'{"a": 1', "cut off"),
        (b"{} {}", "behind"),
        (b"", "cut off"),
        (b"[" + b"0," * 600 + b"0]", "longer"),
    ],
)
def test_rule_26_what_is_not_strict_json_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        parse_json(content, field="document", max_bytes=1_000 if reason == "longer" else None)


def test_rule_26_the_error_has_a_place_and_never_the_value() -> None:
    with pytest.raises(FormatError) as caught:
        parse_json(b'{"name": "jane-doe" "x"}', field="document")
    assert (caught.value.field, caught.value.offset) == ("document", 20)
    assert "jane" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "content", [b"a = 1\na = 2", b"\xff", b"a = " + b"[" * 20_000, b"a = jane-doe", b"#" * 2_000_000]
)
def test_rule_26_what_is_not_strict_toml_is_refused(content: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        parse_toml(content, field="settings")
    assert "jane" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert parse_toml(b"a = [1, 2]", field="settings") == {"a": [1, 2]}


def test_rule_26_an_error_of_toml_says_where() -> None:
    for content, place in ((b"a = 1\nb = jane-doe", "line 2, column 5"), (b"a = [", "end of document")):
        with pytest.raises(FormatError, match=place):
            parse_toml(content, field="settings")


def test_a_settings_file_is_json_or_toml() -> None:
    assert parse_document(b'{"a": 1}', is_json=True, field="settings") == {"a": 1}
    assert parse_document(b"a = 1", is_json=False, field="settings") == {"a": 1}


def test_brackets_within_text_are_no_depth_and_whole_pairs_are_text() -> None:
    assert parse_json(json.dumps({"a": "[" * 500}), field="x") == {"a": "[" * 500}
    assert parse_json(b'"\\ud83d\\ude00"', field="x") == "\U0001f600"
    assert parse_json(b'"\\ud83d"', field="x", any_text=True) == "\ud83d"


@given(VALUES)
def test_whatever_json_writes_is_read_back(value: Any) -> None:
    assert parse_json(json.dumps(value), field="x") == value


@given(st.lists(VALUES, max_size=6), st.booleans())
def test_elements_come_one_by_one_from_an_array_or_from_lines(values: list[Any], zipped: bool) -> None:
    wrapped = json.dumps({"Records": values, "more": [1]}).encode()
    lines = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    for content, name in ((wrapped, "Records"), (lines, "")):
        content = gzip.compress(content) if zipped else content
        found = elements(content)
        assert found == [(name, value) for value in values]


def test_an_array_behind_other_members_comes_as_its_whole_document() -> None:
    document = {"NextToken": "x", "Records": [1, 2]}
    assert elements(json.dumps(document).encode()) == [("", document)]
    assert elements(b'{"Events": [1]}', "Records", "Events") == [("Events", 1)]
    assert elements(b'{"Records": []}') == []
    assert elements(b"") == []


@pytest.mark.parametrize(
    "content",
    [
        b'{"Records": [{"a": 1}, {"b": 2',
        b'{"Records": [1, 2}',
        b'{"Records": [1, 2], "Records": [3]}',
        b'{"Records": [1] 5',
        b'{"Records": [1, {"a": 1, "a": 2}]}',
        b'{"Records": [1, ' + b"[" * 100_000,
        b'{"Records": [1, "' + b"x" * 6_000_000,
        b'{"Records": [1, "\xed\xa0\x80"]}',
        gzip.compress(b'{"Records": [1, 2]}' + b" " * 1_000, mtime=0)[:-9],
        b"\x1f\x8bxxxxxxxxxxxxxxxxx",
    ],
    ids=lambda content: repr(content[:30]),
)
def test_rule_26_a_broken_file_raises_after_what_could_be_read(content: bytes) -> None:
    with pytest.raises(FormatError):
        elements(content)


def test_rule_26_a_small_gzip_that_expands_without_measure_is_refused_in_bounded_memory() -> None:
    bomb = gzip.compress(b'{"Records": [' + b"[]," * 3_000_000, 9)
    assert len(bomb) < 20_000
    count = 0
    with pytest.raises(FormatError, match="expands"):
        for _ in JsonArray(
            InflatedStream(io.BytesIO(bomb), max_bytes=2**28, field="file"), ("Records",), field="file"
        ):
            count += 1
    assert count <= 200 * len(bomb) / 3
    zeros = gzip.compress(b'{"Records": [' + bytes(50_000_000), 9)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="longer than"):
            elements(zeros)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_rule_26_a_file_above_the_bound_is_refused() -> None:
    with pytest.raises(FormatError, match="longer than"):
        inflated(io.BytesIO(b"x" * 2_000_000), max_bytes=1_000_000, field="file")


def test_rule_26_a_gzip_of_members_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "MAX_GZIP_MEMBERS", 50)
    member = gzip.compress(b"")
    content = inflated(io.BytesIO(member * 50), max_bytes=1_000, field="file")
    assert content == b""
    with pytest.raises(FormatError, match="members of gzip"):
        inflated(io.BytesIO(member * 51), max_bytes=1_000, field="file")


def test_a_gzip_of_several_members_is_one_file() -> None:
    joined = gzip.compress(b"ab") + gzip.compress(b"") + gzip.compress(b"cd") + bytes(512)
    assert inflated(io.BytesIO(joined), max_bytes=100, field="file") == b"abcd"
    assert inflated(io.BytesIO(b""), max_bytes=100, field="file") == b""


@pytest.mark.parametrize(
    "refused",
    [
        lambda: parse_json(b'{"name": "Jane Roe" x', field="digest"),
        lambda: parse_json(b'{"name": "Jane Roe \xff"}', field="digest"),
        lambda: parse_json(b'{"name": "Jane Roe \\ud800"}', field="digest"),
        lambda: parse_toml(b'name = "Jane Roe" x', field="settings"),
        lambda: parse_toml(b'name = "Jane Roe \xff"', field="settings"),
        lambda: elements(b'{"Records": [{"name": "Jane Roe" x'),
        lambda: elements(b'{"Records": [{"name": "Jane Roe \xff"}]}'),
    ],
)
def test_rule_32_no_part_of_the_document_is_kept_behind_the_error(refused: Callable[[], object]) -> None:
    with pytest.raises(FormatError) as caught:
        refused()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None  # Python's own error holds the whole document
