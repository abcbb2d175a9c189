"""What an installed wheel must do, as a program: needs the wheel and NumPy, no pytest.

    python tests/repository/wheel_smoke.py            # the native kernels equal the reference
    python tests/repository/wheel_smoke.py --demo     # and, with the extras cpu and export, `fastcam demo` works

cibuildwheel runs it on every wheel.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import fastcam
from fastcam import _native, kernels
from fastcam.kernels import _cuda_source


def check_kernels() -> None:
    """One call of all steps, with odd sizes, on the native kernels and on the reference."""
    random = np.random.default_rng(0)
    activations = random.standard_normal((2, 5, 7, 9)).astype(np.float32)
    weights = random.standard_normal((2, 3, 5)).astype(np.float32)
    reference = kernels.get("reference")
    signed = reference.weigh(activations, weights)  # the one step whose last bits may differ
    found = kernels.get("native").explain_maps(signed, None, (61, 50))
    wanted = reference.explain_maps(signed, None, (61, 50))
    for name in ("maps", "status", "heatmaps", "counts", "components", "largest"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


def show_demo() -> None:
    """``fastcam demo`` in a folder that is gone afterwards; in this process, since an emulator may start no other."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.argv = ["fastcam", "demo"]
        try:
            runpy.run_module("fastcam", run_name="__main__")
        except SystemExit as end:
            assert not end.code, end.code
        asked = find_spec("tokenizers") is not None  # without, no question is asked
        assert len(list((Path(folder) / "demo").glob("*.png"))) == 4 + asked
        os.chdir(Path(folder).parent)


def main() -> None:
    """The command; see the module's docstring."""
    assert _native.__version__ == fastcam.__version__
    assert "__global__" in _cuda_source.source()  # the CUDA kernels travel as text
    check_kernels()
    if "--demo" in sys.argv[1:]:
        show_demo()
    print(f"fastcam {fastcam.__version__} in {Path(fastcam.__file__).parent}: native kernels equal the reference")


if __name__ == "__main__":
    main()
