"""Disaster recovery of the key store: two Regions, one dead, one refusing (rule 13)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from support.key_stores import CONTEXT, KeyStores, key_stores, opened, refusal_of, to_decrypt, to_encrypt

from phicrypt import BranchKeyStore, HierarchicalKeyring, PhiCrypt
from phicrypt.errors import ConfigurationError
from phicrypt.keys.branch_keys.kms import KeyDiscovery
from phicrypt.keys.branch_keys.store import FailoverRegion
from phicrypt.keys.kms.keyring import KmsKeyring

ID = "clinic-7"
EAST, WEST = "us-east-1", "us-west-2"


@pytest.fixture(scope="module")
def stores() -> Iterator[KeyStores]:
    with key_stores() as made:
        yield made


class TwoRegions:
    """A branch key under a multi-Region key, and stores that read it in both Regions."""

    def __init__(self, stores: KeyStores, **settings: Any) -> None:
        self.kms = stores.kms
        self.east_arn = self.kms.create_key(EAST, replicas=(WEST,))
        self.west_arn = self.east_arn.replace(EAST, WEST)
        failover = FailoverRegion(WEST, dynamodb_client=stores.dynamodb, kms_client=self.kms.client(WEST))
        settings = {"multi_region": True, "failover": [failover], **settings}
        self.store = stores.new_store(self.east_arn, **settings)
        self.table_name = self.store.table_name
        stores.another(self.table_name, self.east_arn).create_key(ID)
        self.kms.requests.clear()

    def regions_called(self) -> list[str]:
        return [request.region for request in self.kms.requests]


def test_reads_go_on_in_the_next_region_when_the_first_is_dead(stores: KeyStores) -> None:
    two = TwoRegions(stores)
    keyring = HierarchicalKeyring(two.store, ID)
    sealed = keyring.on_encrypt(to_encrypt())
    keyring.clear_cache()
    two.kms.requests.clear()
    with two.kms.region_down(EAST):
        materials = keyring.on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
        assert opened(keyring, keyring.on_encrypt(to_encrypt()))
    assert two.regions_called()[:2] == [EAST, WEST]
    assert two.kms.requests[1].parameters["KeyId"] == two.west_arn
    # The row was wrapped in the East, and its context says so in every Region.
    assert two.kms.requests[1].parameters["EncryptionContext"]["kms-arn"] == two.east_arn
    assert materials.origin is not None
    assert materials.origin.key_id.startswith(two.west_arn + "#")
    (dead,) = materials.origin.other_calls
    assert dead.key_id == two.east_arn and dead.error_code is not None


def test_an_endpoint_on_which_nobody_listens_leads_to_the_next_region(stores: KeyStores) -> None:
    dead_kms = stores.kms.client(EAST, endpoint_url=stores.kms.closed_endpoint())
    two = TwoRegions(stores, kms_client=dead_kms)
    assert two.store.fetch_active(ID).version
    assert two.regions_called() == [WEST]


def test_the_table_of_the_next_region_serves_when_the_first_one_is_dead(stores: KeyStores) -> None:
    dead = stores.aws.client("dynamodb", endpoint_url=stores.kms.closed_endpoint())
    two = TwoRegions(stores)
    failover = FailoverRegion(WEST, dynamodb_client=stores.dynamodb, kms_client=two.kms.client(WEST))
    store = stores.another(
        two.table_name, two.east_arn, multi_region=True, failover=[failover], dynamodb_client=dead
    )
    assert store.fetch_active(ID).key_bytes == two.store.fetch_active(ID).key_bytes
    refusal = refusal_of(lambda: store.rotate(ID))  # writes go to the first Region only
    assert refusal.is_outage and refusal.key_arn == two.table_name


@pytest.mark.parametrize("status", [500, 503])
def test_rule_13_server_errors_lead_to_the_next_region(stores: KeyStores, status: int) -> None:
    two = TwoRegions(stores)
    two.kms.fail(status=status, region=EAST)
    assert two.store.fetch_active(ID).version
    assert two.regions_called() == [EAST, WEST]


@pytest.mark.parametrize(
    "code",
    ["AccessDeniedException", "DisabledException", "KMSInvalidStateException", "NotFoundException"],
)
def test_rule_13_a_refusal_never_leads_to_the_next_region(stores: KeyStores, code: str) -> None:
    two = TwoRegions(stores)
    two.kms.fail(code, status=400, region=EAST)
    assert refusal_of(lambda: two.store.fetch_active(ID)).code == code
    assert two.regions_called() == [EAST]


def test_rule_13_disabling_the_first_replica_stops_decryption(stores: KeyStores) -> None:
    two = TwoRegions(stores)
    phi = PhiCrypt(keyring=HierarchicalKeyring(two.store, ID))
    message = phi.encrypt(b"note", context=CONTEXT)
    phi.cache.clear()
    two.kms.disable(two.east_arn)
    assert refusal_of(lambda: phi.decrypt(message, context=CONTEXT)).code == "DisabledException"
    with two.kms.region_down(EAST):  # and this is why every replica has to be disabled
        assert phi.decrypt(message, context=CONTEXT) == b"note"
        phi.cache.clear()
        two.kms.disable(two.west_arn)
        assert refusal_of(lambda: phi.decrypt(message, context=CONTEXT)).code == "DisabledException"


def test_when_every_region_is_dead_the_error_says_so_and_is_retryable(stores: KeyStores) -> None:
    two = TwoRegions(stores)
    with two.kms.region_down(EAST), two.kms.region_down(WEST):
        refusal = refusal_of(lambda: two.store.fetch_active(ID))
    assert refusal.is_outage and refusal.is_retryable and two.regions_called() == [EAST, WEST]


def test_a_store_in_the_other_region_reads_and_rotates_the_same_rows(stores: KeyStores) -> None:
    two = TwoRegions(stores)
    west = stores.another(two.table_name, two.west_arn, multi_region=True, kms_client=two.kms.client(WEST))
    assert west.fetch_active(ID).key_bytes == two.store.fetch_active(ID).key_bytes
    version = west.rotate(ID)
    assert two.store.fetch_active(ID).version == version
    # The stored ARN does not change with the Region that rotates, or single-Region readers would stop.
    assert stores.rows(two.store, ID)["branch:ACTIVE"]["kms-arn"] == {"S": two.east_arn}
    assert stores.another(two.table_name, two.east_arn).fetch_version(ID, version)


def test_without_multi_region_another_replicas_rows_are_foreign(stores: KeyStores) -> None:
    two = TwoRegions(stores)
    west = stores.another(two.table_name, two.west_arn, kms_client=two.kms.client(WEST))
    assert refusal_of(lambda: west.fetch_active(ID)).code == "ForeignKmsKey"


def test_discovery_in_another_region_opens_multi_region_rows_there(stores: KeyStores) -> None:
    two = TwoRegions(stores)
    version = two.store.fetch_active(ID).version
    two.kms.requests.clear()
    discovering = stores.another(
        two.table_name, KeyDiscovery(("111122223333",), region=WEST), kms_client=two.kms.client(WEST)
    )
    assert discovering.fetch_version(ID, version)
    assert two.regions_called() == [WEST]


def test_discovery_never_sends_a_row_of_another_region_with_other_credentials(stores: KeyStores) -> None:
    """A handed client of one Region is not silently replaced by one with default credentials."""
    two = TwoRegions(stores)
    version = two.store.fetch_active(ID).version
    discovering = stores.another(
        two.table_name, KeyDiscovery(("111122223333",)), kms_client=two.kms.client("eu-west-1")
    )
    with pytest.raises(ConfigurationError, match="eu-west-1"):
        discovering.fetch_version(ID, version)


@pytest.mark.parametrize("settings", [{"multi_region": False}, {"multi_region": True}])
def test_failover_needs_a_multi_region_key_and_says_so(stores: KeyStores, settings: dict[str, Any]) -> None:
    arn = stores.kms.create_key() if settings["multi_region"] else stores.kms.create_key(EAST, replicas=(WEST,))
    with pytest.raises(ConfigurationError, match="multi"):
        stores.another("any", arn, failover=[FailoverRegion(WEST)], **settings)


def test_a_failover_client_of_another_region_is_refused(stores: KeyStores) -> None:
    arn = stores.kms.create_key(EAST, replicas=(WEST,))
    with pytest.raises(ConfigurationError, match="Region"):
        stores.another(
            "any", arn, multi_region=True, failover=[FailoverRegion(WEST, kms_client=stores.kms.client(EAST))]
        )


def test_clients_that_a_keyring_lends_serve_the_next_region_as_well(
    stores: KeyStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # no other credentials are at hand
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    two = TwoRegions(stores)
    lending = KmsKeyring(
        two.east_arn,
        session=two.kms.session(),
        endpoint_url=two.kms.endpoint_url,
        application="ward-app",
        config=Config(retries={"total_max_attempts": 1}),
    )
    store = BranchKeyStore(
        two.table_name,
        "clinic-keys",
        two.east_arn,
        multi_region=True,
        kms_clients=lending.kms_clients,
        dynamodb_client=stores.dynamodb,
        failover=[FailoverRegion(WEST, dynamodb_client=stores.dynamodb)],
    )
    two.kms.fail(status=500, region=EAST)
    assert store.fetch_active(ID).version
    assert two.regions_called() == [EAST, WEST]
    assert all("phicrypt-app/ward-app" in request.user_agent for request in two.kms.requests)


def test_a_region_that_hangs_is_left_within_the_stated_timeout(
    stores: KeyStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that the store makes itself give up after at most 7 seconds, then the next Region answers."""
    two = TwoRegions(stores)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", two.kms.endpoint_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", stores.aws.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSTRICT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = BranchKeyStore(
        two.table_name,
        "clinic-keys",
        two.east_arn,
        multi_region=True,
        failover=[FailoverRegion(WEST)],
    )
    two.kms.hang(30, region=EAST, times=10)
    began = time.monotonic()
    assert store.fetch_active(ID).version
    assert time.monotonic() - began < 7 + 7
    assert two.regions_called() == [EAST, EAST, WEST]
