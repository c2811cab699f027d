"""The syntax trees of DynamoDB's expressions, and what they touch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Path:
    """A document path with its placeholders resolved: ``steps[0]`` is the attribute."""

    steps: tuple[str | int, ...]

    @property
    def attribute(self) -> str:
        return str(self.steps[0])

    @property
    def is_nested(self) -> bool:
        return len(self.steps) > 1


@dataclass(frozen=True, slots=True)
class Value:
    """A placeholder such as ``:v`` of ExpressionAttributeValues."""

    placeholder: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments."""

    function: str
    arguments: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    comparator: str
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class Between:
    operand: Operand
    low: Operand
    high: Operand


@dataclass(frozen=True, slots=True)
class Membership:
    """``operand IN (options)``."""

    operand: Operand
    options: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Not:
    condition: Condition


@dataclass(frozen=True, slots=True)
class And:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    conditions: tuple[Condition, ...]


Operand = Path | Value | Call
Condition = Comparison | Between | Membership | Call | Not | And | Or


@dataclass(frozen=True, slots=True)
class Update:
    """An update expression: what it writes and what it reads.

    Attributes:
        targets: every path that SET, REMOVE, ADD or DELETE changes.
        operands: every operand on the right-hand side.
    """

    targets: tuple[Path, ...]
    operands: tuple[Operand, ...]


def walk(node: object) -> Iterator[object]:
    """The node and everything below it."""
    yield node
    if isinstance(node, tuple):
        for part in node:
            yield from walk(part)
    elif hasattr(node, "__dataclass_fields__"):
        for part in fields(node):  # type: ignore[arg-type]
            yield from walk(getattr(node, part.name))


def paths(node: object) -> list[Path]:
    """Every path that the expression touches, in its order."""
    return [part for part in walk(node) if isinstance(part, Path)]


def placeholders(node: object) -> set[str]:
    """Every ``:value`` that the expression uses."""
    return {part.placeholder for part in walk(node) if isinstance(part, Value)}
