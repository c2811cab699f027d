"""Public names of the former minor version are found where they were, with a DeprecationWarning if they moved.

``public_names.json`` holds them; it is renewed when a minor version is released (docs/versions.md).
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest

from phicrypt._moved import MOVED

SNAPSHOT = json.loads((Path(__file__).parent / "public_names.json").read_text())
NAMES = [(module, name) for module, names in SNAPSHOT["names"].items() for name in names]


def found(module, name):
    """The object, and whether a DeprecationWarning said that it moved."""
    for one in [one for one in sys.modules if one in MOVED]:
        del sys.modules[one]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = getattr(import_module(module), name)
    return value, any(issubclass(one.category, DeprecationWarning) for one in caught)


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[f"{module}.{name}" for module, name in NAMES])
def test_a_name_of_the_former_version_is_still_found(module, name):
    value, is_deprecated = found(module, name)
    home = getattr(value, "__module__", module)
    if module in MOVED:
        assert is_deprecated
        assert home != module


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_module_says_where_it_is_now_and_gives_the_same_objects(old):
    present = import_module(MOVED[old])
    public = [name for name in vars(present) if not name.startswith("_")]
    for name in public:
        value, is_deprecated = found(old, name)
        assert is_deprecated
        assert value is getattr(present, name)


def test_importing_no_old_name_gives_no_warning():
    code = (
        "import pkgutil, importlib, phicrypt, warnings\n"
        "warnings.simplefilter('error', DeprecationWarning)\n"
        "for one in pkgutil.walk_packages(phicrypt.__path__, 'phicrypt.'):\n"
        "    if not one.name.endswith('__main__'):\n"
        "        importlib.import_module(one.name)\n"
    )
    ending = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is now" not in ending.stderr
