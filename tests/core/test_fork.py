"""What a forked child may and may not do (rule 1), and that it shares no cached key."""

from __future__ import annotations

import io
import os
import threading

import pytest
from support.forks import in_child
from support.keys_fakes import CountingKeyring
from support.messages import CONTEXT, raw_client

from phicrypt import PhiCrypt
from phicrypt.errors import UnsupportedOperationError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_rule_01_a_child_refuses_to_go_on_sealing_an_open_reader() -> None:
    phi = raw_client()
    reader = phi.encrypting_reader(io.BytesIO(bytes(10_000)), context=CONTEXT, frame_length_bytes=100)
    start = reader.read(500)
    assert in_child(lambda: reader.read(500)) == UnsupportedOperationError.__name__
    assert phi.decrypt(start + reader.read(), context=CONTEXT) == bytes(10_000)


def test_rule_01_a_child_refuses_an_open_decrypting_reader() -> None:
    phi = raw_client()
    message = phi.encrypt(bytes(1000), context=CONTEXT, frame_length_bytes=100)
    reader = phi.decrypting_reader(io.BytesIO(message), context=CONTEXT)
    reader.read(50)
    assert in_child(lambda: reader.read(50)) == UnsupportedOperationError.__name__
    assert len(reader.read()) == 950


def test_rule_01_a_child_refuses_to_go_on_with_a_stream_that_is_under_way() -> None:
    phi = raw_client()
    outcomes = []

    class ForkingSource:
        """Forks in the middle; the child finds itself inside the parent's encrypt_stream."""

        turn = 0

        def read(self, size: int) -> bytes:
            self.turn += 1
            if self.turn == 2:
                self.pid = os.fork()
            return bytes(100) if self.turn < 10 else b""

    source, sink = ForkingSource(), io.BytesIO()
    try:
        phi.encrypt_stream(source, sink, context=CONTEXT, frame_length_bytes=100)
    except UnsupportedOperationError:
        if source.pid == 0:
            os._exit(42)
        raise
    if source.pid == 0:
        os._exit(1)
    outcomes.append(os.waitstatus_to_exitcode(os.waitpid(source.pid, 0)[1]))
    assert outcomes == [42]
    assert phi.decrypt(sink.getvalue(), context=CONTEXT) == bytes(900)


def test_a_child_shares_no_cached_key_and_its_own_messages_work() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring)
    message = phi.encrypt(b"x", context=CONTEXT)

    def child() -> object:
        before = phi.cache.stats().entries
        own = phi.encrypt(b"child", context=CONTEXT)
        opened = phi.decrypt(message, context=CONTEXT), phi.decrypt(own, context=CONTEXT)
        return before, keyring.encrypts, opened

    assert in_child(child) == str((0, 2, (b"x", b"child")))
    phi.encrypt(b"y", context=CONTEXT)
    assert keyring.encrypts == 1


def test_a_fork_during_a_keyring_call_leaves_the_child_able_to_work() -> None:
    keyring = CountingKeyring()
    keyring.gate = threading.Event()
    phi = PhiCrypt(keyring)
    leader = threading.Thread(target=lambda: phi.encrypt(b"x", context=CONTEXT))
    leader.start()
    keyring.entered.wait(10)

    def child() -> object:
        keyring.gate = None
        return phi.decrypt(phi.encrypt(b"child", context=CONTEXT), context=CONTEXT)

    assert in_child(child) == str(b"child")
    keyring.gate.set()
    leader.join(10)
    assert phi.cache.stats().entries == 1
