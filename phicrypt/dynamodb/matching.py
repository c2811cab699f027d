"""Evaluates a parsed condition on an item, as DynamoDB does.

Used where an answer must be judged again on verified attributes: hydrated items (rule 19), and items
that a query returned against their own key condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

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
_ORDERED_TYPES: Final = frozenset({"S", "N", "B"})


def matches(
    condition: Condition, item: Mapping[str, AttributeValue], values: Mapping[str, AttributeValue]
) -> bool:
    """Whether an item (low-level shape) meets a condition with these ExpressionAttributeValues.

    A missing attribute and operands of different types meet no comparison but ``<>``.
    """
    if isinstance(condition, And):
        return all(matches(part, item, values) for part in condition.conditions)
    if isinstance(condition, Or):
        return any(matches(part, item, values) for part in condition.conditions)
    if isinstance(condition, Not):
        return not matches(condition.condition, item, values)
    if isinstance(condition, Call):
        return _holds(condition, item, values)
    if isinstance(condition, Membership):
        operand = _resolve(condition.operand, item, values)
        return any(_compare("=", operand, _resolve(option, item, values)) for option in condition.options)
    if isinstance(condition, Between):
        operand, low, high = (
            _resolve(part, item, values) for part in (condition.operand, condition.low, condition.high)
        )
        return _compare("<=", low, operand) and _compare("<=", operand, high)
    assert isinstance(condition, Comparison)
    return _compare(
        condition.comparator, _resolve(condition.left, item, values), _resolve(condition.right, item, values)
    )


def same_value(left: AttributeValue | None, right: AttributeValue | None) -> bool:
    """Whether two attribute values are equal to DynamoDB: numbers by value, sets without order."""
    return left is not None and right is not None and canonical_value(left) == canonical_value(right)


def _resolve(
    operand: Operand, item: Mapping[str, AttributeValue], values: Mapping[str, AttributeValue]
) -> AttributeValue | None:
    if isinstance(operand, Value):
        return values.get(operand.placeholder)
    if isinstance(operand, Path):
        return _follow(operand, item)
    length = _length(_resolve(operand.arguments[0], item, values))
    return None if length is None else {"N": str(length)}


def _follow(path: Path, item: Mapping[str, AttributeValue]) -> AttributeValue | None:
    value = item.get(path.attribute)
    for step in path.steps[1:]:
        if value is None:
            return None
        if isinstance(step, int):
            elements = value.get("L", ())
            value = elements[step] if step < len(elements) else None
        else:
            value = value.get("M", {}).get(step)
    return value


def _length(value: AttributeValue | None) -> int | None:
    if value is None:
        return None
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode(errors="surrogatepass"))
    if kind == "B":
        return len(_octets(content))
    return len(content) if kind in ("SS", "NS", "BS", "M", "L") else None


def _holds(call: Call, item: Mapping[str, AttributeValue], values: Mapping[str, AttributeValue]) -> bool:
    subject = _resolve(call.arguments[0], item, values)
    if call.function == "attribute_exists":
        return subject is not None
    if call.function == "attribute_not_exists":
        return subject is None
    argument = _resolve(call.arguments[1], item, values)
    if subject is None or argument is None:
        return False
    if call.function == "attribute_type":
        return argument.get("S") in subject
    if call.function == "begins_with":
        return _begins_with(subject, argument)
    return _contains(subject, argument)


def _begins_with(subject: AttributeValue, prefix: AttributeValue) -> bool:
    if "S" in subject and "S" in prefix:
        return str(subject["S"]).startswith(prefix["S"])
    return "B" in subject and "B" in prefix and _octets(subject["B"]).startswith(_octets(prefix["B"]))


def _contains(subject: AttributeValue, part: AttributeValue) -> bool:
    ((kind, content),) = subject.items()
    if kind == "S":
        return "S" in part and part["S"] in content
    if kind == "B":
        return "B" in part and _octets(part["B"]) in _octets(content)
    if kind == "L":
        return any(same_value(element, part) for element in content)
    if kind in ("SS", "NS", "BS"):
        return any(same_value({kind[0]: element}, part) for element in content)
    return False


def _compare(comparator: str, left: AttributeValue | None, right: AttributeValue | None) -> bool:
    if comparator == "=":
        return same_value(left, right)
    if comparator == "<>":
        return not same_value(left, right)
    if left is None or right is None:
        return False
    (left_kind, low), (right_kind, high) = canonical_value(left), canonical_value(right)
    if left_kind != right_kind or left_kind not in _ORDERED_TYPES:
        return False
    if comparator == "<":
        return bool(low < high)
    if comparator == "<=":
        return bool(low <= high)
    return bool(low > high) if comparator == ">" else bool(low >= high)


def canonical_value(value: AttributeValue) -> tuple[str, Any]:
    """Type and a comparable form: text by its UTF-8 bytes, which is DynamoDB's order."""
    ((kind, content),) = value.items()
    if kind == "S":
        return kind, content.encode(errors="surrogatepass")
    if kind == "N":
        return kind, _number(content)
    if kind == "B":
        return kind, _octets(content)
    if kind == "L":
        return kind, tuple(canonical_value(element) for element in content)
    if kind == "M":
        return kind, {name: canonical_value(element) for name, element in content.items()}
    if kind in ("SS", "NS", "BS"):
        return kind, frozenset(canonical_value({kind[0]: element}) for element in content)
    return kind, content


def _number(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def _octets(content: Any) -> bytes:
    """Binary content as bytes; botocore also takes text there, which it encodes as UTF-8."""
    return content.encode() if isinstance(content, str) else bytes(content)
