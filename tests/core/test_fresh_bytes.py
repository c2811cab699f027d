"""Results written in place hold what was sealed or opened, and never what the memory held before."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from support.messages import CONTEXT, raw_client

from phicrypt.core import memory as fresh_bytes
from phicrypt.core.memory import bytes_to_fill
from phicrypt.errors import PhiCryptError

LARGE = 3 * 1024 * 1024


@pytest.fixture
def forgetful() -> Iterator[None]:
    fresh_bytes._maker.cache_clear()
    yield
    fresh_bytes._maker.cache_clear()


@pytest.mark.parametrize("length", [0, 1, 1000, 256 * 1024 - 1, 256 * 1024, LARGE])
def test_what_was_written_is_handed_out(length: int) -> None:
    buffer = bytes_to_fill(length)
    with buffer.getbuffer() as view:
        assert len(view) == length
        view[:] = b"\xa5" * length
    assert buffer.getvalue() == b"\xa5" * length


@pytest.mark.parametrize("missing", ["ctypes", "cpython"])
def test_a_python_without_that_interface_gives_zeros(
    forgetful: None, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    if missing == "ctypes":
        monkeypatch.setitem(sys.modules, "ctypes", None)
    else:
        monkeypatch.setattr(sys.implementation, "name", "another")
    assert bytes_to_fill(LARGE).getvalue() == bytes(LARGE)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("more", [-1, 0, 1, 128 * 1024, 128 * 1024 + 1])
def test_every_byte_of_a_result_is_written(more: int, threads: int) -> None:
    """Memory that held a pattern is used again; wherever it shone through, the message would not open."""
    phi = raw_client(threads=threads)
    plaintext = bytes(LARGE + more)
    for _ in range(3):
        pattern = b"\x5a" * (LARGE + more + 2_000)
        del pattern
        message = phi.encrypt(plaintext, context=CONTEXT)
        assert phi.decrypt(message, context=CONTEXT) == plaintext


def test_rule_06_nothing_is_handed_out_of_a_message_that_does_not_verify() -> None:
    phi = raw_client()
    message = bytearray(phi.encrypt(bytes(LARGE), context=CONTEXT))
    message[LARGE // 2] ^= 1
    with pytest.raises(PhiCryptError):
        phi.decrypt(bytes(message), context=CONTEXT)
