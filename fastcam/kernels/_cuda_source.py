"""The CUDA sources as the one text that NVRTC compiles."""

from __future__ import annotations

import re
from pathlib import Path


def folder() -> Path:
    """Where the files are: in the installed package, or csrc/cuda of the repository that an editable one is."""
    installed = Path(__file__).parent / "cuda_source"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "csrc" / "cuda"


def source() -> str:
    """kernels.cu with its includes in their places: by the digest of this text CuPy keeps the compiled form."""
    included: set[str] = set()

    def read(name: str) -> str:
        if name in included:
            return ""
        included.add(name)
        text = (folder() / name).read_text(encoding="utf-8").replace("#pragma once\n", "")
        return re.sub(r'^#include "(.+)"$', lambda found: read(found[1]), text, flags=re.MULTILINE)

    return read("kernels.cu")
