"""The distribution: an sdist that builds a wheel, and a wheel that runs in empty environments with each extra alone.

All of it needs the package index. ``python -m build`` makes the sdist and the wheel from it, as a release does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

import fastcam

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]  # one worker builds, once
ROOT = Path(fastcam.__file__).resolve().parents[1]
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
SMOKE = Path(__file__).with_name("wheel_smoke.py")

NO_RUNTIME = """
import fastcam
try:
    fastcam.Explainer("explained.onnx")
except fastcam.FastcamError as error:
    assert "pip install fastcam[cpu]" in str(error), error
else:
    raise AssertionError("an Explainer without ONNX Runtime")
"""
EXPLAIN = """
import fastcam
explainer = fastcam.Explainer("explained.onnx")
e = explainer("scene.jpg", targets=[-1, "square"])
assert e.status == (("ok", "ok"),) and e.heatmaps.shape[:2] == (1, 2), (e.status, e.heatmaps.shape)
e.save("out/")
"""
EXPORT_ALONE = """
import fastcam_export
from fastcam import FastcamError
fastcam_export.inspect_model("scenes.onnx")
fastcam_export.export_model("scenes.onnx", "unchecked.onnx", check=False)
try:
    fastcam_export.export_model("scenes.onnx", "checked.onnx")
except FastcamError as error:
    assert "pip install fastcam[cpu]" in str(error), error
else:
    raise AssertionError("a checked export without ONNX Runtime")
"""
EXPORT = """
from fastcam_export import export_model
export_model("scenes.onnx", "explained.onnx", preprocess="imagenet", labels="scenes.labels.txt")
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[:4]}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(sdist, wheel): the wheel is built from the unpacked sdist, in an environment with what it says it needs."""
    out = tmp_path_factory.mktemp("dist")
    tree = tmp_path_factory.mktemp("source") / "fastcam"  # a copy: builds leave files behind
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "build"))
    run(sys.executable, "-m", "build", "--outdir", out, tree, cwd=out)
    [sdist], [wheel] = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Path]:
    """A folder with the bundled model, its class names, its picture, and an export of it."""
    from fastcam_export import export_model

    data = ROOT / "fastcam" / "data"
    for name in ("scenes.onnx", "scenes.labels.txt", "scene.jpg"):
        (tmp_path / name).write_bytes((data / name).read_bytes())
    labels = tmp_path / "scenes.labels.txt"
    export_model(data / "scenes.onnx", tmp_path / "explained.onnx", preprocess="imagenet", labels=labels)
    return tmp_path


def make_environment(folder: Path, wheel: Path, extras: str) -> Path:
    """The interpreter of a new environment that holds the wheel, its extras and nothing else."""
    venv.create(folder, with_pip=True)
    python = folder / SCRIPTS / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, f"{wheel}{extras}", cwd=folder)
    if "cpu" in extras and subprocess.run([python, "-c", "import cv2"], capture_output=True).returncode:
        run(*pip, "--force-reinstall", "--no-deps", "opencv-python-headless", cwd=folder)  # this machine lacks libGL
    return python


def test_the_wheel_holds_what_runs_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
        [info] = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert {name.split("/")[0] for name in names} == {"fastcam", "fastcam_export", info}
    sources = [path.relative_to(ROOT) for path in (ROOT / "fastcam").rglob("*.py*") if path.suffix in (".py", ".pyi")]
    sources += [path.relative_to(ROOT / "export") for path in (ROOT / "export" / "fastcam_export").rglob("*.py")]
    cuda = {f"fastcam/kernels/cuda_source/{path.name}" for path in (ROOT / "csrc" / "cuda").glob("*.cu*")}
    browser = ROOT / "csrc" / "wasm" / "package"
    web = {
        f"fastcam/web/package/{path.relative_to(browser).as_posix()}" for path in browser.rglob("*") if path.is_file()
    }
    folders = (ROOT / "fastcam" / "data", *(ROOT / "fastcam").rglob("page"))
    data = {path.relative_to(ROOT).as_posix() for folder in folders for path in folder.iterdir()}
    data |= {
        "fastcam/py.typed",
        "fastcam_export/py.typed",
        "fastcam_export/data/tensorrt.json",
        "fastcam/drift/page.css",
    }
    [native] = {name for name in names if name.startswith("fastcam/_native.") and not name.endswith(".pyi")}
    expected = {path.as_posix() for path in sources} | cuda | web | data | {native}
    assert {name for name in names if not name.startswith(info)} == expected
    assert f"{info}/licenses/LICENSE" in names
    extras = {"cpu", "gpu", "openvino", "export", "language", "serve", "batch", "ray", "tracing", "docs", "test"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras
    assert metadata["Version"] == fastcam.__version__


def test_the_sdist_holds_every_tracked_file_that_is_not_the_hosts(built: tuple[Path, Path]) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository here")
    tracked = {name for name in run("git", "ls-files", cwd=ROOT).splitlines() if not name.startswith(".")}
    with tarfile.open(built[0]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked - held == set()
    assert not [name for name in held if name.endswith((".so", ".pyd", ".pyc"))]


@pytest.mark.parametrize(
    ("extras", "program"),
    [
        ("", NO_RUNTIME),
        ("[cpu]", EXPLAIN),
        ("[export]", EXPORT_ALONE),
        ("[cpu,export]", EXPORT + EXPLAIN),
    ],
)
def test_each_extra_alone_does_what_it_is_for(built: tuple[Path, Path], desk: Path, extras: str, program: str) -> None:
    python = make_environment(desk / "env", built[1], extras)
    assert "native kernels equal the reference" in run(python, SMOKE, cwd=desk)
    run(python, "-c", program, cwd=desk)
    assert "Usage" in run(python, "-m", "fastcam", "--help", cwd=desk)
    run(python, "-m", "pip", "check", cwd=desk)


def test_the_bundled_model_explains_its_picture(built: tuple[Path, Path], tmp_path: Path) -> None:
    python = make_environment(tmp_path / "env", built[1], "[cpu,export]")
    assert "heatmap: demo" in run(python, SMOKE, "--demo", cwd=tmp_path)
    run(python.with_name("fastcam"), "--version", cwd=tmp_path)
