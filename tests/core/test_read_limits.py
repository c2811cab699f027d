"""Each bound of ``ReadLimits``: passed, it says which setting it is."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable
from typing import Any

import pytest
from support.dbesdk_support import patient, patients, phi_with, raw_aes_keyring
from support.messages import CONTEXT, WRAPPING_KEY, raw_client

from phicrypt import MultiKeyring, PhiCrypt, RawAesKeyring
from phicrypt.core.limits import ReadLimits
from phicrypt.core.spool import CiphertextSpool
from phicrypt.dynamodb.items import open_item, seal_item
from phicrypt.errors import LimitExceededError

TWO_KEYS = MultiKeyring(
    RawAesKeyring("clinic", "key-1", WRAPPING_KEY), RawAesKeyring("clinic", "key-2", bytes(32))
)
BOUNDS = {
    "max_encrypted_data_keys": 1,
    "max_header_length_bytes": 60,
    "max_context_length_bytes": 4,
    "max_frame_length_bytes": 1024,
}
READS: dict[str, Callable[[PhiCrypt, bytes], Any]] = {
    "decrypt": lambda phi, message: phi.decrypt(message, context=CONTEXT),
    "decrypt_stream": lambda phi, message: phi.decrypt_stream(io.BytesIO(message), io.BytesIO(), context=CONTEXT),
    "inspect": lambda phi, message: phi.inspect(message),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_that_a_message_passes_is_named_by_its_setting(name: str, read: str) -> None:
    message = PhiCrypt(TWO_KEYS).encrypt(os.urandom(9000), context=CONTEXT, frame_length_bytes=4096)
    # The limits of a client bound what it writes as well: its own frame length has to be within them.
    bounded = raw_client(limits=ReadLimits(**{name: BOUNDS[name]}), frame_length_bytes=1024)
    with pytest.raises(LimitExceededError, match=f"ReadLimits.{name}") as caught:
        READS[read](bounded, message)
    assert caught.value.setting == f"ReadLimits.{name}"
    assert caught.value.setting.removeprefix("ReadLimits.") in {one.name for one in dataclasses.fields(ReadLimits)}


@pytest.mark.parametrize("name", ["max_encrypted_data_keys", "max_header_length_bytes"])
def test_a_bound_that_would_be_passed_in_writing_is_named_by_its_setting(name: str) -> None:
    bounded = PhiCrypt(TWO_KEYS, limits=ReadLimits(**{name: BOUNDS[name]}))
    with pytest.raises(LimitExceededError) as caught:
        bounded.encrypt(b"x", context=CONTEXT)
    assert caught.value.setting == f"ReadLimits.{name}"


@pytest.mark.parametrize("name", ["max_header_length_bytes", "max_encrypted_data_keys"])
def test_a_bound_that_an_item_passes_is_named_by_its_setting(name: str) -> None:
    keyring = MultiKeyring(raw_aes_keyring(), RawAesKeyring("clinic", "key-2", bytes(32)))
    stored = seal_item(phi_with(keyring).session, patient(), patients()).item
    bounded = phi_with(keyring, limits=ReadLimits(**{name: BOUNDS[name]})).session
    with pytest.raises(LimitExceededError) as caught:
        open_item(bounded, stored, patients())
    assert caught.value.setting == f"ReadLimits.{name}"


def test_a_spool_that_is_full_names_its_setting() -> None:
    words = "limit 20, found more; ReadLimits.max_spool_bytes sets it"
    with CiphertextSpool(memory_bytes=10, max_bytes=20) as spool, pytest.raises(LimitExceededError, match=words):
        spool.append(bytes(21))


def test_a_bound_that_nobody_can_set_names_no_setting() -> None:
    error = LimitExceededError("too many frames", limit=1, actual=2)
    assert (error.setting, str(error)) == ("", "too many frames (limit 1, found 2)")
