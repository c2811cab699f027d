"""Where a beacon finds its value in an item: ``address.city``, ``visits[3].code``.

``searchable-encryption/virtual.md``, section "Terminal Location": a name, then any number of ``.name`` and
``[number]``. Names hold neither ``.`` nor ``[``. A location that leads nowhere in an item has no value there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from phicrypt.errors import ConfigurationError

AttributeValue = Mapping[str, Any]
Location = tuple[str | int, ...]
"""``("visits", 3, "code")``: the first step is the attribute."""

_FIRST: Final = re.compile(r"[^.\[]+")
_STEP: Final = re.compile(r"\.([^.\[]+)|\[([0-9]+)\]", re.ASCII)


def parse_location(text: str) -> Location:
    """``parse_location("visits[3].code")`` is ``("visits", 3, "code")``. Raises ConfigurationError.

    AWS's libraries read every digit of an index as its first (``[12]`` as 11), so that they and phicrypt
    would hash different elements; such an index is refused (rule 34).
    """
    if not isinstance(text, str) or (first := _FIRST.match(text)) is None:
        raise ConfigurationError("a location begins with an attribute's name")
    steps: list[str | int] = [first[0]]
    position = first.end()
    while position < len(text):
        step = _STEP.match(text, position)
        if step is None:
            raise ConfigurationError(
                f"the location {text!r} cannot be read at character {position + 1}: .name or [index] was expected"
            )
        steps.append(step[1] if step[1] is not None else _index(step[2], text))
        position = step.end()
    return tuple(steps)


def value_at(location: Location, item: Mapping[str, AttributeValue]) -> AttributeValue | None:
    """The value there, or None."""
    value = item.get(str(location[0]))
    for step in location[1:]:
        if value is None:
            return None
        if isinstance(step, int):
            elements = value.get("L", ())
            value = elements[step] if step < len(elements) else None
        else:
            value = value.get("M", {}).get(step)
    return value


def location_text(location: Location) -> str:
    """The inverse of :func:`parse_location`."""
    first, *rest = location
    return str(first) + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest)


def _index(digits: str, text: str) -> int:
    if len(digits) > 1 and (len(set(digits)) > 1 or digits[0] == "0"):
        raise ConfigurationError(
            f"the location {text!r} has the list index {digits}, which AWS's libraries read as another one: of "
            "indices above 9 only those of equal digits (11, 22, …) mean the same to all"
        )
    return int(digits)
