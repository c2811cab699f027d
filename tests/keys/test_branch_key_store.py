"""The branch key store over DynamoDB and KMS: layout, creation, rotation, fetching, rule 14."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.key_stores import Intercepted, KeyStores, key_stores, refusal_of

from phicrypt.errors import ConfigurationError, KeyAccessError, PhiInContextError
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.keys.branch_keys import steps
from phicrypt.keys.branch_keys.kms import KeyDiscovery
from phicrypt.keys.branch_keys.records import format_time
from phicrypt.testing.strict_kms_operations import KmsError

ID = "clinic-7"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
UNKNOWN_VERSION = "83eec007-5659-4554-bf11-699b90f41ac6"


@pytest.fixture(scope="module")
def stores() -> Iterator[KeyStores]:
    with key_stores() as made:
        yield made


def test_table_has_the_published_key_schema_and_deletion_protection(stores: KeyStores) -> None:
    store = stores.new_store()
    table = stores.dynamodb.describe_table(TableName=store.table_name)["Table"]
    assert [(one["AttributeName"], one["KeyType"]) for one in table["KeySchema"]] == [
        ("branch-key-id", "HASH"),
        ("type", "RANGE"),
    ]
    assert table["DeletionProtectionEnabled"]
    assert store.create_table() == table["TableArn"]  # again: checks, changes nothing


def test_create_table_refuses_a_table_with_another_key_schema(stores: KeyStores) -> None:
    stores.dynamodb.create_table(
        TableName="orders",
        KeySchema=[{"AttributeName": "branch-key-id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "branch-key-id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    store = stores.another("orders", stores.kms.create_key())
    with pytest.raises(ConfigurationError, match="key schema"):
        store.create_table()
    with pytest.raises(KeyAccessError, match="key schema"):
        store.fetch_active(ID)


def test_fetching_from_a_table_that_does_not_exist_says_so(stores: KeyStores) -> None:
    refusal = refusal_of(lambda: stores.another("nowhere", stores.kms.create_key()).fetch_active(ID))
    assert refusal.code == "ResourceNotFoundException" and refusal.key_arn == "nowhere"
    assert not refusal.is_retryable


def test_create_writes_the_three_published_rows(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID, {"department": "cardiology"})
    rows = stores.rows(store, ID)
    active, beacon = rows.pop("branch:ACTIVE"), rows.pop("beacon:ACTIVE")
    ((version_type, version),) = rows.items()
    assert re.fullmatch("branch:version:" + UUID, version_type)
    assert active.pop("version") == {"S": version_type}
    for row in (active, beacon, version):
        assert set(row) == {
            "branch-key-id",
            "type",
            "enc",
            "kms-arn",
            "create-time",
            "hierarchy-version",
            "aws-crypto-ec:department",
        }
        assert row["hierarchy-version"] == {"N": "1"}
        assert row["aws-crypto-ec:department"] == {"S": "cardiology"}
        assert row["create-time"] == active["create-time"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", row["create-time"]["S"])
    contexts = [one.parameters.get("EncryptionContext") for one in stores.kms.requests[-3:]]
    assert contexts[0]["tablename"] == "clinic-keys"  # the logical name, bound to every row
    assert contexts[2] == {**contexts[0], "type": "beacon:ACTIVE"}


def test_creation_and_rotation_are_one_transaction_each(stores: KeyStores) -> None:
    store = stores.new_store()
    stores.aws.requests.clear()
    store.create_key(ID)
    assert stores.dynamodb_operations() == ["TransactWriteItems"]
    stores.aws.requests.clear()
    store.rotate(ID)
    writes = [one for one in stores.dynamodb_operations() if one != "GetItem"]
    assert writes == ["TransactWriteItems"]


@pytest.mark.parametrize("failing_call", [1, 2, 3])
def test_a_half_written_branch_key_cannot_exist(stores: KeyStores, failing_call: int) -> None:
    store = stores.new_store()
    calls: list[str] = []

    def fail_once(answer: dict[str, Any]) -> dict[str, Any]:
        calls.append("call")
        if len(calls) == failing_call:
            raise KmsError("AccessDeniedException")
        return answer

    stores.kms.alter(fail_once, times=failing_call)
    assert refusal_of(lambda: store.create_key(ID)).code == "AccessDeniedException"
    assert stores.rows(store, ID) == {}


def test_create_without_an_id_draws_a_random_uuid(stores: KeyStores) -> None:
    store = stores.new_store()
    drawn = store.create_key()
    assert re.fullmatch(UUID, drawn) and store.fetch_active(drawn).branch_key_id == drawn


def test_create_refuses_an_id_that_exists_and_changes_nothing(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    before = stores.rows(store, ID)
    assert refusal_of(lambda: store.create_key(ID)).code == "BranchKeyExists"
    assert stores.rows(store, ID) == before


@pytest.mark.parametrize(
    ("branch_key_id", "context"),
    [("123-45-6789", None), ("clinic-8", {"contact": "jane@example.org"})],
)
def test_create_refuses_what_looks_like_phi_before_any_call(
    stores: KeyStores, branch_key_id: str, context: dict[str, str] | None
) -> None:
    store = stores.new_store()
    stores.kms.requests.clear()
    with pytest.raises(PhiInContextError):
        store.create_key(branch_key_id, context)
    assert stores.kms.requests == []
    lenient = stores.another(store.table_name, stores.kms.create_key(), guard=PhiGuard("off"))
    assert lenient.create_key(branch_key_id, context) == branch_key_id


@pytest.mark.parametrize("context", [{"department": ""}, {"department": "v" * 32_768}])
def test_rule_34_create_refuses_a_context_that_java_does_not_read(
    stores: KeyStores, context: dict[str, str]
) -> None:
    store = stores.new_store()
    stores.kms.requests.clear()
    with pytest.raises(ConfigurationError, match="Java"):
        store.create_key("clinic-9", context)
    assert stores.kms.requests == []


@pytest.mark.parametrize("wrong", ["", "x" * 2049, 7, "\ud800"])
def test_refuses_an_id_that_no_row_can_have(stores: KeyStores, wrong: Any) -> None:
    store = stores.another("any", stores.kms.create_key())
    for call in (store.create_key, store.rotate, store.fetch_active, store.fetch_beacon_key, store.shred):
        with pytest.raises(ConfigurationError):
            call(wrong)


def test_rotation_activates_a_new_version_and_keeps_the_old_one(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID, {"department": "cardiology"})
    first, beacon = store.fetch_active(ID), store.fetch_beacon_key(ID)
    version = store.rotate(ID)
    second = store.fetch_active(ID)
    assert second.version == version != first.version
    assert second.key_bytes != first.key_bytes
    assert second.context == first.context == {"department": "cardiology"}
    assert store.fetch_version(ID, first.version).key_bytes == first.key_bytes
    assert store.fetch_version(ID, version).key_bytes == second.key_bytes
    assert store.fetch_beacon_key(ID).key_bytes == beacon.key_bytes


def test_rotation_loses_a_race_without_a_trace(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    winners: list[str] = []

    def write_late(real: Any, parameters: dict[str, Any]) -> Any:
        winners.append(store.rotate(ID))
        return real(**parameters)

    slow = stores.another(
        store.table_name,
        store.kms_key_arn,
        dynamodb_client=Intercepted(stores.dynamodb, transact_write_items=write_late),
    )
    assert refusal_of(lambda: slow.rotate(ID)).code == "BranchKeyChanged"
    assert store.fetch_active(ID).version == winners[0]
    versions = [row for row in stores.rows(store, ID) if row.startswith("branch:version:")]
    assert len(versions) == 2  # the first and the winner's; the loser left none


def test_rotation_refuses_an_active_row_that_kms_does_not_authenticate(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    active = stores.rows(store, ID)["branch:ACTIVE"]
    stores.put(store, {**active, "aws-crypto-ec:department": {"S": "planted"}})
    before = stores.rows(store, ID)
    assert refusal_of(lambda: store.rotate(ID)).code == "InvalidCiphertextException"
    assert stores.rows(store, ID) == before


def test_rotation_by_a_machine_whose_clock_is_behind_does_not_go_back(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    future = datetime.now(UTC) + timedelta(hours=2)
    active = stores.rows(store, ID)["branch:ACTIVE"]
    context = {name: next(iter(value.values())) for name, value in active.items() if name != "enc"}
    context["tablename"] = store.logical_name
    later = {**context, "create-time": format_time(future)}
    wrapped = stores.kms.client().re_encrypt(
        CiphertextBlob=active["enc"]["B"],
        SourceKeyId=store.kms_key_arn,
        SourceEncryptionContext=context,
        DestinationKeyId=store.kms_key_arn,
        DestinationEncryptionContext=later,
    )["CiphertextBlob"]
    stores.put(store, {**active, "create-time": {"S": later["create-time"]}, "enc": {"B": wrapped}})
    version = store.rotate(ID)
    assert store.fetch_active(ID).version == version
    assert store.fetch_active(ID).create_time == format_time(future + timedelta(microseconds=1))


def test_reads_are_strongly_consistent(stores: KeyStores) -> None:
    seen: list[bool] = []

    def note(real: Any, parameters: dict[str, Any]) -> Any:
        seen.append(parameters["ConsistentRead"])
        return real(**parameters)

    hooks = dict.fromkeys(("get_item", "query", "scan"), note)
    store = stores.new_store(dynamodb_client=Intercepted(stores.dynamodb, **hooks))
    store.create_key(ID)
    version = store.rotate(ID)
    store.fetch_active(ID), store.fetch_version(ID, version), store.fetch_beacon_key(ID)
    store.list_keys(), store.list_rows(ID)
    assert len(seen) >= 9 and all(seen)


def test_unknown_ids_and_versions_are_refused_by_name(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    for call in (
        lambda: store.fetch_active("clinic-8"),
        lambda: store.fetch_beacon_key("clinic-8"),
        lambda: store.rotate("clinic-8"),
        lambda: store.fetch_version(ID, UNKNOWN_VERSION),
    ):
        refusal = refusal_of(call)
        assert refusal.code == "BranchKeyNotFound" and refusal.key_arn == store.table_name


def test_a_deleted_version_is_refused(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    first = store.fetch_active(ID)
    store.rotate(ID)
    stores.delete(store, stores.rows(store, ID)[f"branch:version:{first.version}"])
    assert refusal_of(lambda: store.fetch_version(ID, first.version)).code == "BranchKeyNotFound"


@pytest.mark.parametrize("version", ["", "ACTIVE", UNKNOWN_VERSION.upper(), UNKNOWN_VERSION + "0", None])
def test_a_version_that_is_no_uuid_is_a_configuration_error(stores: KeyStores, version: Any) -> None:
    with pytest.raises(ConfigurationError):
        stores.another("any", stores.kms.create_key()).fetch_version(ID, version)


def test_rows_under_another_logical_name_are_refused(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    foreign = stores.another(store.table_name, store.kms_key_arn, logical_name="other-keys")
    for call in (foreign.fetch_active, foreign.fetch_beacon_key, foreign.rotate):
        assert refusal_of(lambda call=call: call(ID)).code == "InvalidCiphertextException"


def test_a_restored_table_serves_under_its_logical_name(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    restored = stores.new_store(store.kms_key_arn, table_name=f"{store.table_name}-restored")
    for row in stores.rows(store, ID).values():
        stores.put(restored, row)
    assert restored.fetch_active(ID).key_bytes == store.fetch_active(ID).key_bytes


def _changed(value: dict[str, Any], position: int) -> dict[str, Any] | None:
    """An attribute with one byte or character changed; None beyond its end."""
    ((kind, content),) = value.items()
    if position >= len(content):
        return None
    if kind == "B":
        return {kind: content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]}
    other = "1" if content[position] != "1" else "2"
    return {kind: content[:position] + other + content[position + 1 :]}


@pytest.mark.parametrize("row_type", ["branch:ACTIVE", "beacon:ACTIVE", "branch:version:"])
def test_each_changed_byte_of_each_attribute_is_refused(stores: KeyStores, row_type: str) -> None:
    store = stores.new_store()
    store.create_key(ID, {"department": "cardiology"})
    row = next(row for kind, row in stores.rows(store, ID).items() if kind.startswith(row_type))
    served: dict[str, Any] = {}

    def serve(real: Any, parameters: dict[str, Any]) -> Any:
        return {"Item": served} if parameters["Key"]["type"] == row["type"] else {}

    reader = stores.another(
        store.table_name,
        store.kms_key_arn,
        dynamodb_client=Intercepted(stores.dynamodb, get_item=serve),
    )

    def fetch() -> object:
        if row_type == "branch:ACTIVE":
            return reader.fetch_active(ID)
        if row_type == "beacon:ACTIVE":
            return reader.fetch_beacon_key(ID)
        return reader.fetch_version(ID, row["type"]["S"].removeprefix("branch:version:"))

    served = dict(row)
    fetch()
    for name in row:
        positions = range(600)
        for position in positions:
            changed = _changed(row[name], position)
            if changed is None:
                break
            served = {**row, name: changed}
            assert isinstance(refusal_of(fetch), KeyAccessError), (name, position)
        served = {other: value for other, value in row.items() if other != name}
        refusal_of(fetch)
        served = {**row, name: {"BOOL": True}}
        refusal_of(fetch)
    for added in ("note", "tablename", "aws-crypto-ec:tier", "version"):
        if added not in row:
            served = {**row, added: {"S": "x"}}
            refusal_of(fetch)


def test_rule_14_row_identity_is_checked(stores: KeyStores) -> None:
    """A table that answers with another row of its own is refused, although KMS would open it."""
    store = stores.new_store()
    store.create_key(ID)
    store.create_key("clinic-8")
    first = store.fetch_active(ID)
    store.rotate(ID)
    theirs, ours = stores.rows(store, "clinic-8"), stores.rows(store, ID)
    old_version = ours[f"branch:version:{first.version}"]
    for answer in (theirs["branch:ACTIVE"], ours["beacon:ACTIVE"], old_version):

        def serve(real: Any, parameters: dict[str, Any], answer: Any = answer) -> Any:
            return {"Item": answer} if parameters["Key"]["type"]["S"] == "branch:ACTIVE" else {}

        liar = stores.another(
            store.table_name,
            store.kms_key_arn,
            dynamodb_client=Intercepted(stores.dynamodb, get_item=serve),
        )
        assert refusal_of(lambda liar=liar: liar.fetch_active(ID)).code == "InvalidBranchKeyRecord"


def test_rule_14_an_old_active_row_put_back_is_refused(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    old = stores.rows(store, ID)["branch:ACTIVE"]
    store.rotate(ID)
    stores.put(store, old)
    assert refusal_of(lambda: store.fetch_active(ID)).code == "BranchKeyRolledBack"
    assert refusal_of(lambda: store.rotate(ID)).code == "BranchKeyRolledBack"
    again = stores.another(store.table_name, store.kms_key_arn)
    assert refusal_of(lambda: again.fetch_active(ID)).code == "BranchKeyRolledBack"


@pytest.mark.parametrize("operation", ["fetch_active", "rotate"])
def test_a_rotation_between_read_and_check_is_no_rollback(stores: KeyStores, operation: str) -> None:
    """Another thread rotates after this one has read: it reads again instead of crying wolf."""
    store = stores.new_store()
    store.create_key(ID)
    rotated: list[str] = []

    def read_then_overtaken(real: Any, parameters: dict[str, Any]) -> Any:
        answer = real(**parameters)
        if not rotated:
            rotated.append(store.rotate(ID))
        return answer

    slow = stores.another(
        store.table_name,
        store.kms_key_arn,
        dynamodb_client=Intercepted(stores.dynamodb, get_item=read_then_overtaken),
    )
    outcome = getattr(slow, operation)(ID)
    if operation == "fetch_active":
        assert outcome.version == rotated[0]
    else:
        assert store.fetch_active(ID).version == outcome != rotated[0]


def test_rule_14_an_older_beacon_row_put_back_is_refused(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    old = stores.rows(store, ID)
    for row in old.values():
        stores.delete(store, row)
    store.create_key(ID)
    store.fetch_beacon_key(ID)
    stores.put(store, old["beacon:ACTIVE"])
    assert refusal_of(lambda: store.fetch_beacon_key(ID)).code == "BranchKeyRolledBack"


@pytest.mark.parametrize(("hours", "is_refused"), [(26.9, False), (27.1, True)])
def test_rule_14_a_stale_active_row_is_refused_by_age_and_other_writers_clocks(
    stores: KeyStores, monkeypatch: pytest.MonkeyPatch, hours: float, is_refused: bool
) -> None:
    store = stores.new_store(max_active_age_seconds=3600)
    store.create_key(ID)
    version = store.fetch_active(ID).version

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=hours)

    monkeypatch.setattr(steps, "datetime", Later)
    if is_refused:
        assert refusal_of(lambda: store.fetch_active(ID)).code == "BranchKeyTooOld"
    else:
        assert store.fetch_active(ID).version == version
    assert store.fetch_version(ID, version)  # what is old still decrypts
    with pytest.raises(ConfigurationError):
        stores.another(store.table_name, store.kms_key_arn, max_active_age_seconds=0)


def test_rule_14_a_branch_key_planted_under_a_foreign_kms_key_is_refused(stores: KeyStores) -> None:
    store = stores.new_store()
    foreign_arn = stores.kms.create_key()
    planted = stores.another(store.table_name, foreign_arn)
    planted.create_key(ID)
    stores.kms.requests.clear()
    version = planted.list_keys()[0].version
    assert version is not None
    for call in (
        lambda: store.fetch_active(ID),
        lambda: store.fetch_beacon_key(ID),
        lambda: store.fetch_version(ID, version),
        lambda: store.rotate(ID),
    ):
        assert refusal_of(call).code == "ForeignKmsKey"
    assert stores.kms.requests == []  # the foreign key was never asked
    # The planted rows now claim the pinned key, but its wrapped keys are the foreign key's.
    for row in stores.rows(store, ID).values():
        stores.put(store, {**row, "kms-arn": {"S": store.kms_key_arn}})
    refusal = refusal_of(lambda: store.fetch_active(ID))
    assert refusal.code == "IncorrectKeyException"
    assert {one.parameters["KeyId"] for one in stores.kms.requests} == {store.kms_key_arn}


def test_rule_14_discovery_serves_fetch_version_only(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    active = store.fetch_active(ID)
    discovering = stores.another(store.table_name, KeyDiscovery(("111122223333",)))
    assert discovering.fetch_version(ID, active.version).key_bytes == active.key_bytes
    for call in (
        discovering.fetch_active,
        discovering.fetch_beacon_key,
        discovering.rotate,
        discovering.create_key,
        discovering.shred,
    ):
        with pytest.raises(ConfigurationError, match="discovery"):
            call(ID)


@pytest.mark.parametrize("discovery", [KeyDiscovery(("999999999999",)), KeyDiscovery(("111122223333",), "aws-cn")])
def test_rule_14_discovery_refuses_accounts_and_partitions_outside_its_filter(
    stores: KeyStores, discovery: KeyDiscovery
) -> None:
    store = stores.new_store()
    store.create_key(ID)
    version = store.fetch_active(ID).version
    stores.kms.requests.clear()
    discovering = stores.another(store.table_name, discovery)
    assert refusal_of(lambda: discovering.fetch_version(ID, version)).code == "ForeignKmsKey"
    assert stores.kms.requests == []


@pytest.mark.parametrize("accounts", [(), "111122223333", ("",)])
def test_rule_14_discovery_needs_an_explicit_account(accounts: Any) -> None:
    with pytest.raises(ConfigurationError):
        KeyDiscovery(accounts)


def test_rule_14_fetching_needs_no_encrypt_or_reencrypt_permission(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    arn = store.kms_key_arn
    denials = [
        stores.kms.deny(arn, operation)
        for operation in ("Encrypt", "ReEncrypt", "GenerateDataKeyWithoutPlaintext")
    ]
    assert store.fetch_active(ID) and store.fetch_beacon_key(ID)
    refusal_of(lambda: store.rotate(ID))
    for denial in denials:
        stores.kms.allow(denial)


def test_grant_tokens_are_sent_with_each_call_and_kept_out_of_the_identity(stores: KeyStores) -> None:
    arn = stores.kms.create_key()
    token = stores.kms.grant(arn, "Decrypt")
    store = stores.new_store(arn, grant_tokens=(token,))
    stores.kms.requests.clear()
    store.create_key(ID)
    store.fetch_active(ID)
    assert len(stores.kms.requests) == 4
    assert all(one.grant_tokens == [token] for one in stores.kms.requests)
    assert token not in repr(store.identity)
    assert store.identity != stores.another(store.table_name, arn).identity


@pytest.mark.parametrize(
    "wrong",
    [
        "alias/keys",
        "arn:aws:kms:us-east-1:111122223333:alias/keys",
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "",
        None,
    ],
)
def test_refuses_anything_but_a_key_arn(stores: KeyStores, wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        stores.another("any", wrong)


def test_a_kms_that_answers_with_another_key_is_refused(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    stores.kms.alter(lambda answer: {**answer, "KeyId": stores.kms.create_key()}, operation="Decrypt")
    assert refusal_of(lambda: store.fetch_active(ID)).code == "UnexpectedAnswer"
    stores.kms.alter(lambda answer: {**answer, "Plaintext": "c2hvcnQ="}, operation="Decrypt")
    assert refusal_of(lambda: store.fetch_active(ID)).code == "UnexpectedAnswer"


def test_listings_show_keys_and_rows_without_their_wrapped_keys(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key("b")
    store.create_key("a")
    version = store.rotate("a")
    assert [(row.branch_key_id, row.row_type) for row in store.list_keys()] == [
        ("a", "branch:ACTIVE"),
        ("b", "branch:ACTIVE"),
    ]
    assert store.list_keys()[0].version == version
    rows = store.list_rows("a")
    assert len(rows) == 4 and rows[0].row_type == f"branch:version:{version}"
    assert "enc" not in repr(rows)
    assert store.list_rows("c") == []


def test_reprs_show_no_key_bytes(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    active, beacon = store.fetch_active(ID), store.fetch_beacon_key(ID)
    for secret in (active, beacon):
        shown = repr(secret) + repr(secret.origin)
        assert secret.key_bytes.hex() not in shown and repr(secret.key_bytes) not in shown
