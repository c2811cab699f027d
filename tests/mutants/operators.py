"""What can be done wrong to a statement: each variant with the operator and a word for the change."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .statements import head, spelled

COMPARISON: Final = "comparison"
NEGATION: Final = "negation"
CONSTANT: Final = "constant"
LOGIC: Final = "and/or"
REMOVED_CHECK: Final = "removed check"
DROPPED_RAISE: Final = "dropped raise"
DROPPED_CALL: Final = "dropped call"
RETURN_VALUE: Final = "return value"

_OPPOSITES: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_LOG_METHODS: Final = {"debug", "info", "warning", "error", "exception", "log"}


@dataclass(frozen=True)
class Variant:
    """A statement done wrong: the operator, what it changed, and the statement's new text."""

    operator: str
    change: str
    text: str


def variants(statement: ast.stmt) -> list[Variant]:
    """Every wrong variant of a statement, or of the head of a compound one; none of docstrings and log lines."""
    if _is_without_effect(statement):
        return []
    found = [*_whole(statement), *_parts(statement)]
    original = spelled(statement)
    seen: dict[str, Variant] = {}
    for variant in found:
        if variant.text != original:
            seen.setdefault(variant.text, variant)
    return list(seen.values())


def _is_without_effect(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Assert | ast.Pass | ast.Global | ast.Nonlocal):
        return True
    if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) in ("__all__", "__slots__"):
        return True
    if not isinstance(statement, ast.Expr):
        return False
    if isinstance(statement.value, ast.Constant):
        return True
    called = statement.value.func if isinstance(statement.value, ast.Call) else None
    return isinstance(called, ast.Attribute) and called.attr in _LOG_METHODS and "log" in ast.unparse(called.value)


def _whole(statement: ast.stmt) -> Iterator[Variant]:
    if isinstance(statement, ast.If) and not statement.orelse and isinstance(statement.body[-1], ast.Raise):
        yield Variant(REMOVED_CHECK, "check removed", "if False:")
    if isinstance(statement, ast.Raise):
        yield Variant(DROPPED_RAISE, "raise dropped", "pass")
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        yield Variant(DROPPED_CALL, "call dropped", "pass")
    if isinstance(statement, ast.Return) and statement.value is not None:
        yield Variant(RETURN_VALUE, "value to None", "return None")
    if isinstance(statement, ast.If | ast.While) and not _is_negated_elsewhere(statement.test):
        changed = head(statement)
        assert isinstance(changed, ast.If | ast.While)
        changed.test = ast.UnaryOp(ast.Not(), changed.test)
        yield Variant(NEGATION, "condition negated", spelled(changed))


def _is_negated_elsewhere(condition: ast.expr) -> bool:
    """Whether an operator on a part already says the opposite of the whole."""
    if isinstance(condition, ast.Compare) and len(condition.ops) == 1:
        return not isinstance(condition.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
    return isinstance(condition, ast.UnaryOp | ast.Constant)


def _parts(statement: ast.stmt) -> Iterator[Variant]:
    if isinstance(statement, ast.Raise):
        return  # what stands in an error is text for people
    count = len(_nodes(head(statement)))
    for index in range(count):
        node = _nodes(head(statement))[index]
        for number in range(len(node.ops) if isinstance(node, ast.Compare) else 2):
            changed = head(statement)
            done = _changed(_nodes(changed)[index], number)
            if done is not None:
                operator, change, new = done
                if new is not None:
                    changed = _Replacing(_nodes(changed)[index], new).visit(changed)
                yield Variant(operator, change, spelled(changed))


def _nodes(statement: ast.stmt) -> list[ast.AST]:
    """The parts of a statement in a fixed order; without annotations and f-strings, which judge nothing."""
    found: list[ast.AST] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr):
            return
        found.append(node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "ctx"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child)

    visit(statement)
    return found


def _changed(node: ast.AST, number: int) -> tuple[str, str, ast.expr | None] | None:
    """Change a node in place, or say what replaces it; None where there is nothing (more) to change."""
    if isinstance(node, ast.Compare):
        old = type(node.ops[number])
        node.ops[number] = _OPPOSITES[old]()
        return COMPARISON, f"{_symbol(old)} to {_symbol(_OPPOSITES[old])}", None
    if isinstance(node, ast.BoolOp) and number == 0:
        change = "and to or" if isinstance(node.op, ast.And) else "or to and"
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return LOGIC, change, None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and number == 0:
        return NEGATION, "not dropped", node.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return None if number else (CONSTANT, f"{node.value} flipped", ast.Constant(not node.value))
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        new = node.value + (1, -1)[number]
        return None if new < 0 else (CONSTANT, f"{node.value} to {new}", ast.Constant(new))
    return None


def _symbol(operator: type[ast.cmpop]) -> str:
    compared = ast.Compare(ast.Name("a"), [operator()], [ast.Name("b")])
    return ast.unparse(compared).removeprefix("a ").removesuffix(" b")


class _Replacing(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.expr) -> None:
        self._old, self._new = old, copy.deepcopy(new)

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._old else self.generic_visit(node)
