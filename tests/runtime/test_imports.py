"""What importing fastcam loads, and what it says of packages that are not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fastcam
from fastcam import Explainer


def fresh(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_fastcam_loads_nothing_heavy():
    heavy = ["onnx", "torch", "cv2", "cupy", "onnxruntime", "onnx_ir", "fastcam_export", "fastcam_bench"]
    found = fresh(f"import sys, fastcam; print([name for name in {heavy} if name in sys.modules])")
    assert found.stdout.strip() == "[]", found.stderr


def test_the_run_time_never_loads_the_export_step():
    code = (
        "import sys, fastcam, fastcam.cli, fastcam.explainer, fastcam.results.explanation; fastcam.Explainer; "
        "print([name for name in ('onnx', 'onnx_ir', 'torch', 'cv2', 'cupy', 'fastcam_export') if name in sys.modules])"
    )
    found = fresh(code)
    assert found.stdout.strip() == "[]", found.stderr


def test_what_takes_long_to_import_waits_until_it_is_used():
    slow = [
        "importlib.abc",
        "importlib.resources",
        "importlib.metadata",
        "email",
        "socket",
        "multiprocessing",
        "asyncio",
    ]
    packages = ["cv2", "PIL", "yaml", "typer", "rich", "threadpoolctl", "openvino"]
    found = fresh(f"import sys, fastcam.explainer; print([name for name in {slow + packages} if name in sys.modules])")
    assert found.stdout.strip() == "[]", found.stderr


@pytest.mark.parametrize(
    ("module", "words"), [("onnxruntime", "pip install fastcam[cpu]"), ("cv2", "pip install opencv-python")]
)
def test_what_is_not_installed_is_named(module, words):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from fastcam import FastcamError\nfrom fastcam.image import preprocess as image\n"
        "from fastcam.runtime import session\n"
        "try: image.opencv(); session.create_session(b'')\n"
        "except FastcamError as error: print(error)"
    )
    found = fresh(code)
    assert words in found.stdout and found.stdout.count("\n") == 1, found.stderr


def test_lazy_names_are_the_real_ones():
    assert fastcam.Explainer is Explainer and fastcam.Explanation.__name__ == "Explanation"
    with pytest.raises(AttributeError):
        fastcam.absent  # noqa: B018
