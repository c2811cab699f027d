"""Python's own error holds the text that it refused: it is not kept behind ours, as its ``__context__``."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

import pytest

from phicrypt.core.context import parse_context, serialize_context
from phicrypt.core.location import location_pair
from phicrypt.errors import PhiCryptError
from phicrypt.formats.dbesdk.attributes import deserialize, serialize, serialize_attributes
from phicrypt.formats.s3ec.envelope import parse_instruction_file
from phicrypt.formats.signatures import strict_json
from phicrypt.s3.in_clear import check_sse_context
from phicrypt.s3.writing.put import in_memory

SECRET = "Jane Roe \ud800"
NOT_UTF8 = b"Jane Roe \xff"


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "refused",
    [
        lambda: serialize({"S": SECRET}),
        lambda: serialize({"SS": [SECRET]}),
        lambda: serialize({"M": {"name": {"S": SECRET}}}),
        lambda: serialize_attributes({"name": {"S": SECRET}}, ["name"]),
        lambda: serialize_attributes({"name": {"L": [{"S": SECRET}]}}, ["name"]),
        lambda: deserialize(b"\x00\x01", NOT_UTF8),
        lambda: deserialize(b"\x01\x01", b"\0\0\0\1\0\0\0\x0a" + NOT_UTF8),
        lambda: serialize_context({"name": SECRET}),
        lambda: parse_context(b"\0\1\0\1a\0\x0a" + NOT_UTF8),
        lambda: location_pair("bucket", SECRET, {}),
        lambda: in_memory(SECRET),
    ],
)
def test_rule_32_no_refused_text_is_kept_behind_an_error(refused: Callable[[], object]) -> None:
    with pytest.raises(PhiCryptError) as caught:
        refused()
    for error in chain_of(caught.value):
        assert not isinstance(error, UnicodeError)
        assert "Jane" not in repr(error)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: strict_json(b'{"name": "Jane Roe" x', "statement"),
        lambda: strict_json(NOT_UTF8, "statement"),
        lambda: parse_instruction_file(b'{"x-amz-t": "Jane Roe" x'),
        lambda: check_sse_context(None, base64.b64encode(b'{"name": "Jane Roe" x').decode()),
        lambda: check_sse_context(None, base64.b64encode(NOT_UTF8).decode()),
        lambda: check_sse_context(None, base64.b64encode(b'["Jane Roe"]').decode()),
        lambda: check_sse_context(None, "Jane Roe \ud800"),
        lambda: check_sse_context(None, {"name": "Jane Roe"}),  # type: ignore[arg-type]
        lambda: check_sse_context(None, base64.b64encode(b'["Jane Roe",' * 100_000).decode()),
    ],
)
def test_rule_32_no_refused_json_is_kept_behind_an_error(refused: Callable[[], object]) -> None:
    with pytest.raises(PhiCryptError) as caught:
        refused()
    assert "Jane" not in repr(caught.value)
    assert caught.value.__context__ is None
