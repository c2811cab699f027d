"""Items of random shape: numbers in every form that DynamoDB takes, empty names, sets, nested to depth 32."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from phicrypt.dynamodb import Action, TableConfig
from phicrypt.formats.dbesdk.numbers import normalize_number
from support.dbesdk_support import patients

Value = dict[str, Any]
MAX_DEPTH = 32
_CHARACTERS = "aZ09 .[]'\"\\/$\x00\n\u00e4\ud7ff\uff61\U00010001\U00020002"


def random_number(chance: random.Random) -> str:
    """One of DynamoDB's numbers in one of its spellings."""
    digits = chance.choice("123456789") + "".join(chance.choices("0123456789", k=chance.choice((0, 1, 4, 18, 37))))
    digits = digits if chance.random() < 0.95 else "0" * len(digits)
    point = chance.randint(-129, 126) if chance.random() < 0.3 else chance.randint(-3, 40)
    exponent = point - len(digits)
    sign = chance.choice(("", "", "-", "+"))
    e = chance.choice(("e", "E"))
    spellings = [f"{digits}{e}{exponent}", f"{digits[0]}.{digits[1:] or '0'}{e}{exponent + len(digits) - 1:+d}"]
    if 0 <= exponent <= 90:
        spellings.append(digits + "0" * exponent)
    if -60 <= exponent < 0:
        padded = digits.rjust(-exponent + 1, "0")
        spellings += [f"{padded[:exponent]}.{padded[exponent:]}", f"00{padded[:exponent]}.{padded[exponent:]}000"]
    return sign + chance.choice(spellings)


def random_text(chance: random.Random, *, shortest: int = 0) -> str:
    return "".join(chance.choices(_CHARACTERS, k=chance.randint(shortest, 12)))


def random_value(chance: random.Random, depth: int) -> Value:
    """An attribute value nested at most ``depth`` deep."""
    leaves: list[Callable[[], Value]] = [
        lambda: {"N": random_number(chance)},
        lambda: {"S": random_text(chance)},
        lambda: {"B": chance.randbytes(chance.randint(0, 20))},
        lambda: {"BOOL": chance.random() < 0.5},
        lambda: {"NULL": True},
        lambda: {"NS": _distinct(lambda: random_number(chance), chance, normalize_number)},
        lambda: {"SS": _distinct(lambda: random_text(chance), chance, str)},
        lambda: {"BS": _distinct(lambda: chance.randbytes(chance.randint(0, 5)), chance, bytes)},
    ]
    if depth <= 1 or chance.random() < 0.4:
        return chance.choice(leaves)()
    below = depth - 1 if chance.random() < 0.7 else 1
    members = [random_value(chance, below) for _ in range(chance.randint(0, 3))]
    if chance.random() < 0.4:
        return {"L": members}
    names = ["", *(random_text(chance) for _ in members)] if chance.random() < 0.5 else []
    names = names or [random_text(chance, shortest=1) for _ in members]
    return {"M": dict(zip(names, members, strict=False))}


def chain_of(depth: int, chance: random.Random) -> Value:
    """A value nested exactly so deep."""
    value: Value = {"N": random_number(chance)}
    for _ in range(depth - 1):
        value = {"L": [value]} if chance.random() < 0.5 else {"M": {chance.choice(("", "m", "NS")): value}}
    return value


def random_shape(chance: random.Random) -> tuple[TableConfig, Value]:
    """A table of random actions, version and suite, and an item of it."""
    version_2 = chance.random() < 0.4
    choices = [Action.ENCRYPT_AND_SIGN, Action.SIGN_ONLY]
    if version_2:
        choices.append(Action.SIGN_AND_INCLUDE_IN_CONTEXT)
    names = {f"n{number}{random_text(chance)}" for number in range(chance.randint(1, 6))}
    actions = {name: chance.choice(choices) for name in names}
    # What is not encrypted is stored as it is, and DynamoDB nests 32 levels deep.
    item = {name: random_value(chance, MAX_DEPTH - 1) for name in names}
    for name in list(names)[:1] if chance.random() < 0.2 else ():
        item[name] = chain_of(MAX_DEPTH if actions[name] is Action.ENCRYPT_AND_SIGN else MAX_DEPTH - 1, chance)
    key_action = Action.SIGN_AND_INCLUDE_IN_CONTEXT if version_2 else Action.SIGN_ONLY
    item |= {"patient_id": {"S": f"p-{chance.randrange(99)}"}, "visit": {"N": random_number(chance)}}
    actions |= {"patient_id": key_action, "visit": key_action}
    return patients(actions=actions, signed=chance.random() < 0.2, unsigned_attributes=()), item


def _distinct(make: Callable[[], Any], chance: random.Random, normal: Callable[[Any], Any]) -> list[Any]:
    found = {normal(one): one for one in (make() for _ in range(chance.randint(1, 5)))}
    return list(found.values())
