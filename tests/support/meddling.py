"""Sources that let a second thread in while a first one waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Meddler:
    """A source; while it is read, another thread does something, once at a time."""

    def __init__(self, source: Any, meddle: Callable[[], object]) -> None:
        self._source = source
        self.meddle = meddle
        self._is_meddling = False
        self.answers: list[object] = []
        """What came of it, or the error."""

    def read(self, size: int = -1, /) -> bytes:
        if not self._is_meddling:
            self._is_meddling = True
            thread = threading.Thread(target=self._run)
            thread.start()
            thread.join()
            self._is_meddling = False
        return bytes(self._source.read(size))

    def _run(self) -> None:
        try:
            self.answers.append(self.meddle())
        except Exception as error:
            self.answers.append(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)
