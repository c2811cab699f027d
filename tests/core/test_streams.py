"""Readers and streams: memory, seeking, closing, and failures that stay failures."""

from __future__ import annotations

import copy
import io
import os
import pickle
import random
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
from support.meddling import Meddler
from support.messages import CONTEXT, raw_client, take_apart
from support.sdk_providers import raw_provider

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.core.limits import ReadLimits
from phicrypt.core.spool import CiphertextSpool
from phicrypt.core.suites import AES_256_GCM_HKDF_SHA512_COMMIT_KEY
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    FormatError,
    LimitExceededError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.formats.esdk.sealing import MessageSealer


class CountingSource(io.BytesIO):
    """A seekable source that counts the bytes read from it."""

    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self.bytes_read += count
        return count


class Pipe:
    """A source with ``read`` only."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(size)


def changed(message: bytes, position: int) -> bytes:
    return message[:position] + bytes((message[position] ^ 1,)) + message[position + 1 :]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 64 * 5, 64 * 5 + 7])
def test_random_seeks_read_what_the_plaintext_holds(size: int) -> None:
    plaintext = random.Random(size).randbytes(size)
    phi = raw_client()
    message = phi.encrypt(plaintext, context=CONTEXT, frame_length_bytes=64)
    source = io.BytesIO(b"prefix" + message)
    source.seek(6)
    reader = phi.decrypting_reader(source, context=CONTEXT)
    assert reader.seekable()
    model = io.BytesIO(plaintext)
    chance = random.Random(7)
    for _ in range(300):
        offset, whence = chance.choice(
            [(chance.randrange(size + 20), 0), (-chance.randrange(size + 1), 2), (3, 1)]
        )
        assert reader.seek(offset, whence) == model.seek(offset, whence)
        wanted = chance.choice([0, 1, 10, 64, 200, -1])
        assert reader.read(wanted) == model.read(wanted)
        assert reader.tell() == model.tell()
    reader.close()


def test_a_seek_reads_only_the_frames_it_needs() -> None:
    frame = 1024
    phi = raw_client()
    message = phi.encrypt(bytes(100 * frame), context=CONTEXT, frame_length_bytes=frame)
    source = CountingSource(message)
    with phi.decrypting_reader(source, context=CONTEXT) as reader:
        source.bytes_read = 0
        reader.seek(50 * frame + 10)
        assert len(reader.read(20)) == 20
        assert source.bytes_read == frame + 32
        reader.seek(60 * frame - 5)
        assert len(reader.read(10)) == 10
    assert source.bytes_read == 3 * (frame + 32)


def test_rule_10_seek_end_verifies_the_final_frame_before_it_tells_the_length() -> None:
    phi = raw_client()
    message = phi.encrypt(bytes(200), context=CONTEXT, frame_length_bytes=64)
    reader = phi.decrypting_reader(io.BytesIO(changed(message, len(message) - 1)), context=CONTEXT)
    with pytest.raises(AuthenticationError):
        reader.seek(0, io.SEEK_END)
    with pytest.raises(AuthenticationError):
        reader.read(1)


def test_rule_10_a_message_cut_at_a_frame_boundary_never_tells_a_length() -> None:
    phi = raw_client()
    parts = take_apart(phi.encrypt(bytes(64 * 4), context=CONTEXT, frame_length_bytes=64))
    cut = parts.header + parts.frames[0] + parts.frames[1]
    with pytest.raises((FormatError, AuthenticationError)):
        phi.decrypting_reader(io.BytesIO(cut), context=CONTEXT).seek(0, io.SEEK_END)


@pytest.mark.parametrize("source_type", [io.BytesIO, Pipe])
@pytest.mark.parametrize("signed", [False, True])
def test_leaving_a_with_block_early_never_hides_a_failure(source_type: Any, signed: bool) -> None:
    phi = raw_client()
    message = phi.encrypt(bytes(200), context=CONTEXT, frame_length_bytes=64, signed=signed)
    reader = phi.decrypting_reader(source_type(changed(message, len(message) - 1)), context=CONTEXT)

    def read_a_little() -> None:
        with reader:
            assert reader.read(10) == bytes(10)

    with pytest.raises(PhiCryptError):
        read_a_little()
    assert reader.closed


def test_leaving_a_with_block_by_an_error_keeps_that_error() -> None:
    phi = raw_client()
    message = phi.encrypt(bytes(200), context=CONTEXT, frame_length_bytes=64, signed=True)
    source = CountingSource(message)
    with pytest.raises(KeyError), phi.decrypting_reader(source, context=CONTEXT):
        raise KeyError("the caller's own")


def test_leaving_a_with_block_early_reads_a_good_message_to_its_end() -> None:
    phi = raw_client()
    message = phi.encrypt(bytes(200), context=CONTEXT, frame_length_bytes=64, signed=True)
    source = Pipe(message + b"")
    with phi.decrypting_reader(source, context=CONTEXT) as reader:
        reader.read(1)
    assert source.read() == b""


def test_a_failure_is_raised_again_and_never_looks_like_the_end() -> None:
    phi = raw_client()
    message = phi.encrypt(bytes(200), context=CONTEXT, frame_length_bytes=64)
    reader = phi.decrypting_reader(Pipe(message[:-1]), context=CONTEXT)
    with pytest.raises(FormatError):
        reader.read()
    for _ in range(3):
        with pytest.raises(FormatError):
            reader.read(1)


@pytest.mark.parametrize("signed", [False, True])
def test_frames_are_released_as_they_are_verified_but_the_last_only_at_the_end(signed: bool) -> None:
    phi = raw_client()
    message = phi.encrypt(b"a" * 64 + b"b" * 64, context=CONTEXT, frame_length_bytes=64, signed=signed)
    reader = phi.decrypting_reader(Pipe(changed(message, len(message) - 1)), context=CONTEXT)
    assert reader.read(64) == b"a" * 64
    with pytest.raises(PhiCryptError):
        reader.read(1)


def test_rule_02_an_encrypting_reader_is_not_seekable() -> None:
    reader = raw_client().encrypting_reader(io.BytesIO(b"x"), context=CONTEXT)
    assert not reader.seekable()
    with pytest.raises(io.UnsupportedOperation):
        reader.seek(0)
    with pytest.raises(io.UnsupportedOperation):
        reader.tell()
    assert reader.readable()
    assert not reader.writable()


def test_rule_02_a_source_is_read_once() -> None:
    source = CountingSource(bytes(5000))
    reader = raw_client().encrypting_reader(source, context=CONTEXT, frame_length_bytes=100)
    while reader.read(17):
        pass
    assert source.bytes_read == 5000


def test_a_closed_reader_refuses() -> None:
    phi = raw_client()
    message = phi.encrypt(b"x", context=CONTEXT)
    for reader in (phi.decrypting_reader(io.BytesIO(message), context=CONTEXT), phi.encrypting_reader(Pipe(b""))):
        reader.close()
        reader.close()
        with pytest.raises(ValueError, match="closed"):
            reader.read(1)


def test_sources_and_sinks_are_not_closed_for_the_caller() -> None:
    phi = raw_client()
    source, sink = io.BytesIO(b"x"), io.BytesIO()
    phi.encrypt_stream(source, sink, context=CONTEXT)
    assert not source.closed
    assert not sink.closed
    with phi.decrypting_reader(io.BytesIO(sink.getvalue()), context=CONTEXT) as reader:
        reader.read()


def test_a_sink_that_keeps_what_it_is_given_keeps_the_right_bytes() -> None:
    class Keeping:
        def __init__(self) -> None:
            self.pieces: list[bytes] = []

        def write(self, piece: bytes) -> None:
            self.pieces.append(piece)

    phi = raw_client()
    plaintext = os.urandom(3_000_000)
    sealed, opened = Keeping(), Keeping()
    phi.encrypt_stream(io.BytesIO(plaintext), sealed, context=CONTEXT)
    phi.decrypt_stream(io.BytesIO(b"".join(sealed.pieces)), opened, context=CONTEXT)
    assert b"".join(opened.pieces) == plaintext


def test_a_sink_that_writes_less_than_asked_gets_the_rest() -> None:
    class Short(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, piece: Any, /) -> int:
            self.data += bytes(piece[:7])
            return min(7, len(piece))

    phi = raw_client()
    sink = Short()
    phi.encrypt_stream(io.BytesIO(bytes(100)), sink, context=CONTEXT)
    assert phi.decrypt(bytes(sink.data), context=CONTEXT) == bytes(100)


def test_text_sources_and_non_blocking_sources_are_refused() -> None:
    class NonBlocking:
        def read(self, size: int = -1) -> None:
            return None

    phi = raw_client()
    for source in (io.StringIO("text"), NonBlocking()):
        with pytest.raises(ConfigurationError):
            phi.encrypt_stream(source, io.BytesIO(), context=CONTEXT)


def test_rule_01_readers_and_writers_cannot_be_copied_or_pickled() -> None:
    phi = raw_client()
    message = phi.encrypt(b"x", context=CONTEXT)
    materials, _ = phi.provider.encryption_materials(
        AES_256_GCM_HKDF_SHA512_COMMIT_KEY, CONTEXT, plaintext_length_bytes=1
    )
    holders = [
        phi,
        phi.provider,
        phi.provider.cache,
        phi.provider.keyring,
        materials,
        materials.data_key,
        MessageSealer(materials, 16),
        phi.encrypting_reader(io.BytesIO(b"x"), context=CONTEXT),
        phi.decrypting_reader(io.BytesIO(message), context=CONTEXT),
        phi.decrypting_reader(Pipe(message), context=CONTEXT),
    ]
    for holder in holders:
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                attempt(holder)


def test_no_repr_shows_key_bytes() -> None:
    phi = raw_client()
    wrapping_key = bytes(range(32))
    materials, _ = phi.provider.encryption_materials(
        AES_256_GCM_HKDF_SHA512_COMMIT_KEY, CONTEXT, plaintext_length_bytes=1
    )
    assert materials.data_key is not None
    shown = " ".join(
        map(repr, [phi, phi.provider, phi.provider.keyring, materials, materials.data_key, phi.cache])
    )
    for secret in (wrapping_key, materials.data_key.key_bytes):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
    assert "clinic-7" not in shown


def test_rule_06_a_non_framed_body_is_spooled_as_ciphertext_and_bounded() -> None:
    plaintext = b"PHI-CANARY" * 100_000
    client = EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    message, _ = client.encrypt(
        source=plaintext, key_provider=raw_provider(), encryption_context=CONTEXT, frame_length=0
    )
    keyring = RawAesKeyring("clinic", "key-1", bytes(range(32)))
    phi = PhiCrypt(keyring, limits=ReadLimits(spool_memory_bytes=1000))
    sink = io.BytesIO()
    bad = changed(message, len(message) // 2)
    with pytest.raises(AuthenticationError):
        phi.decrypt_stream(io.BytesIO(bad), sink, context=CONTEXT)
    assert sink.getvalue() == b""
    phi.decrypt_stream(io.BytesIO(message), sink, context=CONTEXT)
    assert sink.getvalue() == plaintext
    bounded = PhiCrypt(keyring, limits=ReadLimits(max_spool_bytes=len(plaintext) - 1))
    with pytest.raises(LimitExceededError):
        bounded.decrypt_stream(io.BytesIO(message), io.BytesIO(), context=CONTEXT)


def test_rule_06_a_spool_that_changed_on_disk_is_refused() -> None:
    with CiphertextSpool(memory_bytes=1, max_bytes=100) as spool:
        spool.append(b"first")
        spool.append(b"second")
        assert list(spool.verified_chunks()) == [b"first", b"second"]
        assert spool._file is not None
        spool._file.seek(6)
        spool._file.write(b"X")
        with pytest.raises(AuthenticationError):
            list(spool.verified_chunks())


@pytest.mark.parametrize("direction", ["encrypt", "decrypt"])
def test_one_gibibyte_stays_within_64_mebibytes_above_the_idle_process(direction: str) -> None:
    size = int(os.environ.get("PHICRYPT_STREAM_TEST_BYTES", str(256 * 1024 * 1024)))
    script = textwrap.dedent(
        f"""
        import resource
        from phicrypt import PhiCrypt, RawAesKeyring

        class Zeros:
            left = {size}
            def read(self, n):
                n = min(n, self.left)
                self.left -= n
                return bytes(n)

        class Nowhere:
            def write(self, piece):
                return len(piece)

        class Through:
            def __init__(self, reader):
                self.read = reader.read

        phi = PhiCrypt(RawAesKeyring("n", "k", bytes(32)))
        phi.decrypt(phi.encrypt(b"warm", context={{"a": "b"}}), context={{"a": "b"}})
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if {direction!r} == "encrypt":
            phi.encrypt_stream(Zeros(), Nowhere(), context={{"a": "b"}})
        else:
            sealed = phi.encrypting_reader(Zeros(), context={{"a": "b"}})
            phi.decrypt_stream(Through(sealed), Nowhere(), context={{"a": "b"}})
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert int(done.stdout) * 1024 <= 64 * 1024 * 1024


@pytest.mark.parametrize("meddle", ["read", "readall", "seek"])
def test_rule_06_a_second_thread_is_given_nothing_while_a_frame_is_opened(meddle: str) -> None:
    phi = raw_client(frame_length_bytes=64)
    plaintext = os.urandom(64 * 5)
    meddler = Meddler(io.BytesIO(phi.encrypt(plaintext, context=CONTEXT)), lambda: None)
    reader = phi.decrypting_reader(meddler, context=CONTEXT)
    meddler.answers.clear()
    meddler.meddle = {
        "read": lambda: reader.read(10),
        "readall": reader.readall,
        "seek": lambda: reader.seek(0, io.SEEK_END),
    }[meddle]
    assert reader.read(64 * 3) + reader.read() == plaintext
    assert {type(answer) for answer in meddler.answers} == {UnsupportedOperationError}
