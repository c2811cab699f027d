"""Every sink is public and documented, so that one can be found; a new one is named here until it is."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import phicrypt.audit
import phicrypt.audit.sinks
import phicrypt.witness
from phicrypt.audit import AuditSink

DOCS = Path(phicrypt.audit.__file__).parents[2] / "docs"


def sinks() -> dict[str, Any]:
    """Every public class of the packages that has a sink's two methods."""
    modules = [
        importlib.import_module(one.name)
        for package in (phicrypt.audit.sinks, phicrypt.witness)
        for one in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if not name.startswith("_")
        and isinstance(value, type)
        and value.__module__ == module.__name__
        and issubclass(value, AuditSink)
    }


@pytest.mark.parametrize("name", sorted(sinks()))
class TestEverySink:
    def test_it_is_exported(self, name):
        assert name in {*phicrypt.audit.__all__, *phicrypt.witness.__all__}

    def test_it_is_documented(self, name):
        assert f"`{name}" in (DOCS / "audit.md").read_text()

    def test_it_says_what_it_does(self, name):
        assert sinks()[name].__doc__
        assert sinks()[name].write.__doc__
        assert sinks()[name].close.__doc__


def test_the_sinks_are_found():
    assert {"JsonlSink", "AnchoredSink", "S3SegmentSink", "CloudWatchLogsSink", "LoggingSink"} <= set(sinks())
