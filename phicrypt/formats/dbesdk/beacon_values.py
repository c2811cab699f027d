"""Standard beacons: some bits of a keyed hash of a value (``searchable-encryption/beacons.md``).

A beacon's key is HKDF-SHA-512 of the beacon key (32 bytes) without salt, with
``"AWS_DBE_SCAN_BEACON"`` and the beacon's name as info: 64 bytes. The hash is the first eight bytes of
HMAC-SHA-384 over the value and, in every partition but the first, one byte with the partition's number. Its
right-most bits, as lower-case hexadecimal digits with leading zeros, are the beacon::

    bits      1 to 63
    text      (bits + 3) // 4 digits

A value of an attribute is hashed as the body of its serialization, without type: numbers in their normal
form, members of sets and maps in order. A text (of a virtual field, of a compound beacon's part) is hashed as
UTF-8. So the text ``1`` and the number ``1`` have one beacon, and what a query finds has to be compared again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from phicrypt.core.keyed_hashes import hkdf
from phicrypt.core.materials import KeyHolder
from phicrypt.errors import ConfigurationError, FormatError
from phicrypt.formats.dbesdk.attributes import serialize
from phicrypt.formats.dbesdk.locations import parse_location

AttributeValue = Mapping[str, Any]

BEACON_PREFIX: Final = "aws_dbe_b_"
"""Begins the name of the attribute in which a beacon is stored."""
BEACON_KEY_LENGTH_BYTES: Final = 32
MAX_BITS: Final = 63
MAX_PARTITIONS: Final = 254
"""AWS's text says 255; its libraries accept 254."""
_INFO: Final = b"AWS_DBE_SCAN_BEACON"
_DERIVED_LENGTH_BYTES: Final = 64
_BLOCK_LENGTH_BYTES: Final = 128
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))
_SETS: Final = {"SS": "S", "NS": "N", "BS": "B"}


class BeaconStyle(Enum):
    """What a standard beacon is besides itself. The values are AWS's names."""

    PART_ONLY = "partOnly"
    """Not stored and not asked for alone: it is a part of compound beacons."""
    SHARED = "shared"
    """Hashed under the key of another beacon, so that both can be compared."""
    AS_SET = "asSet"
    """Each member of a set has a beacon; stored as a set."""
    SHARED_SET = "sharedSet"
    """Both of the former."""


@dataclass(frozen=True, slots=True)
class StandardBeacon:
    """``StandardBeacon("mrn", bits=15)``: find items by an encrypted attribute's whole value.

    Attributes:
        name: what expressions call it; stored as ``aws_dbe_b_`` and the name. Its key is made of the name,
            so a beacon that is renamed is another one.
        bits: 1 to 63. Few bits hide more and read more: see ``docs/search.md``. There is no default.
        location: where its value is (``address.city``, or a virtual field's name); the name itself unless given.
        style: a :class:`BeaconStyle`, or AWS's name of one.
        shared_with: the beacon whose key is used, with the styles ``shared`` and ``sharedSet``.
        partitions: of how many partitions this beacon uses, fewer than the table's; all of them unless given.

    Raises ConfigurationError.
    """

    name: str
    bits: int
    location: str = ""
    style: BeaconStyle | None = None
    shared_with: str | None = None
    partitions: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError("a beacon's name is a non-empty text")
        if not isinstance(self.bits, int) or isinstance(self.bits, bool) or not 1 <= self.bits <= MAX_BITS:
            raise ConfigurationError(f"the beacon {self.name!r} has bits= from 1 to {MAX_BITS}")
        given: object = self.style
        styles = [one.value for one in BeaconStyle]
        if given is not None and not isinstance(given, BeaconStyle) and given not in styles:
            raise ConfigurationError(f"the style of the beacon {self.name!r} is one of {', '.join(styles)}")
        style = None if given is None else BeaconStyle(given)
        object.__setattr__(self, "style", style)
        object.__setattr__(self, "location", self.location or self.name)
        parse_location(self.location)
        if (style in (BeaconStyle.SHARED, BeaconStyle.SHARED_SET)) != (self.shared_with is not None):
            raise ConfigurationError(
                f"the beacon {self.name!r}: shared_with= belongs to the styles 'shared' and 'sharedSet'"
            )
        if self.shared_with == self.name:
            raise ConfigurationError(f"the beacon {self.name!r} is shared with itself")
        if self.partitions is not None and (not isinstance(self.partitions, int) or self.partitions < 1):
            raise ConfigurationError(f"the beacon {self.name!r} uses at least one partition")

    @property
    def attribute(self) -> str:
        """The attribute in which it is stored."""
        return BEACON_PREFIX + self.name

    @property
    def is_stored(self) -> bool:
        return self.style is not BeaconStyle.PART_ONLY

    @property
    def is_set(self) -> bool:
        return self.style in (BeaconStyle.AS_SET, BeaconStyle.SHARED_SET)

    @property
    def hashed_as(self) -> str:
        """The name that its key is made of."""
        return self.shared_with or self.name


class BeaconHash(KeyHolder):
    """One beacon's keyed hash, its key already mixed in; cannot be copied or pickled."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, hash_key: bytes) -> None:
        if len(hash_key) > _BLOCK_LENGTH_BYTES:
            hash_key = hashlib.sha384(hash_key).digest()
        padded = hash_key.ljust(_BLOCK_LENGTH_BYTES, b"\0")
        self._inner = hashlib.sha384(padded.translate(_INNER_PAD))
        self._outer = hashlib.sha384(padded.translate(_OUTER_PAD))

    def __repr__(self) -> str:
        return "<BeaconHash>"

    def of(self, message: bytes, bits: int, partition: int = 0) -> str:
        """The beacon's text: ``(bits + 3) // 4`` hexadecimal digits. ``partition`` is the beacon's, 0 to 254."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message if partition == 0 else message + bytes((partition,)))
        outer.update(inner.digest())
        return truncated(outer.digest()[:8], bits)


def beacon_hash(beacon_key: bytes, name: str) -> BeaconHash:
    """The hash of the beacon with this name under a beacon key."""
    return BeaconHash(hkdf("sha512", b"", beacon_key, _INFO + name.encode(), _DERIVED_LENGTH_BYTES))


def truncated(first_bytes: bytes, bits: int) -> str:
    """The right-most bits of eight bytes, as text."""
    value = int.from_bytes(first_bytes, "big") & ((1 << bits) - 1)
    return f"{value:0{(bits + 3) // 4}x}"


def partition_of(beacon: StandardBeacon, partition: int, default_partitions: int) -> int:
    """The partition of one beacon in an item of some partition."""
    return partition % (beacon.partitions or default_partitions)


def beacon_of_value(
    beacon: StandardBeacon, hashing: BeaconHash, value: AttributeValue, partition: int
) -> AttributeValue:
    """The stored or asked beacon of a whole attribute value: S, or SS for a set's members.

    Raises FormatError where a beacon of sets meets another value.
    """
    if not beacon.is_set:
        return {"S": hashing.of(serialize(value)[1], beacon.bits, partition)}
    return {"SS": list(dict.fromkeys(member_beacons(beacon, hashing, value, partition)))}


def member_beacons(
    beacon: StandardBeacon, hashing: BeaconHash, value: AttributeValue, partition: int
) -> Iterable[str]:
    """The beacon of each member of a set."""
    ((kind, members),) = value.items()
    member_kind = _SETS.get(kind)
    if member_kind is None:
        raise FormatError(
            f"a set was expected (its style is {beacon.style.value if beacon.style else None}), {kind} came",
            field=f"beacon {beacon.name!r}",
        )
    if not isinstance(members, list | tuple | set | frozenset):
        raise FormatError("a list of set members was expected", field=f"beacon {beacon.name!r}")
    return [hashing.of(serialize({member_kind: one})[1], beacon.bits, partition) for one in members]


def beacon_of_text(beacon: StandardBeacon, hashing: BeaconHash, text: str, partition: int) -> str:
    """The beacon of a virtual field's text, or of a part's. Raises FormatError for unpaired surrogates."""
    try:
        message = text.encode()
    except UnicodeEncodeError:
        message = None
    if message is None:  # not in the handler: Python's error holds the text (rule 32)
        raise FormatError("not valid Unicode text (an unpaired surrogate)", field=f"beacon {beacon.name!r}")
    return hashing.of(message, beacon.bits, partition)
