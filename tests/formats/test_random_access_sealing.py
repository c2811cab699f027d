"""Frames sealed out of order: the same message, and no frame twice."""

from __future__ import annotations

import os
import random

import pytest
from support.messages import WRAPPING_KEY

from phicrypt import ANY_CONTEXT, PhiCrypt, RawAesKeyring
from phicrypt.core.suites import (
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
    AlgorithmSuite,
)
from phicrypt.errors import ConfigurationError, UnsupportedOperationError
from phicrypt.formats.esdk.random_access import RandomAccessSealer
from phicrypt.formats.esdk.sealing import MessageSealer

FRAME = 64
PHI = PhiCrypt(RawAesKeyring("clinic", "key-1", WRAPPING_KEY))


def message_sealer(suite: AlgorithmSuite = AES_256_GCM_HKDF_SHA512_COMMIT_KEY) -> MessageSealer:
    materials, _ = PHI.provider.encryption_materials(suite, {"a": "b"}, plaintext_length_bytes=None)
    return MessageSealer(materials, FRAME)


@pytest.mark.parametrize("length", [0, 1, FRAME, FRAME + 1, 10 * FRAME, 10 * FRAME + 5])
def test_runs_in_any_order_make_one_message(length: int) -> None:
    data = random.Random(length).randbytes(length)
    sealer = RandomAccessSealer(message_sealer())
    starts = list(range(0, max(length, 1), 3 * FRAME))
    runs: dict[int, bytes] = {}
    for start in random.Random(1).sample(starts, len(starts)):
        piece = data[start : start + 3 * FRAME]
        runs[start] = sealer.seal_run(start // FRAME + 1, piece, is_last=start == starts[-1])
    message = sealer.header + b"".join(runs[start] for start in starts)
    assert PHI.decrypt(message, context=ANY_CONTEXT) == data


def test_an_empty_final_frame_ends_full_runs() -> None:
    sealer = RandomAccessSealer(message_sealer())
    data = os.urandom(4 * FRAME)
    body = sealer.seal_run(1, data, is_last=False) + sealer.seal_run(5, b"", is_last=True)
    assert PHI.decrypt(sealer.header + body, context=ANY_CONTEXT) == data


def test_rule_03_no_frame_is_sealed_twice() -> None:
    sealer = RandomAccessSealer(message_sealer())
    sealer.seal_run(3, bytes(2 * FRAME), is_last=False)
    for first, length, is_last in (
        (3, FRAME, False),
        (4, FRAME, False),
        (2, 2 * FRAME, False),
        (4, 0, True),
        (1, 3 * FRAME, True),
    ):
        with pytest.raises(UnsupportedOperationError, match="nonce"):
            sealer.seal_run(first, bytes(length), is_last=is_last)
    sealer.seal_run(1, bytes(2 * FRAME), is_last=False)
    sealer.seal_run(5, b"", is_last=True)


def test_runs_of_regular_frames_are_whole_frames() -> None:
    sealer = RandomAccessSealer(message_sealer())
    for length in (0, 1, FRAME - 1, FRAME + 1):
        with pytest.raises(ConfigurationError):
            sealer.seal_run(1, bytes(length), is_last=False)


def test_only_an_unsigned_message_without_frames_is_taken_over() -> None:
    with pytest.raises(ConfigurationError):
        RandomAccessSealer(message_sealer(AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384))
    begun = message_sealer()
    begun.seal_regular_into(bytes(FRAME), memoryview(bytearray(FRAME + 32)))
    with pytest.raises(ConfigurationError):
        RandomAccessSealer(begun)


def test_rule_03_a_message_that_was_handed_over_or_finished_seals_nothing_more() -> None:
    handed_over, finished = message_sealer(), message_sealer()
    RandomAccessSealer(handed_over)
    finished.seal_final_into(b"", memoryview(bytearray(40)))
    for sealer in (handed_over, finished):
        for _ in range(2):
            with pytest.raises(ConfigurationError):
                sealer.seal_regular_into(bytes(2 * FRAME), memoryview(bytearray(4 * FRAME)))
            with pytest.raises(ConfigurationError):
                sealer.seal_final_into(b"x", memoryview(bytearray(64)))


def test_rule_01_sealing_belongs_to_one_process() -> None:
    sealer = RandomAccessSealer(message_sealer())
    child = os.fork()
    if child == 0:
        try:
            sealer.seal_run(1, bytes(FRAME), is_last=False)
        except UnsupportedOperationError:
            os._exit(42)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
