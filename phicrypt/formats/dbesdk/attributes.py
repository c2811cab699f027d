"""Attribute values as bytes and back (``ddb-attribute-serialization.md``).

A value is a two-byte type and a body::

    NULL  0000   empty                      SS  0101   count, then each: length, UTF-8
    S     0001   UTF-8                      NS  0102   count, then each: length, normal form
    N     0002   normal form, ASCII         BS  01ff   count, then each: length, bytes
    B     ffff   the bytes                  M   0200   count, then each: 0001, length, name, value
    BOOL  0004   00 or 01                   L   0300   count, then each: value

where a nested value is type, length, body, and counts and lengths are four bytes, big-endian. Set
members and map names are sorted by their UTF-16 code units, binary members by their bytes. So one
value has one serialization, whatever order and spelling a client or DynamoDB gives it.

Values are those of the low-level client: ``{"S": "text"}``, ``{"N": "1"}``, ``{"B": b""}``,
``{"SS": ["a"]}``, ``{"NS": ["1"]}``, ``{"BS": [b""]}``, ``{"M": {}}``, ``{"L": []}``, ``{"NULL": True}``,
``{"BOOL": True}``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from phicrypt.errors import FormatError, LimitExceededError
from phicrypt.formats.dbesdk.numbers import normalize_number

MAX_DEPTH: Final = 32
"""A value at the top has depth 1; each list or map around a value adds one."""
MAX_MAP_NAME_LENGTH_BYTES: Final = 0xFFFF
_LENGTH_BYTES: Final = 4
_TYPE_BYTES: Final = 2

TYPE_NULL: Final = b"\x00\x00"
TYPE_STRING: Final = b"\x00\x01"
TYPE_NUMBER: Final = b"\x00\x02"
TYPE_BOOLEAN: Final = b"\x00\x04"
TYPE_STRING_SET: Final = b"\x01\x01"
TYPE_NUMBER_SET: Final = b"\x01\x02"
TYPE_BINARY_SET: Final = b"\x01\xff"
TYPE_MAP: Final = b"\x02\x00"
TYPE_LIST: Final = b"\x03\x00"
TYPE_BINARY: Final = b"\xff\xff"

AttributeValue = Mapping[str, Any]
"""One value in the low-level client's shape: a mapping from one type tag to the value."""


def serialize(value: AttributeValue) -> tuple[bytes, bytes]:
    """The type and the body of one top-level attribute value.

    Raises FormatError for what is not an attribute value, LimitExceededError beyond depth 32.
    """
    tag, content = _tagged(value)
    type_id, body_of = _SERIALIZERS[tag]
    return type_id, body_of(content, 1)


def serialize_attributes(
    item: Mapping[str, AttributeValue], names: Iterable[str]
) -> dict[str, tuple[bytes, bytes]]:
    """:func:`serialize` for some attributes of an item, in the order of ``names``; errors name the attribute."""
    terminals: dict[str, tuple[bytes, bytes]] = {}
    try:
        for name in names:
            value = item[name]
            # Text is most of what tables hold, so it goes without the detours through functions and table.
            if type(value) is dict and len(value) == 1 and type(text := value.get("S")) is str:
                terminals[name] = (TYPE_STRING, text.encode())
            else:
                terminals[name] = serialize(value)
        return terminals
    except UnicodeEncodeError:
        error = _unpaired_surrogate()
    except FormatError as wrong:
        error = wrong
    # Not in a handler, here and below: Python's error holds the text, and would stay with ours as its context.
    raise _attribute_error(error, name)


def deserialize(type_id: bytes, body: bytes) -> dict[str, Any]:
    """The attribute value of a type and a body; the inverse of :func:`serialize`.

    Raises FormatError for an unknown type, a length that passes its container, bytes left over, a
    repeated set member or map name, invalid UTF-8; LimitExceededError beyond depth 32.
    """
    return _deserialize(type_id, body, 1)


def deserialize_attributes(terminals: Mapping[str, tuple[bytes, bytes]]) -> dict[str, dict[str, Any]]:
    """:func:`deserialize` for attributes by name; errors name the attribute."""
    item: dict[str, dict[str, Any]] = {}
    try:
        for name, (type_id, body) in terminals.items():
            item[name] = {"S": body.decode()} if type_id == TYPE_STRING else _deserialize(type_id, body, 1)
        return item
    except UnicodeDecodeError:
        error = _not_utf8()
    except FormatError as wrong:
        error = wrong
    raise _attribute_error(error, name)


def _attribute_error(error: FormatError, name: str) -> FormatError:
    """The same error, of a named attribute."""
    return FormatError(str(error), field=f"attribute {name!r}")


def _wrong(what: str) -> FormatError:
    return FormatError(what, field="attribute value")


def _unpaired_surrogate() -> FormatError:
    return _wrong("not valid Unicode text (an unpaired surrogate)")


def _not_utf8() -> FormatError:
    return _wrong("not valid UTF-8")


def _tagged(value: AttributeValue) -> tuple[str, Any]:
    if not isinstance(value, Mapping) or len(value) != 1:
        raise _wrong("a mapping with exactly one type tag was expected, such as {'S': …}")
    ((tag, content),) = value.items()
    if tag not in _SERIALIZERS:
        raise _wrong("an unknown type tag; S, N, B, SS, NS, BS, M, L, NULL or BOOL was expected")
    return tag, content


def _utf8(text: Any) -> bytes:
    try:
        return str.encode(text)
    except UnicodeEncodeError:
        error = _unpaired_surrogate()
    except TypeError:
        error = _wrong(f"text was expected, {type(text).__name__} came")
    raise error


def _bytes(content: Any) -> bytes:
    if type(content) is bytes:
        return content
    if isinstance(content, bytearray | memoryview):
        return bytes(content)
    raise _wrong(f"bytes were expected, {type(content).__name__} came")


def _number(content: Any) -> bytes:
    if not isinstance(content, str):
        raise _wrong(f"a number's text was expected, {type(content).__name__} came")
    return normalize_number(content).encode()


def _boolean(content: Any) -> bytes:
    if content is True:
        return b"\x01"
    if content is False:
        return b"\x00"
    raise _wrong("BOOL is True or False")


def _null(content: Any) -> bytes:
    # NULL false has the bytes of NULL true; DynamoDB refuses it, and so a signature cannot cover it.
    if content is not True:
        raise _wrong("NULL is always True")
    return b""


def utf16_order(text: str) -> bytes:
    """Sort key: the text's UTF-16 code units, so that surrogate pairs come before U+E000."""
    return text.encode("utf-16-be", "surrogatepass")


def _sorted_texts(texts: Iterable[str]) -> list[str]:
    ordered = list(texts)
    # In ASCII, code point order and UTF-16 order are the same.
    ordered.sort(key=None if all(map(str.isascii, ordered)) else utf16_order)
    return ordered


def _prefixed(body: bytes) -> bytes:
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def _members(content: Any) -> list[Any]:
    if isinstance(content, str | bytes | bytearray | Mapping) or not isinstance(content, Iterable):
        raise _wrong("a list of set members was expected")
    return list(content)


def _set_body(members: list[bytes]) -> bytes:
    if len(set(members)) != len(members):
        raise _wrong("a set has equal members; numbers are compared by value")
    return len(members).to_bytes(_LENGTH_BYTES, "big") + b"".join(map(_prefixed, members))


def _string_set(content: Any, _depth: int) -> bytes:
    members = _members(content)
    for member in members:
        _utf8(member)
    return _set_body([member.encode() for member in _sorted_texts(members)])


def _number_set(content: Any, _depth: int) -> bytes:
    return _set_body(sorted(_number(member) for member in _members(content)))


def _binary_set(content: Any, _depth: int) -> bytes:
    return _set_body(sorted(_bytes(member) for member in _members(content)))


def _nested(value: AttributeValue, depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise _too_deep()
    tag, content = _tagged(value)
    type_id, body_of = _SERIALIZERS[tag]
    return type_id + _prefixed(body_of(content, depth))


def _map(content: Any, depth: int) -> bytes:
    if not isinstance(content, Mapping):
        raise _wrong("M is a mapping of names to attribute values")
    pieces = [len(content).to_bytes(_LENGTH_BYTES, "big")]
    for name in content:
        if len(_utf8(name)) > MAX_MAP_NAME_LENGTH_BYTES:
            raise _wrong("a name in a map has at most 65,535 bytes")
    for name in _sorted_texts(content):
        pieces += (TYPE_STRING, _prefixed(name.encode()), _nested(content[name], depth + 1))
    return b"".join(pieces)


def _list(content: Any, depth: int) -> bytes:
    if isinstance(content, str | bytes | Mapping) or not isinstance(content, Iterable):
        raise _wrong("L is a list of attribute values")
    pieces = [_nested(value, depth + 1) for value in content]
    return len(pieces).to_bytes(_LENGTH_BYTES, "big") + b"".join(pieces)


_SERIALIZERS: Final[dict[str, tuple[bytes, Callable[[Any, int], bytes]]]] = {
    "S": (TYPE_STRING, lambda content, _: _utf8(content)),
    "N": (TYPE_NUMBER, lambda content, _: _number(content)),
    "B": (TYPE_BINARY, lambda content, _: _bytes(content)),
    "BOOL": (TYPE_BOOLEAN, lambda content, _: _boolean(content)),
    "NULL": (TYPE_NULL, lambda content, _: _null(content)),
    "SS": (TYPE_STRING_SET, _string_set),
    "NS": (TYPE_NUMBER_SET, _number_set),
    "BS": (TYPE_BINARY_SET, _binary_set),
    "M": (TYPE_MAP, _map),
    "L": (TYPE_LIST, _list),
}


def _too_deep() -> LimitExceededError:
    return LimitExceededError("an attribute value is nested too deeply", limit=MAX_DEPTH, actual=None)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        error = _not_utf8()
    raise error


class _Cursor:
    """Reads a container's body from front to back; each length is checked before it is used."""

    __slots__ = ("_body", "_position")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._position = 0

    def take(self, length: int) -> bytes:
        end = self._position + length
        if end > len(self._body):
            raise _wrong("a length passes the end of its container")
        piece = self._body[self._position : end]
        self._position = end
        return piece

    def length(self) -> int:
        return int.from_bytes(self.take(_LENGTH_BYTES), "big")

    def count(self, least_entry_bytes: int) -> int:
        """A count, refused where so many entries cannot fit into the rest."""
        count = self.length()
        if count * least_entry_bytes > len(self._body) - self._position:
            raise _wrong("a count passes the end of its container")
        return count

    def end(self) -> None:
        if self._position != len(self._body):
            raise _wrong("bytes are left over in a container")


def _read_set(body: bytes) -> list[bytes]:
    cursor = _Cursor(body)
    members = [cursor.take(cursor.length()) for _ in range(cursor.count(_LENGTH_BYTES))]
    cursor.end()
    if len(set(members)) != len(members):
        raise _wrong("a set has equal members")
    return members


def _read_nested(cursor: _Cursor, depth: int) -> dict[str, Any]:
    type_id = cursor.take(_TYPE_BYTES)
    return _deserialize(type_id, cursor.take(cursor.length()), depth)


def _read_map(body: bytes, depth: int) -> dict[str, Any]:
    cursor = _Cursor(body)
    content: dict[str, Any] = {}
    for _ in range(cursor.count(2 * (_TYPE_BYTES + _LENGTH_BYTES))):  # names may be empty
        if cursor.take(_TYPE_BYTES) != TYPE_STRING:
            raise _wrong("a name in a map is not text")
        name = _text(cursor.take(cursor.length()))
        if name in content:
            raise _wrong("a name in a map occurs twice")
        content[name] = _read_nested(cursor, depth + 1)
    cursor.end()
    return content


def _read_list(body: bytes, depth: int) -> list[dict[str, Any]]:
    cursor = _Cursor(body)
    content = [_read_nested(cursor, depth + 1) for _ in range(cursor.count(_TYPE_BYTES + _LENGTH_BYTES))]
    cursor.end()
    return content


def _read_boolean(body: bytes) -> bool:
    if body not in (b"\x00", b"\x01"):
        raise _wrong("a BOOL is one byte, 0 or 1")
    return body == b"\x01"


def _read_null(body: bytes) -> bool:
    if body:
        raise _wrong("a NULL has no bytes")
    return True


_DESERIALIZERS: Final[dict[bytes, tuple[str, Callable[[bytes, int], Any]]]] = {
    TYPE_STRING: ("S", lambda body, _: _text(body)),
    TYPE_NUMBER: ("N", lambda body, _: _text(body)),
    TYPE_BINARY: ("B", lambda body, _: body),
    TYPE_BOOLEAN: ("BOOL", lambda body, _: _read_boolean(body)),
    TYPE_NULL: ("NULL", lambda body, _: _read_null(body)),
    TYPE_STRING_SET: ("SS", lambda body, _: [_text(member) for member in _read_set(body)]),
    TYPE_NUMBER_SET: ("NS", lambda body, _: [_text(member) for member in _read_set(body)]),
    TYPE_BINARY_SET: ("BS", lambda body, _: _read_set(body)),
    TYPE_MAP: ("M", _read_map),
    TYPE_LIST: ("L", _read_list),
}


def _deserialize(type_id: bytes, body: bytes, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise _too_deep()
    entry = _DESERIALIZERS.get(type_id)
    if entry is None:
        raise _wrong("an unknown attribute type")
    tag, read = entry
    return {tag: read(body, depth)}
