"""Items and the materials of a keyring: what does not fit is refused, changes by who holds the MAC key too."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest

from phicrypt.core.context import serialize_context
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import DataKey, DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.primitives import Curve, SigningKey, VerificationKey
from phicrypt.core.suites import DBE_SUITES
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError
from phicrypt.formats.dbesdk.attributes import serialize, serialize_attributes
from phicrypt.formats.dbesdk.header import MAX_FIELD_LENGTH_BYTES, parse_header
from phicrypt.formats.dbesdk.layout import MAX_LEGEND_LENGTH, LegendAction, canonical_path, layout_to_write
from phicrypt.formats.dbesdk.record import SealedRecord, encrypted_value, open_record, seal_record

UNSIGNED, SIGNED = DBE_SUITES[0x6700], DBE_SUITES[0x6701]
CONTEXT = {"aws-crypto-table-name": "t"}
LAYOUT = layout_to_write("t", {"pk": LegendAction.SIGN, "name": LegendAction.ENCRYPT})
ITEM = {"pk": {"S": "p-1"}, "name": {"S": "Ada Canary"}}
SIGNING_KEY = SigningKey(Curve.P384)


PUBLIC_KEY = {"aws-crypto-public-key": base64.b64encode(SIGNING_KEY.compressed_public_key()).decode()}


def sealed(*, suite: Any = UNSIGNED, mac_keys: int = 1, **changes: Any) -> tuple[SealedRecord, list[bytes]]:
    given = {
        "data_key": DataKey(bytes(range(32))),
        "encrypted_data_keys": (EncryptedDataKey("p", b"i", b"w"),),
        "symmetric_signing_keys": (DataKey(b"m" * 32),) * mac_keys,
        "signing_key": SIGNING_KEY if suite.is_signed else None,
    } | changes
    stored_context = PUBLIC_KEY if suite.is_signed else {}
    context = CONTEXT | stored_context
    materials = EncryptionMaterials(suite, context, serialize_context(context), **given)
    terminals = [serialize(ITEM[name]) for name in LAYOUT.names]
    record = seal_record(materials, LAYOUT, terminals, version=1, stored_context=stored_context)
    stored = {name: b"".join(one) for name, one in zip(LAYOUT.names, terminals, strict=True)} | record.encrypted
    return record, [stored[name] for name in LAYOUT.names]


def opened(record: SealedRecord, stored: list[bytes], *, suite: Any = UNSIGNED, **changes: Any) -> dict[str, Any]:
    public_key = VerificationKey(Curve.P384, SIGNING_KEY.compressed_public_key()) if suite.is_signed else None
    given = {
        "data_key": DataKey(bytes(range(32))),
        "symmetric_signing_key": DataKey(b"m" * 32),
        "recipient_index": 0,
        "verification_key": public_key,
    } | changes
    context = CONTEXT | (PUBLIC_KEY if suite.is_signed else {})
    materials = DecryptionMaterials(suite, context, serialize_context(context), **given)
    header = parse_header(record.header_bytes, ReadLimits())
    return open_record(materials, header, record.footer_bytes, LAYOUT, stored)


def test_a_signed_item_opens_and_refuses_another_signature() -> None:
    record, stored = sealed(suite=SIGNED)
    assert opened(record, stored, suite=SIGNED) == {"name": serialize(ITEM["name"])}
    forged = record.footer_bytes[:-1] + bytes((record.footer_bytes[-1] ^ 1,))
    with pytest.raises(AuthenticationError):
        opened(record._replace(footer_bytes=forged), stored, suite=SIGNED)


@pytest.mark.parametrize("mac_keys", [0, 2])
def test_a_keyring_without_a_signing_key_for_each_recipient_writes_no_item(mac_keys: int) -> None:
    with pytest.raises(ConfigurationError, match="does not serve DynamoDB items"):
        sealed(mac_keys=mac_keys)


@pytest.mark.parametrize("lacking", ["symmetric_signing_key", "recipient_index"])
def test_a_keyring_without_a_signing_key_opens_no_item(lacking: str) -> None:
    record, stored = sealed()
    with pytest.raises(ConfigurationError, match="does not serve DynamoDB items"):
        opened(record, stored, **{lacking: None})


def test_a_footer_of_another_length_is_no_footer() -> None:
    record, stored = sealed()
    for footer in (b"", record.footer_bytes[:-1], record.footer_bytes + b"\x00"):
        with pytest.raises(FormatError, match="48 bytes were expected"):
            opened(record._replace(footer_bytes=footer), stored)


def test_another_data_key_fails_the_commitment_first() -> None:
    record, stored = sealed()
    with pytest.raises(AuthenticationError) as caught:
        opened(record, stored, data_key=DataKey(bytes(32)))
    assert caught.value.reason == "commitment"


def test_what_a_writer_with_the_mac_key_signed_but_not_encrypted_is_refused() -> None:
    """The footer covers stored bytes; only the attribute's own tag shows that they are no ciphertext."""
    record, stored = sealed()
    changed = [
        value[:-1] + bytes((value[-1] ^ is_encrypted,))
        for value, is_encrypted in zip(stored, LAYOUT.is_encrypted, strict=True)
    ]
    context_bytes = serialize_context(CONTEXT)
    hashed = record.header_bytes + len(context_bytes).to_bytes(8, "big") + context_bytes
    for name, is_encrypted, value in zip(LAYOUT.names, LAYOUT.is_encrypted, changed, strict=True):
        mark = b"ENCRYPTED" if is_encrypted else b"PLAINTEXT"
        hashed += canonical_path("t", name) + (len(value) - 2).to_bytes(8, "big") + mark + value
    footer = hmac.digest(b"m" * 32, hashlib.sha384(hashed).digest(), "sha384")
    with pytest.raises(AuthenticationError) as caught:
        opened(record._replace(footer_bytes=footer), changed)
    assert caught.value.reason == "attribute tag"


@pytest.mark.parametrize(
    "attribute",
    [{"S": "text"}, {"B": b"x" * 17}, {"B": "x" * 18}, {"B": b"x" * 18, "S": ""}, {}, None, b"x" * 18],
    ids=repr,
)
def test_what_cannot_be_an_encrypted_value_is_refused(attribute: Any) -> None:
    with pytest.raises(AuthenticationError):
        encrypted_value(attribute)
    assert encrypted_value({"B": b"x" * 18}) == b"x" * 18


def test_a_field_that_its_length_cannot_express_is_not_written() -> None:
    too_long = EncryptedDataKey("p", bytes(MAX_FIELD_LENGTH_BYTES + 1), b"w")
    with pytest.raises(ConfigurationError, match="65,535 bytes"):
        sealed(encrypted_data_keys=(too_long,))


def test_a_layout_has_one_signed_attribute_to_as_many_as_a_header_holds() -> None:
    with pytest.raises(FormatError, match="at least one signed attribute"):
        layout_to_write("t", {})
    with pytest.raises(FormatError, match="more than"):
        layout_to_write("t", {f"a{number}": LegendAction.SIGN for number in range(MAX_LEGEND_LENGTH + 1)})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"S": "secret \ud800"}, "surrogate"),
        ({"L": [{"S": "secret \ud800"}]}, "surrogate"),
        ({"B": "secret"}, "bytes were expected, str came"),
        ({"M": [("secret", {"S": ""})]}, "M is a mapping"),
        ({"S": "secret", "N": "1"}, "exactly one type tag"),
        ("secret", "exactly one type tag"),
    ],
    ids=range(6),
)
def test_an_attribute_that_cannot_be_written_is_named_and_not_shown(value: Any, says: str) -> None:
    with pytest.raises(FormatError, match=says) as caught:
        serialize_attributes({"pk": {"S": "p-1"}, "name": value}, ["pk", "name"])
    assert "'name'" in str(caught.value)
    shown: BaseException | None = caught.value
    while shown is not None:
        assert "secret" not in str(shown)
        shown = shown.__cause__ or shown.__context__


@pytest.mark.parametrize("content", [b"x", bytearray(b"x"), memoryview(b"x")])
def test_binary_is_any_bytes(content: Any) -> None:
    assert serialize({"B": content}) == serialize({"B": b"x"})
