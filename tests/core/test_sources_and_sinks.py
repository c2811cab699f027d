"""Sources and sinks of the wrong kind: read where they can be, and else refused in words."""

from __future__ import annotations

import codecs
import io
import tempfile
from typing import Any

import pytest
from support.messages import CONTEXT, raw_client

from phicrypt.errors import ConfigurationError


class OnlyRead(io.RawIOBase):
    """A raw source with ``read`` alone: the ``readinto`` that it inherits is not implemented."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int | None = -1, /) -> bytes:
        return self._data.read(size)


def test_a_raw_source_that_has_only_read_is_read_by_every_verb() -> None:
    phi = raw_client()
    sealed, opened = io.BytesIO(), io.BytesIO()
    phi.encrypt_stream(OnlyRead(b"payload" * 100), sealed, context=CONTEXT)
    message = sealed.getvalue()
    assert phi.decrypt_stream(OnlyRead(message), opened, context=CONTEXT) == 700
    assert opened.getvalue() == b"payload" * 100
    with phi.decrypting_reader(OnlyRead(message), context=CONTEXT) as reader:
        assert reader.read() == b"payload" * 100
    assert phi.inspect(OnlyRead(message)).frame_length_bytes > 0
    with phi.encrypting_reader(OnlyRead(b"payload"), context=CONTEXT) as sealing:
        assert phi.decrypt(sealing.read(), context=CONTEXT) == b"payload"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (lambda: io.StringIO("text"), "binary mode"),
        (io.RawIOBase, "no read"),
        (object, "no read"),
    ],
)
def test_a_source_of_text_or_without_read_is_refused_by_every_verb(source: Any, words: str) -> None:
    phi = raw_client()
    for verb in (
        lambda: phi.encrypt_stream(source(), io.BytesIO(), context=CONTEXT),
        lambda: phi.encrypting_reader(source(), context=CONTEXT).read(),
        lambda: phi.decrypt_stream(source(), io.BytesIO(), context=CONTEXT),
        lambda: phi.decrypting_reader(source(), context=CONTEXT).read(),
        lambda: phi.inspect(source()),
    ):
        with pytest.raises(ConfigurationError, match=words):
            verb()


@pytest.mark.parametrize(
    "sink",
    [
        io.StringIO,
        lambda: tempfile.NamedTemporaryFile("w"),  # noqa: SIM115
        lambda: tempfile.SpooledTemporaryFile(mode="w"),  # noqa: SIM115
        lambda: codecs.getwriter("utf-8")(io.BytesIO()),
        io.RawIOBase,
        object,
    ],
)
def test_a_sink_that_takes_no_bytes_is_refused(sink: Any) -> None:
    phi = raw_client()
    message = phi.encrypt(b"payload", context=CONTEXT)
    with pytest.raises(ConfigurationError, match="takes no bytes"):
        phi.encrypt_stream(io.BytesIO(b"payload"), sink(), context=CONTEXT)
    with pytest.raises(ConfigurationError, match="takes no bytes"):
        phi.decrypt_stream(io.BytesIO(message), sink(), context=CONTEXT)


def test_an_error_in_the_code_of_a_sink_is_the_sinks_own() -> None:
    class Faulty(io.BytesIO):
        def write(self, data: Any, /) -> int:
            return len(7)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="int"):
        raw_client().encrypt_stream(io.BytesIO(b"payload"), Faulty(), context=CONTEXT)
