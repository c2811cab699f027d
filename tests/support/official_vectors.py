"""Where the official test vectors are: beside the project, or where PHICRYPT_VECTORS says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "vectors"


def load_bytes(*parts: str) -> bytes:
    """One file of the vectors, beside a manifest that was loaded."""
    return Path(os.environ.get("PHICRYPT_VECTORS") or _DEFAULT).joinpath(*parts).read_bytes()


def load_vectors(*parts: str) -> Any:
    """The JSON of one vector file; skips the test with a reason where the file is absent."""
    path = Path(os.environ.get("PHICRYPT_VECTORS") or _DEFAULT).joinpath(*parts)
    if not path.is_file():
        pytest.skip(f"official vectors are absent: {'/'.join(parts)} (set PHICRYPT_VECTORS to their folder)")
    return json.loads(path.read_text())
