"""Several threads seal and open the frames of one message in memory."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from support.forks import in_child
from support.messages import CONTEXT, raw_client

from phicrypt.formats.esdk.parallel import in_shares

FRAME_LENGTH = 64 * 1024
MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize("regular_frames", [1, 2, 3])
def test_fewer_long_frames_than_threads_come_back(regular_frames: int) -> None:
    phi = raw_client(frame_length_bytes=2 * MEBIBYTE, threads=4)
    plaintext = os.urandom(regular_frames * 2 * MEBIBYTE + 1)
    assert phi.decrypt(phi.encrypt(plaintext, context=CONTEXT), context=CONTEXT) == plaintext


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_every_frame_is_in_exactly_one_share(threads: int) -> None:
    done: list[int] = []
    in_shares(100, MEBIBYTE, threads, lambda first, count: done.extend(range(first, first + count)))
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize("failing_first", [0, 5])
def test_rule_03_no_share_runs_on_behind_a_failure(failing_first: int) -> None:
    """Its memory is the caller's again: what stands there later must not be sealed under the same nonces."""
    both_run = threading.Barrier(2)
    running: list[int] = []

    def work(first: int, count: int) -> None:
        running.append(first)
        both_run.wait(timeout=30)
        try:
            if first == failing_first:
                raise OSError("this share fails")
            threading.Event().wait(0.2)
        finally:
            running.remove(first)

    with pytest.raises(OSError, match="this share fails"):
        in_shares(10, MEBIBYTE, 2, work)
    assert running == []


def test_no_share_is_left_over_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    done: list[int] = []

    # In a child, whose threads of the pool are all still to be started.
    def attempt() -> str:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            in_shares(10, MEBIBYTE, 2, lambda first, count: done.append(first))
        monkeypatch.undo()
        in_shares(10, MEBIBYTE, 2, lambda first, count: done.append(first))
        return str(sorted(done))

    assert in_child(attempt) == "[0, 5]"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_threads_of_its_own() -> None:
    phi = raw_client(frame_length_bytes=FRAME_LENGTH, threads=2)
    plaintext = os.urandom(3 * MEBIBYTE)
    message = phi.encrypt(plaintext, context=CONTEXT)
    assert in_child(lambda: str(phi.decrypt(message, context=CONTEXT) == plaintext)) == "True"
    assert in_child(lambda: str(len(phi.encrypt(plaintext, context=CONTEXT)) == len(message))) == "True"
