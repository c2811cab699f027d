"""The statements of a source file, each with the function that it stands in and one normal spelling.

Compound statements are known by their head (``if x > limit:``), so that a change of what stands below
does not hide them.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BELOW = "\n    pass"
_COMPOUND = (ast.If, ast.While)
_CONTAINERS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Statement:
    """A statement where it stands.

    Attributes:
        file: path of the file, relative to the tree, with forward slashes.
        within: qualified name of the function or class, without ``<locals>``; ``""`` at module level.
        text: the statement, or the head of a compound one, as ``ast.unparse`` spells it.
        node: its node in the file's tree.
    """

    file: str
    within: str
    text: str
    node: ast.stmt

    @property
    def line(self) -> int:
        return self.node.lineno

    @property
    def last_line(self) -> int:
        """Last line of a simple statement or of the head of a compound one."""
        part = replaced_part(self.node)
        return part.end_lineno or part.lineno


def head(statement: ast.stmt) -> ast.stmt:
    """A copy of a statement without what stands below it."""
    if isinstance(statement, ast.If):
        return ast.If(copy.deepcopy(statement.test), [ast.Pass()], [])
    if isinstance(statement, ast.While):
        return ast.While(copy.deepcopy(statement.test), [ast.Pass()], [])
    return copy.deepcopy(statement)


def spelled(statement: ast.stmt) -> str:
    """The normal spelling of a statement or of its head."""
    text = ast.unparse(ast.fix_missing_locations(head(statement)))
    return text.removesuffix(_BELOW) if isinstance(statement, _COMPOUND) else text


def parsed(text: str) -> ast.stmt:
    """The statement that :func:`spelled` gave this text for."""
    return ast.parse(text + _BELOW if text.endswith(":") else text).body[0]


def replaced_part(statement: ast.stmt) -> ast.expr | ast.stmt:
    """What a mutant replaces in the source: the whole statement, or the condition of a compound one."""
    return statement.test if isinstance(statement, ast.If | ast.While) else statement


def statements_of(source: str, file: str) -> Iterator[Statement]:
    """Simple statements and heads of ``if`` and ``while``, in order; nothing that only type checkers run."""
    yield from _below(ast.parse(source).body, file, "")


def statements_of_tree(tree: Path, package: str = "phicrypt") -> list[Statement]:
    """The same for every file of a package."""
    return [
        statement
        for path in sorted((tree / package).rglob("*.py"))
        for statement in statements_of(path.read_text(encoding="utf-8"), path.relative_to(tree).as_posix())
    ]


def _below(body: list[ast.stmt], file: str, within: str) -> Iterator[Statement]:
    for node in body:
        if isinstance(node, _CONTAINERS):
            yield from _below(node.body, file, f"{within}.{node.name}".lstrip("."))
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, _COMPOUND) or not hasattr(node, "body"):
            yield Statement(file, within, spelled(node), node)
        for inner in _blocks(node):
            yield from _below(inner, file, within)


def _blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        yield getattr(node, name, [])
    for handler in getattr(node, "handlers", []):
        yield handler.body
    for case in getattr(node, "cases", []):
        yield case.body
