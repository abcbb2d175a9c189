"""Modules that users import by the names they had before they moved into folders."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "fastcam.asking": "fastcam.targets.spec_kinds",
    "fastcam.cotangents": "fastcam.targets.cotangents",
    "fastcam.devices": "fastcam.runtime.providers",
    "fastcam.perturbation": "fastcam.methods.perturbation",
    "fastcam.sheet": "fastcam.results.method_sheet",
}


class Alias(MetaPathFinder, Loader):
    """Importing an old name gives the module of the new one, the same object."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(MOVED[module.__name__])


def install() -> None:
    """Let the old names be imported, once."""
    if not any(isinstance(finder, Alias) for finder in sys.meta_path):
        sys.meta_path.append(Alias())
