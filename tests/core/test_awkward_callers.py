"""Buffers, sinks, sources and interrupts that misbehave: nothing is lost, reused or released because of them."""

from __future__ import annotations

import io
import linecache
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import pytest
from support.messages import CONTEXT, raw_client

from phicrypt import CachePolicy, PhiCrypt, RawAesKeyring
from phicrypt.audit import AuditEvent
from phicrypt.core.materials import EncryptionMaterials
from phicrypt.core.suites import AES_256_GCM_HKDF_SHA512_COMMIT_KEY
from phicrypt.errors import AuditError, ConfigurationError, KeyAccessError, LimitExceededError
from phicrypt.formats.esdk.random_access import RandomAccessSealer
from phicrypt.formats.esdk.sealing import MessageSealer
from phicrypt.keys.cache import KeyCache

PLAINTEXT = bytes(range(256)) * 160
FRAME_LENGTH = 4096


def new_sealer(frame_length_bytes: int = 16) -> MessageSealer:
    materials, _ = raw_client().provider.encryption_materials(
        AES_256_GCM_HKDF_SHA512_COMMIT_KEY, CONTEXT, plaintext_length_bytes=None
    )
    return MessageSealer(materials, frame_length_bytes)


# --- buffers ----------------------------------------------------------------------------------------


def test_a_buffer_that_belongs_to_what_is_read_is_refused_and_left_alone() -> None:
    phi = raw_client()
    memory = bytearray(PLAINTEXT + bytes(10_000))
    before = bytes(memory)
    with pytest.raises(ConfigurationError, match="buffer"):
        phi.encrypt_into(memoryview(memory)[: len(PLAINTEXT)], memory, context=CONTEXT)
    assert memory == before
    message = bytearray(phi.encrypt(PLAINTEXT, context=CONTEXT))
    before = bytes(message)
    with pytest.raises(ConfigurationError, match="buffer"):
        phi.decrypt_into(memoryview(message).toreadonly(), memoryview(message)[10:], context=CONTEXT)
    assert message == before


def test_rule_20_a_buffer_holds_nothing_when_the_end_of_its_use_cannot_be_recorded() -> None:
    class FailsAtTheEnd:
        def write(self, events: Sequence[AuditEvent]) -> None:
            if any(event.kind == "end" for event in events):
                raise OSError("disk full")

        def close(self) -> None:
            pass

    message = raw_client().encrypt(PLAINTEXT, context=CONTEXT)
    buffer = bytearray(len(PLAINTEXT))
    with pytest.raises(AuditError):
        raw_client(audit=[FailsAtTheEnd()]).decrypt_into(message, buffer, context=CONTEXT)
    assert buffer == bytes(len(PLAINTEXT))


def test_bytes_that_lie_about_their_length_are_sealed_as_they_are() -> None:
    class Liar(bytes):
        def __len__(self) -> int:
            return 3

    phi = raw_client()
    assert phi.decrypt(phi.encrypt(Liar(b"0123456789"), context=CONTEXT), context=CONTEXT) == b"0123456789"


def test_a_bytearray_cannot_change_its_length_while_it_is_sealed() -> None:
    plaintext = bytearray(b"payload")

    class Meddler(dict[str, str]):
        def items(self) -> Any:
            plaintext.extend(b"more")
            return super().items()

    with pytest.raises(BufferError):
        raw_client().encrypt(plaintext, context=Meddler(CONTEXT))


# --- sinks and sources ----------------------------------------------------------------------------------


class SlowSink:
    """A sink that takes at most 1,000 bytes at a time, and says so."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data[:1_000]
        return len(data[:1_000])


def test_a_sink_that_takes_a_part_gets_the_rest() -> None:
    phi = raw_client(frame_length_bytes=FRAME_LENGTH)
    sealed, opened = SlowSink(), SlowSink()
    assert phi.encrypt_stream(io.BytesIO(PLAINTEXT), sealed, context=CONTEXT) == len(sealed.data)
    assert phi.decrypt_stream(io.BytesIO(sealed.data), opened, context=CONTEXT) == len(PLAINTEXT)
    assert opened.data == PLAINTEXT


@pytest.mark.parametrize("answer", [0, -1, 2**40, "all"])
@pytest.mark.parametrize("base", [object, io.RawIOBase])
def test_a_sink_that_takes_nothing_or_answers_nonsense_is_refused(base: type, answer: object) -> None:
    sink = type("Sink", (base,), {"write": lambda self, data: answer})()
    with pytest.raises(ConfigurationError, match="sink"):
        raw_client().encrypt_stream(io.BytesIO(PLAINTEXT), sink, context=CONTEXT)


@pytest.mark.parametrize("answer", [-4, 2**40])
def test_a_source_that_miscounts_what_it_read_is_refused(answer: int) -> None:
    class Source(io.RawIOBase):
        def readinto(self, buffer: Any, /) -> int:
            return answer

    with pytest.raises(ConfigurationError, match="readinto"):
        raw_client().encrypt_stream(Source(), io.BytesIO(), context=CONTEXT)


def test_rule_08_a_sink_that_edits_its_events_changes_no_message() -> None:
    class Redactor:
        def write(self, events: Sequence[AuditEvent]) -> None:
            for event in events:
                event.context["tenant"] = "somebody else"  # type: ignore[index]

        def close(self) -> None:
            pass

    phi = raw_client(audit=[Redactor()])
    for signed in (False, True):
        for _ in range(2):
            message = phi.encrypt(b"x", context=CONTEXT, signed=signed)
            phi.trail.flush()  # type: ignore[union-attr]
            assert phi.decrypt(message, context=CONTEXT) == b"x"


# --- nonces ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_last", [False, True])
def test_rule_03_no_frame_is_sealed_under_the_nonce_of_the_header(is_last: bool) -> None:
    sealer = RandomAccessSealer(new_sealer())
    with pytest.raises(LimitExceededError):
        sealer.seal_run(0, bytes(16 if is_last else 32), is_last=is_last)


def test_a_sealer_that_failed_in_the_middle_seals_nothing_more() -> None:
    sealer = new_sealer()
    with pytest.raises(ValueError, match="buffer must be"):
        sealer.seal_regular_into(bytes(32), memoryview(bytearray(90)))  # too little room
    with pytest.raises(ConfigurationError, match="nonce twice"):
        sealer.seal_final_into(b"", memoryview(bytearray(1_000)))


# --- interrupts -----------------------------------------------------------------------------------------


class InterruptAt:
    """Raises KeyboardInterrupt before the ``count``-th execution of a line of one file that holds a text."""

    def __init__(self, file_name: str, text: str, count: int) -> None:
        self._file_name = file_name
        self._text = text
        self._left = count

    def __enter__(self) -> InterruptAt:
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        assert self._left == 0, "the line was not reached"

    def _enter(self, frame: FrameType, event: str, _argument: object) -> Any:
        return self._step if frame.f_code.co_filename.endswith(self._file_name) else None

    def _step(self, frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line" and self._text in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
            self._left -= 1
            if self._left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._step


class Pipe:
    """A source with ``read`` only, which gives less than it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 1_500))


def decrypting(source: Callable[[bytes], Any]) -> Any:
    phi = raw_client(frame_length_bytes=FRAME_LENGTH)
    return phi.decrypting_reader(source(phi.encrypt(PLAINTEXT, context=CONTEXT)), context=CONTEXT)


def encrypting(source: Callable[[bytes], Any]) -> Any:
    return raw_client().encrypting_reader(source(bytes(3 * 1024**2)), context=CONTEXT)  # three pieces


@pytest.mark.parametrize("text", ["self._piece = piece", "filled += count", "self._advance(filled)"])
@pytest.mark.parametrize("source", [io.BytesIO, Pipe])
@pytest.mark.parametrize("open_reader", [decrypting, encrypting])
def test_a_reader_that_was_interrupted_never_goes_on_behind_a_gap(
    open_reader: Callable[..., Any], source: Callable[[bytes], Any], text: str
) -> None:
    reader = open_reader(source)
    taken = reader.read(10)
    with pytest.raises(KeyboardInterrupt), InterruptAt("phicrypt/messages/streams.py", text, 2):
        while piece := reader.read(3_000):
            taken += piece
    with pytest.raises(KeyboardInterrupt):
        reader.read(1)


def test_rule_12_a_leader_interrupted_before_its_load_leaves_nobody_waiting() -> None:
    cache: KeyCache[str] = KeyCache(CachePolicy())
    with pytest.raises(KeyboardInterrupt), InterruptAt("keys/cache.py", "deadline = self._clock()", 1):
        cache.get_or_load("entry", lambda: "never")
    answers: list[tuple[str, bool]] = []
    waiter = threading.Thread(
        target=lambda: answers.append(cache.get_or_load("entry", lambda: "fresh")), daemon=True
    )
    waiter.start()
    waiter.join(30)
    assert answers == [("fresh", False)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_rule_01_a_source_that_forks_seals_in_one_process_only() -> None:
    class Forking(io.RawIOBase):
        child: int | None = None

        def readinto(self, buffer: Any, /) -> int:
            if self.child is not None:
                return 0
            self.child = os.fork()
            buffer[:3] = b"abc"
            return 3

    source, sink = Forking(), io.BytesIO()
    phi = raw_client()
    try:
        phi.encrypt_stream(source, sink, context=CONTEXT)
        sealed = True
    except BaseException:
        sealed = False
    if source.child == 0:
        os._exit(7 if sealed else 0)
    assert source.child is not None
    assert os.waitpid(source.child, 0)[1] == 0
    assert sealed
    assert phi.decrypt(sink.getvalue(), context=CONTEXT) == b"abc"


def test_rule_12_a_waiters_error_does_not_hold_the_leaders_frames() -> None:
    entered, waiting = threading.Event(), threading.Event()

    class Refusing(RawAesKeyring):
        def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
            entered.set()
            waiting.wait(30)
            raise KeyAccessError("refused", operation="GenerateDataKey", code="AccessDenied", request_id="r-1")

    phi = PhiCrypt(Refusing("clinic", "key-1", bytes(32)))
    errors: list[KeyAccessError] = []

    def use(plaintext: bytes) -> None:
        try:
            phi.encrypt(plaintext, context=CONTEXT)
        except KeyAccessError as error:
            errors.append(error)

    leader = threading.Thread(target=use, args=(b"the leader's plaintext",))
    leader.start()
    assert entered.wait(30)
    waiter = threading.Thread(target=use, args=(b"the waiter's plaintext",))
    waiter.start()
    while not phi.cache.stats().coalesced:
        time.sleep(0.01)
    waiting.set()
    leader.join(30)
    waiter.join(30)
    assert len(errors) == 2
    for error in errors:
        assert (str(error), error.code, error.request_id) == ("refused", "AccessDenied", "r-1")
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        plaintexts = {frame.f_locals["plaintext"] for frame in frames if "plaintext" in frame.f_locals}
        assert len(plaintexts) == 1


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this system")
def test_rule_12_a_signal_handler_does_not_wait_for_the_flight_that_it_interrupted() -> None:
    sealed: list[bytes] = []

    class Signalled(RawAesKeyring):
        calls = 0

        def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
            type(self).calls += 1
            if self.calls == 1:
                signal.raise_signal(signal.SIGUSR1)
            return super().on_encrypt(materials)

    phi = PhiCrypt(Signalled("clinic", "key-1", bytes(32)))
    before = signal.signal(signal.SIGUSR1, lambda *_: sealed.append(phi.encrypt(b"handler", context=CONTEXT)))
    try:
        message = phi.encrypt(b"main", context=CONTEXT)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert phi.decrypt(message, context=CONTEXT) == b"main"
    assert [phi.decrypt(one, context=CONTEXT) for one in sealed] == [b"handler"]
    assert Signalled.calls == 2
