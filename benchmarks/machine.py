"""What the numbers were measured on, and with what."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any, Final

_CPU_FLAGS: Final = ("aes", "vaes", "pclmulqdq", "vpclmulqdq", "avx2", "avx512f", "sha_ni")
_PACKAGES: Final = (
    "cryptography",
    "boto3",
    "botocore",
    "pydantic",
    "moto",
    "aws-encryption-sdk",
    "aws-cryptographic-material-providers",
    "dynamodb-encryption-sdk",
    "tink",
    "pyperf",
    "matplotlib",
)


def facts() -> dict[str, Any]:
    """CPU, flags, cores, memory, kernel, Python, OpenSSL and the versions of all packages that matter."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _cpu_model(),
        "cpu_flags": _cpu_flags(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl_of_cryptography": _openssl(),
        "openssl_of_python": ssl.OPENSSL_VERSION,
        "revision": revision(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def load() -> list[float]:
    """How many processes wanted a core during the last 1, 5 and 15 minutes; above 1 means a shared machine."""
    return [round(one, 2) for one in os.getloadavg()]


def _cpu_info() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _cpu_model() -> str:
    found = re.search(r"^model name\s*: (.+)$", _cpu_info(), re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def _cpu_flags() -> list[str]:
    found = re.search(r"^flags\s*: (.+)$", _cpu_info(), re.MULTILINE)
    present = set(found[1].split()) if found else set()
    return [flag for flag in _CPU_FLAGS if flag in present]


def _openssl() -> str:
    from cryptography.hazmat.backends.openssl import backend

    return backend.openssl_version_text()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def revision(root: Path = Path(__file__).parents[1]) -> str:
    """The commit that was measured, with a mark if the package has uncommitted changes."""

    def git(*arguments: str) -> str:
        ending = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return ending.stdout.strip() if ending.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--", "phicrypt")
    return f"{commit or 'unknown'}{' with changes' if changed else ''}"
