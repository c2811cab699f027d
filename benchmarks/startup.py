"""Cold start: what an import costs in time and memory, above bare Python.

phicrypt is imported from a wheel that was just built and installed with bytecode; the peers from
where pip put them. Each sample starts a bare interpreter and one that imports, and takes the
difference.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Bar, Case, Profile, Sampler, UnavailableError
from benchmarks.processes import clean_environment, installed_phicrypt, s3ec_interpreter

PHICRYPT: Final = "phicrypt"
FIRST_MESSAGE: Final = "phicrypt, import and first message"
PEERS: Final = {
    "boto3": "import boto3",
    "cryptography (AES-GCM alone)": "from cryptography.hazmat.primitives.ciphers.aead import AESGCM",
    "aws-encryption-sdk": "import aws_encryption_sdk",
    "aws-encryption-sdk[MPL]": "import aws_encryption_sdk; import aws_cryptographic_material_providers.mpl",
    "dynamodb-encryption-sdk": "import dynamodb_encryption_sdk",
    "tink": "import tink; from tink import aead",
}
_FIRST_MESSAGE: Final = (
    "from phicrypt import PhiCrypt, RawAesKeyring; "
    "phi = PhiCrypt(RawAesKeyring(namespace='clinic', name='key-1', wrapping_key=bytes(32))); "
    "phi.decrypt(phi.encrypt(b'x', context={'tenant': 'clinic-7'}), context={'tenant': 'clinic-7'})"
)
_RSS: Final = "; print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmRSS')))"
S3EC: Final = "S3 Encryption Client"

Measure = Any


def run_python(interpreter: str, statement: str) -> tuple[float, str]:
    """Seconds from start to end of an interpreter that runs one statement, and what it printed."""
    command = [interpreter, "-I", "-c", statement]
    start = time.perf_counter()
    ending = subprocess.run(command, check=True, capture_output=True, text=True, env=clean_environment())
    return time.perf_counter() - start, ending.stdout


def seconds_above_bare(interpreter: str, statement: str) -> float:
    bare, _ = run_python(interpreter, "import sys")
    return run_python(interpreter, statement)[0] - bare


def mebibytes_above_bare(interpreter: str, statement: str) -> float:
    bare = int(run_python(interpreter, "import sys" + _RSS)[1])
    return (int(run_python(interpreter, statement + _RSS)[1]) - bare) / 1024


@functools.cache
def _installation() -> tempfile.TemporaryDirectory[str]:
    """A folder with an installed phicrypt, for all cases of this run."""
    folder = tempfile.TemporaryDirectory(prefix="phicrypt-bench-")
    installed_phicrypt(Path(folder.name))
    return folder


def import_contenders(measure: Measure) -> Any:
    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Mapping[str, Sampler | UnavailableError]]:
        path = f"import sys; sys.path.insert(0, {_installation().name!r}); "
        statements = {PHICRYPT: path + "import phicrypt", FIRST_MESSAGE: path + _FIRST_MESSAGE, **PEERS}
        offered: dict[str, Sampler | UnavailableError] = {
            name: _sampler(measure, sys.executable, statement) for name, statement in statements.items()
        }
        try:
            offered[S3EC] = _sampler(measure, s3ec_interpreter(), "import s3_encryption")
        except UnavailableError as error:
            offered[S3EC] = error
        yield offered

    return contenders


def _sampler(measure: Measure, interpreter: str, statement: str) -> Sampler | UnavailableError:
    if interpreter == sys.executable:
        missing = [name for name in _modules(statement) if find_spec(name) is None]
        if missing:
            return UnavailableError(f"{missing[0]} is not installed")
    measure(interpreter, statement)  # the first run reads the files from the disk
    return lambda: measure(interpreter, statement)


def _modules(statement: str) -> Sequence[str]:
    parts = [part.split()[1] for part in statement.split("; ") if part.startswith(("import ", "from "))]
    return [name.partition(".")[0] for name in parts]


def cases() -> Iterator[Case]:
    claim = "`import phicrypt` above bare Python from an installed wheel with bytecode (seconds)"
    yield Case(
        "import-time",
        "time to import, above bare Python",
        import_contenders(seconds_above_bare),
        bars=(Bar(claim, PHICRYPT, "value", 0.12, 0.08),),
        rounds=(1, 15),
    )
    yield Case(
        "import-memory",
        "resident memory after the import, above bare Python",
        import_contenders(mebibytes_above_bare),
        unit="MiB",
        rounds=(1, 3),
    )
