"""``__all__`` of the packages: sorted, complete, and every lazy name resolves."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest

import phicrypt

ROOT = Path(phicrypt.__file__).parents[1]
CONTRACT = {
    "ANY_CONTEXT",
    "AuditContext",
    "BranchKeyStore",
    "CachePolicy",
    "HierarchicalKeyring",
    "KmsEcdhKeyring",
    "KmsKeyring",
    "MultiKeyring",
    "PhiCrypt",
    "PhiCryptError",
    "Purpose",
    "RawAesKeyring",
    "RawEcdhKeyring",
    "RawRsaKeyring",
}
LAZY = [
    package
    for package in (
        "phicrypt",
        "phicrypt.audit",
        "phicrypt.dynamodb",
        "phicrypt.posture",
        "phicrypt.s3",
        "phicrypt.testing",
    )
    if "_HOMES" in Path(ROOT, *package.split("."), "__init__.py").read_text()
]


def by_kind(name):
    """As ruff sorts: constants, then classes, then the rest; each alphabetically."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_the_contract_is_exported_and_nothing_else():
    assert set(phicrypt.__all__) == CONTRACT


@pytest.mark.parametrize("package", LAZY)
class TestLazyPackage:
    def test_all_is_sorted_without_repetition(self, package):
        names = list(importlib.import_module(package).__all__)
        orders = [sorted(set(names), key=order) for order in (by_kind, str, str.casefold)]
        assert names in orders

    def test_homes_and_all_agree(self, package):
        module = importlib.import_module(package)
        assert set(module._HOMES) == set(module.__all__)

    def home(self, module, name):
        home = module._HOMES[name]
        return home if home.startswith("phicrypt.") else f"{module.__name__}.{home}"

    def test_every_name_resolves_to_what_its_home_defines(self, package):
        module = importlib.import_module(package)
        for name in module.__all__:
            home = importlib.import_module(self.home(module, name))
            assert getattr(module, name) is getattr(home, name)

    def test_type_checkers_see_the_same_names(self, package):
        module = importlib.import_module(package)
        tree = ast.parse(Path(module.__file__).read_text())
        typed = {
            alias.asname or alias.name: node.module
            for block in tree.body
            if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert typed == {name: self.home(module, name) for name in module._HOMES}

    def test_dir_lists_the_names_and_others_are_attribute_errors(self, package):
        module = importlib.import_module(package)
        assert set(module.__all__) <= set(dir(module))
        with pytest.raises(AttributeError, match="absent"):
            _ = module.absent


def test_the_version_stands_in_one_place():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["hatch"]["version"]["path"] == "phicrypt/_version.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", phicrypt.__version__)


def test_the_package_is_marked_as_typed():
    assert (ROOT / "phicrypt" / "py.typed").exists()


def test_core_dependencies_are_three():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = sorted(one.split(">")[0] for one in project["dependencies"])
    assert names == ["boto3", "cryptography", "pydantic"]
