"""aarch64, on whatever runs the tests: a cross compiler builds the C++ program and the wheel, qemu runs the program.

The kernels themselves run under qemu in test_csrc.py.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

import fastcam
from fastcam import Explainer
from fastcam_export import export_model, write_slim

ROOT = Path(fastcam.__file__).resolve().parents[1]
DATA = ROOT / "fastcam" / "data"
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("aarch64")]
LIBRARIES = Path("/usr/aarch64-linux-gnu")
TOOLCHAIN = {"SYSTEM_NAME": "Linux", "SYSTEM_PROCESSOR": "aarch64"}
TOOLCHAIN |= {"C_COMPILER": "aarch64-linux-gnu-gcc", "CXX_COMPILER": "aarch64-linux-gnu-g++"}
SETTINGS = [f"-DCMAKE_{key}={value}" for key, value in TOOLCHAIN.items()]
CORE = """processor\t: {}
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
"""Of a Cortex-A72: what ONNX Runtime reads in /proc/cpuinfo, where qemu would show it this machine's."""


def run(*command, **environment):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def cross_compiler():
    for name in ("cmake", "aarch64-linux-gnu-g++"):
        if shutil.which(name) is None:
            pytest.skip(f"no {name} here: nothing was built for aarch64")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """ONNX Runtime's library for aarch64, from the package index's wheel."""
    import onnxruntime

    folder = tmp_path_factory.mktemp("arm")
    wanted = ["--platform", "manylinux_2_28_aarch64", "--platform", "manylinux_2_27_aarch64", "--only-binary", ":all:"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *wanted]
    done = subprocess.run([*pip, f"onnxruntime=={onnxruntime.__version__}"], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        pytest.skip(
            f"no onnxruntime for aarch64 from the index ({done.stderr.strip()[-200:]}): the program did not run"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = [name for name in wheel.namelist() if "/libonnxruntime.so" in name]
        if not names:
            pytest.skip("onnxruntime's wheel holds no libonnxruntime.so: the program did not run")
        return wheel.extract(names[0], folder)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """The command that runs a program on an aarch64 of two cores."""
    qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if qemu is None:
        pytest.skip("no qemu-aarch64 here: the program did not run")
    root = tmp_path_factory.mktemp("root")
    (root / "lib").symlink_to(LIBRARIES / "lib")
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(CORE.format(0) + CORE.format(1))
    return [qemu, "-L", str(root)]


def test_the_cpp_program_explains_on_aarch64_as_python_does_here(library, machine, tmp_path):
    options = ["-DFASTCAM_PYTHON=OFF", "-DFASTCAM_EXAMPLES=ON"]
    run("cmake", "-S", ROOT, "-B", tmp_path / "build", *options, *SETTINGS)
    run("cmake", "--build", tmp_path / "build", "--target", "fastcam_explain_example")
    model = tmp_path / "net.cam.onnx"
    export_model(DATA / "scenes.onnx", model, preprocess="imagenet", labels=DATA / "scenes.labels.txt", check=False)
    picture = cv2.resize(cv2.imread(str(DATA / "scene.jpg")), (200, 150))
    cv2.imwrite(str(tmp_path / "p.ppm"), picture)
    wanted = Explainer(model)(np.ascontiguousarray(picture[..., ::-1]))
    for file in (model, write_slim(model)[0]):
        program = [*machine, tmp_path / "build" / "explain", file, tmp_path / "p.ppm"]
        label, score, status, box = run(*program, "--threads", 1, "--onnxruntime", library).strip().split("\t")
        assert (label, status) == (wanted.label(), wanted.status[0][0])
        assert float(score) == pytest.approx(wanted.score(), rel=1e-4)
        np.testing.assert_allclose([*map(float, box.split())], wanted.boxes[0, 0], rtol=1e-5)


def test_a_wheel_for_aarch64_is_built_here(tmp_path):
    tree = tmp_path / "source"  # a copy: builds leave files behind
    left_out = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "build", "_native*.so")
    shutil.copytree(ROOT, tree, ignore=left_out)
    suffix = f".cpython-{sys.version_info[0]}{sys.version_info[1]}-aarch64-linux-gnu.so"
    about = {
        "SETUPTOOLS_EXT_SUFFIX": suffix,
        "_PYTHON_HOST_PLATFORM": "linux-aarch64",
        "CMAKE_ARGS": " ".join(SETTINGS),
    }
    if platform.machine() == "aarch64":
        pytest.skip("this machine is one: wheels are built for it in test_packaging.py")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*pip, "--wheel-dir", tmp_path, tree, **about)
    [wheel] = tmp_path.glob("fastcam-*-linux_aarch64.whl")
    with zipfile.ZipFile(wheel) as opened:
        kernels = opened.read(f"fastcam/_native{suffix}")
    assert kernels[:4] == b"\x7fELF" and int.from_bytes(kernels[18:20], "little") == 183  # EM_AARCH64
