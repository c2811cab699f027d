"""Measures phicrypt's own contenders of one checkout, when asked: see :mod:`benchmarks.beside`.

Run by its path, with the checkout as ``PYTHONPATH``: cases and package are that checkout's, so that the
cases of each follow its own names. Each line of JSON on stdin asks for one thing and is answered with one:
``{"do": "list"}``, ``{"do": "open", "group": …, "case": …}``, ``{"do": "sample", "subject": …}``,
``{"do": "close"}``.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

GROUPS: Final = ("messages", "dynamodb", "startup", "branch_keys", "streams", "s3")
PEERS: Final = ("aws_encryption_sdk", "aws_cryptographic_material_providers", "dynamodb_encryption_sdk", "tink")


class Worker:
    """The cases of this checkout, and the one that is open."""

    def __init__(self, profile_name: str) -> None:
        from benchmarks import measure

        self._profile = measure.QUICK if profile_name == "quick" else measure.FULL
        self._unavailable = measure.UnavailableError
        self._open = contextlib.ExitStack()
        self._samplers: Mapping[str, Callable[[], float]] = {}

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if request["do"] == "list":
            return {"cases": [_described(case) for group in GROUPS for case in _cases(group).values()]}
        if request["do"] == "open":
            return self._opened(_cases(request["group"])[request["case"]])
        if request["do"] == "sample":
            return {"value": _sampled(self._samplers[request["subject"]])}
        self._open.close()
        return {}

    def _opened(self, case: Any) -> dict[str, Any]:
        offered = self._open.enter_context(case.contenders(self._profile))
        self._samplers = {name: one for name, one in offered.items() if not isinstance(one, self._unavailable)}
        return {
            "subjects": list(self._samplers),
            "skipped": {name: str(one) for name, one in offered.items() if name not in self._samplers},
        }


def _cases(group: str) -> dict[str, Any]:
    """Those that have bars, by name."""
    return {case.name: case for case in importlib.import_module(f"benchmarks.{group}").cases() if case.bars}


def _described(case: Any) -> dict[str, Any]:
    bars = [{"claim": bar.claim, "subject": bar.subject} for bar in case.bars]
    return {"name": case.name, "group": case.group, "unit": case.unit, "bars": bars}


def _sampled(sampler: Callable[[], float]) -> float:
    gc.collect()
    gc.disable()
    try:
        return sampler()
    finally:
        gc.enable()


def main(profile_name: str) -> None:
    # Peers are not measured here, and their set-up would only take time.
    for name in PEERS:
        sys.modules[name] = None  # type: ignore[assignment]
    # What a case prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(profile_name)
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:
            kind = "unavailable" if type(error).__name__ == "UnavailableError" else "error"
            answer = {kind: f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
