"""Each pattern of the guard has an example that this pattern catches, through every shortcut before it."""

from __future__ import annotations

import re

import pytest

from phicrypt.errors import PhiInContextError
from phicrypt.guard.patterns import ANYWHERE, BY_ITSELF
from phicrypt.guard.phi_guard import PhiGuard

EXAMPLES = {
    "e-mail": "jane.doe@clinic.org",
    "telephone with country code": "+49 30 901820 12",
    "telephone with country code, as it is dialled": "0044 20 7946 0958",
    "social security, taxpayer": "scan 123-45-6789",
    "telephone, North America": "(617) 555-0123",
    "Medicare beneficiary, in groups": "1EG4 TE5 MK73",
    "birthday, labelled": "born on 2010-05-06",
    "social security, labelled": "SSN:123456789",
    "telephone, labelled": "tel:5551234567",
    "telephone, made up or misdialled": "(123) 456-7890",
    "ZIP+4": "02139-4307",
    "date, month first": "03/12/1987",
    "date, day first": "31.12.1987",
    "date before 2000": "1954-03-12",
    "date in words, day first": "12 Mar 1987",
    "date in words, month first": "March 12, 1987",
    "Medicare beneficiary": "1EG4TE5MK73",
    "IPv4": "192.168.17.4",
}
"""The same names as in :mod:`phicrypt.guard.patterns`: a new pattern needs an example here."""
PATTERNS = {**ANYWHERE, **BY_ITSELF}


def test_every_pattern_has_an_example():
    assert set(EXAMPLES) == set(PATTERNS)
    assert not set(ANYWHERE) & set(BY_ITSELF)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_caught_by_its_pattern_and_refused_by_the_guard(name):
    assert re.search(PATTERNS[name], EXAMPLES[name], re.IGNORECASE | re.VERBOSE)
    with pytest.raises(PhiInContextError):
        PhiGuard().check({"subject": EXAMPLES[name]})
