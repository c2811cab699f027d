"""Rule 26: one strict, bounded reader. Nothing else in the package parses text that others can write."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import phicrypt

PACKAGE = Path(phicrypt.__file__).parent
READER = PACKAGE / "core" / "strict_json.py"
PARSERS = {
    "json": {"load", "loads", "JSONDecoder"},
    "tomllib": {"load", "loads"},
    "ast": {"literal_eval", "parse"},
    "configparser": {"ConfigParser", "RawConfigParser"},
    "csv": {"reader", "DictReader"},
    "gzip": {"open", "decompress", "GzipFile"},
    "marshal": {"load", "loads"},
    "pickle": {"load", "loads", "Unpickler"},
    "plistlib": {"load", "loads"},
    "shelve": {"open"},
    "tarfile": {"open", "TarFile"},
    "zipfile": {"ZipFile"},
    "zlib": {"decompress", "decompressobj"},
    "bz2": {"open", "decompress", "BZ2File", "BZ2Decompressor"},
    "lzma": {"open", "decompress", "LZMAFile", "LZMADecompressor"},
}
FOREIGN = {"yaml", "ruamel", "tomli", "toml", "orjson", "simplejson", "ujson", "xml", "lxml", "dill"}
"""Modules that are parsers as a whole."""
METHODS = {"model_validate_json", "parse_raw", "raw_decode"}
ALLOWED = {
    "core/answers.py": ("json.loads", "judged here before botocore parses the same bytes itself"),
    "dynamodb/layer.py": ("json.loads", "what botocore has just serialized, looked at before it is sent"),
    "dynamodb/models.py": ("model_validate_json", "pydantic's own verb, of a caller's model and text"),
}


def parsers_in(source: str) -> Iterator[tuple[str, int]]:
    """Each parser that a module calls, names or imports, with its line."""
    tree = ast.parse(source)
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name.partition(".")[0]] = alias.name
                if alias.name.partition(".")[0] in FOREIGN:
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            root = node.module.partition(".")[0]
            for alias in node.names:
                if root in FOREIGN or alias.name in PARSERS.get(node.module, ()):
                    yield f"{node.module}.{alias.name}", node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            module = modules.get(node.value.id) if isinstance(node.value, ast.Name) else None
            if module is not None and node.attr in PARSERS.get(module, ()):
                yield f"{module}.{node.attr}", node.lineno
            elif node.attr in METHODS:
                yield node.attr, node.lineno


def test_rule_26_no_module_parses_by_itself_what_others_can_write() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if path == READER or name.startswith(("testing/", "demo/")):
            continue  # these parse what they wrote themselves
        found += [
            f"{name}:{line}: {parser}"
            for parser, line in parsers_in(path.read_text(encoding="utf-8"))
            if ALLOWED.get(name, ("",))[0] != parser
        ]
    assert found == []


def test_what_is_allowed_is_still_there() -> None:
    for name, (parser, reason) in ALLOWED.items():
        assert parser in dict(parsers_in((PACKAGE / name).read_text(encoding="utf-8"))), reason


@pytest.mark.parametrize(
    ("source", "parser"),
    [
        ("import json\njson.loads(x)", "json.loads"),
        ("import json as j\nf = j.load", "json.load"),
        ("def f():\n    from json import loads as read\n", "json.loads"),
        ("import tomllib\ntomllib.load(f)", "tomllib.load"),
        ("import yaml", "yaml"),
        ("from xml.etree import ElementTree", "xml.etree.ElementTree"),
        ("import gzip\ngzip.open(p)", "gzip.open"),
        ("Model.model_validate_json(x)", "model_validate_json"),
        ("import pickle\npickle.loads(x)", "pickle.loads"),
    ],
)
def test_the_reader_of_syntax_trees_sees_a_parser_in_each_of_its_forms(source: str, parser: str) -> None:
    assert [name for name, _ in parsers_in(source)] == [parser]
    assert list(parsers_in("import json\njson.dumps(x)\nself.loads(x)")) == []
