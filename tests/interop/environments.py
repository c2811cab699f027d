"""Python environments of their own for counterparts whose requirements differ from the project's."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from interop.dynamodb_local import cache_folder

_INSTALL_TIMEOUT_SECONDS = 600


class EnvironmentUnavailableError(RuntimeError):
    """The requirements cannot be installed here; the text says why, for a skip."""


def python_environment(name: str, requirements: str) -> Path:
    """A virtual environment with the requirements, made once for each set of them in a cache folder."""
    digest = hashlib.sha256(requirements.encode() + sys.version.encode()).hexdigest()[:16]
    folder = cache_folder() / f"{name}-{digest}"
    ready = folder / "ready"
    if ready.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *requirements.split()]
    try:
        for command in ([sys.executable, "-m", "venv", str(folder)], install):
            subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_TIMEOUT_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        raise EnvironmentUnavailableError(f"{name} cannot be installed: {error}") from None
    ready.touch()
    return folder
