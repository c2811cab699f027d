"""A syntax tree as an expression again, with placeholders of our own for every name and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phicrypt.dynamodb.expression_tree import (
    And,
    Between,
    Call,
    Comparison,
    Condition,
    Membership,
    Not,
    Operand,
    Or,
    Path,
    Value,
)

AttributeValue = Mapping[str, Any]


class Placeholders:
    """Hands out ``#b0``, ``:b0``, …: one for each name and value, whatever the caller called it (rule 36)."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, AttributeValue] = {}
        self._by_name: dict[str, str] = {}
        self._by_value: dict[str, str] = {}

    def name(self, attribute: str) -> str:
        placeholder = self._by_name.setdefault(attribute, f"#b{len(self._by_name)}")
        self.names[placeholder] = attribute
        return placeholder

    def value(self, value: AttributeValue) -> str:
        placeholder = self._by_value.setdefault(repr(value), f":b{len(self._by_value)}")
        self.values[placeholder] = value
        return placeholder

    def path(self, path: Path) -> str:
        first, *rest = path.steps
        steps = (f"[{step}]" if isinstance(step, int) else f".{self.name(step)}" for step in rest)
        return self.name(str(first)) + "".join(steps)

    def text(self, node: Condition | Operand) -> str:
        """A condition as text."""
        if isinstance(node, Path):
            return self.path(node)
        if isinstance(node, Value):
            return node.placeholder
        if isinstance(node, Call):
            return f"{node.function}({', '.join(map(self.text, node.arguments))})"
        if isinstance(node, Comparison):
            return f"{self.text(node.left)} {node.comparator} {self.text(node.right)}"
        if isinstance(node, Between):
            return f"{self.text(node.operand)} BETWEEN {self.text(node.low)} AND {self.text(node.high)}"
        if isinstance(node, Membership):
            return f"{self.text(node.operand)} IN ({', '.join(map(self.text, node.options))})"
        if isinstance(node, Not):
            return f"NOT ({self.text(node.condition)})"
        word = " AND " if isinstance(node, And) else " OR "
        return word.join(
            f"({self.text(part)})" if isinstance(part, And | Or) else self.text(part) for part in node.conditions
        )
