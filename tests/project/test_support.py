"""The index of the tests' doubles names every module once, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import support

import phicrypt.testing

SUPPORT = Path(support.__file__).parent


def test_the_index_names_every_module_once() -> None:
    listed = re.findall(r"^``(\w+)``", support.__doc__ or "", flags=re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in SUPPORT.glob("*.py") if path.stem != "__init__")


def test_the_index_sends_to_every_public_double() -> None:
    named = set(re.findall(r"``phicrypt\.testing\.(\w+)``", support.__doc__ or ""))
    # LocalAws is what local_aws gives.
    assert named == set(phicrypt.testing.__all__) - {"LocalAws"}


def test_every_double_is_used() -> None:
    texts = {path: path.read_text() for path in SUPPORT.parent.rglob("*.py") if path.name != "__init__.py"}
    unused = [
        module.stem
        for module in texts
        if module.parent == SUPPORT
        and not any(re.search(rf"\b{module.stem}\b", text) for path, text in texts.items() if path != module)
    ]
    assert unused == []
