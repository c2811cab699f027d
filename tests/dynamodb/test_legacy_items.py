"""Tables of the DynamoDB Encryption Client: real items of AWS's library for it, opened, verified, written anew."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.dynamodb_support import (
    Clinic,
    Server,
    create_patients_table,
    key,
    open_clinic,
    patient,
    patient_config,
    start_server,
)
from support.error_walks import canaries_in

from phicrypt import KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.audit import AuditTrail, RecordingSink
from phicrypt.cli import run
from phicrypt.dynamodb import Action
from phicrypt.dynamodb.config import PlaintextPolicy
from phicrypt.dynamodb.legacy import LegacyItems
from phicrypt.dynamodb.migration import WalkOptions, migrate_table, verify_table
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    KeyAccessError,
    NotEncryptedError,
    PhiCryptError,
)
from phicrypt.keys.kms.clients import KmsClients
from phicrypt.testing import StrictKms

pytest.importorskip("dynamodb_encryption_sdk", reason="AWS's library is not installed (extra: legacy)")
from dynamodb_encryption_sdk.delegated_keys.jce import JceNameLocalDelegatedKey
from dynamodb_encryption_sdk.encrypted import CryptoConfig
from dynamodb_encryption_sdk.encrypted.item import encrypt_dynamodb_item
from dynamodb_encryption_sdk.identifiers import CryptoAction, EncryptionKeyType, KeyEncodingType
from dynamodb_encryption_sdk.material_providers.aws_kms import AwsKmsCryptographicMaterialsProvider
from dynamodb_encryption_sdk.material_providers.wrapped import WrappedCryptographicMaterialsProvider
from dynamodb_encryption_sdk.structures import AttributeActions, EncryptionContext

TOMORROW = (datetime.now(UTC) + timedelta(days=1)).date()
WHILE_MIGRATING = {
    "plaintext_policy": PlaintextPolicy.FORBID_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ,
    "plaintext_reads_until": TOMORROW,
}
DESCRIPTION, SIGNATURE = "*amzn-ddb-map-desc*", "*amzn-ddb-map-sig*"
FORMER_ACTIONS = {
    "patient_id": CryptoAction.SIGN_ONLY,
    "visit": CryptoAction.SIGN_ONLY,
    "clinic": CryptoAction.SIGN_ONLY,
    "note": CryptoAction.DO_NOTHING,
}
EVERY_TYPE = {
    "L": [
        {"S": "text"},
        {"N": "-12.5"},
        {"B": b"\x00\xff"},
        {"BOOL": True},
        {"NULL": True},
        {"SS": ["a", "b"]},
        {"NS": ["1", "2"]},
        {"BS": [b"a", b"b"]},
        {"M": {"deep": {"L": [{"S": "er"}]}}},
    ]
}


def local_provider() -> Any:
    """Under a local AES key that wraps another key per item."""

    def local_key(material: bytes, algorithm: str) -> Any:
        return JceNameLocalDelegatedKey(
            key=material,
            algorithm=algorithm,
            key_type=EncryptionKeyType.SYMMETRIC,
            key_encoding=KeyEncodingType.RAW,
        )

    wrapping, signing = local_key(bytes(range(32)), "AES"), local_key(bytes(32), "HmacSHA256")
    return WrappedCryptographicMaterialsProvider(
        wrapping_key=wrapping, unwrapping_key=wrapping, signing_key=signing
    )


def written_before(
    item: dict[str, Any],
    table_name: str,
    provider: Any = None,
    actions: dict[str, CryptoAction] = FORMER_ACTIONS,
) -> dict[str, Any]:
    """The item as AWS's library wrote it."""
    context = EncryptionContext(
        table_name=table_name, partition_key_name="patient_id", sort_key_name="visit", attributes=item
    )
    config = CryptoConfig(
        materials_provider=provider or local_provider(),
        encryption_context=context,
        attribute_actions=AttributeActions(
            default_action=CryptoAction.ENCRYPT_AND_SIGN, attribute_actions=dict(actions)
        ),
    )
    written: dict[str, Any] = encrypt_dynamodb_item(item, config)
    return written


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with contextlib.ExitStack() as stack:
        yield start_server("moto", stack)


@pytest.fixture
def clinic(server: Server) -> Clinic:
    phi = PhiCrypt(RawAesKeyring("clinic", "test", bytes(range(32))), audit=AuditTrail([RecordingSink()]))
    return open_clinic(server, phi, **WHILE_MIGRATING)


@pytest.fixture
def legacy() -> LegacyItems:
    return LegacyItems(local_provider())


def put(clinic: Clinic, *items: dict[str, Any]) -> None:
    for item in items:
        clinic.raw.put_item(TableName=clinic.name, Item=item)


# --- one item ---------------------------------------------------------------------------------------


def test_an_item_comes_back_as_it_was(legacy: LegacyItems) -> None:
    item = patient(conditions=EVERY_TYPE, scan={"B": bytes(range(256))})
    stored = written_before(item, "patients")
    assert set(stored["name"]) == {"B"} and stored["clinic"] == item["clinic"]
    before = dict(stored)
    assert legacy.open(stored, patient_config("patients")) == item
    assert stored == before


def test_what_was_done_is_stated_where_it_was_another_thing(legacy: LegacyItems) -> None:
    actions = {**FORMER_ACTIONS, "name": CryptoAction.SIGN_ONLY, "clinic": CryptoAction.ENCRYPT_AND_SIGN}
    stored = written_before(patient(), "patients", actions=actions)
    with pytest.raises(AuthenticationError):
        legacy.open(stored, patient_config("patients"))
    stated = LegacyItems(local_provider(), actions={"name": Action.SIGN_ONLY, "clinic": Action.ENCRYPT_AND_SIGN})
    assert stated.open(stored, patient_config("patients")) == patient()


def test_the_table_may_have_another_name_now(legacy: LegacyItems) -> None:
    stored = written_before(patient(), "patients-of-old")
    with pytest.raises(AuthenticationError):
        legacy.open(stored, patient_config("patients"))
    named = LegacyItems(local_provider(), table_name="patients-of-old")
    assert named.open(stored, patient_config("patients")) == patient()


def other_mode(stored: dict[str, Any]) -> dict[str, Any]:
    description = stored[DESCRIPTION]["B"].replace(b"/CBC/PKCS5Padding", b"/ECB/PKCS5Padding")
    assert description != stored[DESCRIPTION]["B"]
    return {**stored, DESCRIPTION: {"B": description}}


FORGERIES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "an encrypted value": lambda stored: {
        **stored, "name": {"B": stored["name"]["B"][:-1] + bytes([stored["name"]["B"][-1] ^ 1])}
    },
    "a signed value": lambda stored: {**stored, "clinic": {"S": "south"}},
    "a value in place of an encrypted one": lambda stored: {**stored, "name": {"S": "Ada"}},
    "values of two attributes": lambda stored: {
        **stored, "name": stored["conditions"], "conditions": stored["name"]
    },
    "the key": lambda stored: {**stored, **key("p-2")},
    "an attribute less": lambda stored: {name: v for name, v in stored.items() if name != "clinic"},
    "an attribute more": lambda stored: {**stored, "scan": {"B": b"x"}},
    "the signature": lambda stored: {**stored, SIGNATURE: {"B": bytes(32)}},
    "no signature": lambda stored: {name: v for name, v in stored.items() if name != SIGNATURE},
    "a signature of another type": lambda stored: {**stored, SIGNATURE: {"S": "x"}},
    "no description": lambda stored: {name: v for name, v in stored.items() if name != DESCRIPTION},
    "an empty description": lambda stored: {**stored, DESCRIPTION: {"B": b""}},
    "a description of another type": lambda stored: {**stored, DESCRIPTION: {"S": "x"}},
    "the cipher mode": other_mode,
}  # fmt: skip


@pytest.mark.parametrize("what", FORGERIES)
def test_an_item_that_does_not_verify_is_refused(legacy: LegacyItems, what: str) -> None:
    forged = FORGERIES[what](written_before(patient(), "patients"))
    with pytest.raises(AuthenticationError) as caught:
        legacy.open(forged, patient_config("patients"))
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert canaries_in(caught.value) == []


def test_any_flipped_bit_of_what_is_signed_is_refused(legacy: LegacyItems) -> None:
    chance = random.Random(9)
    stored = written_before(patient(scan={"B": b"x" * 40}), "patients")
    for _ in range(60):
        name = chance.choice([DESCRIPTION, SIGNATURE, "name", "conditions", "scan"])
        content = bytearray(stored[name]["B"])
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(PhiCryptError):
            # Text that nothing authenticates is in the description as well; the plaintext stays the same.
            opened = legacy.open({**stored, name: {"B": bytes(content)}}, patient_config("patients"))
            assert name == DESCRIPTION
            assert opened == patient(scan={"B": b"x" * 40})


def test_what_is_not_of_that_client_is_said_so(legacy: LegacyItems) -> None:
    with pytest.raises(NotEncryptedError):
        legacy.open(patient(), patient_config("patients"))


@pytest.mark.parametrize(
    ("actions", "says"),
    [
        ({"patient_id": Action.DO_NOTHING}, "'patient_id'"),
        ({"visit": Action.ENCRYPT_AND_SIGN}, "'visit'"),
        ({"note": Action.ENCRYPT_AND_SIGN}, "'note' was encrypted and is to be DO_NOTHING"),
    ],
)
def test_actions_that_would_verify_nothing_are_refused(actions: dict[str, Action], says: str) -> None:
    stated = LegacyItems(local_provider(), actions=actions)
    with pytest.raises(ConfigurationError, match=says):
        stated.open(written_before(patient(), "patients"), patient_config("patients"))


def test_something_else_than_a_provider_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="materials provider"):
        LegacyItems("arn:aws:kms:us-east-1:111122223333:key/1")


# --- under KMS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


def provider_of_aws(kms: StrictKms, arn: str) -> Any:
    return AwsKmsCryptographicMaterialsProvider(key_id=arn, regional_clients={"us-east-1": kms.client()})


def test_kms_is_asked_under_the_one_key_that_was_named(kms: StrictKms) -> None:
    arn, other = kms.create_key(), kms.create_key()
    stored = written_before(patient(), "patients", provider_of_aws(kms, arn))
    foreign = written_before(patient(), "patients", provider_of_aws(kms, other))
    legacy = LegacyItems.under_kms(arn, client=kms.client())
    kms.requests.clear()
    assert legacy.open(stored, patient_config("patients")) == patient()
    assert [request.parameters["KeyId"] for request in kms.requests] == [arn]
    # The library itself opens this one too: whoever may write the table, and has a key that the role may use.
    with pytest.raises(AuthenticationError):
        legacy.open(foreign, patient_config("patients"))


@pytest.mark.parametrize("code", ["AccessDeniedException", "DisabledException", "KMSInternalException"])
def test_a_refusal_of_kms_is_no_forged_item(kms: StrictKms, code: str) -> None:
    arn = kms.create_key()
    stored = written_before(patient(), "patients", provider_of_aws(kms, arn))
    opening = {
        "pinned": LegacyItems.under_kms(arn, clients=KmsClients(client=kms.client())),
        "AWS's own": LegacyItems(provider_of_aws(kms, arn)),
    }
    for legacy in opening.values():
        kms.fail(code, status=500 if "Internal" in code else 400, times=8)
        with pytest.raises(KeyAccessError) as caught:
            legacy.open(stored, patient_config("patients"))
        assert caught.value.code == code
        kms.account.faults.clear()


# --- a whole table ------------------------------------------------------------------------------------


def test_a_table_leaves_the_former_client(clinic: Clinic, legacy: LegacyItems) -> None:
    items = [patient(f"p-{n}", visit=n, conditions=EVERY_TYPE, x_free={"S": "a"}) for n in range(12)]
    former = {**FORMER_ACTIONS, "x_free": CryptoAction.DO_NOTHING}
    put(clinic, *(written_before(item, clinic.name, actions=former) for item in items[:9]), *items[9:])
    options = WalkOptions(segments=2, page_size=3)
    tried = migrate_table(clinic.client, clinic.name, options, legacy=legacy, dry_run=True)
    assert (tried.from_legacy, tried.encrypted_now, tried.is_complete) == (9, 3, True)
    assert DESCRIPTION in (clinic.stored("p-1", 1) or {})

    report = migrate_table(clinic.client, clinic.name, options, legacy=legacy)

    assert (report.from_legacy, report.encrypted_now, report.legacy, report.is_complete) == (9, 3, 0, True)
    proven = verify_table(clinic.client, clinic.name)
    assert (proven.verified, proven.is_proven) == (12, True)
    stored = clinic.raw.scan(TableName=clinic.name)["Items"]
    assert not any({DESCRIPTION, SIGNATURE} & set(item) for item in stored)
    found = {item["patient_id"]["S"]: item for item in clinic.client.scan(TableName=clinic.name)["Items"]}
    assert [found[item["patient_id"]["S"]] for item in items] == items
    again = migrate_table(clinic.client, clinic.name, legacy=legacy)
    assert (again.from_legacy, again.encrypted_before) == (0, 12)


def test_items_that_do_not_verify_are_left_and_counted(
    clinic: Clinic, legacy: LegacyItems, tmp_path: Path
) -> None:
    forged = written_before(patient("p-forged"), clinic.name) | {"clinic": {"S": "south"}}
    unknown = written_before(patient("p-unknown", passport={"S": "x"}), clinic.name)
    put(clinic, forged, unknown, written_before(patient(), clinic.name))
    problems = tmp_path / "problems"
    report = migrate_table(clinic.client, clinic.name, WalkOptions(problems_file=problems), legacy=legacy)
    assert (report.from_legacy, report.legacy, report.refused, report.is_complete) == (1, 1, 1, False)
    assert clinic.stored("p-forged") == forged and clinic.stored("p-unknown") == unknown
    assert any("does not verify" in reason for reason in report.reasons)
    assert "p-forged" in problems.read_text() and "south" not in problems.read_text()


def test_without_the_former_keys_items_are_counted_as_ever(clinic: Clinic) -> None:
    put(clinic, written_before(patient(), clinic.name))
    report = migrate_table(clinic.client, clinic.name)
    assert (report.from_legacy, report.legacy) == (0, 1)


def test_a_former_writer_who_comes_between_wins(clinic: Clinic, legacy: LegacyItems) -> None:
    put(clinic, written_before(patient(), clinic.name))
    newer = written_before(patient(name={"S": "Ada Newer"}), clinic.name)
    written: list[bool] = []

    def write_between(params: dict[str, Any], model: Any, **_: Any) -> None:
        if model.name == "UpdateItem" and not written:
            written.append(True)
            put(clinic, newer)

    clinic.client.meta.events.register_first("before-parameter-build.dynamodb", write_between)
    report = migrate_table(clinic.client, clinic.name, legacy=legacy)
    assert (written, report.from_legacy, report.is_complete) == ([True], 1, True)
    assert clinic.client.get_item(TableName=clinic.name, Key=key())["Item"]["name"] == {"S": "Ada Newer"}


def test_a_refusal_of_kms_stops_the_walk(clinic: Clinic, kms: StrictKms) -> None:
    arn = kms.create_key()
    put(clinic, written_before(patient(), clinic.name, provider_of_aws(kms, arn)))
    kms.disable(arn)
    with pytest.raises(KeyAccessError, match="disabled"):
        migrate_table(clinic.client, clinic.name, legacy=LegacyItems.under_kms(arn, client=kms.client()))
    assert DESCRIPTION in (clinic.stored() or {})


def test_rule_20_the_opening_of_a_former_item_is_on_record(server: Server, kms: StrictKms) -> None:
    sink, arn = RecordingSink(), kms.create_key()
    phi = PhiCrypt(KmsKeyring(arn, client=kms.client()), audit=AuditTrail([sink]))
    config = patient_config("patients-on-record", **WHILE_MIGRATING)
    create_patients_table(server.raw_client(), config.table_name)
    client = phi.dynamodb.client([config], **server.options())
    stored = written_before(patient(), config.table_name, provider_of_aws(kms, arn))
    server.raw_client().put_item(TableName=config.table_name, Item=stored)
    kms.requests.clear()
    migrate_table(client, config.table_name, legacy=LegacyItems.under_kms(arn, clients=phi.session.kms_clients))
    openings = [event for event in sink.events if event.format == "dynamodb-encryption-client"]
    assert [(event.kind, event.outcome) for event in openings] == [("begin", "begun"), ("end", "success")]
    assert set(openings[-1].origin.request_ids) == {kms.requests[0].request_id}


def test_the_command_reads_the_former_client_from_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from phicrypt.testing import local_aws

    with local_aws() as stack:
        create_patients_table(stack.client("dynamodb"), "patients")
        provider = AwsKmsCryptographicMaterialsProvider(
            key_id=stack.kms_key_arn, regional_clients={"us-east-1": stack.client("kms")}
        )
        stack.client("dynamodb").put_item(
            TableName="patients", Item=written_before(patient(), "patients", provider)
        )
        config = tmp_path / "patients.toml"
        config.write_text(
            f"""
            [table]
            partition_key = "patient_id"
            sort_key = "visit"
            unsigned_attributes = ["note"]
            plaintext_policy = "FORBID_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ"
            plaintext_reads_until = {TOMORROW}
            [table.actions]
            patient_id = "SIGN_ONLY"
            visit = "SIGN_ONLY"
            clinic = "SIGN_ONLY"
            name = "ENCRYPT_AND_SIGN"
            conditions = "ENCRYPT_AND_SIGN"
            note = "DO_NOTHING"
            [legacy]
            kms_key_arn = "{stack.kms_key_arn}"
            """
        )
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "no-secret")
        common = ["--config", str(config), "--key", stack.kms_key_arn, "--region", "us-east-1"]
        common += ["--endpoint-url", stack.endpoint_url, "--json"]
        assert run(["dynamodb", "migrate", "patients", *common]) == 0
        assert '"from_the_legacy_client": 1' in capsys.readouterr().out
        assert run(["dynamodb", "verify", "patients", *common]) == 0


def test_a_configuration_file_names_actions(tmp_path: Path) -> None:
    from phicrypt.dynamodb.config_file import read_config_file

    file = tmp_path / "a.toml"
    file.write_text(
        '[table]\npartition_key = "p"\n[table.actions]\np = "SIGN_ONLY"\n'
        '[legacy]\nkms_key_arn = "arn:aws:kms:us-east-1:111122223333:key/1"\nactions = { note = "SIGN" }\n'
    )
    section = read_config_file(file).legacy
    assert section is not None
    with pytest.raises(ConfigurationError, match="'note'"):
        section.items(KmsClients())


def test_the_default_action_decides_about_names_that_nobody_stated() -> None:
    former = dict(FORMER_ACTIONS)
    stored = written_before(
        patient(other={"S": "x"}), "patients", actions={**former, "other": CryptoAction.SIGN_ONLY}
    )
    config = dataclasses.replace(
        patient_config("patients"), actions={**patient_config("patients").actions, "more": Action.SIGN_ONLY}
    )
    stated = LegacyItems(local_provider(), default_action=Action.SIGN_ONLY)
    assert stated.open(stored, config)["other"] == {"S": "x"}
