"""csrc/: C++ that knows no Python, one version number, and a library that a C++ program can use alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import fastcam
from fastcam import _native

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"

HOST = """
#include <cstdint>
#include <cstdio>
#include <vector>
#include "cam.h"
int main() {
    const float map[4] = {0.0f, 1.0f, 0.0f, 0.0f};
    std::vector<unsigned char> scratch(fastcam::upsample_scratch(4) + fastcam::label_scratch(4, 4));
    float large[16];
    std::uint8_t mask[16];
    std::int32_t labels[16], count = 0, box[5];
    fastcam::upsample(map, 1, 2, 2, 4, 4, scratch.data(), large);
    fastcam::threshold(large, 1, 16, 0.5f, mask);
    fastcam::label(mask, 1, 4, 4, 8, scratch.data(), labels, &count);
    fastcam::boxes(labels, 4, 4, count, box);
    std::printf("%d: %d %d %d %d %d", count, box[0], box[1], box[2], box[3], box[4]);
}
"""


def test_only_the_bindings_know_python() -> None:
    sources = sorted(path for path in CSRC.rglob("*") if path.is_file())
    knowing = [path.name for path in sources if re.search(r"pybind11|Python\.h|PyObject", path.read_text())]
    assert CSRC / "cam.h" in sources
    assert knowing == ["bindings.cpp"]


def test_the_kernels_throw_and_allocate_nothing() -> None:
    for path in CSRC.glob("*.cpp"):
        if path.name != "bindings.cpp":
            code = re.sub(r"//.*", "", path.read_text())
            assert not re.search(r"\b(throw|new|malloc|std::vector|static_assert\(false|thread_local)\b", code), path


def test_every_function_of_the_api_is_noexcept() -> None:
    code = re.sub(r"//.*", "", (CSRC / "cam.h").read_text())
    declarations = re.findall(r"\b\w+\([^()]*\)[^;{]*;", code)
    assert len(declarations) == 11
    assert all("noexcept" in declaration for declaration in declarations)


def test_python_and_cpp_agree_on_the_version() -> None:
    assert _native.__version__ == fastcam.__version__


def test_a_cpp_program_uses_the_library_without_python(tmp_path: Path) -> None:
    cmake, compiler = shutil.which("cmake"), shutil.which("c++")
    if cmake is None or compiler is None:
        pytest.skip("needs cmake and c++ on PATH")

    def run(*command: str | Path) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    run(cmake, "-S", ROOT, "-B", tmp_path / "build", "-DFASTCAM_PYTHON=OFF")
    run(cmake, "--build", tmp_path / "build")
    run(cmake, "--install", tmp_path / "build", "--prefix", tmp_path / "installed")
    (tmp_path / "host.cpp").write_text(HOST)
    [library] = (tmp_path / "installed").rglob("libfastcam_cam.a")
    include = f"-I{tmp_path / 'installed' / 'include' / 'fastcam'}"
    run(compiler, "-std=c++17", include, tmp_path / "host.cpp", library, "-o", tmp_path / "host")
    # the peak's corner, enlarged: rows 0..1 and columns 2..3 reach half of the maximum
    assert run(tmp_path / "host") == "1: 2 0 4 2 4"
