"""Every public operation of a branch key store leaves one linked begin and end, with all of its KMS calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.audit_events import public_names, uses_of
from support.cloudtrail_records import ROLE_ARN, deliver, record_of
from support.key_stores import Intercepted, KeyStores, key_stores

from phicrypt import BranchKeyStore, HierarchicalKeyring, PhiCrypt
from phicrypt.audit import AuditEvent, AuditTrail, JsonlSink, RecordingSink, acting_as
from phicrypt.errors import AuditError, ConfigurationError, KeyAccessError, PhiInContextError
from phicrypt.evidence.join import join, log_events, trail_source
from phicrypt.evidence.matching import Category
from phicrypt.evidence.questions import incident, is_disclosure
from phicrypt.keys.branch_keys.kms import KeyDiscovery
from phicrypt.keys.branch_keys.table import BranchKeyTable
from phicrypt.witness import ResourceTokens

ID = "clinic-7"
TOKENS = ResourceTokens({"t1": bytes(32)})
GENERATE, REENCRYPT, DECRYPT = "GenerateDataKeyWithoutPlaintext", "ReEncrypt", "Decrypt"
CONTEXT = {"tenant": "clinic-7"}


@dataclass(frozen=True)
class Scenario:
    """One operation: what it is called in the trail, and which KMS calls it makes."""

    run: Callable[[Stage], object]
    operation: str
    calls: tuple[str, ...] = ()


@dataclass
class Stage:
    """A store with one branch key, and a second store object over it with a trail and an impatient client."""

    stores: KeyStores
    sink: RecordingSink
    trail: AuditTrail
    plain: BranchKeyStore
    version: str
    store: BranchKeyStore

    def requests(self) -> list[tuple[str, str]]:
        """Operation and request id of each KMS call since the stage was set."""
        return [(request.operation, request.request_id) for request in self.stores.kms.requests]

    def over(self, **settings: Any) -> BranchKeyStore:
        return self.stores.another(self.plain.table_name, self.plain.kms_key_arn, **settings)


SCENARIOS = {
    "create_key": Scenario(
        lambda stage: stage.store.create_key("clinic-8"), "create-branch-key", (GENERATE, REENCRYPT, GENERATE)
    ),
    "rotate": Scenario(
        lambda stage: stage.store.rotate(ID), "rotate-branch-key", (REENCRYPT, GENERATE, REENCRYPT)
    ),
    "fetch_active": Scenario(lambda stage: stage.store.fetch_active(ID), "fetch-branch-key", (DECRYPT,)),
    "fetch_version": Scenario(
        lambda stage: stage.store.fetch_version(ID, stage.version), "fetch-branch-key", (DECRYPT,)
    ),
    "fetch_beacon_key": Scenario(
        lambda stage: stage.store.fetch_beacon_key(ID), "fetch-beacon-key", (DECRYPT, DECRYPT)
    ),
    "shred": Scenario(lambda stage: stage.store.shred(ID), "shred-branch-key"),
}
WITHOUT_KEYS = {
    "breakers": "who answers and who does not",
    "create_table": "the empty table",
    "kms_clients": "a setting",
    "steps": "what a keyring fetches belongs to the client's use",
    "identity": "a setting",
    "kms_key_arn": "a setting",
    "list_keys": "rows as they lie there, without any key",
    "list_rows": "rows as they lie there, without any key",
    "logical_name": "a setting",
    "on_purge": "registers a keyring",
    "table_name": "a setting",
}
WITH_KMS = [name for name, scenario in SCENARIOS.items() if scenario.calls]
every_operation = pytest.mark.parametrize("name", SCENARIOS)
every_kms_operation = pytest.mark.parametrize("name", WITH_KMS)


@pytest.fixture(scope="module")
def stores() -> Iterator[KeyStores]:
    with key_stores() as made:
        yield made


@pytest.fixture
def stage(stores: KeyStores) -> Stage:
    plain = stores.new_store()
    plain.create_key(ID, {"department": "cardiology"})
    sink = RecordingSink()
    trail = AuditTrail([sink], principal=ROLE_ARN, resource_tokens=TOKENS)
    made = Stage(stores, sink, trail, plain, plain.fetch_active(ID).version, plain)
    made.store = made.over(trail=trail, kms_client=stores.kms.client(max_attempts=4))
    stores.kms.requests.clear()
    return made


def only_pair(sink: RecordingSink) -> tuple[AuditEvent, AuditEvent]:
    ((begin, end),) = uses_of(sink.events)
    assert (begin.kind, begin.outcome) == ("begin", "begun")
    return begin, end


def calls_of(event: AuditEvent) -> list[tuple[str, str]]:
    """Operation and request id of every answered attempt that the event names, in order."""
    assert event.origin is not None
    calls = (*event.origin.other_calls, event.origin)
    return [(call.operation or "", request_id) for call in calls for request_id in call.request_ids]


def test_no_public_operation_is_forgotten(stage: Stage) -> None:
    names = {name for name in dir(stage.store) if not name.startswith("_")}
    assert names - set(SCENARIOS) - set(WITHOUT_KEYS) == set()
    assert public_names(BranchKeyStore) <= names


@every_operation
def test_a_success_leaves_one_pair_with_every_kms_call(stage: Stage, name: str) -> None:
    scenario = SCENARIOS[name]
    with acting_as("ops-1", "maintenance"):
        scenario.run(stage)
    begin, end = only_pair(stage.sink)
    assert (end.operation, end.outcome, end.format) == (scenario.operation, "success", "branch-key")
    assert {(event.actor, event.purpose) for event in (begin, end)} == {("ops-1", "maintenance")}
    made = stage.requests()
    assert tuple(operation for operation, _ in made) == scenario.calls
    assert calls_of(end) == made
    branch_key_id = "clinic-8" if name == "create_key" else ID
    assert begin.resource == end.resource == TOKENS.token(("branch-key", "clinic-keys", branch_key_id))
    assert end.origin is not None
    assert end.origin.provider_id == "aws-kms-hierarchy"
    assert end.origin.key_id.startswith(f"{stage.plain.kms_key_arn}#{branch_key_id}")
    assert AuditEvent.from_dict(json.loads(end.to_json())).origin == end.origin


@every_kms_operation
def test_a_denial_leaves_one_pair_with_the_refused_call(stage: Stage, name: str) -> None:
    denial = stage.stores.kms.deny(stage.plain.kms_key_arn)
    with pytest.raises(KeyAccessError):
        SCENARIOS[name].run(stage)
    stage.stores.kms.allow(denial)
    _, end = only_pair(stage.sink)
    assert (end.outcome, end.error, end.reason) == ("denied", "KeyAccessError", "AccessDeniedException")
    assert end.origin is not None
    assert (end.origin.key_id, end.origin.error_code) == (stage.plain.kms_key_arn, "AccessDeniedException")
    assert calls_of(end) == stage.requests()


@pytest.mark.parametrize("name", ["create_key", "rotate"])
def test_a_denial_in_the_middle_names_the_calls_before_it(stage: Stage, name: str) -> None:
    stage.stores.kms.fail(
        "AccessDeniedException", status=400, operation=GENERATE if name == "rotate" else REENCRYPT
    )
    with pytest.raises(KeyAccessError):
        SCENARIOS[name].run(stage)
    _, end = only_pair(stage.sink)
    assert end.outcome == "denied"
    assert [operation for operation, _ in calls_of(end)] == list(SCENARIOS[name].calls[:2])
    assert calls_of(end) == stage.requests()


@every_operation
def test_a_denial_by_the_table_leaves_one_pair(stage: Stage, name: str) -> None:
    from botocore.exceptions import ClientError

    def refuse(real: Any, parameters: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "GetItem")

    client = Intercepted(stage.stores.dynamodb, get_item=refuse, query=refuse, transact_write_items=refuse)
    stage.store = stage.over(trail=stage.trail, dynamodb_client=client)
    with pytest.raises(KeyAccessError):
        SCENARIOS[name].run(stage)
    _, end = only_pair(stage.sink)
    assert (end.outcome, end.reason) == ("denied", "AccessDeniedException")
    assert end.origin is not None
    assert calls_of(end) == stage.requests()


@every_kms_operation
def test_a_timeout_leaves_one_pair(stage: Stage, name: str) -> None:
    for _ in range(4):
        stage.stores.kms.hang(1)
    stage.store = stage.over(
        trail=stage.trail, kms_client=stage.stores.kms.client(read_timeout_seconds=0.2, max_attempts=1)
    )
    with pytest.raises(KeyAccessError):
        SCENARIOS[name].run(stage)
    stage.stores.kms.account.faults.clear()
    _, end = only_pair(stage.sink)
    assert (end.outcome, end.error) == ("failed", "KeyAccessError")
    assert end.origin is not None
    assert end.origin.correlation_id is not None


@every_kms_operation
def test_throttled_attempts_are_all_named(stage: Stage, name: str) -> None:
    stage.stores.kms.throttle(2)
    SCENARIOS[name].run(stage)
    _, end = only_pair(stage.sink)
    assert end.outcome == "success"
    assert calls_of(end) == stage.requests()
    assert len(calls_of(end)) == len(SCENARIOS[name].calls) + 2


@every_operation
def test_an_interruption_leaves_one_pair(stage: Stage, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BranchKeyTable, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SCENARIOS[name].run(stage)
    _, end = only_pair(stage.sink)
    assert (end.outcome, end.error) == ("interrupted", "KeyboardInterrupt")
    assert calls_of(end) == stage.requests()


@every_operation
def test_rule_20_nothing_is_done_that_cannot_be_recorded(stage: Stage, name: str) -> None:
    class Broken:
        def write(self, events: object) -> None:
            raise OSError

        def close(self) -> None:
            pass

    for trail in (AuditTrail([Broken()]), AuditTrail([stage.sink], require_actor=True)):
        stage.store = stage.over(trail=trail)
        rows = stage.stores.rows(stage.plain, ID)
        with pytest.raises(AuditError):
            SCENARIOS[name].run(stage)
        assert stage.requests() == []
        assert stage.stores.rows(stage.plain, ID) == rows
        assert stage.stores.rows(stage.plain, "clinic-8") == {}


def test_refusals_before_any_kms_call_leave_one_pair_without_the_id(stage: Stage) -> None:
    """An id that was only asked for may be anything, a name as well: it enters as a token."""
    refused: list[tuple[Callable[[], object], type[Exception]]] = [
        (lambda: stage.store.fetch_active("Jane Doe"), KeyAccessError),
        (lambda: stage.store.rotate("Jane Doe"), KeyAccessError),
        (lambda: stage.store.shred("Jane Doe"), KeyAccessError),
        (lambda: stage.store.create_key("078-05-1120"), PhiInContextError),
    ]
    for run, error in refused:
        stage.sink.events.clear()
        with pytest.raises(error):
            run()
        _, end = only_pair(stage.sink)
        assert (end.outcome, end.error) == ("failed", error.__name__)
        assert end.resource is not None
        assert not any(name in event.to_json() for event in stage.sink.events for name in ("Jane", "078-05"))


def test_creating_an_id_that_exists_names_the_calls_that_were_in_vain(stage: Stage) -> None:
    with pytest.raises(KeyAccessError, match="exists"):
        stage.store.create_key(ID)
    _, end = only_pair(stage.sink)
    assert (end.outcome, end.reason) == ("failed", "BranchKeyExists")
    assert calls_of(end) == stage.requests()


def test_a_dry_run_and_listings_touch_no_key(stage: Stage) -> None:
    stage.store.shred(ID, dry_run=True)
    stage.store.list_keys()
    stage.store.list_rows(ID)
    stage.store.create_table()
    assert stage.sink.events == [] and stage.requests() == []


def test_discovery_records_what_it_fetches(stage: Stage) -> None:
    arn = stage.plain.kms_key_arn
    assert arn is not None
    store = stage.stores.another(stage.plain.table_name, KeyDiscovery((arn.split(":")[4],)), trail=stage.trail)
    store.fetch_version(ID, stage.version)
    _, end = only_pair(stage.sink)
    assert end.origin is not None
    assert end.origin.key_id == f"{arn}#{ID}/{stage.version}"
    with pytest.raises(ConfigurationError):
        store.fetch_active(ID)
    with pytest.raises(KeyAccessError):
        store.fetch_version("none", stage.version)
    assert len(uses_of(stage.sink.events)) == 2


def test_what_a_keyring_fetches_belongs_to_the_clients_use(stage: Stage) -> None:
    phi = PhiCrypt(HierarchicalKeyring(stage.store, ID), audit=stage.trail)
    phi.decrypt(phi.encrypt(b"x", context=CONTEXT), context=CONTEXT)
    stage.trail.flush()
    uses = uses_of(stage.sink.events)
    assert [use[-1].operation for use in uses] == ["encrypt", "decrypt"]
    assert sorted(calls_of(uses[0][-1])) == sorted(stage.requests()), (
        "both openings belong to the encryption (rule 28)"
    )
    assert uses[1][-1].cache_hit, "and serve the decryption"
    stage.store.fetch_active(ID)
    assert stage.sink.events[-1].operation == "fetch-branch-key"


def test_an_interruption_as_a_keyring_begins_to_fetch_leaves_later_operations_recorded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(table: BranchKeyTable, branch_key_id: str, row_type: str) -> None:
        raise KeyboardInterrupt

    phi = PhiCrypt(HierarchicalKeyring(stage.store, ID), audit=stage.trail)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(BranchKeyTable, "read", interrupted)
        phi.encrypt(b"x", context=CONTEXT)
    stage.store.rotate(ID)
    assert [(event.operation, event.kind) for event in stage.sink.events[-2:]] == [
        ("rotate-branch-key", "begin"),
        ("rotate-branch-key", "end"),
    ]


def use_everything(stage: Stage, log: Path) -> None:
    stage.trail = AuditTrail([JsonlSink(log)], principal=ROLE_ARN)
    stage.store = stage.over(trail=stage.trail, kms_client=stage.stores.kms.client(max_attempts=4))
    for name in ("create_key", "fetch_active", "fetch_version", "fetch_beacon_key", "rotate"):
        SCENARIOS[name].run(stage)
    stage.stores.kms.throttle(1)
    stage.store.rotate(ID)
    stage.stores.kms.fail("AccessDeniedException", status=400, operation=REENCRYPT)
    with pytest.raises(KeyAccessError):
        stage.store.create_key("clinic-9")
    phi = PhiCrypt(HierarchicalKeyring(stage.store, ID), audit=stage.trail)
    phi.encrypt(b"x", context=CONTEXT)
    stage.store.shred(ID)
    phi.close()


def test_the_join_finds_every_call_and_one_by_somebody_else(stage: Stage, tmp_path: Path) -> None:
    use_everything(stage, tmp_path / "audit.jsonl")
    ours = list(stage.stores.kms.requests)
    stage.stores.kms.client().generate_data_key_without_plaintext(
        KeyId=stage.plain.kms_key_arn, KeySpec="AES_256", EncryptionContext={}
    )
    arn = stage.plain.kms_key_arn
    assert arn is not None
    deliver(tmp_path / "trail", (record_of(request, arn) for request in stage.stores.kms.requests))
    read, _ = trail_source(str(tmp_path / "trail"), client=lambda service: None)
    with join(tmp_path / "audit.jsonl", read) as joined:
        counts = {category: count for category, count in joined.matcher.counts().items() if count}
    assert counts == {
        Category.MATCHED: len(ours) - 2,
        Category.ATTEMPT: 1,
        Category.DENIED: 1,
        Category.TRAIL_ONLY: 1,
    }


def test_an_incident_lists_fetched_branch_keys_and_counts_messages_only(stage: Stage, tmp_path: Path) -> None:
    use_everything(stage, tmp_path / "audit.jsonl")
    arn = stage.plain.kms_key_arn
    assert arn is not None
    found = incident(log_events(tmp_path / "audit.jsonl"), arn, 0, 2**62)
    assert found.sealed_messages == 1
    assert [row.operation for row in found.decrypted] == ["fetch-branch-key"] * 2 + ["fetch-beacon-key"]
    with acting_as("ops-1", "legal"):
        stage.sink.events.clear()
        stage.over(trail=AuditTrail([stage.sink])).create_key("clinic-10")
        stage.over(trail=AuditTrail([stage.sink])).fetch_active("clinic-10")
    assert not any(is_disclosure(event) for event in stage.sink.events)
