"""Modules that users import by the names they had before they moved into folders."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "fastcam.asking": "fastcam.targets.spec_kinds",
    "fastcam.cotangents": "fastcam.targets.cotangents",
    "fastcam.devices": "fastcam.runtime.providers",
    "fastcam.perturbation": "fastcam.methods.perturbation",
    "fastcam.sheet": "fastcam.results.method_sheet",
}


class Alias:
    """Importing an old name gives the module of the new one, the same object.

    A finder and a loader by its methods; ``importlib.abc`` has classes for both, and takes a quarter of the time in
    which ``fastcam`` is imported.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        loader: Any = self
        return ModuleSpec(name, loader) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """An ordinary one, which the next step replaces."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(MOVED[module.__name__])


def install() -> None:
    """Let the old names be imported, once."""
    if not any(isinstance(finder, Alias) for finder in sys.meta_path):
        sys.meta_path.append(Alias())
