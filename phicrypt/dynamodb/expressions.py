"""Parser of DynamoDB's expressions: condition, filter, key condition, projection and update.

The syntax tree tells which attributes an expression touches; :mod:`phicrypt.dynamodb.matching`
evaluates conditions on verified items. The grammar is that of the DynamoDB Developer Guide,
"Expressions in DynamoDB"::

    condition   = conjunction *( OR conjunction )
    conjunction = negation *( AND negation )
    negation    = NOT negation / "(" condition ")" / predicate
    predicate   = operand comparator operand / operand BETWEEN operand AND operand
                / operand IN "(" operand *( "," operand ) ")" / function
    operand     = path / :value / function / "(" operand ")"
    path        = name *( "." name / "[" digits "]" )        name = identifier / #placeholder
    projection  = path *( "," path )
    update      = 1*( SET path "=" sum *( "," … ) / REMOVE path *( "," … )
                    / ADD path operand *( "," … ) / DELETE path operand *( "," … ) )
    sum         = operand [ ( "+" / "-" ) operand ]

Expressions hold no attribute values (those stand apart, in ``ExpressionAttributeValues``), but a
caller may write one there by mistake: messages about syntax repeat placeholders and marks only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

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
    Update,
    Value,
)
from phicrypt.errors import ConfigurationError, LimitExceededError

MAX_EXPRESSION_LENGTH_BYTES: Final = 4096
"""DynamoDB's own bound on one expression."""
MAX_NESTING_DEPTH: Final = 64

CONDITION_FUNCTIONS: Final = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
}
"""Functions of conditions, with their number of arguments. All but ``size`` are predicates."""
UPDATE_FUNCTIONS: Final = {"if_not_exists": 2, "list_append": 2}
COMPARATORS: Final = frozenset({"=", "<>", "<", "<=", ">", ">="})


def parse_condition(text: str, names: Mapping[str, str] | None = None, *, member: str = "condition") -> Condition:
    """The syntax tree of a condition, filter or key condition expression.

    ``names`` is ExpressionAttributeNames; ``member`` names the parameter in errors. Raises
    ConfigurationError for anything outside the grammar, LimitExceededError beyond DynamoDB's length
    or :data:`MAX_NESTING_DEPTH`.
    """
    parser = _Parser(text, names or {}, member, CONDITION_FUNCTIONS)
    return parser.whole(parser.condition)


def parse_projection(text: str, names: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """The paths of a projection expression; errors as :func:`parse_condition`."""
    parser = _Parser(text, names or {}, "ProjectionExpression", {})
    return parser.whole(lambda: parser.listed(parser.path))


def parse_update(text: str, names: Mapping[str, str] | None = None) -> Update:
    """The targets and operands of an update expression; errors as :func:`parse_condition`."""
    parser = _Parser(text, names or {}, "UpdateExpression", UPDATE_FUNCTIONS)
    return parser.whole(parser.update)


_TOKEN: Final = re.compile(
    r"\s*(?:(?P<word>[#:]?[A-Za-z0-9_]+)|(?P<mark><>|<=|>=|[=<>().,\[\]+-])|(?P<end>\Z))", re.ASCII
)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
_KEYWORDS: Final = frozenset({"AND", "OR", "NOT", "BETWEEN", "IN", "SET", "REMOVE", "ADD", "DELETE"})
_CLAUSES: Final = ("SET", "REMOVE", "ADD", "DELETE")
_T = TypeVar("_T")


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str, names: Mapping[str, str], member: str, functions: Mapping[str, int]) -> None:
        self._member = member
        self._names = names
        self._functions = functions
        self._depth = 0
        self._position = 0
        self._tokens = self._tokenize(text)

    def whole(self, rule: Callable[[], _T]) -> _T:
        """Apply a rule that must use up every token."""
        tree = rule()
        if self._peek():
            self._fail(f"{_shown(self._peek())} is left over")
        return tree

    def condition(self) -> Condition:
        return self._joined("OR", self._conjunction, Or)

    def path(self) -> Path:
        steps: list[str | int] = [self._name()]
        while True:
            if self._accept("."):
                steps.append(self._name())
            elif self._accept("["):
                digits = self._next()
                if not digits.isdecimal():
                    self._fail("a list index is a number of digits")
                steps.append(int(digits))
                self._expect("]")
            else:
                return Path(tuple(steps))

    def listed(self, rule: Callable[[], _T]) -> tuple[_T, ...]:
        parts = [rule()]
        while self._accept(","):
            parts.append(rule())
        return tuple(parts)

    def update(self) -> Update:
        targets: list[Path] = []
        operands: list[Operand] = []
        seen: set[str] = set()
        while self._peek():
            clause = self._next().upper()
            if clause not in _CLAUSES or clause in seen:
                self._fail("each of SET, REMOVE, ADD and DELETE begins at most one clause")
            seen.add(clause)
            for target, sources in self.listed(lambda clause=clause: self._change(clause)):  # type: ignore[misc]
                targets.append(target)
                operands.extend(sources)
        if not targets:
            self._fail("it is empty")
        return Update(tuple(targets), tuple(operands))

    def _change(self, clause: str) -> tuple[Path, tuple[Operand, ...]]:
        target = self.path()
        if clause == "REMOVE":
            return target, ()
        if clause != "SET":
            return target, (self._operand(),)
        self._expect("=")
        left = self._operand()
        if self._accept("+") or self._accept("-"):
            return target, (left, self._operand())
        return target, (left,)

    def _conjunction(self) -> Condition:
        return self._joined("AND", self._negation, And)

    def _joined(
        self, word: str, rule: Callable[[], Condition], node: Callable[[tuple[Condition, ...]], Condition]
    ) -> Condition:
        parts = [rule()]
        while self._accept_word(word):
            parts.append(rule())
        return parts[0] if len(parts) == 1 else node(tuple(parts))

    def _negation(self) -> Condition:
        if self._accept_word("NOT"):
            with _Nested(self):
                return Not(self._negation())
        if self._peek() == "(" and not self._is_operand_in_parentheses():
            self._next()
            with _Nested(self):
                inner = self.condition()
            self._expect(")")
            return inner
        return self._predicate()

    def _is_operand_in_parentheses(self) -> bool:
        """Whether what follows the closing parenthesis makes ``(…)`` an operand and not a condition."""
        depth = 0
        for index in range(self._position, len(self._tokens)):
            depth += {"(": 1, ")": -1}.get(self._tokens[index], 0)
            if depth == 0:
                after = self._tokens[index + 1].upper()
                return after in COMPARATORS or after in ("BETWEEN", "IN")
        return False

    def _predicate(self) -> Condition:
        operand = self._operand()
        if self._peek() in COMPARATORS:
            return Comparison(self._next(), operand, self._operand())
        if self._accept_word("BETWEEN"):
            low = self._operand()
            if not self._accept_word("AND"):
                self._fail("BETWEEN needs two operands joined by AND")
            return Between(operand, low, self._operand())
        if self._accept_word("IN"):
            self._expect("(")
            options = self.listed(self._operand)
            self._expect(")")
            return Membership(operand, options)
        if not isinstance(operand, Call) or operand.function == "size":
            self._fail("a comparison was expected")
        return operand

    def _operand(self) -> Operand:
        if self._accept("("):
            with _Nested(self):
                operand = self._operand()
            self._expect(")")
            return operand
        if self._peek().startswith(":"):
            return Value(self._next())
        if self._tokens[min(self._position + 1, len(self._tokens) - 1)] == "(":
            return self._call()
        return self.path()

    def _call(self) -> Call:
        function = self._next()
        if function not in self._functions:
            self._fail(f"only the functions {', '.join(self._functions)} are known here")
        self._expect("(")
        with _Nested(self):
            arguments = self.listed(self._operand)
        self._expect(")")
        if len(arguments) != self._functions[function]:
            self._fail(f"the function {function} takes {self._functions[function]} arguments")
        return Call(function, arguments)

    def _name(self) -> str:
        token = self._next()
        if token.startswith("#"):
            name = self._names.get(token)
            if not isinstance(name, str) or not name:
                self._fail(f"ExpressionAttributeNames does not define {token!r}")
            return name
        if not _IDENTIFIER.match(token) or token.upper() in _KEYWORDS:
            self._fail(f"an attribute name was expected, not {_shown(token)}")
        return token

    def _tokenize(self, text: str) -> Sequence[str]:
        if not isinstance(text, str):
            self._fail("it is not text")
        length = len(text.encode("utf-8", "surrogatepass"))
        if length > MAX_EXPRESSION_LENGTH_BYTES:
            raise LimitExceededError(
                f"{self._member} is too long in bytes", limit=MAX_EXPRESSION_LENGTH_BYTES, actual=length
            )
        tokens: list[str] = []
        position = 0
        while True:
            match = _TOKEN.match(text, position)
            if match is None:
                self._fail(f"an unexpected character at position {position}")
            if match["end"] is not None:
                return [*tokens, ""]
            tokens.append(match["word"] or match["mark"])
            position = match.end()

    def _peek(self) -> str:
        return self._tokens[self._position]

    def _next(self) -> str:
        token = self._tokens[self._position]
        if not token:
            self._fail("it ends too early")
        self._position += 1
        return token

    def _accept(self, mark: str) -> bool:
        if self._peek() != mark:
            return False
        self._position += 1
        return True

    def _accept_word(self, word: str) -> bool:
        if self._peek().upper() != word:
            return False
        self._position += 1
        return True

    def _expect(self, mark: str) -> None:
        if not self._accept(mark):
            self._fail(f"{mark!r} was expected, not {_shown(self._peek())}")

    def _fail(self, what: str) -> NoReturn:
        raise ConfigurationError(f"{self._member} cannot be read: {what}; nothing was sent")


class _Nested:
    """Counts the depth of parentheses, negations and calls, so that no text exhausts the stack."""

    __slots__ = ("_parser",)

    def __init__(self, parser: _Parser) -> None:
        self._parser = parser

    def __enter__(self) -> None:
        self._parser._depth += 1
        if self._parser._depth > MAX_NESTING_DEPTH:
            raise LimitExceededError(
                f"{self._parser._member} is nested too deeply", limit=MAX_NESTING_DEPTH, actual=None
            )

    def __exit__(self, *error: Any) -> None:
        self._parser._depth -= 1


def _shown(token: str) -> str:
    if not token:
        return "the end"
    return repr(token) if token[0] in "#:" or (not token[0].isalnum() and token[0] != "_") else "a word"
