"""Build of the one distribution ``fastcam``: packages from three folders, and ``fastcam._native`` by CMake."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """``__version__`` of fastcam/schema.py, read as text: importing it would need the package to be there."""
    text = (ROOT / "fastcam" / "schema.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise SystemExit("setup.py: fastcam/schema.py has no __version__")
    return match.group(1)


def find_tool(name: str) -> str:
    """A build tool: from PATH (pip's build environment is on it), or from the scripts folder of this Python."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")])
    tool = shutil.which(name, path=path)
    if tool is None:
        raise SystemExit(f"setup.py: {name} not found; run `pip install {name}`, or build without --no-build-isolation")
    return tool


class CMakeBuild(build_ext):
    """Builds the one extension with CMake and Ninja, into the place where setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve() / "cmake"
        target.parent.mkdir(parents=True, exist_ok=True)
        build.mkdir(parents=True, exist_ok=True)
        pybind11 = [sys.executable, "-m", "pybind11", "--cmakedir"]
        settings = {
            "CMAKE_BUILD_TYPE": "Debug" if self.debug else "Release",
            "CMAKE_MAKE_PROGRAM": find_tool("ninja"),
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": str(target.parent),
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": subprocess.check_output(pybind11, text=True).strip(),
        }
        defines = [f"-D{key}={value}" for key, value in settings.items()]
        cmake = find_tool("cmake")
        # a build tree left by another Python would keep that one's paths
        subprocess.check_call([cmake, "--fresh", "-G", "Ninja", "-S", str(ROOT), "-B", str(build), *defines])
        subprocess.check_call([cmake, "--build", str(build)])


PACKAGES = [
    *find_packages(include=["fastcam", "fastcam.*"]),
    *find_packages(where="export"),
    "fastcam.kernels.cuda_source",  # no Python: what CuPy compiles
]

setup(
    version=read_version(),
    packages=PACKAGES,
    package_dir={
        "fastcam": "fastcam",
        "fastcam_export": "export/fastcam_export",
        "fastcam.kernels.cuda_source": "csrc/cuda",
    },
    package_data={
        "fastcam": ["py.typed", "*.pyi", "data/*"],
        "fastcam.kernels.cuda_source": ["*.cu", "*.cuh"],
        "fastcam_export": ["py.typed", "data/*.json"],
    },
    include_package_data=False,  # package_data says it all; built *.so of an editable install must not slip in
    ext_modules=[Extension("fastcam._native", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
    zip_safe=False,
)
