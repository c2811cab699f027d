"""Which modules one call goes through, in order: what a reader of the code has to open, and how often.

::

    with followed("phicrypt.s3") as path:
        s3.get_object(Bucket="b", Key="k")["Body"].read()
    assert path.modules == ["operations", …]

A visit begins when a function of another module of the package is called, and when one returns into a
module of the package that called it. What runs in other packages meanwhile belongs to the visit under way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any


class ModulePath:
    """The visits of one call.

    Attributes:
        visits: names of modules, relative to the package, in order.
    """

    def __init__(self, package: str) -> None:
        self._root = Path(str(import_module(package).__file__)).parent
        self._names: dict[str, str | None] = {}
        self._stack: list[str | None] = []
        self.visits: list[str] = []

    def follow(self, frame: FrameType, event: str, _argument: Any) -> None:
        """A profile function, see ``sys.setprofile``."""
        if event == "call":
            inside = self._stack[-1] if self._stack else None
            self._stack.append(self._name_of(frame.f_code.co_filename) or inside)
        elif event == "return" and self._stack:
            self._stack.pop()
        else:
            return
        here = self._stack[-1] if self._stack else None
        if here is not None and self.visits[-1:] != [here]:
            self.visits.append(here)

    def _name_of(self, file_name: str) -> str | None:
        if file_name not in self._names:
            path = Path(file_name)
            is_inside = self._root in path.parents
            self._names[file_name] = (
                ".".join(path.relative_to(self._root).with_suffix("").parts) if is_inside else None
            )
        return self._names[file_name]

    @property
    def modules(self) -> list[str]:
        """Each module once, in the order of the first visits."""
        return list(dict.fromkeys(self.visits))

    @property
    def returns(self) -> dict[str, int]:
        """How often the call came back to each module after its first visit."""
        return {name: self.visits.count(name) - 1 for name in self.modules}

    def __str__(self) -> str:
        return " → ".join(self.visits)


@contextmanager
def followed(package: str) -> Iterator[ModulePath]:
    """The path through a package of what this thread calls in the block."""
    path = ModulePath(package)
    before = sys.getprofile()
    sys.setprofile(path.follow)
    try:
        yield path
    finally:
        sys.setprofile(before)
