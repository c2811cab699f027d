"""What identifiers of people look like: the patterns of the guard and their checksums.

Kept apart from :mod:`phicrypt.guard.phi_guard` because compiling them takes several milliseconds, which only a
process that checks a first pair should pay. Every repetition is bounded, or anchored so that it is
tried once: hostile values of any length are searched in linear time.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

_GAP: Final = r"""[-_\s.:#=/>("']{0,5}"""
"""What stands between a label and its number: punctuation, white space, the quotes of JSON."""
DEFAULT_MRN_PATTERNS: Final = (
    (
        rf"(?<![a-z0-9])(mrn|med(ical)?[-_. ]{{0,2}}rec(ord)?|chart){_GAP}((number|no|num|id|is){_GAP})?"
        r"(?<![a-z])[a-z]{0,3}-?(?<!\d)(\d{4,12}|\d{2,3}([- ]\d{2,3}){2,4})(?!\d)"
    ),
    r"(?<![a-z0-9])mrn\d{4,12}(?!\d)",
)
"""Medical record numbers as they are commonly labelled inside a value; searched without case."""
_DEFAULT_MRN: Final = tuple(re.compile(pattern, re.IGNORECASE) for pattern in DEFAULT_MRN_PATTERNS)


def _pattern(verbose: str) -> re.Pattern[str]:
    return re.compile(verbose, re.IGNORECASE | re.VERBOSE)


_DIGEST: Final = _pattern(
    r"(?<![0-9a-z]) ( [0-9a-f]{8} (-[0-9a-f]{4}){3} -[0-9a-f]{12} | [0-9a-f]{24,} ) (?![0-9a-z])"
)
"""UUIDs and long hexadecimal: digits in any shape that say nothing about a person."""
_POINT_IN_TIME: Final = _pattern(
    r"""(?<![0-9a-z]) (
        \d{4}-\d\d-\d\d [t ] \d\d [:.-]? \d\d ( [:.-]? \d\d ([.,]\d{1,9})? )? ( z | [+-]\d\d:?\d\d )?
      | \d{8} t \d{4} (\d\d)? ([.,]\d{1,9})? ( z | [+-]\d{4} )?
    ) (?![0-9a-z])"""
)
"""A date with a time of day: when something ran, not when somebody was born."""

_MONTH: Final = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"
_YEAR: Final = r"(19|20)\d\d"
_BREAK: Final = r"(?:[ \t]{0,2}[-_./][ \t]{0,2}|[ \t]{1,3})"
"""What stands between the groups of a number, the same each time. Letters may stand around such a number."""
_LABELLED: Final = _GAP.replace("#", r"\#")
_MBI: Final = "ac-hjkmnp-rt-y"
"""The letters of Medicare beneficiary identifiers."""
ANYWHERE: Final = {
    "e-mail": r"""(?<=[^\s@/:=?&]) (?<!^git) (?<![\s/]git) (@|%40|\(at\)|\[at\])
        [^\s@/:%]{1,253} \.[a-z]{2,24} (?![0-9a-z])
      | (?<=[0-9a-z]) [ ]at[ ] [0-9a-z.-]{1,64} ([ ]dot[ ][0-9a-z-]{1,64}){1,4} (?![0-9a-z])""",
    "telephone with country code": r"(?<![0-9a-z+/]) \+\d ([-. ()]*\d){7,14} (?![0-9a-z] | [-. ]\d)",
    "telephone with country code, as it is dialled": r"""(?<![0-9a-z+/.-]) 00[1-9]\d{0,2} [ ] \(?\d
        ([ ()-]*\d){5,12} (?![0-9a-z])""",
    "social security, taxpayer": rf"(?<!\d) \d{{3}} (?P<ssn>{_BREAK}) \d\d (?P=ssn) \d{{4}} (?!\d)",
    "telephone, North America": r"""(?<!\d) (\+?1[-. ]?)?
        ( \([2-9]\d\d\) (?P<area>[-./ \t]?) | [2-9]\d\d (?P<dial>[-./ \t]) )
        [2-9]\d\d ((?P=dial)|(?P=area)|[-.]) \d{4} (?!\d)""",
    "Medicare beneficiary, in groups": rf"""(?<!\d) [1-9] [{_MBI}] [0-9{_MBI}] \d (?P<mbi>[-_. \t])
        [{_MBI}] [0-9{_MBI}] \d (?P=mbi) [{_MBI}]{{2}} \d\d (?!\d)""",
    "birthday, labelled": rf"""(dob|d\.o\.b|birth|born) [a-z_ ]{{0,16}} {_LABELLED} (
        {_YEAR} [-_/.]? [01]\d [-_/.]? [0-3]\d | {_YEAR} [-/.] \d\d? [-/.] \d
      | [0-3]?\d [-_/.] [0-3]?\d [-_/.] (\d\d){{1,2}} (?!\d) )""",
    "social security, labelled": rf"""(?<![a-z0-9])
        (ssn | s\.s\.n | ss\# | itin | hicn | social ([-_ ]?(security|sec))?) [a-z_ ]{{0,8}}
        {_LABELLED} \d ([-. ]?\d){{8}} (?!\d)
      | (?<![a-z0-9]) (
        (ssn | social ([-_ ]?(security|sec))?) [a-z_ -]{{0,16}} (last|final) [-_ ]? (4|four)
      | (last|final) [-_ ]? (4|four) [a-z_ -]{{0,16}} (ssn | social ([-_ ]?(security|sec))?)
        ) {_LABELLED} \d{{4}} (?!\d)""",
    "telephone, labelled": rf"""(?<![a-z0-9])
        ((tele|cell|home|work)?phone | tel | mobile | fax) (no|num|number|nr)? {_LABELLED}
        \+?\d ([-. ()/\t]{{0,3}}\d){{6,14}} (?!\d)""",
}
"""What is refused wherever it stands in a value. Each needs four digits to match, or a sign of
:data:`_SIGNS_WITHOUT_DIGITS`; a test asks for an example of each."""
BY_ITSELF: Final = {
    "telephone, made up or misdialled": r"""\(\d{3}\)[-. ]? \d{3} [-. ] \d{4}
      | (?<!\d[-. ]) \d{3} (?P<tel>[-. ]) \d{3} (?P=tel) \d{4} (?![-.]\d)""",
    "ZIP+4": r"(?<!\d-) \d{5}-\d{4} (?!-\d)",
    "date, month first": rf"(0?[1-9]|1[0-2]) (?P<us>[-/.]) (0?[1-9]|[12]\d|3[01]) (?P=us) {_YEAR}",
    "date, day first": rf"(1[3-9]|2\d|3[01]) (?P<eu>[-/.]) (0?[1-9]|1[0-2]) (?P=eu) {_YEAR}",
    "date before 2000": r"19\d\d (?P<iso>[-/.]) (0[1-9]|1[0-2]) (?P=iso) (0[1-9]|[12]\d|3[01])",
    "date in words, day first": rf"""(0?[1-9]|[12]\d|3[01]) (st|nd|rd|th)? [-. ]{{0,2}} {_MONTH}
        [-., ]{{0,2}} {_YEAR} (?![t ]\d\d:)""",
    "date in words, month first": rf"""{_MONTH} [-. ]{{1,2}} (0?[1-9]|[12]\d|3[01]) (st|nd|rd|th)?
        [-., ]{{1,2}} {_YEAR} (?![t ]\d\d:)""",
    "Medicare beneficiary": rf"""[1-9] [{_MBI}] [0-9{_MBI}] \d -? [{_MBI}] [0-9{_MBI}] \d
        -? [{_MBI}]{{2}} \d\d""",
    "IPv4": r"(?<!\.) ((25[0-5]|2[0-4]\d|1?\d?\d)\.){3} (25[0-5]|2[0-4]\d|1?\d?\d) (?!\.\d)",
}
"""What is refused where neither a digit nor a letter stands before or behind it."""
_PHI: Final = _pattern(
    " | ".join((*ANYWHERE.values(), f"(?<![0-9a-z]) ( {' | '.join(BY_ITSELF.values())} ) (?![0-9a-z])"))
)
_CARD: Final = _pattern(
    rf"""(?<!\d) (?<!\d[- ])
        ( \d ([ -]?\d){{12,18}} (?! [ -]\d) | \d{{4}} ({_BREAK}) \d{{4}} (\3\d{{4}}){{2}} ) (?!\d)"""
)
_CARD_ISSUERS: Final = _pattern(
    r"""4 (\d{12} | \d{15} | \d{18}) | (5[1-5] | 2[2-7]) \d{14} | 3[47] \d{13} | 3 (0[0-5] | [689]\d) \d{11}
      | 35 \d{14} | 6 (011 | 2\d\d | 4[4-9]\d | 5\d\d) \d{12}"""
)
# Upper case only: AWS's own resource ids are seventeen lower-case hexadecimal digits.
_VIN: Final = re.compile(r"(?<![0-9A-Za-z])(?=[0-9]*[A-Z])[A-HJ-NPR-Z0-9]{13}\d{4}(?![0-9A-Za-z])")
_VIN_VALUES: Final = dict(
    zip("0123456789ABCDEFGHJKLMNPRSTUVWXYZ", map(int, "012345678912345678123457923456789"), strict=True)
)
_VIN_WEIGHTS: Final = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_IPV6: Final = _pattern(r"(?<![\w:.]) ([0-9a-f]{0,4}:){2,7} ([0-9a-f]{1,4} | [\d.]{7,15})? (?![\w:])")
_FOREIGN_DASHES: Final = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u00ad"), "-")

_HINTS: Final = tuple(
    (_pattern(rf"\b({names})\b"), _pattern(value))
    for names, value in {
        r"(pt|pat|patient|member)?ssn[a-z]*|ss\ ?(number|num|no)|itin"
        r"|social|social\ ?sec(urity)?(\ ?number|\ ?no)?": r"""
            \d ([-_./ \t]?\d){8} | \A\D{0,3}\d{4}\D{0,3}\Z""",  # the last four as well
        r"(home|cell|work|mobile|tele)?phone(\ ?(number|num|no|nr))?|tel|mobile|fax"
        r"|contact\ ?number": r"\d ([-_. ()/]*\d){6}",
        r"zip|zip\ ?code|postal\ ?code|postcode": r"\d{5} | [a-z]\d[a-z][ ]?\d | [a-z]\d[a-z]?[ ]?\d[a-z]{2}",
        r"(pt|pat|patient)?dob[a-z]*|dod|birth|birthday|birth\ ?date|born|bday|date\ ?of\ ?(birth|death|service)"
        r"|(birth|death|admission|discharge|service)\ ?date": rf"""
            \d{{4}}[-/. ]?\d{{1,2}}[-/. ]?\d{{1,2}} | \d{{1,2}}[-/. ]\d{{1,2}}[-/. ]\d{{2}}
          | \d{{1,2}}\D{{0,3}}{_MONTH} | {_MONTH}\D{{0,3}}\d""",
        r"mrn|mr\ ?(number|num|no)|medical\ ?record(\ ?number|\ ?no|\ ?id)?"
        r"|chart\ ?(number|no)|mbi|hicn": r"\d (\D?\d){3}",
        r"vin": r"[0-9a-z]{17}",
        r"card\ ?number|credit\ ?card|pan": r"\d ([ -]?\d){11}",
        r"ip|ip\ ?address|remote\ ?addr": r"\d+\.\d+\.\d+ | : [^:]* :",
        r"(patient|person|first|last|middle|given|family|full|maiden|legal)\ ?name|surname|forename": r"\w",
        r"((home|street|postal|mailing)\ ?)?address": r"[\s,]",
    }.items()
)
"""Names, split into words, and what a value under such a name must not contain."""
_DIGEST_LENGTH: Final = 24
_MRN_DIGITS: Final = 4
_PHI_DIGITS: Final = 4
_SIGNS_WITHOUT_DIGITS: Final = ("@", "%40", "::", "(at)", "[at]", " dot ")
_POINT_IN_TIME_DIGITS: Final = 12
_CARD_DIGITS: Final = 13
_VIN_LENGTH: Final = 17
"""What the patterns above need at least, to match anywhere; :data:`_PHI` without ``@`` and ``::``."""
_WORD_BREAK: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z]+")
_VERSIONED: Final = _pattern(r"\b (version|ver|build|release|firmware|driver|sdk|oid) \b")
_DOTTED: Final = re.compile(r"(?<![\d.])\d{1,5}(\.\d{1,5}){2,12}(?![\d.])")
"""Version numbers and object identifiers look like addresses; the pair's name tells."""


def looks_like_phi(
    name: str, text: str, *, extra: Iterable[re.Pattern[str]] = (), mrn: Iterable[re.Pattern[str]] | None = None
) -> bool:
    """Whether this value, under this name, holds one of the identifiers that can be recognized.

    ``extra`` patterns are searched as well, ``mrn`` patterns instead of :data:`DEFAULT_MRN_PATTERNS`.
    """
    return any(_matches(name, spelling, extra, mrn) for spelling in _spellings(text))


def _spellings(text: str) -> Iterator[str]:
    """The text itself, and what it stands for if it is percent-encoded, up to three times."""
    for _ in range(4):
        yield text if text.isascii() else _folded(text)
        if "%" not in text or (decoded := unquote(text)) == text:
            return
        text = decoded


def _matches(
    name: str, text: str, extra: Iterable[re.Pattern[str]], mrn: Iterable[re.Pattern[str]] | None
) -> bool:
    # Every new key of an item passes here, so no pattern is searched where it has too little to match.
    digit_count = _count_digits(text)
    for pattern in extra:
        if pattern.search(text):
            return True
    for pattern in (_DEFAULT_MRN if digit_count >= _MRN_DIGITS else ()) if mrn is None else mrn:
        if pattern.search(text):
            return True
    rest = text
    if len(text) >= _DIGEST_LENGTH:
        rest = _DIGEST.sub("\x00", text)
        digit_count = _count_digits(rest)
    for pattern in _hinted_patterns(name) if name else ():
        if pattern.search(rest):
            return True
    if name and rest.count(".") >= 3 and _names_a_version(name):
        rest = _DOTTED.sub("\x00", rest)
        digit_count = _count_digits(rest)
    if digit_count >= _POINT_IN_TIME_DIGITS:
        rest = _POINT_IN_TIME.sub("\x00", rest)
        digit_count = _count_digits(rest)
    if digit_count < _PHI_DIGITS and not any(sign in rest for sign in _SIGNS_WITHOUT_DIGITS):
        return False
    return (
        _PHI.search(rest) is not None
        or (digit_count >= _CARD_DIGITS and any(_is_card(match[0]) for match in _CARD.finditer(rest)))
        or (len(rest) >= _VIN_LENGTH and any(_is_vin(match[0]) for match in _VIN.finditer(rest)))
        or (rest.count(":") >= 2 and any(_is_ipv6(match[0]) for match in _IPV6.finditer(rest)))
    )


def _folded(text: str) -> str:
    """Foreign digits and dashes as their ASCII forms, and nothing invisible, so that they are found as well."""
    folded = unicodedata.normalize("NFKC", text).translate(_FOREIGN_DASHES)
    folded = "".join(character for character in folded if unicodedata.category(character) != "Cf")
    return "".join(
        str(unicodedata.decimal(character)) if not character.isascii() and character.isdecimal() else character
        for character in folded
    )


@lru_cache(maxsize=1_024)
def _hinted_patterns(name: str) -> tuple[re.Pattern[str], ...]:
    words = _WORD_BREAK.sub(" ", name)
    return tuple(value_pattern for name_pattern, value_pattern in _HINTS if name_pattern.search(words))


@lru_cache(maxsize=1_024)
def _names_a_version(name: str) -> bool:
    return _VERSIONED.search(_WORD_BREAK.sub(" ", name)) is not None


def _count_digits(text: str) -> int:
    """How many ASCII digits there are; other characters may be any."""
    encoded = text.encode("ascii", "replace")
    return len(encoded) - len(encoded.translate(None, b"0123456789"))


def _is_card(candidate: str) -> bool:
    digits = "".join(filter(str.isdecimal, candidate))
    if not _CARD_ISSUERS.fullmatch(digits):
        return False
    doubled = (int(digit) * 2 for digit in digits[-2::-2])
    return (sum(map(int, digits[::-2])) + sum(value - 9 if value > 9 else value for value in doubled)) % 10 == 0


def _is_vin(candidate: str) -> bool:
    """Whether the ninth character is the check digit of North American vehicle numbers."""
    remainder = sum(
        _VIN_VALUES[character] * weight for character, weight in zip(candidate, _VIN_WEIGHTS, strict=True)
    )
    return candidate[8] == "0123456789X"[remainder % 11]


def _is_ipv6(candidate: str) -> bool:
    # "a::b" is an address to the letter, and a separator to everyone else: the first group must be a real one.
    if "::" in candidate and len(candidate.partition(":")[0]) < 3:
        return False
    try:
        return bool(ipaddress.IPv6Address(candidate))
    except ValueError:
        return False
