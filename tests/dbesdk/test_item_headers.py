"""Headers, legends, canonical paths and contexts of items, byte by byte."""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dbesdk_support import (
    item_of_every_type,
    patient,
    patients,
    phi_with,
    raw_aes_keyring,
    table_of_every_type,
)

from phicrypt.core.limits import ReadLimits
from phicrypt.dynamodb import Action, attributes_of_context
from phicrypt.dynamodb.items import open_item, seal_item
from phicrypt.errors import FormatError, LimitExceededError, PhiCryptError
from phicrypt.formats.dbesdk.attributes import serialize
from phicrypt.formats.dbesdk.header import parse_header
from phicrypt.formats.dbesdk.item_context import item_context
from phicrypt.formats.dbesdk.layout import LegendAction, canonical_path, layout_to_read, layout_to_write

CASES = int(os.environ.get("PHICRYPT_FUZZ_CASES", "300"))
LIMITS = ReadLimits()


def header(
    version: int = 1,
    flavor: int = 0,
    legend: bytes = b"es",
    context: bytes = b"\0\0",
    keys: bytes = b"\x01" + b"\0\x01p" + b"\0\x01i" + b"\0\x01c",
    tail: bytes = bytes(32),
) -> bytes:
    return (
        bytes((version, flavor))
        + bytes(range(32))
        + struct.pack(">H", len(legend))
        + legend
        + context
        + keys
        + tail
    )


def test_reads_every_field() -> None:
    parsed = parse_header(header(), LIMITS)
    assert (parsed.version, parsed.suite.suite_id, parsed.message_id) == (1, 0x6700, bytes(range(32)))
    assert parsed.legend == b"es"
    assert dict(parsed.stored_context) == {}
    (key,) = parsed.encrypted_data_keys
    assert (key.provider_id, key.provider_info, key.ciphertext) == ("p", b"i", b"c")


PUBLIC_KEY = b"\0\x15aws-crypto-public-key\0\x01x"


@pytest.mark.parametrize(
    ("faulty", "field"),
    [
        (header(version=0), "format version"),
        (header(version=3), "format version"),
        (header(flavor=2), "flavor"),
        (header(flavor=255), "flavor"),
        (header()[:20], "header"),
        (header()[:35], "header"),
        (header()[:37], "encrypt legend"),
        (header(context=b"\0\x01"), "encryption context"),
        (header(context=b"\0\x01\xff\xffa"), "encryption context"),
        (header(context=b"\0\x02\0\x01a\0\x01b\0\x01a\0\x01b"), "encryption context"),
        (header(context=b"\0\x02\0\x01b\0\x01b\0\x01a\0\x01b"), "encryption context"),
        (header(context=b"\0\x01\0\x01\xff\0\x01b"), "encryption context"),
        (header(keys=b"\0"), "encrypted data keys"),
        (header(keys=b"\x02\0\x01p\0\x01i\0\x01c", tail=b""), "encrypted data keys"),
        (header(keys=b"\x01\0\x01\xff\0\x01i\0\x01c"), "encrypted data keys"),
        (header(tail=bytes(31)), "commitment"),
        (header(tail=bytes(33)), "commitment"),
        (header(flavor=1), "aws-crypto-public-key"),
        (header(context=b"\0\x01" + PUBLIC_KEY), "aws-crypto-public-key"),
        (b"", "header"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_malformed_headers_by_field(faulty: bytes, field: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_header(faulty, LIMITS)
    assert caught.value.field == field


def test_refuses_headers_cut_anywhere_and_headers_with_more_bytes() -> None:
    one_key = b"\0\x05p-123\0\x02id\0\x04wrap"
    whole = header(context=b"\0\x02\0\x01a\0\x03bcd\0\x01e\0\0", keys=b"\x02" + one_key * 2)
    assert len(parse_header(whole, LIMITS).encrypted_data_keys) == 2
    for length in range(len(whole)):
        with pytest.raises(FormatError):
            parse_header(whole[:length], LIMITS)
    with pytest.raises(FormatError):
        parse_header(whole + b"\0", LIMITS)


def test_refuses_headers_beyond_the_limits() -> None:
    one_key = b"\0\x01p\0\x01i\0\x01c"
    parse_header(header(keys=b"\x08" + one_key * 8), LIMITS)
    with pytest.raises(LimitExceededError):
        parse_header(header(keys=b"\x09" + one_key * 9), LIMITS)
    with pytest.raises(LimitExceededError):
        parse_header(bytes(LIMITS.max_header_length_bytes + 1), LIMITS)
    with pytest.raises(LimitExceededError):
        parse_header(header(), ReadLimits(max_header_length_bytes=40))
    with pytest.raises(LimitExceededError):
        parse_header(header(context=b"\0\x01\0\x01a\0\x01b"), ReadLimits(max_context_length_bytes=7))


@settings(max_examples=CASES, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 60), st.data())
def test_any_bytes_end_in_a_header_or_an_error_of_the_tree(noise: bytes, at: int, data: st.DataObject) -> None:
    whole = header()
    spliced = whole[:at] + noise + whole[at + data.draw(st.integers(0, len(noise))) :]
    for candidate in (noise, spliced):
        with contextlib.suppress(PhiCryptError):
            assert parse_header(candidate, LIMITS).header_bytes == candidate


def test_canonical_path_counts_utf16_code_units() -> None:
    one, depth = (1).to_bytes(8, "big"), (1).to_bytes(8, "big")
    assert canonical_path("tä", "a") == "tä".encode() + depth + b"$" + one + b"a"
    pair = "\U00010001"
    assert canonical_path("t", pair) == b"t" + depth + b"$" + (2).to_bytes(8, "big") + pair.encode()


def test_layout_is_ordered_by_path_so_shorter_names_first() -> None:
    actions = {
        "bb": LegendAction.SIGN,
        "a": LegendAction.ENCRYPT,
        "c": LegendAction.CONTEXT,
        "aaa": LegendAction.SIGN,
    }
    layout = layout_to_write("t", actions)
    assert layout.names == ("a", "c", "bb", "aaa")
    assert layout.legend == b"ecss"
    assert layout_to_read("t", reversed(actions), b"ecss") == layout
    assert layout.encrypted_names == ("a",)
    assert layout.names_with(LegendAction.SIGN) == ("bb", "aaa")


@pytest.mark.parametrize("legend", [b"", b"e", b"ess", b"ex", b"e\x00", b"Es"])
def test_legend_must_fit_the_attributes(legend: bytes) -> None:
    with pytest.raises(FormatError):
        layout_to_read("t", ["a", "b"], legend)


def test_an_item_without_signed_attributes_is_refused() -> None:
    with pytest.raises(FormatError):
        layout_to_write("t", {})


def test_names_that_are_no_unicode_are_refused() -> None:
    with pytest.raises(FormatError):
        canonical_path("t", "\ud800")


def context_of(version: int, item: dict[str, Any], sort_key: str | None = None, *names: str) -> dict[str, str]:
    return item_context(
        version,
        {name: serialize(value) for name, value in item.items()},
        table_name="t",
        partition_key="pk",
        sort_key=sort_key,
        context_attributes=names,
    )


def test_context_of_version_1_holds_the_keys_with_their_types() -> None:
    item = {"pk": {"S": "p-1"}, "sk": {"N": "2.0"}, "other": {"S": "x"}}
    assert context_of(1, item) == {
        "aws-crypto-table-name": "t",
        "aws-crypto-partition-name": "pk",
        "aws-crypto-attr.pk": "AAFwLTE=",
    }
    assert context_of(1, item, "sk") == {
        "aws-crypto-table-name": "t",
        "aws-crypto-partition-name": "pk",
        "aws-crypto-sort-name": "sk",
        "aws-crypto-attr.pk": "AAFwLTE=",
        "aws-crypto-attr.sk": "AAIy",
    }


def test_context_of_version_2_holds_readable_values_and_their_legend() -> None:
    item = {
        "pk": {"S": "p-1"},
        "n": {"N": "02.50"},
        "yes": {"BOOL": True},
        "no": {"BOOL": False},
        "null": {"NULL": True},
        "bin": {"B": b"\x01"},
    }
    context = context_of(2, item, None, *item)
    assert context == {
        "aws-crypto-table-name": "t",
        "aws-crypto-partition-name": "pk",
        "aws-crypto-attr.bin": "//8B",
        "aws-crypto-attr.n": "2.5",
        "aws-crypto-attr.no": "false",
        "aws-crypto-attr.null": "null",
        "aws-crypto-attr.pk": "p-1",
        "aws-crypto-attr.yes": "true",
        "aws-crypto-legend": "BNLLSL",
    }


def test_suppliers_read_the_attributes_back() -> None:
    item = {"pk": {"S": "p-1"}, "sk": {"B": b"\x00"}}
    assert attributes_of_context(context_of(1, item, "sk")) == item
    everything = {"pk": {"N": "7"}, **item_of_every_type()}
    assert attributes_of_context(context_of(2, everything, None, *everything)) == everything


@pytest.mark.parametrize(
    "context",
    [
        {"aws-crypto-attr.pk": "!"},
        {"aws-crypto-attr.pk": "AAFwLTE=", "aws-crypto-legend": ""},
        {"aws-crypto-attr.pk": "AAFwLTE=", "aws-crypto-legend": "X"},
        {"aws-crypto-attr.pk": "maybe", "aws-crypto-legend": "L"},
    ],
)
def test_suppliers_get_no_attributes_from_another_context(context: dict[str, str]) -> None:
    with pytest.raises(FormatError):
        attributes_of_context(context)


def test_headers_store_no_pair_that_a_reader_can_compute() -> None:
    phi = phi_with(raw_aes_keyring())
    for version_2 in (False, True):
        action = Action.SIGN_AND_INCLUDE_IN_CONTEXT if version_2 else Action.SIGN_ONLY
        table = table_of_every_type(action, include_in_context=version_2)
        stored = seal_item(phi.session, item_of_every_type(), table).item
        assert not parse_header(stored["aws_dbe_head"]["B"], LIMITS).stored_context


def test_a_header_that_repeats_computed_pairs_is_refused() -> None:
    phi = phi_with(raw_aes_keyring())
    stored = seal_item(phi.session, patient(), patients()).item
    head = stored["aws_dbe_head"]["B"]
    legend_end = 36 + int.from_bytes(head[34:36], "big")
    repeated = b"\0\x01\0\x15aws-crypto-table-name\0\x08patients"
    changed = head[:legend_end] + repeated + head[legend_end + 2 :]
    with pytest.raises(FormatError, match="computed"):
        open_item(phi.session, {**stored, "aws_dbe_head": {"B": changed}}, patients())


def test_a_branch_key_supplier_chooses_by_the_items_attributes() -> None:
    from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
    from phicrypt.testing import StaticBranchKeyStore

    seen: list[dict[str, Any]] = []

    def choose(context: Any) -> str:
        attributes = attributes_of_context(context)
        seen.append(attributes)
        return "tenant-" + attributes["patient_id"]["S"]

    store = StaticBranchKeyStore("tenant-p-1", "f60c4d1c-3a6a-4a33-9a5c-3f1d9f8b1e11", bytes(32), bytes(32))
    phi = phi_with(HierarchicalKeyring(store, branch_key_id=choose))
    stored = seal_item(phi.session, patient(), patients()).item
    assert open_item(phi.session, stored, patients()).item == patient()
    assert seen == [{"patient_id": {"S": "p-1"}, "visit": {"S": "2026-01-01"}}] * 2
    with pytest.raises(PhiCryptError):
        open_item(phi.session, {**stored, "patient_id": {"S": "p-2"}}, patients())
