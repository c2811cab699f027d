"""The task runner: ``nox -f .ci/noxfile.py`` lists the sessions, ``-s NAME`` runs one.

Each session has an environment of its own under ``.venv-nox``. docs/contributing.md says what each is for.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
OLDEST = PYTHONS[0]
FUZZ_CASES = "200000"
COVERING = (
    *("tests/core", "tests/dbesdk", "tests/formats", "tests/keys", "tests/signatures"),
    *("tests/dynamodb/test_items.py", "tests/s3/test_s3ec_objects.py", "tests/s3/test_s3_safety.py"),
)
"""The tests that are about formats and keys: five minutes. What only others reach does not count as covered."""
SOURCE_DATE_EPOCH = "1735689600"
"""What the files of a wheel are dated, so that two builds are alike."""
OLDEST_AREAS = ("tests/core", "tests/dbesdk", "tests/formats", "tests/keys", "tests/signatures", "tests/guard")
BENCHMARK_ARGUMENTS = ("--quick", "--out", "bench-out")

nox.needs_version = ">=2025.2.9"
nox.options.envdir = str(ROOT / ".venv-nox")
nox.options.sessions = ["lint", "types", f"tests-{OLDEST}"]
nox.options.reuse_existing_virtualenvs = True


def _enter(session: nox.Session, *requirements: str) -> None:
    """Go to the root, which nox leaves for this file's folder, and install what the session needs."""
    session.chdir(ROOT)
    session.install("--quiet", *requirements)


def _python(session: nox.Session, *arguments: str, **environment: str) -> None:
    # No account is used, even if this machine has one.
    hidden = {name: None for name in os.environ if name.startswith("AWS_")}
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true"} | dict.fromkeys(
        ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull
    )
    session.run("python", *arguments, env={**hidden, **nowhere, **environment})


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Unit tests, of the areas that are named (``-- keys s3``) or of all."""
    _enter(session, "-e", ".[test]")
    areas = [f"tests/{area}" for area in session.posargs]
    chosen = areas or ["-n", "2", "--dist", "loadfile", "--ignore", "tests/interop"]
    _python(session, "-m", "pytest", "-q", *chosen)


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """ruff and ruff format, of everything."""
    _enter(session, "ruff>=0.9")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=OLDEST)
def types(session: nox.Session) -> None:
    """mypy: the package strictly, the tests for names and arguments that are not there."""
    _enter(session, "-e", ".[test]")
    session.run("mypy")
    session.run("mypy", "--config-file", "tests/mypy.ini", "tests")


@nox.session(python=OLDEST)
def interop(session: nox.Session) -> None:
    """AWS's libraries in other languages, and local servers; skips what this machine has no toolchain for."""
    _enter(session, "-e", ".[test]")
    _python(session, "-m", "pytest", "-q", "tests/interop", *session.posargs, PHICRYPT_BUILD_GO="1")


@nox.session(python=OLDEST)
def fuzz(session: nox.Session) -> None:
    """Every test that counts its cases, with 200,000 or the number that is given (``-- 5000000``)."""
    _enter(session, "-e", ".[test]")
    counting = sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if "PHICRYPT_FUZZ_CASES" in path.read_text(encoding="utf-8") and "interop" not in path.parts
    )
    cases = session.posargs[0] if session.posargs else FUZZ_CASES
    _python(session, "-m", "pytest", "-q", *counting, PHICRYPT_FUZZ_CASES=cases)


@nox.session(python=OLDEST)
def atheris(session: nox.Session) -> None:
    """Every parser under Atheris, guided by coverage, or some (``-- esdk-header --runs 100000``)."""
    _enter(session, "-e", ".[test]", "atheris>=3.0")
    _python(session, "-m", "tests.fuzz", *session.posargs)


@nox.session(python=OLDEST)
def faults(session: nox.Session) -> None:
    """Mixed calls under a faulty network for a minute (``-- --minutes 30 --seed 7``, ``-- --kills 200``)."""
    _enter(session, "-e", ".[test]")
    _python(session, "-m", "tests.faults", *(session.posargs or ("--minutes", "1")))


@nox.session(python=OLDEST)
def coverage(session: nox.Session) -> None:
    """Branch coverage of formats/ and keys/ by the tests about them; fails below the bound in pyproject.toml."""
    _enter(session, "-e", ".[test]", "coverage>=7.6")
    _python(session, "-m", "coverage", "erase")
    _python(session, "-m", "coverage", "run", "-m", "pytest", "-q", *COVERING)
    _python(session, "-m", "coverage", "report")


@nox.session(python=OLDEST)
def benchmarks(session: nox.Session) -> None:
    """The benchmark suite, quickly, or as the arguments say (``-- --only parts``)."""
    _enter(session, "-e", ".[bench]")
    _python(session, "-m", "benchmarks", *(session.posargs or BENCHMARK_ARGUMENTS))


@nox.session(python=OLDEST)
def mutants(session: nox.Session) -> None:
    """Seeded mistakes: what a test noticed once is noticed now (``-- --only 7 8`` for some)."""
    _enter(session, "-e", ".[test]")
    _python(session, "-m", "tests.mutants", *session.posargs)


@nox.session(python=OLDEST)
def every_mutant(session: nox.Session) -> None:
    """Every mutant that cosmic-ray makes of an area (``-- formats``), or some (``-- keys --sample 40``)."""
    _enter(session, "-e", ".[test]", "cosmic-ray>=8.7")
    _python(session, "-m", "tests.mutants.every", *session.posargs)


@nox.session(python=OLDEST)
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of what users install (pip-audit), and patterns of insecure code (bandit)."""
    _enter(session, "pip-audit>=2.9", "bandit>=1.8", ".[cli,esdk]")
    session.run("bandit", "-q", "-c", "pyproject.toml", "-r", "phicrypt")
    session.run("pip-audit", "--skip-editable", "--progress-spinner", "off", *session.posargs)


@nox.session(python=OLDEST)
def sbom(session: nox.Session) -> None:
    """A CycloneDX bill of materials of phicrypt and what it needs: ``dist/phicrypt.cdx.json``."""
    _enter(session, "cyclonedx-bom>=6")
    described = Path(session.create_tmp(), "described")  # an environment that holds nothing else
    session.run("python", "-m", "venv", "--without-pip", str(described))
    session.run("python", "-m", "pip", "--python", str(described), "install", "--quiet", ".[cli]")
    (ROOT / "dist").mkdir(exist_ok=True)
    output = ("--output-reproducible", "--of", "JSON", "-o", "dist/phicrypt.cdx.json")
    session.run("cyclonedx-py", "environment", *output, str(described))


@nox.session(python=OLDEST)
def wheel(session: nox.Session) -> None:
    """The wheel, built twice: the same bytes, or it fails. It lies in ``dist/`` then."""
    _enter(session, "build>=1.2", "hatchling>=1.26")
    digests = []
    for folder in ("dist/again", "dist"):
        build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", folder)
        _python(session, *build, SOURCE_DATE_EPOCH=SOURCE_DATE_EPOCH)
        (built,) = (ROOT / folder).glob("phicrypt-*.whl")
        digests.append(hashlib.sha256(built.read_bytes()).hexdigest())
    if len(set(digests)) != 1:
        session.error(f"two builds of one tree differ: {digests}")


@nox.session(python=OLDEST, venv_backend="uv")
def oldest(session: nox.Session) -> None:
    """The oldest versions that pyproject.toml admits, of each dependency, under the tests of keys and formats."""
    session.chdir(ROOT)
    session.install("--quiet", "--resolution", "lowest-direct", "-e", ".[test]")
    areas = [f"tests/{area}" for area in session.posargs] or list(OLDEST_AREAS)
    _python(session, "-m", "pytest", "-q", *areas)
