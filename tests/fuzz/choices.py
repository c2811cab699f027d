"""Any bytes, read as choices: which value of a document to change, and into what."""

from __future__ import annotations

import json
from typing import Any, Final

_LEAVES: Final = (None, True, False, 0, -1, 2**63, 1e300, "", "x", "\ud800", "2026-01-31T00:00:00Z", [], {}, b"")


class Choices:
    """Takes numbers, text and bytes from what the fuzzer gave; at its end everything is zero or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, length_bytes: int) -> bytes:
        piece = self._data[self._position : self._position + length_bytes]
        self._position += length_bytes
        return piece

    def below(self, bound: int) -> int:
        """A number from 0 to ``bound`` - 1, of two bytes."""
        return int.from_bytes(self.take(2), "big") % bound

    def text(self) -> str:
        return self.take(self.below(24)).decode("utf-8", "surrogateescape")

    def rest(self) -> bytes:
        return self._data[self._position :]

    def value(self, depth: int = 0) -> Any:
        """A JSON value, or bytes."""
        kind = self.below(len(_LEAVES) + 5)
        if kind < len(_LEAVES):
            return _copied(_LEAVES[kind])
        if kind == len(_LEAVES) or depth > 3:
            return self.text()
        if kind == len(_LEAVES) + 1:
            return self.take(self.below(64))
        if kind == len(_LEAVES) + 2:
            return self.below(2**16) - 2**15
        if kind == len(_LEAVES) + 3:
            return [self.value(depth + 1) for _ in range(self.below(4))]
        return {self.text(): self.value(depth + 1) for _ in range(self.below(4))}

    def edited(self, document: Any, *, most_edits: int = 3) -> Any:
        """A copy of the document with up to ``most_edits`` of its values replaced, changed or taken out."""
        document = _copied(document)
        for _ in range(1 + self.below(most_edits)):
            places = list(_places(document))
            if not places:
                return self.value()
            parent, name = places[self.below(len(places))]
            edit = self.below(4)
            if edit == 0:
                del parent[name]
            elif edit == 1 and isinstance(parent, dict):
                parent[self.text()] = parent.pop(name)
            elif edit == 2 and isinstance(parent[name], str | bytes):
                parent[name] = self.spliced(parent[name])
            else:
                parent[name] = self.value()
        return document

    def spliced(self, content: Any) -> Any:
        """Text or bytes with a piece replaced by another."""
        at, length = self.below(len(content) + 1), self.below(12)
        piece = self.text() if isinstance(content, str) else self.take(self.below(24))
        return content[:at] + piece + content[at + length :]


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(inner) for name, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _places(value: Any) -> Any:
    """Each (parent, name or index) within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in list(items):
        yield value, name
        yield from _places(inner)


def without_bytes(value: Any) -> Any:
    """A JSON value without the bytes that JSON does not have."""
    return json.loads(json.dumps(value, default=lambda _: None, skipkeys=True))
