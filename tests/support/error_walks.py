"""Everything that an error tracker would send away of an exception: what stands in it and behind it.

::

    assert canaries_in(error) == []

Whoever wants to know whether a value leaks puts :data:`CANARY` into it and walks the error that comes.
"""

from __future__ import annotations

import base64
import types
from collections.abc import Iterator, Mapping
from typing import Any

CANARY = "Xq7CANARYq7X"
_SPELLINGS = (
    CANARY.lower(),
    CANARY.encode().hex(),
    # Base64 has three spellings, by where in a group of three bytes the text begins.
    *(base64.b64encode(b"\0" * skipped + CANARY.encode())[4:-4].decode().lower() for skipped in range(3)),
)
_PASSED_BY = (
    type(None),
    int,
    float,
    complex,
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.CodeType,
    types.FrameType,
    types.TracebackType,
)
_MAX_STEPS = 100_000


def canaries_in(error: BaseException) -> list[str]:
    """Where the canary stands: the path from the error to each place, such as ``error.__context__.object``."""
    return [path for path, text in texts_behind(error) if any(each in text.lower() for each in _SPELLINGS)]


def texts_behind(error: BaseException) -> Iterator[tuple[str, str]]:
    """Every text that is reached from the error, with its path: args, attributes, notes, what stands behind
    it, its printed forms, and the names of the local variables of each frame that it passed.
    """
    waiting: list[tuple[str, Any]] = [("error", error)]
    seen: set[int] = set()
    kept = []  # so that no id is used twice while the walk lasts
    steps = 0
    while waiting:
        path, value = waiting.pop()
        steps += 1
        assert steps < _MAX_STEPS, f"a walk without an end at {path}"
        if isinstance(value, _PASSED_BY) or id(value) in seen:
            continue
        if isinstance(value, str):
            yield path, value
            continue
        if isinstance(value, bytes | bytearray | memoryview):
            yield path, bytes(value).decode("latin-1")
            continue
        seen.add(id(value))
        kept.append(value)
        if isinstance(value, BaseException):
            yield f"str({path})", str(value)
            yield f"repr({path})", repr(value)
            yield from ((f"{path}: a local variable", name) for name in _local_names(value.__traceback__))
        waiting.extend(_parts(path, value))


def _parts(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BaseException):
        for name in ("args", "__cause__", "__context__", "__notes__"):
            yield f"{path}.{name}", getattr(value, name, None)
        if isinstance(value, UnicodeError) and hasattr(value, "object"):
            yield f"{path}.object", value.object
    if isinstance(value, Mapping):
        for number, (name, member) in enumerate(value.items()):
            yield f"{path}[name {number}]", name
            yield f"{path}[{number}]", member
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"{path}[{number}]", member) for number, member in enumerate(value))
    for name, member in getattr(value, "__dict__", {}).items():
        yield f"{path}.{name}", member
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            yield f"{path}.{name}", getattr(value, name, None)


def _local_names(traceback: types.TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield from traceback.tb_frame.f_locals
        traceback = traceback.tb_next
