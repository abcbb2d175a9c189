"""What importing the packages loads. Who may import whom is held by `make lint` (importlinter in pyproject.toml)."""

import subprocess
import sys
from pathlib import Path

import pytest

import fastcam

HEAVY = ("onnx", "onnxruntime", "torch", "cv2", "cupy", "onnx_ir", "fastcam_export")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("fastcam", HEAVY),
        ("fastcam.explainer", HEAVY),
        ("fastcam.cli", HEAVY),
        ("fastcam_export", ("onnxruntime", "torch", "cv2", "cupy")),
    ],
)
def test_import_is_light(module, heavy):
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


@pytest.mark.parametrize("old", ["asking", "cotangents", "devices", "perturbation", "sheet"])
def test_modules_that_moved_are_imported_by_their_old_names(old):
    """Each is the very module of its new place, whichever of the two is imported first."""
    code = (
        f"import fastcam.{old} as old; from fastcam._moved import MOVED; from importlib import import_module\n"
        f"new = import_module(MOVED['fastcam.{old}']); print(old is new, new.__spec__.name == MOVED['fastcam.{old}'])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "True True"


@pytest.mark.parametrize("package", ["fastcam", "export/fastcam_export", "bench/fastcam_bench"])
def test_each_folder_of_modules_is_a_package(package):
    """In a checkout one without __init__.py is imported all the same; setuptools leaves it out of the wheel."""
    modules = (Path(fastcam.__file__).parents[1] / package).rglob("*.py")
    assert {path.parent for path in modules if not (path.parent / "__init__.py").exists()} == set()
