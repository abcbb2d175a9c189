"""The CUDA kernels as machine code, compiled by NVRTC and kept in the user's cache.

CuPy would compile them itself, but adds an option that makes zeros of denormal numbers, and then the bits are not those
of the other backends. So NVRTC is called through its bindings in CuPy, with IEEE arithmetic; CuPy loads the result.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from fastcam import cache
from fastcam.errors import FastcamError
from fastcam.kernels._cuda_source import source

OPTIONS = ("--std=c++17", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")


class Module:
    """The kernels on whichever device is CuPy's current one, compiled when a function is first asked for."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._loaded: dict[tuple[str, str], Any] = {}

    def get_function(self, name: str) -> Any:
        """A kernel, to be called with (grid, block, arguments).

        Raises:
            ImportError, OSError, RuntimeError: NVRTC is not there, or does not compile the source.
        """
        target = self._target()
        if target not in self._loaded:
            self._loaded[target] = self._cupy.RawModule(path=str(self._compiled(*target)))
        return self._loaded[target].get_function(name)

    def _target(self) -> tuple[str, str]:
        """NVRTC's name of the current device's architecture, and the form of the code: newer devices take PTX."""
        newest = max(self._cupy.cuda.nvrtc.getSupportedArchs())
        own = int(self._cupy.cuda.Device().compute_capability)
        return (f"sm_{own}", "cubin") if own <= newest else (f"compute_{newest}", "ptx")

    def _compiled(self, architecture: str, form: str) -> Path:
        """The file of the compiled kernels, from the cache where it is there."""
        nvrtc, text = self._cupy.cuda.nvrtc, source()
        options = (*OPTIONS, f"--gpu-architecture={architecture}")
        about = repr((text, options, nvrtc.getVersion()))
        name = f"{hashlib.sha256(about.encode()).hexdigest()}.{form}"
        try:
            path = cache.folder(cache.root(), "kernels") / name
        except FastcamError:  # no home, a read-only disk: compile for this process
            path = Path(tempfile.mkdtemp(prefix="fastcam-")) / name
        if not cache.sound(path):
            code = _compile(nvrtc, text, options, form)
            cache.write(path, code)
            cache.note(path)
            if not path.is_file() or path.read_bytes() != code:  # a read-only or full disk
                path = Path(tempfile.mkdtemp(prefix="fastcam-")) / name
                path.write_bytes(code)
        return path


def _compile(nvrtc: Any, text: str, options: tuple[str, ...], form: str) -> bytes:
    program = nvrtc.createProgram(text, "kernels.cu", (), ())
    try:
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError as error:
            raise RuntimeError(f"{error}: {' '.join(nvrtc.getProgramLog(program).split())[:300]}") from error
        code = nvrtc.getCUBIN(program) if form == "cubin" else nvrtc.getPTX(program)
        return code if isinstance(code, bytes) else str(code).encode()
    finally:
        nvrtc.destroyProgram(program)
