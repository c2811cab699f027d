"""Messages and branch keys between phicrypt and AWS's libraries for Go, whose host is west of UTC."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from interop.esdk_go import GoCounterpart, GoRefusedError, GoUnavailableError, go_counterpart
from support.key_stores import KeyStores
from support.recipient_keys import KMS_SPECS, ec_pair, private_pem, public_der, public_pem, rsa_pair

from phicrypt import HierarchicalKeyring, PhiCrypt, RawAesKeyring, RawEcdhKeyring, RawRsaKeyring
from phicrypt.errors import AuthenticationError
from phicrypt.formats.esdk.sealing import DEFAULT_FRAME_LENGTH_BYTES
from phicrypt.testing import StrictKms, local_aws
from phicrypt.testing.local_stack import ACCESS_KEY_ID, SECRET_ACCESS_KEY

CONTEXT = {"tenant": "clinic-7", "ünï": "cödé \U0001f512"}
SIZES = (0, 1, DEFAULT_FRAME_LENGTH_BYTES - 1, DEFAULT_FRAME_LENGTH_BYTES, DEFAULT_FRAME_LENGTH_BYTES + 1, 1 << 20)
NAMES = {"namespace": "clinic", "name": "schlüssel-1"}


@pytest.fixture(scope="module")
def go() -> Iterator[GoCounterpart]:
    try:
        with go_counterpart("America/Los_Angeles") as counterpart:
            yield counterpart
    except GoUnavailableError as reason:
        pytest.skip(str(reason))


def raw_aes() -> tuple[Any, dict[str, Any]]:
    wrapping_key = os.urandom(32)
    return RawAesKeyring(**NAMES, wrapping_key=wrapping_key), {
        "kind": "raw-aes",
        "wrappingKey": wrapping_key,
        **NAMES,
    }


def raw_rsa() -> tuple[Any, dict[str, Any]]:
    pair = rsa_pair()
    keys = {"publicKey": public_pem(pair).encode(), "privateKey": private_pem(pair)}
    theirs = {"kind": "raw-rsa", "padding": "OAEP_SHA256_MGF1", **keys, **NAMES}
    return RawRsaKeyring(**NAMES, public_key=public_pem(pair), private_key=pair), theirs


def ecdh(curve: str) -> tuple[Any, dict[str, Any]]:
    ours, theirs = ec_pair(curve), ec_pair(curve)
    ring = RawEcdhKeyring.static(private_key=private_pem(ours), recipient_public_key=public_pem(theirs))
    keys = {"privateKey": private_pem(theirs), "publicKey": public_der(ours)}
    return ring, {"kind": "ecdh-static", "curve": KMS_SPECS[curve], **keys}


KINDS = {
    "raw AES": raw_aes,
    "raw RSA": raw_rsa,
    "ECDH p256": lambda: ecdh("p256"),
    "ECDH p521": lambda: ecdh("p521"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_messages_pass_both_ways(go: GoCounterpart, kind: str, signed: bool) -> None:
    ours, theirs = KINDS[kind]()
    phi = PhiCrypt(ours)
    for size in SIZES:
        plaintext = os.urandom(size)
        assert go.decrypt(theirs, phi.encrypt(plaintext, context=CONTEXT, signed=signed)) == plaintext
        message = go.encrypt(theirs, plaintext, CONTEXT, signed=signed, frame_length=DEFAULT_FRAME_LENGTH_BYTES)
        assert phi.decrypt(message, context=CONTEXT, require_signed=signed) == plaintext


def test_both_sides_refuse_what_was_changed(go: GoCounterpart) -> None:
    ours, theirs = raw_rsa()
    phi = PhiCrypt(ours)
    for message in (phi.encrypt(b"note", context=CONTEXT), go.encrypt(theirs, b"note", CONTEXT)):
        forged = message[:-1] + bytes([message[-1] ^ 1])
        with pytest.raises(GoRefusedError):
            go.decrypt(theirs, forged)
        with pytest.raises(AuthenticationError):
            phi.decrypt(forged, context=CONTEXT)


class SharedStore:
    """One key store over a local DynamoDB and the strict KMS, and settings of the same for Go."""

    def __init__(self, aws: Any, kms: StrictKms) -> None:
        self.arn = kms.create_key()
        self.store = KeyStores(aws, kms).new_store(self.arn)
        self.settings = {
            "kind": "hierarchy",
            "table": self.store.table_name,
            "logicalName": "clinic-keys",
            "keyArn": self.arn,
            "dynamodbUrl": aws.endpoint_url,
            "kmsUrl": kms.endpoint_url,
            "accessKeyId": ACCESS_KEY_ID,
            "secretKey": SECRET_ACCESS_KEY,
        }

    def of(self, branch_key_id: str) -> dict[str, Any]:
        return {**self.settings, "branchKeyId": branch_key_id}


@pytest.fixture
def shared() -> Iterator[SharedStore]:
    with local_aws() as aws, StrictKms() as kms:
        yield SharedStore(aws, kms)


def both_ways(go: GoCounterpart, phi: PhiCrypt, theirs: dict[str, Any]) -> list[bytes]:
    messages = [phi.encrypt(b"note", context=CONTEXT), go.encrypt(theirs, b"note", CONTEXT)]
    for message in messages:
        assert go.decrypt(theirs, message) == b"note"
        assert phi.decrypt(message, context=CONTEXT) == b"note"
    return messages


def test_a_branch_key_that_go_rotates_stays_usable_to_a_running_writer(
    go: GoCounterpart, shared: SharedStore
) -> None:
    """Go writes local times with a literal Z: 8 hours back, as seen from here."""
    shared.store.create_key("tenant-1", context={"tenant": "clinic-7"})
    theirs = shared.of("tenant-1")
    phi = PhiCrypt(HierarchicalKeyring(shared.store, "tenant-1"))
    messages = both_ways(go, phi, theirs)
    for _ in range(2):
        go.version_key(theirs)
        phi.cache.clear()
        messages += both_ways(go, phi, theirs)
    shared.store.rotate("tenant-1")
    phi.cache.clear()
    messages += both_ways(go, phi, theirs)
    for message in messages:  # of every version
        assert phi.decrypt(message, context=CONTEXT) == b"note"
        assert go.decrypt(theirs, message) == b"note"


def test_a_branch_key_that_go_created_is_rotated_here(go: GoCounterpart, shared: SharedStore) -> None:
    theirs = shared.of("tenant-2")
    go.create_key(theirs, {"tenant": "clinic-7"})
    phi = PhiCrypt(HierarchicalKeyring(shared.store, "tenant-2"))
    messages = both_ways(go, phi, theirs)
    shared.store.rotate("tenant-2")
    phi.cache.clear()
    for message in [*messages, *both_ways(go, phi, theirs)]:
        assert go.decrypt(theirs, message) == b"note"
        assert phi.decrypt(message, context=CONTEXT) == b"note"
