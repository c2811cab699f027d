"""Rules 27 and 28: one answer of KMS or of the key store is changed on its way. Nothing that was acknowledged is
lost, nothing that exists is "not there", and who writes rows chooses no Region."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.key_stores import CONTEXT, KeyStores, key_stores, to_decrypt, to_encrypt
from support.wires import HTML, Answer, Wire, fresh_id

from phicrypt import ANY_CONTEXT, BranchKeyStore, HierarchicalKeyring, KmsKeyring, PhiCrypt
from phicrypt.audit import RecordingSink
from phicrypt.errors import KeyAccessError, PhiCryptError
from phicrypt.keys.branch_keys.store import FailoverRegion

ID, OTHER = "clinic-7", "clinic-8"
EAST, WEST = "us-east-1", "us-west-2"
NEVER = {"BranchKeyNotFound", "BranchKeyShredded"}


@pytest.fixture(scope="module")
def stores() -> Iterator[KeyStores]:
    with key_stores() as made:
        yield made


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)  # as every pause of this process


def flipped(answer: Answer, member: str = "Plaintext") -> Answer:
    """A whole, well-formed answer with one changed bit in a key."""
    document = json.loads(answer.body)
    first = document[member][0]
    return answer.with_body(
        json.dumps({**document, member: ("B" if first == "A" else "A") + document[member][1:]}).encode()
    )


def with_members(answer: Answer, **members: Any) -> Answer:
    return answer.with_body(json.dumps({**json.loads(answer.body), **members}).encode())


FAULTS: dict[str, Callable[[Answer], Answer]] = {
    "an error page": lambda answer: Answer(200, {"content-type": "text/html"}, HTML),
    "a page of nothing": lambda answer: Answer(404, {"content-type": "text/html"}, HTML),
    "half of it": lambda answer: Answer(200, answer.headers, answer.body[: len(answer.body) // 2]),
    "empty": lambda answer: Answer(200, answer.headers, b""),
    "without a request id": lambda answer: Answer(200, {"content-type": "application/json"}, answer.body),
    "one bit": lambda answer: Answer(200, answer.headers, answer.body[:12] + b"~" + answer.body[13:]),
}
KMS_LIES: dict[str, Callable[[Answer], Answer]] = {
    "another key's bytes": flipped,
    "another key's name": lambda answer: with_members(
        answer, KeyId="arn:aws:kms:us-east-1:111122223333:key/other"
    ),
    "a short key": lambda answer: with_members(answer, Plaintext="AAAA"),
    "no base64": lambda answer: with_members(answer, Plaintext="A"),
    "a number": lambda answer: with_members(answer, Plaintext=7),
}


class Clinic:
    """A key store with two branch keys, whose two wires are in the test's hands."""

    def __init__(self, stores: KeyStores) -> None:
        self.dynamodb = stores.aws.client("dynamodb")
        self.kms = stores.kms.client()
        self.store = stores.new_store()
        for branch_key_id in (ID, OTHER):
            self.store.create_key(branch_key_id)
        self.rows = stores.rows(self.store, OTHER)
        self.watched = stores.another(
            self.store.table_name, self.store.kms_key_arn, dynamodb_client=self.dynamodb, kms_client=self.kms
        )
        self.wires = {"GetItem": Wire(self.dynamodb, "GetItem"), "Decrypt": Wire(self.kms, "Decrypt")}

    def change(self, operation: str, number: int, change: Callable[[Answer], Answer]) -> None:
        """Change the answer of the operation's attempt of that number, from now on."""
        self.wires[operation].changes = [*([lambda answer: answer] * (number - 1)), change]

    def anothers_row(self, row_type: str) -> Callable[[Answer], Answer]:
        """A whole answer to somebody else's GetItem, with a request id of its own."""
        row = {
            name: ({"B": b64encode(one["B"]).decode()} if "B" in one else one)
            for name, one in self.rows[row_type].items()
        }

        def change(answer: Answer) -> Answer:
            given = answer.with_body(json.dumps({"Item": row}).encode())
            given.headers["x-amzn-requestid"] = fresh_id()
            return given

        return change


@pytest.fixture(scope="module")
def clinic(stores: KeyStores) -> Clinic:
    return Clinic(stores)


CHANGES = [
    *(("GetItem", number, fault) for number in range(1, 5) for fault in (*FAULTS, "another row")),
    *(("Decrypt", number, fault) for number in (1, 2) for fault in (*FAULTS, *KMS_LIES)),
]


@pytest.mark.parametrize(("operation", "number", "fault"), CHANGES)
def test_rule_28_what_was_acknowledged_can_be_read_whichever_answer_was_changed(
    clinic: Clinic, operation: str, number: int, fault: str
) -> None:
    change = {**FAULTS, **KMS_LIES, "another row": clinic.anothers_row("branch:ACTIVE")}[fault]
    phi = PhiCrypt(HierarchicalKeyring(clinic.watched, ID))
    clinic.change(operation, number, change)
    acknowledged = []
    for _ in range(3):
        try:
            acknowledged.append(phi.encrypt(b"note", context=CONTEXT))
        except KeyAccessError as error:
            assert error.code not in NEVER
            assert (error.is_outage, error.is_retryable) == (
                (True, True) if error.code == "NoAnswer" else (False, False)
            )
    assert clinic.wires[operation].changes == [], "the answer was never asked for"
    assert len(acknowledged) >= 2, "one changed answer costs one call at most"
    sound = PhiCrypt(HierarchicalKeyring(clinic.store, ID))
    for reader in (phi, sound):
        assert {reader.decrypt(message, context=ANY_CONTEXT) for message in acknowledged} == {b"note"}


@pytest.mark.parametrize(("operation", "number", "fault"), [one for one in CHANGES if one[1] <= 2])
def test_rule_28_a_reader_recovers_from_one_changed_answer_at_once(
    clinic: Clinic, operation: str, number: int, fault: str
) -> None:
    message = PhiCrypt(HierarchicalKeyring(clinic.store, ID)).encrypt(b"note", context=CONTEXT)
    reader = PhiCrypt(HierarchicalKeyring(clinic.watched, ID))
    change = {**FAULTS, **KMS_LIES, "another row": clinic.anothers_row("branch:ACTIVE")}[fault]
    clinic.change(operation, number if operation == "GetItem" else 1, change)
    try:
        assert reader.decrypt(message, context=ANY_CONTEXT) == b"note"
    except KeyAccessError as error:
        assert error.code not in NEVER
    assert reader.decrypt(message, context=ANY_CONTEXT) == b"note"
    clinic.change(operation, 1, lambda answer: answer)
    clinic.wires[operation].changes = []


@pytest.mark.parametrize("fault", [*FAULTS, *KMS_LIES])
@pytest.mark.parametrize("number", [1, 2])
def test_rule_28_a_beacon_key_is_taken_when_two_openings_agree(clinic: Clinic, number: int, fault: str) -> None:
    """Tokens under a changed beacon key would find nothing, and nothing would tell."""
    true = clinic.store.fetch_beacon_key(ID).key_bytes
    clinic.change("Decrypt", number, {**FAULTS, **KMS_LIES}[fault])
    try:
        assert clinic.watched.fetch_beacon_key(ID).key_bytes == true
    except KeyAccessError as error:
        assert error.code not in NEVER
    assert clinic.wires["Decrypt"].changes == []
    assert clinic.watched.fetch_beacon_key(ID).key_bytes == true


def test_rule_28_a_beacon_key_whose_openings_go_on_disagreeing_is_refused(clinic: Clinic) -> None:
    clinic.wires["Decrypt"].changes = [flipped, lambda answer: answer] * 2
    with pytest.raises(KeyAccessError) as refused:
        clinic.watched.fetch_beacon_key(ID)
    assert (refused.value.code, refused.value.is_retryable) == ("KeyOpeningsDisagree", False)


@pytest.mark.parametrize("fault", [*FAULTS, *KMS_LIES])
@pytest.mark.parametrize("number", [1, 2])
def test_rule_28_a_local_mac_key_is_taken_when_two_openings_agree(
    stores: KeyStores, number: int, fault: str
) -> None:
    arn, client = stores.kms.create_key(), stores.kms.client()
    sound = PhiCrypt(KmsKeyring(arn, client=stores.kms.client()))
    envelope = sound.mac(arn).new_local_key("search-tokens")
    true = sound.mac(arn).local([envelope], purpose="search-tokens").generate(b"7", resource="r")
    wire = Wire(client, "Decrypt")
    wire.changes = [*([lambda answer: answer] * (number - 1)), {**FAULTS, **KMS_LIES}[fault]]
    mac = PhiCrypt(KmsKeyring(arn, client=client)).mac(arn)
    try:
        assert mac.local([envelope], purpose="search-tokens").generate(b"7", resource="r") == true
    except PhiCryptError as error:
        assert isinstance(error, KeyAccessError)
    assert wire.changes == []
    assert mac.local([envelope], purpose="search-tokens").generate(b"7", resource="r") == true


GENERATED = {
    **FAULTS,
    **KMS_LIES,
    "another ciphertext": lambda answer: flipped(answer, "CiphertextBlob"),
    "a ciphertext that is none": lambda answer: with_members(answer, CiphertextBlob="AAAA"),
}


@pytest.mark.parametrize(
    ("operation", "fault"),
    [("GenerateDataKey", fault) for fault in GENERATED] + [("Decrypt", fault) for fault in {**FAULTS, **KMS_LIES}],
)
def test_rule_28_a_data_key_that_was_verified_seals_nothing_that_is_lost(
    stores: KeyStores, operation: str, fault: str
) -> None:
    arn, client = stores.kms.create_key(), stores.kms.client()
    phi = PhiCrypt(KmsKeyring(arn, client=client, verify_data_keys=True))
    wire = Wire(client, operation)
    wire.changes = [GENERATED[fault]]
    acknowledged = []
    for _ in range(3):
        try:
            acknowledged.append(phi.encrypt(b"note", context=CONTEXT))
        except KeyAccessError as error:
            assert error.is_outage is (error.code == "NoAnswer")
    assert wire.changes == []
    assert len(acknowledged) >= 2
    sound = PhiCrypt(KmsKeyring(arn, client=stores.kms.client()))
    assert {sound.decrypt(message, context=CONTEXT) for message in acknowledged} == {b"note"}


def test_rule_28_a_data_key_whose_openings_go_on_disagreeing_seals_nothing(stores: KeyStores) -> None:
    arn, client = stores.kms.create_key(), stores.kms.client()
    phi = PhiCrypt(KmsKeyring(arn, client=client, verify_data_keys=True))
    Wire(client, "GenerateDataKey").always = flipped
    before = len(stores.kms.requests)
    with pytest.raises(KeyAccessError) as refused:
        phi.encrypt(b"note", context=CONTEXT)
    assert (refused.value.code, refused.value.is_retryable) == ("KeyOpeningsDisagree", False)
    assert [one.operation for one in stores.kms.requests[before:]] == ["GenerateDataKey", "Decrypt"] * 2


def test_rule_28_a_writer_who_may_not_decrypt_is_told_the_permission_and_each_call_is_recorded(
    stores: KeyStores,
) -> None:
    arn = stores.kms.create_key()
    keyring = KmsKeyring(arn, client=stores.kms.client(), verify_data_keys=True)
    sink = RecordingSink()
    phi = PhiCrypt(keyring, audit=[sink])
    phi.encrypt(b"note", context={"tenant": "a"})
    phi.flush()
    made = sink.events[-1].origin
    assert made is not None
    assert [made.operation, *(call.operation for call in made.other_calls)] == ["GenerateDataKey", "Decrypt"]
    stores.kms.deny(arn, "Decrypt")
    with pytest.raises(KeyAccessError, match=r"verify_data_keys=True .* needs kms:Decrypt") as refused:
        phi.encrypt(b"note", context={"tenant": "b"})
    assert refused.value.code == "AccessDeniedException"
    phi.flush()
    refusal = sink.events[-1].origin
    assert refusal is not None
    assert [refusal.operation, *(call.operation for call in refusal.other_calls)] == ["Decrypt", "GenerateDataKey"]


class Regions:
    """A branch key in two Regions, whose first Region's wires are in the test's hands."""

    def __init__(self, stores: KeyStores) -> None:
        arn = stores.kms.create_key(EAST, replicas=(WEST,))
        self.kms, self.dynamodb = stores.kms.client(EAST), stores.aws.client("dynamodb")
        self.west = Wire(west := stores.kms.client(WEST))
        self.store = stores.new_store(arn)
        self.store.create_key(ID)
        self.stores = stores
        failover = FailoverRegion(WEST, dynamodb_client=stores.aws.client("dynamodb"), kms_client=west)
        self.failing: BranchKeyStore = stores.another(
            self.store.table_name,
            arn,
            multi_region=True,
            failover=[failover],
            dynamodb_client=self.dynamodb,
            kms_client=self.kms,
        )


@pytest.mark.parametrize("operation", ["GetItem", "Decrypt"])
@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"one bit"}))
def test_rule_27_what_is_no_answer_lets_the_next_region_serve(
    stores: KeyStores, operation: str, fault: str
) -> None:
    regions = Regions(stores)
    wire = Wire(regions.dynamodb if operation == "GetItem" else regions.kms, operation)
    wire.always = FAULTS[fault]
    keyring = HierarchicalKeyring(regions.failing, ID)
    sealed = keyring.on_encrypt(to_encrypt())
    sound = HierarchicalKeyring(regions.store, ID)
    assert sound.on_decrypt(to_decrypt(), sealed.encrypted_data_keys).data_key is not None
    assert bool(regions.west.attempts) is (operation == "Decrypt")


@pytest.mark.parametrize("name", ["enc", "kms-arn", "version", "type", "create-time", "hierarchy-version"])
@pytest.mark.parametrize("value", [{"S": "another"}, {"N": "7"}, {"B": b"xx=="}, {"NULL": True}, None])
def test_rule_27_who_writes_rows_is_refused_and_chooses_no_region(
    stores: KeyStores, regions: Regions, name: str, value: Any
) -> None:
    row = stores.rows(regions.store, ID)["branch:ACTIVE"]
    tampered = {**row, name: value} if value is not None else {one: row[one] for one in row if one != name}
    if name == "type":
        # The row of another type under this one's key cannot be written; as an answer it can come.
        body = json.dumps(
            {"Item": {"branch-key-id": {"S": ID}, "type": value or {"S": ""}}}, default=bytes.decode
        ).encode()
        wire = Wire(regions.dynamodb, "GetItem")
        wire.changes = [lambda answer: answer.with_body(body)]
    else:
        stores.put(regions.store, tampered)
    try:
        with pytest.raises(KeyAccessError) as refused:
            HierarchicalKeyring(regions.failing, ID).on_encrypt(to_encrypt())
        assert not refused.value.is_outage
        assert not refused.value.is_retryable
        assert refused.value.code not in NEVER
        assert regions.west.attempts == []
    finally:
        stores.put(regions.store, row)


@pytest.fixture(scope="module")
def regions(stores: KeyStores) -> Regions:
    return Regions(stores)


def test_rule_28_a_replica_that_has_the_active_row_before_its_version_is_waited_for(stores: KeyStores) -> None:
    client = stores.aws.client("dynamodb")
    store = stores.new_store()
    store.create_key(ID)
    missing = stores.rows(store, ID)[f"branch:version:{store.fetch_active(ID).version}"]
    stores.delete(store, missing)
    wire = Wire(client, "GetItem")
    reads: list[Answer] = []

    def arrives(answer: Answer) -> Answer:
        reads.append(answer)
        if len(reads) == 5:
            stores.put(store, missing)
        return answer

    wire.always = arrives
    replica = stores.another(store.table_name, store.kms_key_arn, dynamodb_client=client)
    message = PhiCrypt(HierarchicalKeyring(replica, ID)).encrypt(b"note", context=CONTEXT)
    assert PhiCrypt(HierarchicalKeyring(store, ID)).decrypt(message, context=CONTEXT) == b"note"

    stores.delete(store, missing)
    with pytest.raises(KeyAccessError) as refused:
        PhiCrypt(HierarchicalKeyring(replica, ID)).encrypt(b"note", context=CONTEXT)
    assert refused.value.code == "BranchKeyNotFound"


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "NoAnswer"),
        ({"Table": {}}, "UnexpectedAnswer"),
        ({"Table": {"TableArn": "arn", "KeySchema": []}}, "UnexpectedAnswer"),
        ({"Table": {"TableArn": "arn", "KeySchema": [], "AttributeDefinitions": [{}]}}, None),
    ],
)
def test_rule_27_a_description_without_its_members_is_no_foreign_error(
    clinic: Clinic, document: Any, code: str | None
) -> None:
    wire = Wire(clinic.dynamodb, "DescribeTable")
    wire.always = lambda answer: answer.with_body(json.dumps(document).encode())
    with pytest.raises(PhiCryptError) as refused:
        clinic.watched.create_table()
    assert getattr(refused.value, "code", None) == code
    wire.always = None


def test_rule_27_rows_of_another_branch_key_are_never_shredded(stores: KeyStores, clinic: Clinic) -> None:
    wire = Wire(clinic.dynamodb, "Query")
    theirs = stores.aws.client("dynamodb")
    answers: list[Answer] = []
    listening = Wire(theirs, "Query")
    listening.changes = [lambda answer: answers.append(answer) or answer]
    stores.another(clinic.store.table_name, clinic.store.kms_key_arn, dynamodb_client=theirs).list_rows(OTHER)
    answers[0].headers["x-amzn-requestid"] = fresh_id()
    wire.changes = [lambda _: answers[0]]
    with pytest.raises(KeyAccessError) as refused:
        clinic.watched.shred(ID)
    assert refused.value.code == "InvalidBranchKeyRecord"
    assert "branch:ACTIVE" in stores.rows(clinic.store, OTHER)
