"""MultiKeyring: several recipients of one data key (``framework/multi-keyring.md``)."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pytest
from support.keyring_support import kms_keyring, opens, to_decrypt, to_encrypt

from phicrypt.core.materials import EncryptedDataKey
from phicrypt.core.suites import DBE_SUITES, ESDK_SUITES, AlgorithmSuite
from phicrypt.errors import ConfigurationError, KeyAccessError, LimitExceededError
from phicrypt.keys.multi import MultiKeyring
from phicrypt.keys.raw_aes import RawAesKeyring
from phicrypt.testing import StrictKms


def local(number: int = 1) -> RawAesKeyring:
    return RawAesKeyring("clinic", f"key-{number}", bytes([number]) * 32)


@pytest.mark.parametrize("suite", [ESDK_SUITES[0x0478], DBE_SUITES[0x6700]], ids=["esdk", "dbe"])
def test_each_recipient_opens_alone_and_through_the_multi_keyring(kms: StrictKms, suite: AlgorithmSuite) -> None:
    children = [kms_keyring(kms, kms.create_key()), local(1), kms_keyring(kms, kms.create_key())]
    ring = MultiKeyring(*children)
    sealed = ring.on_encrypt(to_encrypt(suite=suite))
    assert len(sealed.encrypted_data_keys) == 3
    assert len(sealed.symmetric_signing_keys) == (3 if suite.has_symmetric_signature else 0)
    for index, child in enumerate(children):
        assert opens(child, sealed).recipient_index == index
    assert opens(ring, sealed).recipient_index == 0


def test_the_generator_is_asked_first_and_children_in_order(kms: StrictKms) -> None:
    arns = [kms.create_key() for _ in range(3)]
    ring = MultiKeyring(kms_keyring(kms, arns[0]), children=[kms_keyring(kms, arn) for arn in arns[1:]])
    sealed = ring.on_encrypt(to_encrypt())
    assert [(one.operation, one.parameters["KeyId"]) for one in kms.requests] == [
        ("GenerateDataKey", arns[0]),
        ("Encrypt", arns[1]),
        ("Encrypt", arns[2]),
    ]
    kms.requests.clear()
    kms.disable(arns[0])
    kms.disable(arns[1])
    opened = opens(ring, sealed)
    assert [one.parameters["KeyId"] for one in kms.requests] == arns
    assert opened.origin.key_id == arns[2]
    assert [(call.key_id, call.error_code) for call in opened.origin.other_calls] == [
        (arns[0], "DisabledException"),
        (arns[1], "DisabledException"),
    ]


def test_origin_lists_the_calls_for_every_recipient(kms: StrictKms) -> None:
    arns = [kms.create_key() for _ in range(3)]
    sealed = MultiKeyring(*(kms_keyring(kms, arn) for arn in arns)).on_encrypt(to_encrypt())
    assert sealed.origin.key_id == arns[0]
    listed = [call.request_ids for call in (sealed.origin, *sealed.origin.other_calls)]
    assert listed == [(one.request_id,) for one in kms.requests]


def test_origin_lists_the_recipients_that_wrap_without_kms(kms: StrictKms) -> None:
    arn = kms.create_key()
    sealed = MultiKeyring(kms_keyring(kms, arn), local(1), local(2)).on_encrypt(to_encrypt())
    listed = [(call.key_id, call.request_ids != ()) for call in (sealed.origin, *sealed.origin.other_calls)]
    assert listed == [(arn, True), ("key-1", False), ("key-2", False)]


def test_when_one_recipient_fails_to_wrap_nothing_is_returned(kms: StrictKms) -> None:
    broken = kms.create_key()
    kms.disable(broken)
    with pytest.raises(KeyAccessError, match="DisabledException") as caught:
        MultiKeyring(local(), kms_keyring(kms, broken)).on_encrypt(to_encrypt())
    assert caught.value.key_arn == broken


def test_a_failed_decrypt_names_the_failure_of_every_child(kms: StrictKms) -> None:
    disabled, denied = kms.create_key(), kms.create_key()
    sealed = MultiKeyring(kms_keyring(kms, disabled), kms_keyring(kms, denied)).on_encrypt(to_encrypt())
    kms.disable(disabled)
    kms.deny(denied)
    ring = MultiKeyring(local(), kms_keyring(kms, disabled), kms_keyring(kms, denied))
    with pytest.raises(KeyAccessError) as caught:
        ring.on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    error = caught.value
    assert [cause.code for cause in error.causes] == [
        "NoMatchingDataKey",
        "DisabledException",
        "AccessDeniedException",
    ]
    for text in ("'clinic' 'key-1'", disabled, "is disabled", denied, "explicit deny"):
        assert text in str(error)
    assert (error.code, error.key_arn) == ("DisabledException", disabled)
    assert error.request_ids == tuple(one.request_id for one in kms.requests[2:])
    assert "clinic-7" not in str(error)


def test_a_broken_data_key_of_one_provider_does_not_hide_another_recipient(kms: StrictKms) -> None:
    ring = MultiKeyring(kms_keyring(kms, kms.create_key()), local())
    sealed = local().on_encrypt(to_encrypt())
    broken = EncryptedDataKey("aws-kms", b"no ARN", b"x")
    ring.prepare([broken, *sealed.encrypted_data_keys])
    opened = ring.on_decrypt(to_decrypt(), [broken, *sealed.encrypted_data_keys])
    assert opened.recipient_index == 1


def test_outages_of_all_children_are_retryable_and_one_refusal_is_enough_to_say_so(kms: StrictKms) -> None:
    east, west = kms.create_key(), kms.create_key("us-west-2")
    ring = MultiKeyring(kms_keyring(kms, east), kms_keyring(kms, west))
    sealed = ring.on_encrypt(to_encrypt())
    with (
        kms.region_down("us-east-1"),
        kms.region_down("us-west-2"),
        pytest.raises(KeyAccessError) as caught,
    ):
        ring.on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    assert (caught.value.is_outage, caught.value.is_retryable) == (True, True)
    kms.disable(west)
    with kms.region_down("us-east-1"), pytest.raises(KeyAccessError) as caught:
        ring.on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    assert (caught.value.is_outage, caught.value.is_retryable) == (False, True)


def test_rule_16_never_writes_more_data_keys_than_its_reader_accepts() -> None:
    assert len(MultiKeyring(*map(local, range(8))).on_encrypt(to_encrypt()).encrypted_data_keys) == 8
    with pytest.raises(ConfigurationError, match="9 encrypted data keys"):
        MultiKeyring(*map(local, range(9)))
    with pytest.raises(ConfigurationError, match="9 encrypted data keys"):
        MultiKeyring(MultiKeyring(*map(local, range(5))), *map(local, range(5, 9)))
    MultiKeyring(*map(local, range(9)), max_encrypted_data_keys=9)


class Talkative:
    """A custom keyring that writes several encrypted data keys."""

    identity: Hashable = "talkative"
    caches_data_keys = False

    def prepare(self, encrypted_data_keys: Sequence[EncryptedDataKey]) -> None:
        pass

    def on_encrypt(self, materials: Any) -> Any:
        for number in range(9):
            materials = local(number).on_encrypt(materials)
        return materials

    def on_decrypt(self, materials: Any, encrypted_data_keys: Any) -> Any:
        raise NotImplementedError


def test_rule_16_counts_what_custom_keyrings_really_write() -> None:
    with pytest.raises(LimitExceededError):
        MultiKeyring(Talkative()).on_encrypt(to_encrypt())


def test_rule_12_caches_only_if_every_child_does() -> None:
    assert MultiKeyring(local(1), local(2)).caches_data_keys
    assert not MultiKeyring(local(1), Talkative()).caches_data_keys
    assert not MultiKeyring(local(1), MultiKeyring(local(2), Talkative())).caches_data_keys


def test_rule_11_identity_is_that_of_all_children_in_order() -> None:
    assert MultiKeyring(local(1), local(2)).identity == MultiKeyring(local(1), children=[local(2)]).identity
    different = [(1, 2), (2, 1), (1,), (1, 2, 3)]
    assert len({MultiKeyring(*map(local, numbers)).identity for numbers in different}) == 4


def test_prepares_every_child(kms: StrictKms) -> None:
    from phicrypt.keys.kms.keyring import KmsKeyring

    made: list[str] = []

    def factory(region: str) -> Any:
        made.append(region)
        return kms.client(region)

    arns = [kms.create_key(), kms.create_key("us-west-2")]
    MultiKeyring(*(KmsKeyring(arn, client_factory=factory) for arn in arns)).prepare(())
    assert made == ["us-east-1", "us-west-2"]


@pytest.mark.parametrize("child", [None, "arn", b"", object()])
def test_refuses_what_is_no_keyring(child: Any) -> None:
    with pytest.raises(ConfigurationError, match="joins keyrings"):
        MultiKeyring(local(), child)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_cannot_be_copied_or_pickled(duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be copied"):
        duplicate(MultiKeyring(local()))
