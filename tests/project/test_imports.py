"""The import table: who may know whom, read with ``ast``; and what ``import phicrypt`` loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import phicrypt

PACKAGE = Path(phicrypt.__file__).parent
ROOT = PACKAGE.parent

BELOW = {
    "formats": {
        "keys",
        "client",
        "streams",
        "s3",
        "dynamodb",
        "audit",
        "posture",
        "demo",
        "cli",
        "testing",
        "esdk",
    },
    "keys": {"formats", "client", "streams", "s3", "dynamodb", "posture", "demo", "cli", "esdk"},
    "s3": {"dynamodb", "posture", "demo", "cli"},
    "dynamodb": {"s3", "posture", "demo", "cli"},
    "audit": {"s3", "dynamodb", "posture", "demo", "cli"},
    "core": {"keys", "formats", "client", "s3", "dynamodb", "audit", "posture", "demo", "cli"},
    "client": {"s3", "demo", "cli", "posture"},
}
"""area -> areas that it may not import at module level (formats and keys: not anywhere)."""
NOWHERE = {("formats", "keys"), ("keys", "formats"), ("formats", "client"), ("keys", "client")}
PURE = {"boto3", "botocore", "socket", "urllib", "http", "time", "datetime", "requests", "asyncio"}
"""What formats may not import: they know bytes and values, not AWS, clock or network."""
LIGHT = ("boto3", "botocore", "pydantic", "typer", "rich", "moto", "aws_encryption_sdk", "flask")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """``(name, is_at_module_level)`` of every import, except those for type checkers only."""
    found = []

    def visit(node, at_module_level):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, at_module_level) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            # `from phicrypt import x` may mean a module.
            found.extend((f"{node.module}.{alias.name}", at_module_level) for alias in node.names)
        inner = at_module_level and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inner)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def area_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def area_of_name(name):
    parts = name.split(".")
    return parts[1] if parts[0] == "phicrypt" and len(parts) > 1 else None


def test_the_table_names_real_areas():
    areas = {area_of(path) for path in modules()}
    assert set(BELOW) <= areas


@pytest.mark.parametrize("area", sorted(BELOW))
def test_area_imports_only_what_is_below_it(area):
    crossings = []
    for path in modules():
        if area_of(path) != area:
            continue
        for name, at_module_level in imports(path):
            other = area_of_name(name)
            if other in BELOW[area] and (at_module_level or (area, other) in NOWHERE):
                crossings.append(f"{path.relative_to(ROOT)} imports {name}")
    assert crossings == []


def test_formats_and_keys_never_import_each_other_not_even_in_functions():
    crossings = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules()
        for name, _ in imports(path)
        if (area_of(path), area_of_name(name)) in NOWHERE
    ]
    assert crossings == []


def test_only_primitives_imports_cryptography():
    importers = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        for name, _ in imports(path)
        if name.split(".")[0] == "cryptography"
    }
    assert importers == {"core/primitives.py"}


def test_formats_are_pure():
    crossings = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules()
        if area_of(path) == "formats"
        for name, _ in imports(path)
        if name.split(".")[0] in PURE
    ]
    assert crossings == []


def test_the_reader_of_imports_sees_crossings(tmp_path):
    source = tmp_path / "module.py"
    source.write_text(
        "import a.b\nfrom phicrypt import keys\ndef f():\n    from phicrypt.keys.kms import KmsKeyring\n"
    )
    assert imports(source) == [
        ("a.b", True),
        ("phicrypt.keys", True),
        ("phicrypt.keys.kms.KmsKeyring", False),
    ]


def test_folders_are_at_most_three_deep():
    deep = [path for path in modules() if len(path.relative_to(ROOT).parts) > 4]
    assert deep == []


@pytest.mark.parametrize(
    "statement",
    [
        "import phicrypt",
        "from phicrypt import PhiCrypt, RawAesKeyring, MultiKeyring, CachePolicy, AuditContext, ANY_CONTEXT",
        "from phicrypt import PhiCryptError, KmsKeyring",
        "from phicrypt.testing import StaticKeyring",
    ],
)
def test_importing_stays_light(statement):
    code = f"import sys; {statement}; print([m for m in {LIGHT!r} if m in sys.modules])"
    ending = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ending.stdout.strip() == "[]"


def test_import_phicrypt_does_not_even_load_cryptography():
    code = "import sys, phicrypt; print('cryptography' in sys.modules)"
    ending = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ending.stdout.strip() == "False"


def test_encrypting_offline_needs_neither_boto3_nor_pydantic():
    code = (
        "import sys; from phicrypt import PhiCrypt, RawAesKeyring\n"
        "phi = PhiCrypt(RawAesKeyring(namespace='n', name='k', wrapping_key=bytes(32)))\n"
        "assert phi.decrypt(phi.encrypt(b'x', context={'a': 'b'}), context={'a': 'b'}) == b'x'\n"
        f"print([m for m in {LIGHT!r} if m in sys.modules])"
    )
    ending = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ending.stdout.strip() == "[]"
