"""One strict, bounded reader for JSON, JSON lines, TOML and gzip that others can write (rule 26).

::

    fields = parse_json(content, field="digest", max_bytes=1_048_576)
    for record in JsonArray(InflatedStream(file), "Records", field="CloudTrail log file"): …

UTF-8 without exceptions (halves of surrogate pairs neither raw nor escaped), no name twice in one object,
no NaN, and bounds on size, depth and expansion before anything is made of the content. What is wrong
comes out as :class:`FormatError` with its place, and never with the value that stood there.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from phicrypt.errors import FormatError

MAX_JSON_DEPTH: Final = 64
_CHUNK_BYTES: Final = 262_144
_FREE_BYTES: Final = 1_048_576
MAX_EXPANSION: Final = 200
"""How many times larger than its gzip a file may be; CloudTrail's own reach about 30."""
MAX_GZIP_MEMBERS: Final = 100_000
"""Empty members cost time and give nothing: who concatenates files has thousands of them."""
_MAX_ELEMENT_CHARACTERS: Final = 4_194_304
_OUTSIDE_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_HALF_PAIR: Final = re.compile(r"\\u[dD][89a-fA-F]")
_TOML_PLACE: Final = re.compile(r"\(at (line \d{1,9}, column \d{1,9}|end of document)\)$")
_FIRST_ARRAY: Final = re.compile(r'\{\s*"(\w+)"\s*:\s*(?=\[)')
_SPACE: Final = re.compile(r"[ \t\r\n]*")
GZIP_START: Final = b"\x1f\x8b"


def parse_json(content: bytes | str, *, field: str, max_bytes: int | None = None, any_text: bool = False) -> Any:
    """The value of one JSON document.

    Args:
        content: the document; bytes are UTF-8.
        field: what the document is, for the error.
        max_bytes: refuse longer ones.
        any_text: let escaped halves of surrogate pairs pass: for documents of which every text is made
            printable before it is used.

    Raises FormatError with the place, never with a value.
    """
    if max_bytes is not None and len(content) > max_bytes:
        raise FormatError(f"longer than {max_bytes:,} bytes", field=field)
    refusal = None
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        value, end = _DECODER.raw_decode(text, _after_space(text, 0))
    except UnicodeDecodeError as error:
        refusal = FormatError("not UTF-8", field=field, offset=error.start)
    except json.JSONDecodeError as error:
        refusal = FormatError("not JSON, or cut off", field=field, offset=error.pos)
    except (ValueError, RecursionError) as error:
        refusal = FormatError(_reason(error), field=field)
    if refusal is not None:
        # Not in the handlers, here and below: Python's errors hold the document (rule 32).
        raise refusal
    if _after_space(text, end) != len(text):
        raise FormatError("something stands behind the JSON value", field=field, offset=end)
    _check_text(text, field, any_text)
    return value


def parse_toml(content: bytes, *, field: str, max_bytes: int = _FREE_BYTES) -> dict[str, Any]:
    """The members of a TOML document, which names none twice. Raises FormatError with line and column."""
    if len(content) > max_bytes:
        raise FormatError(f"longer than {max_bytes:,} bytes", field=field)
    try:
        import tomllib

        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        refusal = FormatError("not UTF-8", field=field, offset=error.start)
    except (ValueError, RecursionError) as error:  # its own words quote the document
        place = _TOML_PLACE.search(str(error))
        refusal = FormatError(
            f"not TOML, or a name stands twice, or nested too deep{f' ({place[1]})' if place else ''}", field=field
        )
    raise refusal


def parse_document(content: bytes, *, is_json: bool, field: str, max_bytes: int = _FREE_BYTES) -> Any:
    """What a settings file holds, JSON or TOML. Raises FormatError."""
    if is_json:
        return parse_json(content, field=field, max_bytes=max_bytes)
    return parse_toml(content, field=field, max_bytes=max_bytes)


def _after_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found is not None else start


def _members_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RepeatedNameError
    return members


class _RepeatedNameError(ValueError):
    """An object names a member twice: two readers would take two different values."""


def _no_constant(name: str) -> Any:
    raise ValueError


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_members_once, parse_constant=_no_constant)


def _reason(error: BaseException) -> str:
    if isinstance(error, _RepeatedNameError):
        return "a name stands twice in one object"
    if isinstance(error, RecursionError):
        return f"nested deeper than {MAX_JSON_DEPTH}"
    return "a number that JSON does not have, or too long a one"


def _check_text(text: str, field: str, any_text: bool) -> None:
    """Depth and surrogates of a text that parsed; most texts have too few brackets to be looked through."""
    if text.count("{") + text.count("[") > MAX_JSON_DEPTH:
        depth = 0
        for found in _OUTSIDE_TEXT.finditer(text):
            bracket = found[0]
            depth += (bracket in "{[") - (bracket in "]}")
            if depth > MAX_JSON_DEPTH:
                raise FormatError(f"nested deeper than {MAX_JSON_DEPTH}", field=field, offset=found.start())
    if not any_text and _HALF_PAIR.search(text) is not None:
        _check_pairs(text, field)


def _check_pairs(text: str, field: str) -> None:
    try:
        json.dumps(_DECODER.decode(text), ensure_ascii=False).encode()
        return
    except UnicodeEncodeError:
        pass
    raise FormatError("half of a surrogate pair", field=field)


class InflatedStream:
    """The content of a plain or gzip file, in chunks, within bounds on size and expansion.

    ``InflatedStream(file, max_bytes=2**28)``. Members of a gzip follow each other, as ``cat`` makes them.
    ``read()`` gives the next chunk, empty at the end. Raises FormatError.
    """

    def __init__(self, stream: BinaryIO, *, max_bytes: int, field: str) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._field = field
        self._inflater: Any = None
        self._is_gzip: bool | None = None
        self._rest = b""
        self._read_bytes = 0
        self._given_bytes = 0
        self._members = 0

    def read(self) -> bytes:
        """The next chunk of the content."""
        while True:
            raw = self._rest or self._stream.read(_CHUNK_BYTES)
            if self._is_gzip is None:
                if len(raw) == 1:  # a network may give less than it was asked for
                    raw += self._stream.read(_CHUNK_BYTES)
                self._is_gzip = raw.startswith(GZIP_START)
            self._read_bytes += 0 if self._rest else len(raw)
            self._rest = b""
            if not self._is_gzip:
                return self._counted(raw)
            if not raw:
                if self._inflater is not None:
                    raise FormatError("corrupt or truncated gzip", field=self._field)
                return b""
            content = self._inflated(raw)
            if content:
                return self._counted(content)

    def _inflated(self, raw: bytes) -> bytes:
        if self._inflater is None:
            self._inflater = zlib.decompressobj(wbits=31)
        try:
            content: bytes = self._inflater.decompress(raw, _CHUNK_BYTES)
        except zlib.error:
            raise FormatError("corrupt or truncated gzip", field=self._field) from None
        self._rest = self._inflater.unconsumed_tail
        if self._inflater.eof:
            # Zeros may follow the last member, as tapes and some writers pad.
            self._rest, self._inflater = self._inflater.unused_data.lstrip(b"\0"), None
            self._members += 1
            if self._members > MAX_GZIP_MEMBERS:
                raise FormatError(f"more than {MAX_GZIP_MEMBERS:,} members of gzip", field=self._field)
        return content

    def _counted(self, content: bytes) -> bytes:
        self._given_bytes += len(content)
        if self._given_bytes > self._max_bytes:
            raise FormatError(f"longer than {self._max_bytes:,} bytes", field=self._field)
        if self._given_bytes > max(_FREE_BYTES, MAX_EXPANSION * self._read_bytes):
            raise FormatError(f"expands to more than {MAX_EXPANSION} times its size", field=self._field)
        return content


def inflated(stream: BinaryIO, *, max_bytes: int, field: str) -> bytes:
    """The whole content of a plain or gzip file that is small, such as a digest. Raises FormatError."""
    reader = InflatedStream(stream, max_bytes=max_bytes, field=field)
    return b"".join(iter(reader.read, b""))


class JsonArray:
    """The elements of an array in a document that is too long for memory, one after the other.

    ``JsonArray(chunks, ("Records",), field="log file")`` reads ``{"Records": […]}``, and a document that is an
    object without such a member, or several documents one after the other (JSON lines), gives each
    document itself. Members before the array are passed over. Raises FormatError at what is no JSON.
    """

    def __init__(self, stream: InflatedStream, names: tuple[str, ...], *, field: str) -> None:
        self._stream = stream
        self._names = names
        self._field = field
        self._text = ""
        self._at = 0
        self._gone = 0
        self._is_at_end = False
        self._undecoded = b""
        self.has_named_array = False

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Pairs of the array's name (empty for a whole document) and an element."""
        self._read_more()
        self._text = self._text.removeprefix("\ufeff")
        while self._next_character():
            name = self._array_name()
            if not name:
                yield "", self._value()
                continue
            self.has_named_array = True
            yield from ((name, element) for element in self._elements())
            self._pass_rest_of_object()

    def _elements(self) -> Iterator[Any]:
        self._expect("[")
        if self._next_character() == "]":
            self._at += 1
            return
        while True:
            yield self._value()
            if self._expect(",]") == "]":
                return

    def _array_name(self) -> str:
        """The array's name if the document is an object that begins with it; other members are looked past."""
        self._fill(4_096)
        found = _FIRST_ARRAY.match(self._text, self._at)
        if found is None or found[1] not in self._names:
            return ""
        self._at = found.end()
        return found[1]

    def _pass_rest_of_object(self) -> None:
        while self._expect(",}") == ",":
            self._next_character()
            name = self._value()
            if not isinstance(name, str) or name in self._names:
                raise self._error("a name stands twice in one object" if name in self._names else "no name")
            self._expect(":")
            self._next_character()
            self._value()

    def _value(self) -> Any:
        self._next_character()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                if end < len(self._text) or self._is_at_end:
                    break  # a number at the end of what was read may go on
            except (RecursionError, ValueError) as error:
                refusal = self._refusal(error)
            else:
                refusal = None
            if refusal is not None:
                raise refusal
            self._read_more(at_least=len(self._text) - self._at)
        _check_text(self._text[self._at : end], self._field, True)
        self._at = end
        return value

    def _refusal(self, error: BaseException) -> FormatError | None:
        """Of a value that did not parse; None while it may be whole once more was read."""
        if self._is_at_end or isinstance(error, _RepeatedNameError | RecursionError):
            is_syntax = isinstance(error, json.JSONDecodeError)
            return self._error("not JSON, or cut off" if is_syntax else _reason(error))
        if len(self._text) - self._at > _MAX_ELEMENT_CHARACTERS:
            return self._error(f"one value is longer than {_MAX_ELEMENT_CHARACTERS:,} characters")
        return None

    def _next_character(self) -> str:
        """The next character that is no space, empty at the end."""
        while True:
            self._at = _after_space(self._text, self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if self._is_at_end:
                return ""
            self._read_more()

    def _expect(self, characters: str) -> str:
        found = self._next_character()
        if not found or found not in characters:
            raise self._error("not JSON, or cut off")
        self._at += 1
        return found

    def _fill(self, characters: int) -> None:
        while not self._is_at_end and len(self._text) - self._at < characters:
            self._read_more()

    def _read_more(self, at_least: int = 1) -> None:
        """Read on, by as much as waits already: a long value is tried again only a few times."""
        parts = [self._text[self._at :]]
        self._gone += self._at
        self._at = 0
        added = 0
        while added < at_least and not self._is_at_end:
            chunk = self._stream.read()
            self._is_at_end = not chunk
            parts.append(self._decoded(chunk))
            added += len(parts[-1])
        self._text = "".join(parts)

    def _decoded(self, chunk: bytes) -> str:
        content = self._undecoded + chunk
        self._undecoded = b""
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            is_cut = chunk and error.end == len(content) and len(content) - error.start < 4
            start = error.start if is_cut else 0
        if not is_cut:
            raise self._error("not UTF-8")
        self._undecoded = content[start:]
        return content[:start].decode("utf-8")

    def _error(self, message: str) -> FormatError:
        return FormatError(message, field=self._field, offset=self._gone + self._at)
