"""Footers computed once more from the specification's layout, for small items and for large ones."""

from __future__ import annotations

import hashlib
import hmac
from itertools import compress

import pytest

from phicrypt.core.context import serialize_context
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import DataKey, DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.suites import DBE_SUITES
from phicrypt.errors import AuthenticationError
from phicrypt.formats.dbesdk.attributes import serialize
from phicrypt.formats.dbesdk.header import parse_header
from phicrypt.formats.dbesdk.layout import Layout, LegendAction, canonical_path, layout_to_write
from phicrypt.formats.dbesdk.record import SealedRecord, open_record, seal_record

SUITE = DBE_SUITES[0x6700]
CONTEXT = {"aws-crypto-table-name": "t", "a": "b"}
CONTEXT_BYTES = serialize_context(CONTEXT)
DATA_KEY = bytes(range(32))
MAC_KEYS = (b"m" * 32, b"n" * 32)
LAYOUT = layout_to_write("t", {"pk": LegendAction.SIGN, "scan": LegendAction.ENCRYPT, "z": LegendAction.SIGN})


def sealed(scan: bytes) -> tuple[SealedRecord, list[bytes]]:
    """A record, and what it stores for each attribute in the layout's order."""
    materials = EncryptionMaterials(
        SUITE,
        CONTEXT,
        CONTEXT_BYTES,
        data_key=DataKey(DATA_KEY),
        encrypted_data_keys=tuple(EncryptedDataKey("p", b"i", bytes((index,))) for index in range(len(MAC_KEYS))),
        symmetric_signing_keys=tuple(map(DataKey, MAC_KEYS)),
    )
    values = {"pk": {"S": "p-1"}, "scan": {"B": scan}, "z": {"N": "7"}}
    terminals = [serialize(values[name]) for name in LAYOUT.names]
    record = seal_record(materials, LAYOUT, terminals, version=1, stored_context={})
    stored = {name: b"".join(terminal) for name, terminal in zip(LAYOUT.names, terminals, strict=True)}
    return record, list({**stored, **record.encrypted}.values())


def footer_of(layout: Layout, header_bytes: bytes, stored: list[bytes]) -> bytes:
    hashed = header_bytes + len(CONTEXT_BYTES).to_bytes(8, "big") + CONTEXT_BYTES
    for name, action, value in zip(layout.names, layout.legend, stored, strict=True):
        mark = b"ENCRYPTED" if action == LegendAction.ENCRYPT else b"PLAINTEXT"
        hashed += canonical_path("t", name) + (len(value) - 2).to_bytes(8, "big") + mark + value
    canonical_hash = hashlib.sha384(hashed).digest()
    return b"".join(hmac.digest(mac_key, canonical_hash, "sha384") for mac_key in MAC_KEYS)


@pytest.mark.parametrize("length", [0, 50, 65_500, 65_536, 400_000])
def test_footer_covers_header_context_and_attributes_of_any_length(length: int) -> None:
    record, stored = sealed(bytes(length))
    assert record.footer_bytes == footer_of(LAYOUT, record.header_bytes, stored)


@pytest.mark.parametrize("length", [50, 400_000])
@pytest.mark.parametrize("recipient", range(len(MAC_KEYS)))
def test_each_recipient_opens_and_refuses_any_changed_attribute(length: int, recipient: int) -> None:
    record, stored = sealed(b"x" * length)
    header = parse_header(record.header_bytes, ReadLimits())
    materials = DecryptionMaterials(
        SUITE,
        CONTEXT,
        CONTEXT_BYTES,
        data_key=DataKey(DATA_KEY),
        symmetric_signing_key=DataKey(MAC_KEYS[recipient]),
        recipient_index=recipient,
    )
    opened = open_record(materials, header, record.footer_bytes, LAYOUT, stored)
    assert opened == {"scan": (b"\xff\xff", b"x" * length)}
    assert list(opened) == list(compress(LAYOUT.names, LAYOUT.is_encrypted))
    for index, value in enumerate(stored):
        changed = [*stored]
        changed[index] = value[:-1] + bytes((value[-1] ^ 1,))
        with pytest.raises(AuthenticationError):
            open_record(materials, header, record.footer_bytes, LAYOUT, changed)
