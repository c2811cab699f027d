"""Properties of messages over arbitrary inputs, and every single-bit change of short ones."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.messages import CONTEXT, WRAPPING_KEY, raw_client

from phicrypt import ANY_CONTEXT, PhiCrypt, RawAesKeyring
from phicrypt.core.context import parse_context, serialize_context
from phicrypt.core.limits import ReadLimits
from phicrypt.errors import PhiCryptError
from phicrypt.formats.esdk.frames import layout_for_plaintext, layout_of_body
from phicrypt.formats.esdk.header import parse_header
from phicrypt.formats.reader import ByteReader, StreamReader

FUZZ_CASES = int(os.environ.get("PHICRYPT_FUZZ_CASES", "2000"))
UNGUARDED = PhiCrypt(RawAesKeyring("clinic", "key-1", WRAPPING_KEY), guard=None)

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: not name.startswith(("aws-crypto-", "phicrypt-"))
)
values = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
contexts = st.dictionaries(names, values, max_size=5)
frame_lengths = st.one_of(st.integers(1, 40), st.sampled_from([4096, 65536]))


class Dribble:
    """A source that hands out chosen numbers of bytes, like a socket."""

    def __init__(self, data: bytes, chunk_sizes: list[int]) -> None:
        self._source = io.BytesIO(data)
        self._sizes = chunk_sizes or [1]
        self._turn = 0

    def read(self, size: int = -1) -> bytes:
        self._turn += 1
        return self._source.read(min(size, self._sizes[self._turn % len(self._sizes)]))


@given(st.binary(max_size=300), contexts, frame_lengths, st.booleans(), st.lists(st.integers(1, 50), max_size=4))
@settings(deadline=None, max_examples=300)
def test_decrypt_inverts_encrypt_for_any_bytes_context_frame_length_and_chunking(
    plaintext: bytes, context: dict[str, str], frame_length: int, signed: bool, chunk_sizes: list[int]
) -> None:
    message = UNGUARDED.encrypt(plaintext, context=context, frame_length_bytes=frame_length, signed=signed)
    expected = context or ANY_CONTEXT
    assert UNGUARDED.decrypt(message, context=expected) == plaintext
    sink = io.BytesIO()
    UNGUARDED.encrypt_stream(
        Dribble(plaintext, chunk_sizes), sink, context=context, frame_length_bytes=frame_length, signed=signed
    )
    assert len(sink.getvalue()) == len(message)
    plain_sink = io.BytesIO()
    UNGUARDED.decrypt_stream(Dribble(sink.getvalue(), chunk_sizes), plain_sink, context=expected)
    assert plain_sink.getvalue() == plaintext


@given(contexts)
def test_parse_then_serialize_of_a_context_is_the_identity(context: dict[str, str]) -> None:
    serialized = serialize_context(context)
    assert dict(parse_context(serialized)) == context
    assert serialize_context(parse_context(serialized)) == serialized


@given(st.binary(max_size=50), contexts, st.booleans())
@settings(deadline=None, max_examples=100)
def test_parse_then_serialize_of_a_header_is_the_identity(
    plaintext: bytes, context: dict[str, str], signed: bool
) -> None:
    message = UNGUARDED.encrypt(plaintext, context=context, signed=signed)
    for reader in (ByteReader(message), StreamReader(io.BytesIO(message), read_ahead_bytes=7)):
        header = parse_header(reader, ReadLimits())
        assert header.to_bytes() == message[: header.length_bytes]
        assert {
            name: value for name, value in header.context.items() if name != "aws-crypto-public-key"
        } == context


@given(st.integers(0, 10_000), st.integers(1, 300), st.integers(0, 500))
def test_the_layout_of_a_body_is_the_layout_it_was_written_with(
    plaintext_length: int, frame_length: int, header_length: int
) -> None:
    layout = layout_for_plaintext(plaintext_length, frame_length, header_length)
    assert layout.plaintext_length_bytes == plaintext_length
    assert layout_of_body(layout.body_length_bytes, frame_length, header_length) == layout


@pytest.mark.parametrize("signed", [False, True], ids=["0x0478", "0x0578"])
def test_every_single_bit_change_of_a_short_message_fails(signed: bool) -> None:
    phi = raw_client()
    message = phi.encrypt(b"MRI knee, left", context=CONTEXT, signed=signed, frame_length_bytes=8)
    survivors = []
    for position in range(len(message)):
        for bit in range(8):
            changed = bytearray(message)
            changed[position] ^= 1 << bit
            try:
                phi.decrypt(bytes(changed), context=ANY_CONTEXT)
            except PhiCryptError:
                continue
            survivors.append((position, bit))
    assert survivors == []


@pytest.mark.parametrize("signed", [False, True], ids=["0x0478", "0x0578"])
def test_every_changed_byte_of_a_short_message_fails_as_a_stream(signed: bool) -> None:
    phi = raw_client()
    message = phi.encrypt(b"MRI knee, left", context=CONTEXT, signed=signed, frame_length_bytes=8)
    for position in range(len(message)):
        changed = bytearray(message)
        changed[position] ^= 0x41
        with pytest.raises(PhiCryptError):
            phi.decrypt_stream(io.BytesIO(bytes(changed)), io.BytesIO(), context=ANY_CONTEXT)


def _header_of(data: bytes) -> object:
    return parse_header(ByteReader(data), ReadLimits())


def _inspect(data: bytes) -> object:
    return UNGUARDED.inspect(data)


def _decrypt(data: bytes) -> object:
    return UNGUARDED.decrypt(data, context=ANY_CONTEXT, allow_uncommitted=True)


PARSERS = {"header": _header_of, "context": parse_context, "inspect": _inspect, "decrypt": _decrypt}
TEMPLATES = [
    UNGUARDED.encrypt(b"template", context=CONTEXT, signed=signed, frame_length_bytes=4)
    for signed in (False, True)
] + [serialize_context({"a": "b", "c": "d"})]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Arbitrary bytes, or a good message with a few stretches replaced, removed or repeated."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(TEMPLATES)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8)))
        data[start:end] = draw(st.binary(max_size=8))
    return bytes(data)


@pytest.mark.parametrize("parser", PARSERS)
def test_arbitrary_bytes_end_in_a_phicrypt_error_or_a_value(parser: str) -> None:
    @given(damaged())
    @settings(
        deadline=2000,
        max_examples=FUZZ_CASES // len(PARSERS),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        database=None,
    )
    def check(data: bytes) -> None:
        try:
            PARSERS[parser](data)
        except PhiCryptError:
            return
        # What parses although it was damaged may be a header; a whole message must be a template.
        assert parser != "decrypt" or data in TEMPLATES

    check()
