"""One item: what is written, what is read back, and what is refused."""

from __future__ import annotations

import copy
import os
import random
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from support.dbesdk_support import (
    EVERY_TYPE,
    item_of_every_type,
    patient,
    patients,
    phi_with,
    random_table_and_item,
    raw_aes_keyring,
    static_keyring,
    table_of_every_type,
)

from phicrypt.core.limits import ReadLimits
from phicrypt.dynamodb import Action, KmsContextWarning, PhiKeyNameWarning, PlaintextPolicy, TableConfig
from phicrypt.dynamodb.items import is_legacy, open_item, seal_item
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    FormatError,
    KeyAccessError,
    LimitExceededError,
    NotEncryptedError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.formats.dbesdk.attributes import serialize
from phicrypt.formats.dbesdk.header import parse_header
from phicrypt.keys.cache import CachePolicy
from phicrypt.keys.kms.keyring import KmsKeyring
from phicrypt.keys.multi import MultiKeyring
from phicrypt.testing import StaticKeyring

CASES = int(os.environ.get("PHICRYPT_FUZZ_CASES", "60"))
TODAY = datetime.now(UTC).date()


@pytest.fixture
def phi() -> Any:
    return phi_with(static_keyring())


def encrypt(phi: Any, item: dict[str, Any], table: TableConfig) -> dict[str, Any]:
    return seal_item(phi.session, item, table).item


def head_of(item: dict[str, Any]) -> Any:
    return parse_header(item["aws_dbe_head"]["B"], ReadLimits())


# Writing and reading back


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("action", [Action.ENCRYPT_AND_SIGN, Action.SIGN_ONLY, Action.SIGN_AND_INCLUDE_IN_CONTEXT])
@pytest.mark.parametrize("keyring", [static_keyring(), raw_aes_keyring()], ids=["hierarchical", "raw-aes"])
def test_every_type_comes_back_under_every_action(action: Action, signed: bool, keyring: Any) -> None:
    table = table_of_every_type(
        action, include_in_context=action is Action.SIGN_AND_INCLUDE_IN_CONTEXT, signed=signed
    )
    phi = phi_with(keyring)
    stored = encrypt(phi, item_of_every_type(), table)
    assert open_item(phi.session, stored, table).item == item_of_every_type()
    assert head_of(stored).suite.suite_id == (0x6701 if signed else 0x6700)
    assert head_of(stored).version == table.version


def test_encrypted_values_leave_no_trace_and_the_rest_stays(phi: Any) -> None:
    stored = encrypt(phi, patient(), patients())
    assert "canary-name" not in repr(stored)
    assert stored["name"]["B"][:2] == b"\x00\x01"
    for name in ("patient_id", "visit", "clinic", "note"):
        assert stored[name] == patient()[name]
    assert stored.keys() == patient().keys() | {"aws_dbe_head", "aws_dbe_foot"}


def test_neither_direction_changes_the_item_it_is_given(phi: Any) -> None:
    item = patient()
    stored = encrypt(phi, item, patients())
    assert item == patient()
    before = copy.deepcopy(stored)
    open_item(phi.session, stored, patients())
    assert stored == before


def test_rule_35_items_do_not_use_the_clients_required_context(phi: Any) -> None:
    declaring = phi_with(phi.provider.keyring, required_context=("patient_id", "aws-is-not-asked"))
    stored = encrypt(declaring, patient(), patients())
    assert open_item(phi.session, stored, patients()).item == patient()
    assert open_item(declaring.session, encrypt(phi, patient(), patients()), patients()).item == patient()


def test_python_shape_goes_in_and_comes_out() -> None:
    from boto3.dynamodb.types import Binary

    item = {
        "patient_id": "p-1",
        "visit": 7,
        "name": {"first": "canary", "tags": {"a", "b"}, "score": [Decimal("1.50"), None, True, b"x"]},
        "clinic": {Decimal(1), Decimal(2)},
        "note": Binary(b"note"),
    }
    ddb = phi_with(static_keyring()).dynamodb
    stored = ddb.encrypt_item(item, patients())
    assert isinstance(stored["name"], Binary)
    assert "canary" not in repr(stored)
    assert stored["visit"] == 7
    opened = ddb.decrypt_item(stored, patients())
    assert opened == {**item, "name": {**item["name"], "score": [Decimal("1.5"), None, True, Binary(b"x")]}}


def test_json_shape_of_streams_and_exports_is_read(phi: Any) -> None:
    import base64
    import json

    table = patients(actions={**patients().actions, "scan": Action.SIGN_ONLY})
    stored = encrypt(phi, patient(scan={"L": [{"B": b"\x00\x01"}, {"BS": [b"\x02"]}]}), table)
    event = json.loads(json.dumps(stored, default=lambda content: base64.b64encode(content).decode()))
    assert open_item(phi.session, event, table).item == open_item(phi.session, stored, table).item


def test_numbers_come_back_in_normal_form(phi: Any) -> None:
    stored = encrypt(phi, patient(name={"N": "001.500E1"}), patients())
    assert open_item(phi.session, stored, patients()).item["name"] == {"N": "15"}


def test_dynamodb_may_respell_numbers_and_reorder_sets_of_signed_attributes(phi: Any) -> None:
    table = patients(actions={**patients().actions, "codes": Action.SIGN_ONLY})
    item = patient(clinic={"N": "2.50"}, codes={"SS": ["b", "a"]})
    stored = encrypt(phi, item, table)
    stored["clinic"] = {"N": "2.5"}
    stored["codes"] = {"SS": ["a", "b"]}
    assert open_item(phi.session, stored, table).item["clinic"] == {"N": "2.5"}


@pytest.mark.parametrize(
    ("used", "configured"),
    [
        (Action.ENCRYPT_AND_SIGN, Action.SIGN_ONLY),
        (Action.SIGN_ONLY, Action.ENCRYPT_AND_SIGN),
    ],
)
def test_reader_follows_the_legend_not_its_own_actions(phi: Any, used: Action, configured: Action) -> None:
    stored = encrypt(phi, item_of_every_type(), table_of_every_type(used))
    opened = open_item(phi.session, stored, table_of_every_type(configured))
    assert opened.item == item_of_every_type()
    assert opened.actions["text"] is used


def test_reader_needs_no_actions_for_removed_attributes(phi: Any) -> None:
    stored = encrypt(phi, patient(), patients())
    later = patients(actions={name: action for name, action in patients().actions.items() if name != "name"})
    assert open_item(phi.session, stored, later).item == patient()


def test_logical_name_keeps_a_restored_table_readable(phi: Any) -> None:
    stored = encrypt(phi, patient(), patients())
    restored = patients(table_name="patients-restored", logical_table_name="patients")
    assert open_item(phi.session, stored, restored).item == patient()
    with pytest.raises(PhiCryptError):
        open_item(phi.session, stored, patients(table_name="patients-restored"))


def test_each_recipient_of_several_keyrings_opens_the_item() -> None:
    first, second = static_keyring(), raw_aes_keyring()
    both = phi_with(MultiKeyring(first, second))
    stored = encrypt(both, patient(), patients())
    assert len(stored["aws_dbe_foot"]["B"]) == 96
    for keyring in (first, second):
        assert open_item(phi_with(keyring).session, stored, patients()).item == patient()


def test_non_ascii_names_take_part(phi: Any) -> None:
    names = ("﹌𐀁", "𐀂", "ä" * 40, "퀀", "A")
    table = TableConfig(
        "t", "pk", actions={"pk": Action.SIGN_ONLY, **dict.fromkeys(names, Action.ENCRYPT_AND_SIGN)}
    )
    item = {"pk": {"B": b"k"}, **{name: {"S": name} for name in names}}
    assert open_item(phi.session, encrypt(phi, item, table), table).item == item


# Refusals on write


def test_attribute_without_action_is_refused_by_name(phi: Any) -> None:
    with pytest.raises(ConfigurationError, match="'diagnosis'"):
        seal_item(phi.session, patient(diagnosis={"S": "canary"}), patients())


def test_unsigned_prefix_needs_no_action(phi: Any) -> None:
    item = patient(**{":free": {"S": "x"}})
    stored = encrypt(phi, item, patients())
    assert stored[":free"] == {"S": "x"}
    assert open_item(phi.session, stored, patients()).item == item


@pytest.mark.parametrize("missing", ["patient_id", "visit"])
def test_item_without_key_attribute_is_refused(phi: Any, missing: str) -> None:
    item = {name: value for name, value in patient().items() if name != missing}
    with pytest.raises(ConfigurationError, match=missing):
        seal_item(phi.session, item, patients())


def test_item_without_context_attribute_is_refused(phi: Any) -> None:
    table = table_of_every_type(Action.SIGN_AND_INCLUDE_IN_CONTEXT, include_in_context=True)
    with pytest.raises(ConfigurationError, match="'empty text'"):
        seal_item(phi.session, {"patient_id": {"S": "p-1"}, "text": {"S": "x"}}, table)


def test_reserved_names_and_encrypted_items_are_refused(phi: Any) -> None:
    with pytest.raises(ConfigurationError, match="aws_dbe_b_name"):
        seal_item(phi.session, patient(aws_dbe_b_name={"S": "x"}), patients())
    with pytest.raises(ConfigurationError, match="encrypted already"):
        seal_item(phi.session, encrypt(phi, patient(), patients()), patients())


@pytest.mark.parametrize("shape", ["low-level", "python"])
def test_unstorable_value_is_refused_by_name_and_not_shown(phi: Any, shape: str) -> None:
    low_level = shape == "low-level"
    item: dict[str, Any] = (
        patient(name={"S": 5550123}) if low_level else {"patient_id": "p", "visit": "v", "name": 5550123.5}
    )
    with pytest.raises(ConfigurationError, match="'name'") as caught:
        seal_item(phi.session, item, patients())
    assert "5550123" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_deeply_nested_value_is_refused(phi: Any) -> None:
    value: dict[str, Any] = {"S": "x"}
    for _ in range(40):
        value = {"L": [value]}
    with pytest.raises(LimitExceededError):
        seal_item(phi.session, patient(name=value), patients())


# Refusals on read


Change = Callable[[dict[str, Any], random.Random], dict[str, Any] | None]


def _signed_names(item: dict[str, Any]) -> list[str]:
    return [
        name for name in item if name not in ("note", "aws_dbe_head", "aws_dbe_foot") and not name.startswith(":")
    ]


def change_value(item: dict[str, Any], chance: random.Random) -> dict[str, Any] | None:
    name = chance.choice(_signed_names(item))
    ((tag, content),) = item[name].items()
    if tag == "B" and content:
        position = chance.randrange(len(content))
        flipped = content[position] ^ (1 << chance.randrange(8))
        return {**item, name: {"B": content[:position] + bytes([flipped]) + content[position + 1 :]}}
    return {**item, name: chance.choice([value for value in EVERY_TYPE.values() if value != item[name]])}


def change_type(item: dict[str, Any], chance: random.Random) -> dict[str, Any] | None:
    name = chance.choice(_signed_names(item))
    ((tag, content),) = item[name].items()
    other = {"S": "B", "B": "S", "N": "S", "SS": "L", "BOOL": "NULL", "NULL": "BOOL", "L": "M", "M": "L"}.get(
        tag, "S"
    )
    if tag == "B":
        content = content.decode("latin-1")
    elif tag == "S":
        content = content.encode()
    elif tag in ("SS", "L", "M"):
        content = [] if other == "L" else {}
    elif tag in ("BOOL", "NULL"):
        content = other == "NULL"
    else:
        content = "x"
    return {**item, name: {other: content}}


def remove(item: dict[str, Any], chance: random.Random) -> dict[str, Any] | None:
    gone = chance.choice([*_signed_names(item), "aws_dbe_head", "aws_dbe_foot"])
    return {name: value for name, value in item.items() if name != gone}


def add(item: dict[str, Any], chance: random.Random) -> dict[str, Any] | None:
    name = chance.choice(["added", "clinic2", "Name", "aws_dbe_x", "é"])
    return {**item, name: chance.choice(list(EVERY_TYPE.values()))}


def rename(item: dict[str, Any], chance: random.Random) -> dict[str, Any] | None:
    old = chance.choice(_signed_names(item))
    new = chance.choice([old + "x", old.upper(), ":" + old])
    return {(new if name == old else name): value for name, value in item.items()} if new not in item else None


def swap_values(item: dict[str, Any], chance: random.Random) -> dict[str, Any] | None:
    one, other = chance.sample(_signed_names(item), 2)
    if serialize(item[one]) == serialize(item[other]):
        return None
    return {**item, one: item[other], other: item[one]}


def swap_plain_and_encrypted_bytes(item: dict[str, Any], chance: random.Random) -> dict[str, Any] | None:
    """The plaintext type's two bytes in front of an encrypted value."""
    names = [name for name in _signed_names(item) if "B" in item[name] and len(item[name]["B"]) >= 18]
    if not names:
        return None
    name = chance.choice(names)
    type_id = chance.choice([b"\x00\x01", b"\x00\x02", b"\xff\xff"])
    if item[name]["B"][:2] == type_id:
        return None
    return {**item, name: {"B": type_id + item[name]["B"][2:]}}


def flip(attribute: str) -> Change:
    def flip_one_bit(item: dict[str, Any], chance: random.Random) -> dict[str, Any] | None:
        content = bytearray(item[attribute]["B"])
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        return {**item, attribute: {"B": bytes(content)}}

    flip_one_bit.__name__ = f"flip_{attribute}"
    return flip_one_bit


def resize(attribute: str) -> Change:
    def cut_or_extend(item: dict[str, Any], chance: random.Random) -> dict[str, Any] | None:
        content = item[attribute]["B"]
        cut = content[: chance.randrange(len(content))]
        return {**item, attribute: {"B": chance.choice([cut, content + b"\0", content + content[-48:]])}}

    cut_or_extend.__name__ = f"resize_{attribute}"
    return cut_or_extend


def change_legend(item: dict[str, Any], chance: random.Random) -> dict[str, Any] | None:
    head = bytearray(item["aws_dbe_head"]["B"])
    length = int.from_bytes(head[34:36], "big")
    position = 36 + chance.randrange(length)
    head[position] = chance.choice([byte for byte in b"esc\x00" if byte != head[position]])
    return {**item, "aws_dbe_head": {"B": bytes(head)}}


CHANGES: list[Change] = [
    change_value,
    change_type,
    remove,
    add,
    rename,
    swap_values,
    swap_plain_and_encrypted_bytes,
    flip("aws_dbe_head"),
    flip("aws_dbe_foot"),
    resize("aws_dbe_head"),
    resize("aws_dbe_foot"),
    change_legend,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_any_change_of_a_random_item_is_refused(change: Change) -> None:
    phi = phi_with(static_keyring())
    refused = 0
    for seed in range(CASES):
        chance = random.Random(f"{change.__name__} {seed}")
        table, item = random_table_and_item(chance)
        stored = encrypt(phi, item, table)
        changed = change(stored, chance)
        if changed is None:
            continue
        assert changed != stored
        with pytest.raises(PhiCryptError):
            open_item(phi.session, changed, table)
        refused += 1
    assert refused > CASES // 3


def test_parts_of_another_item_are_refused(phi: Any) -> None:
    for seed in range(CASES):
        chance = random.Random(seed)
        table, item = random_table_and_item(chance)
        one = encrypt(phi, item, table)
        again = encrypt(phi, item, table)
        other = encrypt(phi, {**item, "patient_id": {"S": "p-other"}}, table)
        # The whole ciphertext of one key under another.
        with pytest.raises(PhiCryptError):
            open_item(phi.session, {**one, "patient_id": other["patient_id"]}, table)
        # Header, footer or one encrypted attribute of an earlier version of the same item.
        encrypted = [name for name in item if table.action_of(name) is Action.ENCRYPT_AND_SIGN]
        for name in ("aws_dbe_head", "aws_dbe_foot", *encrypted):
            with pytest.raises(PhiCryptError):
                open_item(phi.session, {**one, name: again[name]}, table)
        # The same names and keys in another table.
        with pytest.raises(PhiCryptError):
            open_item(
                phi.session, one, TableConfig("other", "patient_id", "visit", table.actions, "", ("note",), ":")
            )


def test_unsigned_attributes_may_change_appear_and_vanish(phi: Any) -> None:
    stored = encrypt(phi, patient(), patients())
    opened = open_item(phi.session, {**stored, "note": {"N": "1"}, ":new": {"NULL": True}}, patients())
    assert opened.item == patient(note={"N": "1"}, **{":new": {"NULL": True}})
    del stored["note"]
    assert "note" not in open_item(phi.session, stored, patients()).item


def test_another_branch_key_is_refused(phi: Any) -> None:
    stored = encrypt(phi, patient(), patients())
    with pytest.raises((AuthenticationError, KeyAccessError)):
        open_item(phi_with(static_keyring()).session, stored, patients())


def test_encrypted_attribute_stored_as_text_is_refused(phi: Any) -> None:
    # AWS's libraries sign the bytes of an encrypted value, but not that DynamoDB holds them as binary.
    table = table_of_every_type(Action.ENCRYPT_AND_SIGN)
    for seed in range(200):
        stored = encrypt(phi, {"patient_id": {"S": str(seed)}, "empty text": {"S": ""}}, table)
        try:
            as_text = stored["empty text"]["B"].decode()
        except UnicodeDecodeError:
            continue
        with pytest.raises(AuthenticationError):
            open_item(phi.session, {**stored, "empty text": {"S": as_text}}, table)
    with pytest.raises(AuthenticationError):
        open_item(phi.session, {**stored, "empty text": {"S": "x" * 40}}, table)


def test_too_many_encrypted_data_keys_are_refused_before_any_key_is_asked() -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        pytest.fail("a data key was asked for")

    many = phi_with(MultiKeyring(raw_aes_keyring(), *(raw_aes_keyring(os.urandom(32)) for _ in range(7))))
    stored = encrypt(many, patient(), patients())
    assert open_item(many.session, stored, patients()).item == patient()
    head = bytearray(stored["aws_dbe_head"]["B"])
    count_at = head.index(b"\x08\x00\x06clinic")
    head[count_at] = 9
    many.provider.decryption_materials = refuse
    with pytest.raises(LimitExceededError):
        open_item(many.session, {**stored, "aws_dbe_head": {"B": bytes(head)}}, patients())


@pytest.mark.parametrize(
    "value", [{"S": "text"}, {"B": b""}, {"B": b"\x01"}, {"B": b"\x01\x00" + bytes(500)}, {}, "x"]
)
@pytest.mark.parametrize("attribute", ["aws_dbe_head", "aws_dbe_foot"])
def test_malformed_head_and_foot_end_in_an_error_of_the_tree(phi: Any, attribute: str, value: Any) -> None:
    stored = encrypt(phi, patient(), patients())
    with pytest.raises((FormatError, AuthenticationError)):
        open_item(phi.session, {**stored, attribute: value}, patients(), shape="low-level")


def test_an_item_of_more_recipients_than_its_own_reader_accepts_is_not_written() -> None:
    nine = MultiKeyring(*(raw_aes_keyring(os.urandom(32)) for _ in range(9)), max_encrypted_data_keys=9)
    table, item = patients(), patient()
    with pytest.raises(LimitExceededError, match="own reader"):
        encrypt(phi_with(nine), item, table)


def test_a_keyring_that_signs_for_no_recipient_is_refused(phi: Any) -> None:
    static = phi_with(StaticKeyring(bytes(32)))
    with pytest.raises(ConfigurationError, match="keyring"):
        seal_item(static.session, patient(), patients())
    with pytest.raises((ConfigurationError, AuthenticationError)):
        open_item(static.session, encrypt(phi, patient(), patients()), patients())


def test_errors_show_no_values(phi: Any) -> None:
    stored = encrypt(phi, patient(), patients())
    for changed in (
        {**stored, "clinic": {"S": "canary-clinic"}},
        {**stored, "clinic": {"N": "canary-clinic"}},
        {**stored, "patient_id": {"S": "canary-clinic"}},
        {**patient(), "clinic": {"S": "canary-clinic"}},
    ):
        with pytest.raises(PhiCryptError) as caught:
            open_item(phi.session, changed, patients())
        assert "canary" not in str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)


def test_reprs_show_no_values(phi: Any) -> None:
    sealed = seal_item(phi.session, patient(), patients())
    opened = open_item(phi.session, sealed.item, patients())
    for value in ("canary-name", "p-1", "north"):
        assert value not in repr(sealed) + repr(opened)


# The rules of safety


def test_rule_03_every_write_of_an_item_has_a_new_data_key_and_message_id() -> None:
    for keyring in (static_keyring(), raw_aes_keyring()):
        phi = phi_with(keyring)
        heads = [head_of(encrypt(phi, patient(), patients())) for _ in range(3)]
        assert len({head.message_id for head in heads}) == 3
        assert len({head.encrypted_data_keys for head in heads}) == 3


def test_rule_03_data_keys_of_items_are_never_cached() -> None:
    phi = phi_with(raw_aes_keyring(), cache=CachePolicy())
    stored = [encrypt(phi, patient(), patients()) for _ in range(3)]
    for item in (*stored, *stored):
        open_item(phi.session, item, patients())
    stats = phi.cache.stats()
    assert stats.hits == 0


def test_rule_04_intermediate_key_wraps_exactly_one_data_key() -> None:
    # The wrapped intermediate key is the rest of an encrypted data key after the sealed data key (48 bytes).
    phi = phi_with(static_keyring())
    wrapped = {
        head_of(encrypt(phi, patient(), patients())).encrypted_data_keys[0].ciphertext[48:] for _ in range(5)
    }
    assert len(wrapped) == 5


def test_rule_07_require_signed_refuses_unsigned_items_before_any_key_is_asked(phi: Any) -> None:
    stored = encrypt(phi, patient(), patients())
    phi.provider = None
    with pytest.raises(UnsupportedOperationError):
        open_item(phi.session, stored, patients(require_signed=True))


def test_rule_07_signed_items_pass_require_signed(phi: Any) -> None:
    stored = encrypt(phi, patient(), patients(signed=True))
    assert open_item(phi.session, stored, patients(require_signed=True)).item == patient()


def test_rule_07_public_key_is_present_exactly_when_the_suite_signs(phi: Any) -> None:
    signed = encrypt(phi, patient(), patients(signed=True))
    assert head_of(signed).stored_context.keys() == {"aws-crypto-public-key"}
    assert not head_of(encrypt(phi, patient(), patients())).stored_context
    downgraded = bytearray(signed["aws_dbe_head"]["B"])
    downgraded[1] = 0
    with pytest.raises(FormatError):
        open_item(phi.session, {**signed, "aws_dbe_head": {"B": bytes(downgraded)}}, patients())


def test_rule_18_reserved_names_count_as_signed() -> None:
    table = patients(unsigned_prefix="aws")
    assert table.is_unsigned("aws")
    assert not table.is_unsigned("aws_dbe_head")
    assert not table.is_unsigned("aws_dbe_b_name")


@pytest.mark.parametrize("kept", ["aws_dbe_head", "aws_dbe_foot"])
def test_rule_19_header_or_footer_alone_is_an_authentication_error(phi: Any, kept: str) -> None:
    stored = encrypt(phi, patient(), patients())
    allowing = patients(
        plaintext_policy=PlaintextPolicy.FORBID_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ, plaintext_reads_until=TODAY
    )
    for table in (patients(), allowing):
        with pytest.raises(AuthenticationError):
            open_item(phi.session, patient() | {kept: stored[kept]}, table)


def test_rule_19_plaintext_items_are_refused_unless_the_policy_allows_them_today(phi: Any) -> None:
    allow = PlaintextPolicy.FORBID_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ
    with pytest.raises(NotEncryptedError):
        open_item(phi.session, patient(), patients())
    with pytest.raises(NotEncryptedError):
        open_item(
            phi.session,
            patient(),
            patients(plaintext_policy=allow, plaintext_reads_until=TODAY - timedelta(days=1)),
        )
    opened = open_item(phi.session, patient(), patients(plaintext_policy=allow, plaintext_reads_until=TODAY))
    assert opened.item == patient()
    assert not opened.is_encrypted


def test_rule_19_policies_that_allow_plaintext_need_an_end_date() -> None:
    for policy in PlaintextPolicy:
        if policy is not PlaintextPolicy.FORBID_PLAINTEXT_WRITE_FORBID_PLAINTEXT_READ:
            with pytest.raises(ConfigurationError, match="plaintext_reads_until"):
                patients(plaintext_policy=policy)
    with pytest.raises(ConfigurationError):
        patients(plaintext_reads_until=TODAY)


def test_rule_19_beacons_of_a_stored_item_are_reported_and_not_returned(phi: Any) -> None:
    stored = encrypt(phi, patient(), patients())
    opened = open_item(
        phi.session, {**stored, "aws_dbe_b_name": {"S": "0a"}, "aws_dbe_v_1": {"S": " "}}, patients()
    )
    assert opened.has_unknown_beacons
    assert opened.item == patient()


# Policies and configuration


def test_forced_plaintext_writes_end_with_the_policy(phi: Any) -> None:
    force = PlaintextPolicy.FORCE_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ
    sealed = seal_item(phi.session, patient(), patients(plaintext_policy=force, plaintext_reads_until=TODAY))
    assert sealed.item == patient()
    assert not sealed.is_encrypted
    with pytest.raises(ConfigurationError, match="ended"):
        seal_item(
            phi.session,
            patient(),
            patients(plaintext_policy=force, plaintext_reads_until=TODAY - timedelta(days=1)),
        )


def test_legacy_items_are_recognized(phi: Any) -> None:
    item = patient(**{"*amzn-ddb-map-desc*": {"B": b""}, "*amzn-ddb-map-sig*": {"B": b""}})
    assert is_legacy(item)
    with pytest.raises(NotEncryptedError, match="legacy"):
        open_item(phi.session, item, patients())


@pytest.mark.parametrize(
    "changes",
    [
        {"table_name": ""},
        {"partition_key": ""},
        {"sort_key": "patient_id"},
        {"actions": {"patient_id": Action.SIGN_ONLY}},
        {"actions": {"patient_id": Action.ENCRYPT_AND_SIGN, "visit": Action.SIGN_ONLY}},
        {"actions": {**patients().actions, "x": Action.SIGN_AND_INCLUDE_IN_CONTEXT}},
        {"actions": {**patients().actions, "x": Action.DO_NOTHING}},
        {"actions": {**patients().actions, "note": Action.SIGN_ONLY}},
        {"actions": {**patients().actions, ":x": Action.ENCRYPT_AND_SIGN}},
        {"actions": {**patients().actions, "aws_dbe_x": Action.SIGN_ONLY}},
        {"actions": {**patients().actions, "x": "SIGN_ONLY"}},
        {"unsigned_attributes": "note"},
        {"unsigned_attributes": ("note", "clinic")},
        {"unsigned_prefix": ""},
        {"plaintext_policy": "FORCE"},
    ],
)
def test_inconsistent_configurations_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        patients(**changes)


def test_plaintext_policies_may_be_given_by_their_names() -> None:
    for policy in PlaintextPolicy:
        until = None if "FORBID_PLAINTEXT_READ" in policy.value else TODAY
        assert patients(plaintext_policy=policy.value, plaintext_reads_until=until).plaintext_policy is policy


def test_key_names_that_look_like_phi_warn() -> None:
    for name in ("ssn", "patientMRN", "email_address", "DOB"):
        with pytest.warns(PhiKeyNameWarning, match=name):
            TableConfig("t", name, actions={name: Action.SIGN_ONLY})


def test_a_kms_keyring_warns_of_what_it_shows_to_kms() -> None:
    shown = phi_with(KmsKeyring("arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"))
    joined = phi_with(MultiKeyring(static_keyring(), shown.provider.keyring))
    for phi in (shown, joined):
        with pytest.warns(KmsContextWarning, match="patient_id, visit"):
            phi.dynamodb.client([patients()], region_name="us-east-1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        phi_with(static_keyring()).dynamodb.client([patients()], region_name="us-east-1")
