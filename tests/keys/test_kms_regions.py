"""KmsKeyring: multi-Region keys, failover and discovery."""

from __future__ import annotations

from typing import Any

import pytest
from support.keyring_support import (
    DUBLIN,
    EAST,
    REFUSALS,
    WEST,
    in_region,
    kms_keyring,
    opens,
    to_decrypt,
    to_encrypt,
)

from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.kms.keyring import KmsKeyring
from phicrypt.testing import StrictKms

# --- multi-Region keys ---------------------------------------------------------------------------


def test_a_replica_opens_what_another_region_sealed_under_its_own_arn(kms: StrictKms) -> None:
    east = kms.create_key(replicas=(WEST,))
    west = in_region(east, WEST)
    sealed = kms_keyring(kms, east).on_encrypt(to_encrypt())
    opened = opens(kms_keyring(kms, west), sealed)
    assert opened.origin.key_id == west
    assert (kms.requests[-1].region, kms.requests[-1].parameters["KeyId"]) == (WEST, west)


def test_a_single_region_key_of_another_region_does_not_match(kms: StrictKms) -> None:
    east = kms.create_key()
    sealed = kms_keyring(kms, east).on_encrypt(to_encrypt())
    with pytest.raises(KeyAccessError) as caught:
        kms_keyring(kms, in_region(east, WEST)).on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    assert caught.value.code == "NoMatchingDataKey"


def asked(kms: StrictKms) -> list[str]:
    """The Regions of the Decrypt requests, in order."""
    return [region for operation, region in kms.operations_called() if operation == "Decrypt"]


def dublin_setup(kms: StrictKms) -> tuple[str, Any]:
    east = kms.create_key(replicas=(WEST, DUBLIN))
    return east, kms_keyring(kms, east).on_encrypt(to_encrypt())


def test_rule_13_an_outage_fails_over_in_order(kms: StrictKms) -> None:
    east, sealed = dublin_setup(kms)
    ring = kms_keyring(kms, east, failover_regions=[WEST, DUBLIN])
    opens(ring, sealed)
    assert asked(kms) == [EAST]
    with kms.region_down(EAST):
        kms.fail("KMSInternalException", region=WEST)
        opened = opens(ring, sealed)
    assert asked(kms)[1:] == [EAST, WEST, DUBLIN]
    assert opened.origin.key_id == in_region(east, DUBLIN)
    assert [(call.key_id, call.error_code) for call in opened.origin.other_calls] == [
        (east, "ConnectionClosedError"),
        (in_region(east, WEST), "KMSInternalException"),
    ]


def test_rule_13_a_timeout_fails_over(kms: StrictKms) -> None:
    east, sealed = dublin_setup(kms)
    kms.hang(1.0, region=EAST)
    ring = KmsKeyring(
        east,
        client_factory=lambda region: kms.client(region, read_timeout_seconds=0.1),
        failover_regions=[WEST],
    )
    opens(ring, sealed)
    assert asked(kms) == [EAST, WEST]


def test_rule_13_own_clients_leave_a_silent_region_soon(kms: StrictKms) -> None:
    east, sealed = dublin_setup(kms)
    settings: list[Any] = []
    session = kms.session()

    class Watching:
        def client(self, service: str, **given: Any) -> Any:
            settings.append(given["config"])
            return session.client(service, **given)

    ring = KmsKeyring(east, session=Watching(), endpoint_url=kms.endpoint_url, failover_regions=[WEST])
    with kms.region_down(EAST):
        opens(ring, sealed)
    assert asked(kms) == [EAST, EAST, WEST]
    assert {(one.connect_timeout, one.read_timeout) for one in settings} == {(1.0, 2.0)}


@pytest.mark.parametrize("name", [name for name in REFUSALS if name not in ("out of service", "gone")])
def test_rule_13_a_refusal_never_fails_over(kms: StrictKms, name: str) -> None:
    east, sealed = dublin_setup(kms)
    refuse, code = REFUSALS[name]
    refuse(kms, east)
    with pytest.raises(KeyAccessError) as caught:
        kms_keyring(kms, east, failover_regions=[WEST, DUBLIN]).on_decrypt(
            to_decrypt(), sealed.encrypted_data_keys
        )
    assert caught.value.code == code
    assert asked(kms) == [EAST]


def test_rule_13_a_key_that_is_not_found_never_fails_over(kms: StrictKms) -> None:
    east, sealed = dublin_setup(kms)
    del kms.account.keys[EAST, kms.key(east).key_id]
    with pytest.raises(KeyAccessError, match="NotFound"):
        kms_keyring(kms, east, failover_regions=[WEST]).on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    assert asked(kms) == [EAST]


@pytest.mark.parametrize("kind", ["configured", "discovery"])
def test_rule_13_a_second_data_key_of_a_refused_key_is_not_asked_in_another_region(
    kms: StrictKms, kind: str
) -> None:
    east = kms.create_key(replicas=(WEST,))
    west = in_region(east, WEST)
    sealed = kms_keyring(kms, west).on_encrypt(kms_keyring(kms, east).on_encrypt(to_encrypt()))
    kms.disable(east)
    ring = (
        kms_keyring(kms, east, decrypt_key_arns=[west])
        if kind == "configured"
        else KmsKeyring.discovery(
            account_ids=["111122223333"], partition="aws", regions=[EAST, WEST], client_factory=kms.client
        )
    )
    with pytest.raises(KeyAccessError, match="DisabledException"):
        ring.on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    assert set(asked(kms)) == {EAST}


def test_when_every_region_is_down_the_error_is_an_outage(kms: StrictKms) -> None:
    east, sealed = dublin_setup(kms)
    with kms.region_down(EAST), kms.region_down(WEST), pytest.raises(KeyAccessError) as caught:
        kms_keyring(kms, east, failover_regions=[WEST]).on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    assert (caught.value.is_outage, caught.value.is_retryable) == (True, True)
    assert [cause.key_arn for cause in caught.value.causes] == [east, in_region(east, WEST)]


def test_encrypt_never_fails_over(kms: StrictKms) -> None:
    east = kms.create_key(replicas=(WEST,))
    with kms.region_down(EAST), pytest.raises(KeyAccessError):
        kms_keyring(kms, east, failover_regions=[WEST]).on_encrypt(to_encrypt())
    assert {region for _, region in kms.operations_called()} == {EAST}


# --- discovery -----------------------------------------------------------------------------------


def discovery(kms: StrictKms, **settings: Any) -> KmsKeyring:
    chosen = {"account_ids": ["111122223333"], "partition": "aws", "regions": [EAST], **settings}
    return KmsKeyring.discovery(client_factory=kms.client, **chosen)


def test_discovery_opens_under_any_key_of_the_account(kms: StrictKms) -> None:
    for _ in range(2):
        arn = kms.create_key()
        opened = opens(discovery(kms), kms_keyring(kms, arn).on_encrypt(to_encrypt()))
        assert opened.origin.key_id == kms.requests[-1].parameters["KeyId"] == arn


@pytest.mark.parametrize(
    "missing", [{"account_ids": []}, {"partition": ""}, {"regions": []}, {"account_ids": "111122223333"}]
)
def test_discovery_demands_an_explicit_filter(kms: StrictKms, missing: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        discovery(kms, **missing)


@pytest.mark.parametrize(
    "outside", [{"account_ids": ["444455556666"]}, {"partition": "aws-cn"}, {"regions": [WEST]}]
)
def test_discovery_asks_nothing_outside_its_filter(kms: StrictKms, outside: dict[str, Any]) -> None:
    sealed = kms_keyring(kms, kms.create_key()).on_encrypt(to_encrypt())
    kms.requests.clear()
    with pytest.raises(KeyAccessError) as caught:
        discovery(kms, **outside).on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    assert caught.value.code == "NoMatchingDataKey"
    assert kms.requests == []


def test_discovery_never_encrypts(kms: StrictKms) -> None:
    with pytest.raises(ConfigurationError, match="only decrypts"):
        discovery(kms).on_encrypt(to_encrypt())
    assert kms.requests == []


def test_discovery_takes_the_region_of_a_handed_client(kms: StrictKms) -> None:
    ring = KmsKeyring.discovery(account_ids=["111122223333"], partition="aws", client=kms.client())
    opens(ring, kms_keyring(kms, kms.create_key()).on_encrypt(to_encrypt()))


def test_discovery_opens_a_multi_region_key_in_a_replicas_region(kms: StrictKms) -> None:
    east = kms.create_key(replicas=(WEST,))
    sealed = kms_keyring(kms, east).on_encrypt(to_encrypt())
    assert opens(discovery(kms, regions=[WEST]), sealed).origin.key_id == in_region(east, WEST)
