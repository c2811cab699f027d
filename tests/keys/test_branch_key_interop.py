"""Both directions against AWS's hierarchical keyring and key store, before and after rotations by either side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.key_stores import CONTEXT, SUITES, opened, to_encrypt

from phicrypt import BranchKeyStore, HierarchicalKeyring, PhiCrypt
from phicrypt.core.suites import AlgorithmSuite
from phicrypt.testing import StrictKms, local_aws
from phicrypt.testing.local_stack import LocalAws

pytest.importorskip("aws_cryptographic_material_providers", reason="needs the extra 'test'")

from support import aws_library

ID = "clinic-7"
CUSTOM = {"department": "cardiology", "größe": "µ"}


class Both:
    """One table, seen by both libraries."""

    def __init__(self, aws: LocalAws, name: str) -> None:
        dynamodb, kms = aws.client("dynamodb"), aws.client("kms")
        self.ours = BranchKeyStore(name, "clinic-keys", aws.kms_key_arn, dynamodb_client=dynamodb, kms_client=kms)
        self.theirs = aws_library.AwsKeyStore(name, "clinic-keys", aws.kms_key_arn, dynamodb, kms)

    def side(self, name: str) -> Any:
        return {"ours": self.ours, "theirs": self.theirs}[name]


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    with local_aws() as running:
        yield running


@pytest.fixture(params=["ours", "theirs"])
def creator(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["ours", "theirs"])
def rotator(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def both(aws: LocalAws, creator: str, request: pytest.FixtureRequest) -> Both:
    made = Both(aws, f"store-{abs(hash(request.node.nodeid))}")
    made.side(creator).create_table()
    made.side(creator).create_key(ID, CUSTOM)
    return made


def check_messages(both: Both, earlier: list[bytes]) -> list[bytes]:
    """Messages of both sides, and those of earlier, open on both sides."""
    phi = PhiCrypt(keyring=HierarchicalKeyring(both.ours, ID))
    their_keyring = both.theirs.keyring(ID)
    messages = [*earlier]
    for signed in (False, True):
        messages.append(phi.encrypt(b"note", context=CONTEXT, signed=signed))
        messages.append(aws_library.encrypt(their_keyring, b"note", CONTEXT, signed=signed))
    for message in messages:
        assert phi.decrypt(message, context=CONTEXT) == b"note"
        assert aws_library.decrypt(their_keyring, message) == b"note"
    return messages


def test_messages_open_on_both_sides_before_and_after_a_rotation_by_either(both: Both, rotator: str) -> None:
    messages = check_messages(both, [])
    both.side(rotator).rotate(ID)
    check_messages(both, messages)


def test_both_stores_fetch_the_same_keys_before_and_after_a_rotation(both: Both, rotator: str) -> None:
    def check() -> str:
        ours, theirs = both.ours.fetch_active(ID), both.theirs.active(ID)
        assert (ours.key_bytes, ours.version) == (bytes(theirs.branch_key), theirs.branch_key_version)
        assert ours.context == theirs.encryption_context == CUSTOM
        assert both.ours.fetch_beacon_key(ID).key_bytes == both.theirs.beacon_key(ID)
        return ours.version

    first = check()
    both.side(rotator).rotate(ID)
    second = check()
    assert first != second
    for version in (first, second):
        ours, theirs = both.ours.fetch_version(ID, version), both.theirs.version(ID, version)
        assert ours.key_bytes == bytes(theirs.branch_key)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"{suite.suite_id:04x}")
def test_keyrings_agree_on_every_suite_intermediate_keys_included(aws: LocalAws, suite: AlgorithmSuite) -> None:
    both = Both(aws, f"suite-{suite.suite_id:04x}")
    both.ours.create_table()
    both.ours.create_key(ID)
    our_keyring, their_keyring = HierarchicalKeyring(both.ours, ID), both.theirs.keyring(ID)
    for context in (CONTEXT, {}):
        # AWS's materials of signed suites have a verification key in their context.
        full = {**context, "aws-crypto-public-key": "dW51c2Vk"} if suite.is_signed else context
        sealed = our_keyring.on_encrypt(to_encrypt(full, suite))
        assert sealed.data_key is not None
        signing_key = sealed.symmetric_signing_keys[0].key_bytes if sealed.symmetric_signing_keys else None
        assert aws_library.unwrap(their_keyring, sealed) == (sealed.data_key.key_bytes, signing_key)
        assert opened(our_keyring, aws_library.wrap(their_keyring, suite, context))


def test_aws_refuses_what_was_shredded_here(aws: LocalAws) -> None:
    both = Both(aws, "shredded")
    both.ours.create_table()
    both.ours.create_key(ID)
    message = PhiCrypt(keyring=HierarchicalKeyring(both.ours, ID)).encrypt(b"note", context=CONTEXT)
    keyring = both.theirs.keyring(ID)
    both.ours.shred(ID)
    with pytest.raises(Exception, match="No Configured KMS Key was able"):
        aws_library.decrypt(keyring, message)
    with pytest.raises(Exception, match="No item found"):
        both.theirs.active(ID)


def test_a_key_that_aws_recreates_under_a_tombstone_is_refused_here(aws: LocalAws) -> None:
    both = Both(aws, "recreated")
    both.ours.create_table()
    both.ours.create_key(ID)
    both.ours.shred(ID)
    both.theirs.create_key(ID, {"department": "cardiology"})
    version = both.theirs.active(ID).branch_key_version
    for call in (
        lambda: both.ours.fetch_active(ID),
        lambda: both.ours.fetch_beacon_key(ID),
        lambda: both.ours.fetch_version(ID, version),
    ):
        with pytest.raises(Exception, match="shredded"):
            call()


def test_aws_multi_region_configuration_opens_rows_of_another_region(aws: LocalAws) -> None:
    """On the strict KMS, because moto opens nothing under multi-Region keys."""
    with StrictKms() as kms:
        east = kms.create_key("us-east-1", replicas=("us-west-2",))
        west = east.replace("us-east-1", "us-west-2")
        dynamodb = aws.client("dynamodb")
        ours = BranchKeyStore(
            "multi-region", "clinic-keys", east, dynamodb_client=dynamodb, kms_client=kms.client()
        )
        ours.create_table()
        ours.create_key(ID, CUSTOM)
        theirs = aws_library.AwsKeyStore(
            "multi-region", "clinic-keys", west, dynamodb, kms.client("us-west-2"), multi_region=True
        )
        assert bytes(theirs.active(ID).branch_key) == ours.fetch_active(ID).key_bytes
        theirs.rotate(ID)
        assert bytes(theirs.active(ID).branch_key) == ours.fetch_active(ID).key_bytes
        message = PhiCrypt(keyring=HierarchicalKeyring(ours, ID)).encrypt(b"note", context=CONTEXT)
        assert aws_library.decrypt(theirs.keyring(ID), message) == b"note"
