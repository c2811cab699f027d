"""Shredding: order, batches, resumption, tombstone, what else holds the rows, the certificate (rule 15)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.key_stores import CONTEXT, Intercepted, KeyStores, key_stores, refusal_of

from phicrypt import BranchKeyStore, HierarchicalKeyring, PhiCrypt
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.branch_keys.records import time_of
from phicrypt.keys.branch_keys.shredding import RemainingCopy, ShredCertificate

ID = "clinic-7"


@pytest.fixture(scope="module")
def stores() -> Iterator[KeyStores]:
    with key_stores() as made:
        yield made


@pytest.fixture
def store(stores: KeyStores) -> BranchKeyStore:
    made = stores.new_store()
    made.create_key(ID)
    made.create_key("clinic-8")
    return made


def seen_through(stores: KeyStores, store: BranchKeyStore, **hooks: Any) -> BranchKeyStore:
    """Another store object for the same rows, whose DynamoDB calls pass through hooks."""
    arn = store.kms_key_arn
    return stores.another(store.table_name, arn, dynamodb_client=Intercepted(stores.dynamodb, **hooks))


def types_in(transaction: dict[str, Any]) -> list[str]:
    """What a transaction touches: ``Delete branch:ACTIVE`` and so on."""
    return [
        f"{kind} {parameters['Key']['type']['S']}"
        for item in transaction["TransactItems"]
        for kind, parameters in item.items()
    ]


def copies_by_kind(certificate: ShredCertificate) -> dict[str, RemainingCopy]:
    return {copy.kind: copy for copy in certificate.remaining_copies}


def test_only_the_shredded_tenant_is_gone(stores: KeyStores, store: BranchKeyStore) -> None:
    messages = {}
    for tenant in (ID, "clinic-8"):
        phi = PhiCrypt(keyring=HierarchicalKeyring(store, tenant))
        messages[tenant] = phi, phi.encrypt(b"note", context=CONTEXT)
    store.shred(ID)
    gone, kept = messages[ID], messages["clinic-8"]
    assert refusal_of(lambda: gone[0].decrypt(gone[1], context=CONTEXT)).code == "BranchKeyShredded"
    assert refusal_of(lambda: gone[0].encrypt(b"note", context=CONTEXT)).code == "BranchKeyShredded"
    assert kept[0].decrypt(kept[1], context=CONTEXT) == b"note"
    assert list(stores.rows(store, ID)) == ["phicrypt:tombstone"]
    assert len(stores.rows(store, "clinic-8")) == 3


def test_rule_15_a_dry_run_lists_rows_and_changes_nothing(stores: KeyStores, store: BranchKeyStore) -> None:
    store.rotate(ID)
    before = stores.rows(store, ID)
    stores.aws.requests.clear()
    plan = store.shred(ID, dry_run=True)
    assert {row["type"] for row in plan.rows} == set(before)
    assert plan.dry_run and plan.rows_deleted == 0 and plan.completed is None
    assert stores.rows(store, ID) == before
    writes = {"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems", "BatchWriteItem"}
    assert not writes & set(stores.dynamodb_operations())


def test_rule_15_active_and_beacon_go_first_with_the_tombstone_then_versions(
    stores: KeyStores, store: BranchKeyStore
) -> None:
    for _ in range(3):
        store.rotate(ID)
    transactions: list[list[str]] = []

    def note(real: Any, parameters: dict[str, Any]) -> Any:
        transactions.append(types_in(parameters))
        return real(**parameters)

    seen_through(stores, store, transact_write_items=note).shred(ID)
    first, second, last = transactions
    assert sorted(first) == ["Delete beacon:ACTIVE", "Delete branch:ACTIVE", "Update phicrypt:tombstone"]
    assert second[0] == "Update phicrypt:tombstone" and len(second) == 5
    assert all(one.startswith("Delete branch:version:") for one in second[1:])
    assert last == ["Update phicrypt:tombstone"]


def test_rule_15_versions_go_in_batches_that_a_transaction_can_hold(
    stores: KeyStores, store: BranchKeyStore
) -> None:
    version = next(row for kind, row in stores.rows(store, ID).items() if kind.startswith("branch:version:"))
    for number in range(250):
        name = f"branch:version:00000000-0000-4000-8000-{number:012x}"
        stores.put(store, {**version, "type": {"S": name}})
    sizes: list[int] = []

    def note(real: Any, parameters: dict[str, Any]) -> Any:
        sizes.append(len(parameters["TransactItems"]))
        return real(**parameters)

    certificate = seen_through(stores, store, transact_write_items=note).shred(ID)
    assert sizes == [3, 100, 100, 54, 1]
    assert certificate.rows_deleted == len(certificate.rows) == 253


@pytest.mark.parametrize("failing_write", [1, 2, 3])
def test_rule_15_an_interrupted_shred_is_finished_by_the_next(
    stores: KeyStores, store: BranchKeyStore, failing_write: int
) -> None:
    store.rotate(ID)
    version = store.fetch_active(ID).version
    writes: list[int] = []

    def die(real: Any, parameters: dict[str, Any]) -> Any:
        writes.append(1)
        if len(writes) == failing_write:
            raise KeyboardInterrupt
        return real(**parameters)

    with pytest.raises(KeyboardInterrupt):
        seen_through(stores, store, transact_write_items=die).shred(ID)
    if failing_write > 1:  # from the first transaction on, nothing of the key is served
        for call in (lambda: store.fetch_active(ID), lambda: store.fetch_version(ID, version)):
            assert refusal_of(call).code == "BranchKeyShredded"
    certificate = store.shred(ID)
    assert certificate.rows_deleted == 4
    assert list(stores.rows(store, ID)) == ["phicrypt:tombstone"]
    again = store.shred(ID)
    assert (again.rows_deleted, again.rows, again.started) == (4, (), certificate.started)


def test_two_shreds_at_once_count_each_row_once(stores: KeyStores, store: BranchKeyStore) -> None:
    others: list[ShredCertificate] = []

    def overtaken(real: Any, parameters: dict[str, Any]) -> Any:
        if not others:
            others.append(store.shred(ID))
        return real(**parameters)

    late = seen_through(stores, store, transact_write_items=overtaken).shred(ID)
    assert others[0].rows_deleted == late.rows_deleted == 3
    assert len(others[0].rows) + len(late.rows) == 3


def test_rule_15_a_tombstone_prevents_re_creation_and_rotation(stores: KeyStores, store: BranchKeyStore) -> None:
    store.shred(ID)
    for call in (store.create_key, store.rotate, store.fetch_active, store.fetch_beacon_key):
        assert refusal_of(lambda call=call: call(ID)).code == "BranchKeyShredded"
    assert list(stores.rows(store, ID)) == ["phicrypt:tombstone"]


def test_rule_15_rows_put_back_under_a_tombstone_stay_refused(stores: KeyStores, store: BranchKeyStore) -> None:
    version = store.fetch_active(ID).version
    rows = stores.rows(store, ID)
    store.shred(ID)
    for row in rows.values():
        stores.put(store, row)
    fresh = stores.another(store.table_name, store.kms_key_arn)
    for one in (store, fresh):
        assert refusal_of(lambda one=one: one.fetch_active(ID)).code == "BranchKeyShredded"
        assert refusal_of(lambda one=one: one.fetch_version(ID, version)).code == "BranchKeyShredded"
        assert refusal_of(lambda one=one: one.fetch_beacon_key(ID)).code == "BranchKeyShredded"
        assert refusal_of(lambda one=one: one.rotate(ID)).code == "BranchKeyShredded"
    assert store.shred(ID).rows_deleted == 6  # a further shred removes them again


def test_a_rotation_that_a_shred_overtakes_writes_nothing(stores: KeyStores, store: BranchKeyStore) -> None:
    def overtaken(real: Any, parameters: dict[str, Any]) -> Any:
        store.shred(ID)
        return real(**parameters)

    rotating = seen_through(stores, store, transact_write_items=overtaken)
    assert refusal_of(lambda: rotating.rotate(ID)).code == "BranchKeyShredded"
    assert list(stores.rows(store, ID)) == ["phicrypt:tombstone"]


def test_rule_15_local_caches_of_every_store_object_are_purged(stores: KeyStores, store: BranchKeyStore) -> None:
    other = stores.another(store.table_name, store.kms_key_arn)
    keyrings = [HierarchicalKeyring(one, ID, ttl_seconds=86_400) for one in (store, other)]
    clients = [PhiCrypt(keyring=keyring) for keyring in keyrings]
    message = clients[0].encrypt(b"note", context=CONTEXT)
    for phi in clients:
        assert phi.decrypt(message, context=CONTEXT) == b"note"
    store.shred(ID)
    for phi in clients:
        assert refusal_of(lambda phi=phi: phi.decrypt(message, context=CONTEXT)).code == "BranchKeyShredded"


def test_rule_15_local_caches_are_purged_before_the_versions_go(stores: KeyStores, store: BranchKeyStore) -> None:
    phi = PhiCrypt(keyring=HierarchicalKeyring(store, ID, ttl_seconds=86_400))
    message = phi.encrypt(b"note", context=CONTEXT)

    def die_at_the_versions(real: Any, parameters: dict[str, Any]) -> Any:
        if any(one.startswith("Delete branch:version:") for one in types_in(parameters)):
            raise KeyboardInterrupt
        return real(**parameters)

    with pytest.raises(KeyboardInterrupt):
        seen_through(stores, store, transact_write_items=die_at_the_versions).shred(ID)
    assert refusal_of(lambda: phi.encrypt(b"note", context=CONTEXT)).code == "BranchKeyShredded"
    assert refusal_of(lambda: phi.decrypt(message, context=CONTEXT)).code == "BranchKeyShredded"


def test_purging_holds_keyrings_weakly(store: BranchKeyStore) -> None:
    import gc
    import weakref

    keyring = HierarchicalKeyring(store, ID)
    watch = weakref.ref(keyring)
    del keyring
    gc.collect()
    assert watch() is None
    store.shred(ID)


def test_shredding_an_unknown_id_is_refused_and_leaves_no_tombstone(
    stores: KeyStores, store: BranchKeyStore
) -> None:
    assert refusal_of(lambda: store.shred("clinic-9")).code == "BranchKeyNotFound"
    assert stores.rows(store, "clinic-9") == {}


def test_rule_15_the_certificate_says_rows_deleted_and_from_when(store: BranchKeyStore) -> None:
    before = datetime.now(UTC)
    certificate = store.shred(ID)
    fields = json.loads(certificate.to_json())
    assert "3 rows deleted" in fields["statement"] and "destroyed" not in certificate.to_json()
    assert fields["branch_key_id"] == ID and fields["rows_deleted"] == 3
    assert fields["remaining_copies"] == []
    assert before <= time_of(fields["started"]) <= time_of(fields["completed"])
    assert fields["unrecoverable_from"] == fields["completed"]
    assert {row["type"].partition(":")[0] for row in fields["rows"]} == {"beacon", "branch"}
    assert fields["not_examined"]


@pytest.mark.parametrize("days", [None, 7])
def test_rule_15_point_in_time_recovery_delays_the_date(
    stores: KeyStores, store: BranchKeyStore, days: int | None
) -> None:
    settings: dict[str, Any] = {"PointInTimeRecoveryEnabled": True}
    if days is not None:
        settings["RecoveryPeriodInDays"] = days
    stores.dynamodb.update_continuous_backups(
        TableName=store.table_name, PointInTimeRecoverySpecification=settings
    )
    for certificate in (store.shred(ID, dry_run=True), store.shred(ID)):
        copy = copies_by_kind(certificate)["point-in-time-recovery"]
        assert copy.until == certificate.unrecoverable_from
    assert certificate.completed is not None and copy.until is not None
    assert time_of(copy.until) == time_of(certificate.completed) + timedelta(days=days or 35)


def test_rule_15_backups_and_exports_have_no_date_of_their_own(stores: KeyStores, store: BranchKeyStore) -> None:
    stores.dynamodb.create_backup(TableName=store.table_name, BackupName="nightly")
    arn = stores.dynamodb.describe_table(TableName=store.table_name)["Table"]["TableArn"]
    export = {"ExportArn": arn + "/export/1", "ExportStatus": "COMPLETED"}
    reader = seen_through(stores, store, list_exports=lambda real, parameters: {"ExportSummaries": [export]})
    certificate = reader.shred(ID)
    copies = copies_by_kind(certificate)
    assert copies["backup"].where.startswith(arn) and copies["backup"].until is None
    assert copies["export"].where == export["ExportArn"]
    assert certificate.unrecoverable_from is None


def test_rule_15_streams_and_replicas_are_listed(stores: KeyStores, store: BranchKeyStore) -> None:
    def described(real: Any, parameters: dict[str, Any]) -> Any:
        answer = real(**parameters)
        answer["Table"]["LatestStreamArn"] = "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/1"
        if with_replica:
            answer["Table"]["Replicas"] = [{"RegionName": "us-west-2"}]
        return answer

    with_replica = False
    reader = seen_through(stores, store, describe_table=described)
    plan = reader.shred(ID, dry_run=True)
    assert set(copies_by_kind(plan)) == {"stream"} and plan.unrecoverable_from is not None
    with_replica = True
    certificate = reader.shred(ID)
    assert copies_by_kind(certificate)["replica"].where.startswith("us-west-2")
    assert certificate.unrecoverable_from is None  # nobody looked at the replica's own backups


def test_what_could_not_be_read_is_named_and_leaves_the_date_open(
    stores: KeyStores, store: BranchKeyStore
) -> None:
    def denied(real: Any, parameters: dict[str, Any]) -> Any:
        from botocore.exceptions import ClientError

        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "ListBackups")

    certificate = seen_through(stores, store, list_backups=denied).shred(ID)
    assert "AccessDeniedException" in copies_by_kind(certificate)["backup"].where
    assert certificate.unrecoverable_from is None and certificate.rows_deleted == 3


def test_a_refused_write_stops_the_shred_with_its_reason(stores: KeyStores, store: BranchKeyStore) -> None:
    def denied(real: Any, parameters: dict[str, Any]) -> Any:
        from botocore.exceptions import ClientError

        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "TransactWriteItems")

    with pytest.raises(KeyAccessError, match="AccessDenied"):
        seen_through(stores, store, transact_write_items=denied).shred(ID)
    assert len(stores.rows(store, ID)) == 3


def test_shredding_needs_a_pinned_store(stores: KeyStores, store: BranchKeyStore) -> None:
    from phicrypt.keys.branch_keys.kms import KeyDiscovery

    with pytest.raises(ConfigurationError):
        stores.another(store.table_name, KeyDiscovery(("111122223333",))).shred(ID)
