"""From the caller's question to the one that is sent: every value compared with something encrypted is a beacon.

An expression is parsed, rewritten as a tree and rendered anew with placeholders of its own (rule 36), so that no
name is taken for a keyword and no value slips through. What a beacon cannot answer is refused before the network;
what it can answer only roughly is asked for more widely, and the caller's own expression is evaluated on the
verified plaintext of what comes (rule 37).

==============================  ==================================================================================
``mrn = :v``, ``IN``            the beacon of the value
``contains(tags, :v)``          of a set's member; ``contains(:set, mrn)`` of each member
``mrn = other_mrn``             beacons that share a key
``attribute_exists(mrn)``       of an encrypted attribute itself: sent as it is
``lookup = :v``, ``IN``         the compound value with its encrypted parts hashed
``begins_with(lookup, :v)``     as far as its last encrypted part is whole; that part's text is compared afterwards
``lookup < :v``, ``BETWEEN``    where readable parts decide
``contains(lookup, :v)``        where readable parts decide, else every item that has the compound beacon
==============================  ==================================================================================

``NOT``, ``<>`` and everything else over a beacon are refused: a hash that is equal does not mean a value that is,
and the records lost that way would never be missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

from phicrypt.dynamodb.expression_text import Placeholders
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
from phicrypt.dynamodb.search_plans import SearchPlan, Standard
from phicrypt.errors import ConfigurationError, FormatError, UnsupportedOperationError
from phicrypt.formats.dbesdk.attributes import serialize
from phicrypt.formats.dbesdk.beacon_values import beacon_of_value, member_beacons, partition_of
from phicrypt.formats.dbesdk.compound_beacons import Compound, Hashes, Part, after_common, is_ordered

AttributeValue = Mapping[str, Any]
_ORDERS: Final = frozenset({"<", "<=", ">", ">="})
_SETS: Final = frozenset({"SS", "NS", "BS"})
_EXISTENCE: Final = ("attribute_exists", "attribute_not_exists")


@dataclass(frozen=True, slots=True, repr=False)  # it holds what is searched for
class Question:
    """What a rewriting is made for.

    Attributes:
        plan: of the table.
        is_encrypted: whether an attribute is.
        values: the caller's ExpressionAttributeValues.
        hashes: of the tenant that is asked; None where the expression only may be checked.
        partition: of the items that are asked for.
        where: what errors name, such as ``FilterExpression of Query``.
        placeholders: where what is sent gets its names and values.
    """

    plan: SearchPlan
    is_encrypted: Callable[[str], bool]
    values: Mapping[str, AttributeValue]
    hashes: Hashes
    partition: int
    where: str
    placeholders: Placeholders

    def sent(self, condition: Condition) -> Condition:
        """The condition to send. Raises UnsupportedOperationError, ConfigurationError."""
        try:
            return self._sent(condition)
        except FormatError as error:
            wrong = str(error)
        raise self._refusal(wrong)  # not in the handler, whose error is about the caller's value

    def _sent(self, condition: Condition) -> Condition:
        if isinstance(condition, And):
            return And(tuple(map(self._sent, condition.conditions)))
        if isinstance(condition, Or):
            return Or(tuple(map(self._sent, condition.conditions)))
        if isinstance(condition, Not):
            if any(self._is_hashed(part) for part in leaves(condition.condition)):
                self._refuse("NOT over a beacon would lose records whose hashes are equal by chance")
            return Not(self._sent(condition.condition))
        beacons = [operand for operand in _operands(condition) if self._beacon(operand) is not None]
        if not beacons:
            return self._plain(condition)
        if isinstance(condition, Call) and condition.function in _EXISTENCE:
            return self._existence(condition)
        if isinstance(condition, Comparison):
            return self._comparison(condition)
        if isinstance(condition, Membership):
            return self._membership(condition)
        if isinstance(condition, Between):
            return self._between(condition)
        return self._function(condition)

    # --- leaves ------------------------------------------------------------------------------------

    def _plain(self, condition: Condition) -> Condition:
        """A leaf without beacons: sent as it is, if it touches nothing encrypted."""
        for path in _paths(condition):
            if self.plan.is_hashed(path.attribute) and not isinstance(condition, Call):
                self._refuse(f"the beacon {path.attribute!r} has no size, and is compared with values only")
            if self.is_encrypted(path.attribute):
                top_level = isinstance(condition, Call) and condition.function in _EXISTENCE and not path.is_nested
                if not top_level:
                    self._refuse(
                        f"the attribute {path.attribute!r} is encrypted, and no beacon answers this: DynamoDB "
                        "sees random bytes there. A StandardBeacon of the attribute, or of the location in it, "
                        "does, by its own name"
                    )
        return cast("Condition", self._with_values(condition))

    def _existence(self, condition: Call) -> Condition:
        (path,) = condition.arguments
        assert isinstance(path, Path)
        one = self.plan.standard.get(path.attribute)
        if one is None or one.location != (path.attribute,) or one.field is not None:
            self._refuse(
                f"{condition.function} of {path.attribute!r}: only an encrypted attribute itself is there or not; "
                "ask for the attributes that it is made of"
            )
        return condition

    def _comparison(self, condition: Comparison) -> Condition:
        left, right, comparator = condition.left, condition.right, condition.comparator
        if isinstance(left, Value):
            left, right = right, left
            comparator = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(comparator, comparator)
        beacon = self._beacon(left)
        if comparator == "<>":
            self._refuse(
                f"<> over the beacon {self._name(left)!r} would lose records whose hashes are equal by chance"
            )
        if isinstance(right, Path) and isinstance(left, Path) and comparator == "=":
            return self._equal_beacons(left, right)
        if not isinstance(right, Value) or beacon is None:
            self._refuse("a beacon is compared with a value")
        value = self._value(right)
        if isinstance(beacon, Standard):
            if comparator != "=":
                self._refuse(f"{comparator} over the beacon {beacon.beacon.name!r}: a hash has no order")
            return Comparison("=", self._path(beacon.beacon.attribute), self._bound(self._hashed(beacon, value)))
        text = self._text(beacon, value)
        if comparator in _ORDERS and not is_ordered(beacon.pieces_of(text)):
            self._refuse(
                f"{comparator} over the compound beacon {beacon.name!r}: only readable parts have an order, and "
                "after them one prefix alone"
            )
        stored = self._asked(beacon, text, whole=comparator == "=")
        return Comparison(comparator, self._path(beacon.attribute), self._bound({"S": stored}))

    def _membership(self, condition: Membership) -> Condition:
        beacon = self._beacon(condition.operand)
        if beacon is None or not all(isinstance(option, Value) for option in condition.options):
            self._refuse("a beacon is compared with values")
        values = [self._value(option) for option in condition.options]
        if isinstance(beacon, Standard):
            options = [self._bound(self._hashed(beacon, value)) for value in values]
            return Membership(self._path(beacon.beacon.attribute), tuple(options))
        texts = [self._asked(beacon, self._text(beacon, value), whole=True) for value in values]
        return Membership(self._path(beacon.attribute), tuple(self._bound({"S": text}) for text in texts))

    def _between(self, condition: Between) -> Condition:
        beacon = self._beacon(condition.operand)
        if not isinstance(beacon, Compound) or not (
            isinstance(condition.low, Value) and isinstance(condition.high, Value)
        ):
            self._refuse("BETWEEN over a beacon: a hash has no order")
        low, high = (self._text(beacon, self._value(bound)) for bound in (condition.low, condition.high))
        low_pieces, high_pieces = beacon.pieces_of(low), beacon.pieces_of(high)
        rests = after_common(low_pieces, high_pieces)
        if not all(map(is_ordered, rests)):
            self._refuse(
                f"BETWEEN over the compound beacon {beacon.name!r}: after the parts that both bounds share, only "
                "readable parts have an order, and after them one prefix alone"
            )
        common = low_pieces[: len(low_pieces) - len(rests[0])]
        if common and common[-1][0].beacon is not None and not all(rests):
            # A text that only begins like the shared one lies between as well, and its hash is another.
            return self._begins(beacon, common)
        stored = [self._bound({"S": self._asked(beacon, text, whole=False)}) for text in (low, high)]
        return Between(self._path(beacon.attribute), stored[0], stored[1])

    def _function(self, condition: Condition) -> Condition:
        assert isinstance(condition, Call)
        subject, argument = condition.arguments
        beacon = self._beacon(subject)
        if condition.function == "begins_with" and isinstance(beacon, Compound) and isinstance(argument, Value):
            return self._begins(beacon, beacon.pieces_of(self._text(beacon, self._value(argument))))
        if condition.function == "contains":
            if isinstance(beacon, Compound) and isinstance(argument, Value):
                return self._holds(beacon, self._text(beacon, self._value(argument)))
            if isinstance(beacon, Standard) and isinstance(argument, Value) and beacon.beacon.is_set:
                return self._has_member(beacon, self._value(argument))
            other = self._beacon(argument)
            if isinstance(other, Standard) and isinstance(subject, Value) and not other.beacon.is_set:
                return self._is_member(other, self._value(subject))
        raise self._refusal(
            f"{condition.function} over the beacon {self._name(subject, argument)!r}: a hash shows no part of a "
            "value"
        )

    def _begins(self, beacon: Compound, pieces: Sequence[tuple[Part, str]]) -> Condition:
        """``begins_with``, as wide as the last part must be asked for: its text may go on where the value ends."""
        texts = [part.prefix + text for part, text in pieces]
        if pieces[-1][0].beacon is not None:
            texts[-1] = pieces[-1][0].prefix
        stored = self._asked(beacon, beacon.split.join(texts), whole=False)
        return Call("begins_with", (self._path(beacon.attribute), self._bound({"S": stored})))

    def _holds(self, beacon: Compound, value: str) -> Condition:
        """``contains``, where readable parts decide; else everything that has the beacon is asked for."""
        pieces = beacon.pieces_of(value)
        path = self._path(beacon.attribute)
        if len(pieces) > 1 and not any(_hashed_before(pieces[1][0], one) for one in beacon.constructors):
            texts = [part.prefix + text for part, text in pieces]
            if pieces[-1][0].beacon is not None:
                texts[-1] = pieces[-1][0].prefix
            stored = self._asked(beacon, beacon.split.join(texts), whole=False)
            return Call("contains", (path, self._bound({"S": stored})))
        return Call("attribute_exists", (path,))

    def _has_member(self, one: Standard, value: AttributeValue) -> Condition:
        ((kind, content),) = value.items()
        if kind not in ("S", "N", "B"):
            self._refuse(f"contains over the beacon {one.beacon.name!r}: a set has members of type S, N or B")
        (hashed,) = member_beacons(one.beacon, self._hashing(one), {f"{kind}S": [content]}, self._of(one))
        return Call("contains", (self._path(one.beacon.attribute), self._bound({"S": hashed})))

    def _is_member(self, one: Standard, value: AttributeValue) -> Condition:
        ((kind, members),) = value.items()
        if kind not in _SETS:
            self._refuse(f"contains over the beacon {one.beacon.name!r}: a hash shows no part of a value")
        hashed = member_beacons(one.beacon, self._hashing(one), {kind: members}, self._of(one))
        return Call(
            "contains", (self._bound({"SS": list(dict.fromkeys(hashed))}), self._path(one.beacon.attribute))
        )

    def _equal_beacons(self, left: Path, right: Path) -> Condition:
        one, other = self._beacon(left), self._beacon(right)
        if (
            not isinstance(one, Standard)
            or not isinstance(other, Standard)
            or _sameness(self.plan, one) != _sameness(self.plan, other)
        ):
            self._refuse("two paths are compared by their beacons only if these share a key (style 'shared')")
        return Comparison("=", self._path(one.beacon.attribute), self._path(other.beacon.attribute))

    # --- beacons and values ------------------------------------------------------------------------

    def _beacon(self, operand: Operand) -> Standard | Compound | None:
        """The beacon that an operand names. Raises UnsupportedOperationError for a part of one."""
        if not isinstance(operand, Path) or not self.plan.is_hashed(operand.attribute):
            return None
        name = operand.attribute
        if operand.is_nested:
            self._refuse(
                f"a part of {name!r} is asked for, and its beacon is of the whole; give the location a beacon"
            )
        one = self.plan.standard.get(name)
        if one is not None and not one.beacon.is_stored:
            self._refuse(f"the beacon {name!r} is partOnly: it is asked for as a part of a compound beacon")
        return one or self.plan.compounds[name]

    def _is_hashed(self, leaf: Condition) -> bool:
        if isinstance(leaf, Call) and leaf.function in _EXISTENCE:
            return False
        return any(self._beacon(operand) is not None for operand in _operands(leaf))

    def _hashed(self, one: Standard, value: AttributeValue) -> AttributeValue:
        ((kind, _),) = value.items()
        if one.beacon.is_set and kind not in _SETS:
            serialize(value)  # refuses what is no attribute value
            return {"S": self._hashing(one).of(b"", one.beacon.bits, self._of(one))}  # a set equals no such value
        return beacon_of_value(one.beacon, self._hashing(one), value, self._of(one))

    def _hashing(self, one: Standard) -> Any:
        return self.hashes[one.beacon.hashed_as]

    def _of(self, one: Standard) -> int:
        return partition_of(one.beacon, self.partition, self.plan.config.partitions)

    def _asked(self, beacon: Compound, text: str, *, whole: bool) -> str:
        return beacon.asked(text, self.hashes, self.partition, self.plan.config.partitions, whole=whole)

    def _text(self, beacon: Compound, value: AttributeValue) -> str:
        text = value.get("S")
        if not isinstance(text, str):
            self._refuse(f"the compound beacon {beacon.name!r} is a text, and is compared with text")
        return text

    def _value(self, operand: Operand) -> AttributeValue:
        assert isinstance(operand, Value)
        value = self.values.get(operand.placeholder)
        if not isinstance(value, Mapping) or len(value) != 1:
            raise ConfigurationError(
                f"{self.where}: ExpressionAttributeValues has no value {operand.placeholder!r}; nothing was sent"
            )
        return value

    def _with_values(self, node: Any) -> Any:
        """The same node, its values bound to placeholders of our own."""
        if isinstance(node, Value):
            return self._bound(self._value(node))
        if isinstance(node, Call):
            return Call(node.function, tuple(map(self._with_values, node.arguments)))
        if isinstance(node, Comparison):
            return Comparison(node.comparator, self._with_values(node.left), self._with_values(node.right))
        if isinstance(node, Between):
            return Between(*map(self._with_values, (node.operand, node.low, node.high)))
        if isinstance(node, Membership):
            return Membership(self._with_values(node.operand), tuple(map(self._with_values, node.options)))
        return node

    def _bound(self, value: AttributeValue) -> Value:
        return Value(self.placeholders.value(value))

    @staticmethod
    def _path(attribute: str) -> Path:
        return Path((attribute,))

    def _name(self, *operands: Operand) -> str:
        return next(one.attribute for one in operands if isinstance(one, Path))

    def _refuse(self, why: str) -> NoReturn:
        raise self._refusal(why)

    def _refusal(self, why: str) -> UnsupportedOperationError:
        return UnsupportedOperationError(f"{self.where}: {why}; nothing was sent")


def leaves(condition: Condition) -> list[Condition]:
    """The comparisons and functions of a condition."""
    if isinstance(condition, And | Or):
        return [leaf for part in condition.conditions for leaf in leaves(part)]
    if isinstance(condition, Not):
        return leaves(condition.condition)
    return [condition]


def beacon_names(condition: Condition | None, plan: SearchPlan) -> tuple[str, ...]:
    """The beacons that a condition names, each once."""
    if condition is None:
        return ()
    named = [
        path.attribute for leaf in leaves(condition) for path in _paths(leaf) if plan.is_hashed(path.attribute)
    ]
    return tuple(dict.fromkeys(named))


def _operands(condition: Condition) -> tuple[Operand, ...]:
    if isinstance(condition, Comparison):
        return (condition.left, condition.right)
    if isinstance(condition, Between):
        return (condition.operand, condition.low, condition.high)
    if isinstance(condition, Membership):
        return (condition.operand, *condition.options)
    assert isinstance(condition, Call)
    return condition.arguments


def _paths(leaf: Condition) -> list[Path]:
    found = []
    for operand in _operands(leaf):
        if isinstance(operand, Path):
            found.append(operand)
        elif isinstance(operand, Call):
            found += [argument for argument in operand.arguments if isinstance(argument, Path)]
    return found


def _hashed_before(part: Part, constructor: Sequence[tuple[Part, bool]]) -> bool:
    """Whether a hashed part stands before this one: a text in it could hold what is looked for."""
    for one, _ in constructor:
        if one == part:
            return False
        if one.beacon is not None:
            return True
    return False


def _sameness(plan: SearchPlan, one: Standard) -> tuple[str, int, bool, int]:
    partitions = one.beacon.partitions or plan.config.partitions
    return one.beacon.hashed_as, one.beacon.bits, one.beacon.is_set, partitions
