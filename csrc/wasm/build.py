"""Build kernels.wasm: csrc's kernels as WebAssembly with SIMD, by ``python csrc/wasm/build.py [OUTPUT]``.

It needs ziglang, a C++ compiler as a Python package, in the version below, so that all builds have the same bytes:
``pip install ziglang==0.17.1``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent
ZIG = "0.17.1"
FLAGS = (
    "-target", "wasm32-wasi", "-msimd128", "-mexec-model=reactor", "-O3", "-flto", "-std=c++17", "-DFASTCAM_BUILDING",
    "-fno-exceptions", "-fno-rtti", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
    "-D_LIBCPP_VERBOSE_ABORT(...)=__builtin_trap()",  # which would print, and so import a system
    "-Wl,--strip-all", "-Wl,--export=malloc", "-Wl,--export=free",
)  # fmt: skip


def functions() -> list[str]:
    """The functions of the C API, by its header."""
    header = (CSRC / "include" / "fastcam" / "cam.h").read_text(encoding="utf-8")
    return re.findall(r"^FASTCAM_API [^;(]*?(fastcam_\w+)\(", header, re.MULTILINE)


def version() -> str:
    """FastCAM's version, which stands in fastcam/schema.py."""
    text = (CSRC.parent / "fastcam" / "schema.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    assert found is not None
    return found[1]


def build(output: Path) -> None:
    """Compile and link; the old file stays where that fails."""
    sources = [*sorted(path.relative_to(CSRC) for path in (CSRC / "src").glob("*.cpp")), Path("wasm/exports.cpp")]
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        made = Path(folder) / "kernels.wasm"
        command = [sys.executable, "-m", "ziglang", "c++", *FLAGS, f'-DFASTCAM_VERSION="{version()}"', "-Iinclude"]
        command += [f"-Wl,--export={name}" for name in functions()]
        subprocess.run([*command, *map(str, sources), "-o", str(made)], cwd=CSRC, check=True)
        made.chmod(0o644)
        os.replace(made, output)


if __name__ == "__main__":
    try:
        import ziglang  # noqa: F401
    except ImportError:
        raise SystemExit(f"ziglang is not installed; run: pip install ziglang=={ZIG}") from None
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "package" / "kernels.wasm")
