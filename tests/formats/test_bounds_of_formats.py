"""Bounds and refusals of parsers that are easily lost without anybody noticing."""

from __future__ import annotations

import io
from typing import Any

import pytest

from phicrypt import PhiCrypt
from phicrypt.core.context import serialize_context
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import DataKey, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.streams import RejoinedStream
from phicrypt.core.suites import ESDK_SUITES
from phicrypt.errors import ConfigurationError, FormatError
from phicrypt.formats.esdk.header import parse_header
from phicrypt.formats.esdk.header_memo import HeaderMemo
from phicrypt.formats.esdk.sealing import seal_message
from phicrypt.formats.reader import ByteReader, StreamReader
from phicrypt.formats.s3ec.content import plaintext_length_of
from phicrypt.formats.s3ec.envelope import S3EC_V2_SUITE, S3EC_V3_SUITE
from phicrypt.testing import StaticKeyring

CONTEXT = {"tenant": "clinic-7"}


def materials(suite_id: int, data_key: DataKey | None) -> EncryptionMaterials:
    recipients = (EncryptedDataKey("test", b"key", b"wrapped"),)
    return EncryptionMaterials(
        ESDK_SUITES[suite_id],
        CONTEXT,
        serialize_context(CONTEXT),
        data_key=data_key,
        encrypted_data_keys=recipients,
    )


@pytest.mark.parametrize("length", [0, 100, 5_000])  # one frame, and two
def test_nothing_is_sealed_by_a_legacy_suite_or_without_a_data_key(length: int) -> None:
    for unwritable in (materials(0x0178, DataKey(bytes(32))), materials(0x0478, None)):
        with pytest.raises(ConfigurationError):
            seal_message(unwritable, bytes(length), 4_096)


def test_a_memory_of_headers_stays_bounded_in_parts_and_in_lengths() -> None:
    phi = PhiCrypt(StaticKeyring(bytes(32)))
    memo = HeaderMemo()

    def kept(contexts: list[dict[str, str]]) -> int:
        messages = [phi.encrypt(b"", context=context) for context in contexts]
        for message in messages:
            memo.keep(parse_header(ByteReader(message), ReadLimits()))
        assert memo.find(messages[-1]) is not None
        return sum(memo.find(message) is not None for message in messages)

    assert 0 < kept([{"tenant": f"clinic-{number:04}"} for number in range(1_000)]) <= 512
    assert 0 < kept([{"tenant": "x" * length} for length in range(1, 40)]) <= 8


def test_a_source_is_read_in_pieces_of_the_size_that_was_asked_for() -> None:
    sizes: list[int] = []

    class Source(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            sizes.append(len(buffer))
            return super().readinto(buffer)

    source = Source(bytes(4_000_000))
    reader = StreamReader(source, read_ahead_bytes=1_024)
    reader.take(1, "first")
    assert max(sizes) <= 1_024
    reader.read_ahead(1_000_000)
    reader.take(10_000, "more")
    assert max(sizes) >= 900_000


def test_a_source_that_gives_more_than_was_asked_for_is_refused_in_words() -> None:
    class Greedy:
        def read(self, size: int) -> bytes:
            return bytes(size + 1)

    with pytest.raises(ConfigurationError, match="returned"):
        PhiCrypt(StaticKeyring(bytes(32))).encrypt_stream(Greedy(), io.BytesIO(), context=CONTEXT)


def test_a_stream_joined_again_gives_nothing_where_nothing_is_asked_for() -> None:
    for size in (0, 1, 2, 3, -1):
        joined = RejoinedStream(io.BytesIO(b"abcdef"))
        assert joined.read(4) == b"abcd"
        rest = joined.behind(2)
        expected = b"cd" if size < 0 else b"cd"[:size]
        assert rest.read(size) == expected
        assert rest.read(0) == b""
        pieces = [expected]
        while piece := rest.read(1):
            pieces.append(piece)
        assert b"".join(pieces) == b"cdef"


def test_a_body_of_the_s3_encryption_client_holds_its_tag_at_least() -> None:
    assert [plaintext_length_of(length) for length in (16, 17, 1_000)] == [0, 1, 984]
    for length in (0, 1, 15):
        with pytest.raises(FormatError):
            plaintext_length_of(length)


def test_of_the_s3_encryption_clients_versions_the_third_commits_to_its_key() -> None:
    assert S3EC_V3_SUITE.is_committing
    assert not S3EC_V2_SUITE.is_committing
