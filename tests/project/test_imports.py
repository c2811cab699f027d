"""The import table (``docs/import-table.toml``): who may know whom; and what ``import phicrypt`` loads.

Every import counts: at a module's head, inside a function, and for type checkers only.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import phicrypt

PACKAGE = Path(phicrypt.__file__).parent
ROOT = PACKAGE.parent
TABLE = tomllib.loads((ROOT / "docs" / "import-table.toml").read_text(encoding="utf-8"))
EVERYBODYS = {"_lazy", "_moved", "_version"}
"""Modules of the package itself, which know nobody."""
PURE = {"boto3", "botocore", "socket", "urllib", "http", "time", "datetime", "requests", "asyncio"}
"""What formats may not import: they know bytes and values, not AWS, clock or network."""
LIGHT = ("boto3", "botocore", "pydantic", "typer", "rich", "moto", "aws_encryption_sdk", "flask")


def read_sources() -> dict[str, str]:
    """Module name -> source, packages by their own name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text("utf-8")
        for path in sorted(PACKAGE.rglob("*.py"))
    }


SOURCES = read_sources()


def imported_names(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            # `from phicrypt.keys import cache` may mean a module.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(module: str, sources: Mapping[str, str]) -> set[str]:
    """The modules of this package that a module imports."""
    found = set()
    for name in imported_names(sources[module]):
        while name and name not in sources:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {"", module}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def crossings(sources: Mapping[str, str]) -> list[str]:
    """Every import that the table does not allow."""
    found = []
    for module in sources:
        room = room_of(module)
        if room in EVERYBODYS or room in ("", "__main__"):
            continue
        allowed = TABLE[room]["imports"]
        found += [
            f"{module} imports {other}"
            for other in sorted(imports_of(module, sources))
            if "*" not in allowed and room_of(other) not in {room, *EVERYBODYS, *allowed}
        ]
    return found


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Sets of names that reach one another: what is left when names without a way in or out are taken away."""
    rest = {name: {other for other in others if other in graph} for name, others in graph.items()}
    while True:
        pointed_at = {other for others in rest.values() for other in others}
        loose = {name for name, others in rest.items() if not others or name not in pointed_at}
        if not loose:
            return [set(rest)] if rest else []
        rest = {name: others - loose for name, others in rest.items() if name not in loose}


def test_no_import_crosses_the_table():
    assert crossings(SOURCES) == []


def test_every_room_of_the_package_stands_in_the_table():
    rooms = {room_of(module) for module in SOURCES} - {"", "__main__", *EVERYBODYS}
    assert rooms == set(TABLE)


def test_the_table_itself_goes_upwards_only():
    order = list(TABLE)
    for room, row in TABLE.items():
        assert all(order.index(other) < order.index(room) for other in row["imports"] if other != "*"), room
    assert not {("formats", "keys"), ("keys", "formats")} & {
        (room, other) for room, row in TABLE.items() for other in row["imports"]
    }


def test_no_modules_import_one_another_in_a_circle():
    assert circles({module: imports_of(module, SOURCES) for module in SOURCES if module != "phicrypt"}) == []


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [{"a", "b", "c"}]


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("phicrypt.guard.phi_guard", "phicrypt.s3.client"),
        ("phicrypt.posture.examination", "phicrypt.s3.client"),
        ("phicrypt.posture.examination", "phicrypt.dynamodb.client"),
        ("phicrypt.core.context", "phicrypt.dynamodb.client"),
        ("phicrypt.core.materials", "phicrypt.s3.client"),
        ("phicrypt.audit.uses", "phicrypt.s3.client"),
        ("phicrypt.messages.verbs", "phicrypt.s3.client"),
        ("phicrypt.keys.provider", "phicrypt.evidence.verify"),
    ],
)
def test_a_planted_crossing_is_seen(module, planted):
    planted_source = f"{SOURCES[module]}\nimport {planted}\n"
    assert f"{module} imports {planted}" in crossings({**SOURCES, module: planted_source})


@pytest.mark.parametrize(
    "planted",
    [
        "def load():\n    from phicrypt.s3.client import S3Client\n",
        "if TYPE_CHECKING:\n    from phicrypt.s3.client import S3Client\n",
    ],
)
def test_a_crossing_inside_a_function_or_for_type_checkers_is_seen(planted):
    module = "phicrypt.keys.cache"
    crossing = {**SOURCES, module: SOURCES[module] + "\n" + planted}
    assert f"{module} imports phicrypt.s3.client" in crossings(crossing)


IMPORTERS_OF_CRYPTOGRAPHY = {"phicrypt.core.primitives", "phicrypt.core.key_pairs"}


def test_only_primitives_and_key_pairs_import_cryptography():
    importers = {
        module
        for module, source in SOURCES.items()
        if any(name.split(".")[0] == "cryptography" for name in imported_names(source))
        and room_of(module) != "testing"  # the strict KMS for tests has keys of its own, as AWS's has
    }
    assert importers <= IMPORTERS_OF_CRYPTOGRAPHY


def test_formats_are_pure():
    crossing = [
        f"{module} imports {name}"
        for module, source in SOURCES.items()
        if room_of(module) == "formats"
        for name in imported_names(source)
        if name.split(".")[0] in PURE
    ]
    assert crossing == []


def test_the_picture_in_the_architecture_page_is_the_tables():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert drawn_table() in page, f"paste into docs/architecture.md:\n\n{drawn_table()}"


def drawn_table() -> str:
    """The table as the page shows it, from the top down."""
    rows = [
        f"| `{room}` | {row['knows']} | {'everything' if '*' in row['imports'] else _named(row['imports'])} |"
        for room, row in reversed(TABLE.items())
    ]
    return "\n".join(["| room | knows | may import |", "| --- | --- | --- |", *rows])


def _named(rooms: list[str]) -> str:
    return ", ".join(f"`{room}`" for room in rooms) or "nothing"


def test_folders_are_at_most_three_deep():
    deep = [path for path in PACKAGE.rglob("*.py") if len(path.relative_to(ROOT).parts) > 4]
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
