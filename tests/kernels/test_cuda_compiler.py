"""The CUDA kernels before they run: what is missing is said, how they are compiled, what the compiler may not do."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from fastcam import kernels
from fastcam.kernels import _nvrtc, cuda
from fastcam.kernels._cuda_source import source
from fastcam.schema import FastcamError
from fastcam_bench.speed import kernels_gpu
from support import cuda_host
from support.kernel_inputs import picture, signed, smooth

ROOT = Path(__file__).resolve().parents[2]
NATIVE = kernels.get("native")


# --- what is missing is said ---------------------------------------------------------------------------------------


@pytest.fixture
def fresh() -> Any:
    cuda.get.cache_clear()
    yield
    cuda.get.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_without_cupy_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(FastcamError, match="install cupy-cuda12x or cupy-cuda13x") as caught:
        kernels.get("cuda")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("fresh")
def test_without_a_device_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "cupy", stub)
    with pytest.raises(FastcamError, match="CuPy finds no CUDA device"):
        kernels.get("cuda")


def test_without_a_compiler_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("CuPy failed to load libnvrtc.so.13\nand much more")

    k = cuda_host.backend()
    monkeypatch.setattr(k.cupy, "get_function", fail)
    with pytest.raises(FastcamError, match=r"cannot compile the CUDA kernels \(CuPy failed to load libnvrtc.so.13\)"):
        k.relu(signed(1, 1, 2, 2))


class Nvrtc:
    """As CuPy's bindings; what it is asked to compile is written down."""

    class NVRTCError(RuntimeError):
        pass

    def __init__(self, newest: int = 90, error: str = "") -> None:
        self.newest, self.error, self.compiled, self.open = newest, error, [], 0

    def getSupportedArchs(self) -> list[int]:
        return [75, self.newest]

    def getVersion(self) -> tuple[int, int]:
        return (13, 0)

    def createProgram(self, text: str, name: str, headers: Any, names: Any) -> str:
        self.open += 1
        return text

    def destroyProgram(self, program: str) -> None:
        self.open -= 1

    def compileProgram(self, program: str, options: tuple[str, ...]) -> None:
        self.compiled.append((program, options))
        if self.error:
            raise self.NVRTCError("NVRTC_ERROR_COMPILATION (6)")

    def getProgramLog(self, program: str) -> str:
        return self.error

    def getCUBIN(self, program: str) -> bytes:
        return b"cubin"

    def getPTX(self, program: str) -> str:
        return "ptx"


def module_of(nvrtc: Nvrtc, capability: str = "90") -> tuple[Any, list[Path]]:
    loaded: list[Path] = []

    def load(path: str) -> Any:
        loaded.append(Path(path))
        return SimpleNamespace(get_function=lambda name: (name, Path(path).read_bytes()))

    device = SimpleNamespace(compute_capability=capability)
    cupy = SimpleNamespace(RawModule=load, cuda=SimpleNamespace(nvrtc=nvrtc, Device=lambda: device))
    return _nvrtc.Module(cupy), loaded


def test_denormals_are_kept_and_the_compiled_kernels_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCAM_CACHE", str(tmp_path))
    nvrtc = Nvrtc()
    module, loaded = module_of(nvrtc)
    assert module.get_function("fastcam_relu") == ("fastcam_relu", b"cubin")
    assert module.get_function("fastcam_mark") == ("fastcam_mark", b"cubin")
    assert module_of(nvrtc)[0].get_function("fastcam_relu")[1] == b"cubin"  # another process
    ((text, options),) = nvrtc.compiled
    assert text == source() and {"--ftz=false", "--gpu-architecture=sm_90"} <= {*options}
    assert loaded == [*tmp_path.glob("kernels/*.cubin")] and nvrtc.open == 0


def test_a_device_newer_than_the_compiler_gets_ptx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCAM_CACHE", str(tmp_path))
    nvrtc = Nvrtc(newest=90)
    assert module_of(nvrtc, "130")[0].get_function("fastcam_relu")[1] == b"ptx"
    assert "--gpu-architecture=compute_90" in nvrtc.compiled[0][1]


def test_without_a_cache_each_process_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTCAM_CACHE", str(tmp_path / "file"))
    assert module_of(Nvrtc())[0].get_function("fastcam_relu")[1] == b"cubin"


def test_what_the_compiler_says_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCAM_CACHE", str(tmp_path))
    k = cuda_host.backend()
    monkeypatch.setattr(k, "_module", module_of(Nvrtc(error="kernels.cu(1): error:\n  expected a ';'"))[0])
    with pytest.raises(FastcamError, match=r"cannot compile the CUDA kernels \(NVRTC_ERROR.*expected a ';'\)"):
        k.relu(signed(1, 1, 2, 2))
    assert not [*tmp_path.rglob("*.cubin")]


# --- the source ----------------------------------------------------------------------------------------------------


def nvcc(*arguments: str | Path) -> None:
    compiler = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(compiler).exists():
        pytest.skip("needs nvcc (the CUDA toolkit) on PATH")
    command = [compiler, "-std=c++17", "-Werror=all-warnings", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_nvcc_compiles_the_source_for_every_architecture(tmp_path: Path) -> None:
    text = tmp_path / "text.cu"
    text.write_text(source(), encoding="utf-8")
    real = ",".join(f"sm_{number}" for number in (75, 80, 86, 89, 90))
    nvcc(f"-gencode=arch=compute_75,code=[{real}]", "--fatbin", text, "-o", tmp_path / "kernels.fatbin")


def test_no_operation_whose_bits_count_is_fused_or_approximated(tmp_path: Path) -> None:
    target = tmp_path / "kernels.ptx"
    nvcc("-arch=compute_75", "--ptx", cuda_host.CSRC / "kernels.cu", "-o", target)
    entries = dict(re.findall(r"\.visible \.entry (\w+)(.*?)(?=\.visible|\Z)", target.read_text(), re.DOTALL))
    assert "fma.rn.f32" in entries["fastcam_weigh"]  # whose sum has no order to keep
    for name, code in entries.items():
        assert "weigh" in name or not re.search(r"fma\.|\.approx|\.full|\.ftz", code), name


def test_the_host_build_and_the_launches_know_every_kernel() -> None:
    defined = set(re.findall(r"^ *(?:extern \"C\" __global__ void |    )(fastcam_\w+)\(", source(), re.MULTILINE))
    listed = set(re.findall(r"KERNEL\((fastcam_\w+),", (cuda_host.CSRC / "host.cpp").read_text()))
    launched = {f"fastcam_{name}" for name in re.findall(r'_launch\("(\w+)"', Path(cuda.__file__).read_text())}
    weigh = {name for name in defined if "weigh" in name}
    assert len(weigh) == 2
    assert defined == listed == launched | weigh


def test_python_and_cuda_agree_on_the_size_of_a_block() -> None:
    sizes_of = dict(re.findall(r"constexpr int (kThreads|kSpan) = (\d+);", source()))
    assert sizes_of == {"kThreads": str(cuda._THREADS), "kSpan": str(cuda._SPAN)}


def test_the_source_travels_in_the_package(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="building the package needs setuptools")
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += "from fastcam.kernels import _cuda_source as text; print(text.folder()); print(len(text.source()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    folder, length = done.stdout.split()
    assert Path(folder) == tmp_path / "fastcam" / "kernels" / "cuda_source"
    assert int(length) == len(source())
    assert not list(Path(folder).glob("host*"))


# --- the benchmark -------------------------------------------------------------------------------------------------


def test_the_benchmarks_arrays_find_what_the_kernels_find() -> None:
    a, w = kernels_gpu.batch(3, np.float32)
    wanted = NATIVE.explain_maps(a, w, (224, 224)).components
    got = kernels_gpu.array_boxes(np, ndimage, a, w, (224, 224))
    assert got.shape == wanted.shape
    assert np.abs(got - wanted)[:, :4].max() <= 1
    image, lut, heat = picture(20, 30, 3), picture(256, 3, seed=1), smooth(20, 30)
    heat = np.clip(heat, 0, 1)
    blended = kernels_gpu.array_overlay(np, image, heat, lut).astype(int)
    assert np.abs(blended - NATIVE.overlay(image, heat, lut, kernels_gpu.ALPHA)).max() <= 1


@pytest.mark.usefixtures("fresh")
def test_the_benchmark_says_in_one_line_that_there_is_no_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False)))
    assert kernels_gpu.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "no CUDA device" in err
