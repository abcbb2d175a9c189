"""The distribution ``fastcam``: packages from three folders, and ``fastcam._native``, which CMakeLists.txt builds."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """``__version__`` of fastcam/schema.py, read as text: importing it would need the package to be there."""
    text = (ROOT / "fastcam" / "schema.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise SystemExit("setup.py: fastcam/schema.py has no __version__")
    return match.group(1)


PACKAGES = [
    *find_packages(include=["fastcam", "fastcam.*"]),
    *find_packages(where="export"),
    "fastcam.kernels.cuda_source",  # no Python: what CuPy compiles
    "fastcam.web.package",  # no Python: what browsers run
]

setup(
    version=read_version(),
    packages=PACKAGES,
    package_dir={
        "fastcam": "fastcam",
        "fastcam_export": "export/fastcam_export",
        "fastcam.kernels.cuda_source": "csrc/cuda",
        "fastcam.web.package": "csrc/wasm/package",
    },
    package_data={
        "fastcam": ["py.typed", "*.pyi", "data/*"],
        "fastcam.drift": ["page.css"],
        "fastcam.evaluation.report": ["page/*"],
        "fastcam.evaluation.study": ["page/*"],
        "fastcam.serving": ["page/*"],
        "fastcam.web": ["page/*"],
        "fastcam.web.package": ["*.json", "*.md", "*.wasm", "src/*"],
        "fastcam.kernels.cuda_source": ["*.cu", "*.cuh"],
        "fastcam_export": ["py.typed", "data/*.json"],
    },
    include_package_data=False,  # package_data says it all; built *.so of an editable install must not slip in
    cmake_source_dir=".",  # scikit-build-core runs CMake: cross-builds, ARCHFLAGS, CMAKE_ARGS and the rest are its work
    zip_safe=False,
)
