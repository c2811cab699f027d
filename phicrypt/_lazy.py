"""Names that are loaded when they are first used, and modules that are still found under their old names.

``import phicrypt`` must stay cheap: a package names the homes of its public names, and the home is
imported when somebody asks::

    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def lazy_names(
    package: str, homes: Mapping[str, str], moved: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__``.

    Args:
        package: the package's ``__name__``.
        homes: public name -> the module that defines it.
        moved: names that used to be here -> their module now; they are found with a DeprecationWarning.
    """
    space = sys.modules[package].__dict__

    def load(name: str) -> object:
        if moved and name in moved:
            warnings.warn(
                f"{package}.{name} is now {moved[name]}.{name}; the old name ends with the next minor version",
                DeprecationWarning,
                stacklevel=2,
            )
            return getattr(import_module(moved[name]), name)
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = space[name] = getattr(import_module(homes[name]), name)
        return value

    def names() -> list[str]:
        return sorted({*homes, *space})

    return load, names


class MovedModules(MetaPathFinder, Loader):
    """Finds modules of this package under the names that they had in the former minor version.

    It stands last among Python's finders, so it is asked only for what is not there.
    """

    def __init__(self, moved: Mapping[str, str]) -> None:
        self._moved = moved

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in self._moved else None

    def exec_module(self, module: ModuleType) -> None:
        home = self._moved[module.__name__]
        warnings.warn(
            f"{module.__name__} is now {home}; the old name ends with the next minor version",
            DeprecationWarning,
            stacklevel=2,
        )
        present = import_module(home)
        module.__doc__ = present.__doc__
        module.__dict__["__getattr__"] = lambda name: getattr(present, name)
        module.__dict__["__dir__"] = lambda: dir(present)
