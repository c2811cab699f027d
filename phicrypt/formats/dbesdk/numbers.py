"""DynamoDB's normal form of numbers, which is what is encrypted and signed.

DynamoDB stores a number as decimal digits and answers with one text per value: no exponent, no sign
of zero, no zeros that carry nothing. A signature over the caller's text would not survive that, so
the format works on the normal form (``ddb-attribute-serialization.md``, section "Number"; its
arithmetic is DynamoDB's: 38 significant digits, magnitudes from 1e-130 to below 1e126).
"""

from __future__ import annotations

import re
from typing import Final

from phicrypt.errors import FormatError

MAX_DIGITS: Final = 38
MAX_POINT: Final = 126
"""0.d x 10^126 is the largest magnitude; in scientific notation 9.99…e125."""
MIN_POINT: Final = -129
"""0.d x 10^-129, in scientific notation 1e-130."""
MAX_TEXT_LENGTH: Final = 4_096
"""Longer texts are refused unread; DynamoDB's own answers have at most 169 characters."""

_NUMBER: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?)([0-9]+))?", re.ASCII)
_SHORT_INTEGER: Final = re.compile(r"-?[1-9][0-9]{0,36}", re.ASCII)
_SHORT_NUMBER: Final = re.compile(r"-?[0-9]{1,19}(\.[0-9]{1,19})?", re.ASCII)
"""Of at most 38 digits: as Python and boto3 take it."""


def normalize_number(text: str) -> str:
    """The normal form of a number's text: ``"1.50E2"`` is ``"150"``, ``"-0.0"`` is ``"0"``.

    Raises FormatError for what is not a number or exceeds DynamoDB's precision or range. The error
    does not show the text.
    """
    if _SHORT_INTEGER.fullmatch(text) and text[-1] != "0":
        return text
    if len(text) > MAX_TEXT_LENGTH:
        raise _wrong(f"longer than {MAX_TEXT_LENGTH} characters")
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        raise _wrong("not a decimal number")
    sign, whole, fraction, exponent_sign, exponent_digits = match.groups(default="")
    digits = whole + fraction
    significant = digits.strip("0")
    if not significant:
        return "0"
    if len(significant) > MAX_DIGITS:
        raise _wrong(f"more than {MAX_DIGITS} significant digits")
    exponent_digits = exponent_digits.lstrip("0") or "0"
    if len(exponent_digits) > 6:
        raise _wrong("an exponent beyond DynamoDB's range")
    exponent = int(exponent_sign + exponent_digits)
    # The value is 0.significant x 10^point.
    point = len(whole) + exponent - (len(digits) - len(digits.lstrip("0")))
    if not MIN_POINT <= point <= MAX_POINT:
        raise _wrong("a magnitude beyond DynamoDB's range")
    if point <= 0:
        normal = "0." + "0" * -point + significant
    elif point >= len(significant):
        normal = significant + "0" * (point - len(significant))
    else:
        normal = f"{significant[:point]}.{significant[point:]}"
    return "-" + normal if sign == "-" else normal


def exponent_form(text: str) -> str:
    """A number's text with 38 digits at most: ``1`` and 38 times ``0`` is ``"1E+38"``; short texts as they are.

    Raises FormatError for what is not one of DynamoDB's numbers.
    """
    if _SHORT_NUMBER.fullmatch(text):
        return text
    normal = normalize_number(text)
    digits = normal.rstrip("0")
    if "." in normal or len(normal.lstrip("-")) <= MAX_DIGITS:
        return normal
    return f"{digits}E+{len(normal) - len(digits)}"


def _wrong(what: str) -> FormatError:
    return FormatError(f"{what}; DynamoDB would refuse it", field="number")
