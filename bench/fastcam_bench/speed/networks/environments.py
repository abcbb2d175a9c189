"""Where the contestants run: environments of their own under .venv/bench, made on first use.

    python -m fastcam_bench.speed.networks.environments      # make them all

The peers' packages stay out of the project's environment, and openvino_xai 1.1.0 needs numpy 1 and OpenVINO 2024.4.
Peers are installed without their dependencies, which are listed here: none of them shall bring another torch, and
OpenVINO's telemetry is not wanted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass, replace
from pathlib import Path

from fastcam_bench.paths import ROOT

FOLDER = ROOT / ".venv" / "bench"


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        peers: what is measured, installed without dependencies.
        needs: what the peers import.
        ours: whether what is installed here is seen behind its own packages; else FastCAM's sources only.
    """

    peers: tuple[str, ...]
    needs: tuple[str, ...] = ()
    ours: bool = True


TORCH = Environment(
    ("grad-cam==1.5.7", "torchcam==0.5.0", "captum==0.9.0", "ttach==0.0.3"),
    ("matplotlib", "scikit-learn", "tqdm", "setuptools", "wheel"),
)
OPENVINO = "openvino==2026.4.1"
ENVIRONMENTS = {
    "torch": TORCH,
    "quantus": Environment(
        ("quantus==0.6.0",),
        ("pandas", "scikit-image", "scikit-learn", "tqdm", "matplotlib", "cachetools", "opencv-python-headless"),
    ),
    "openvino": Environment((OPENVINO,)),
    "tuned": replace(TORCH, peers=(*TORCH.peers, OPENVINO)),
    "openvino-ep": Environment(("onnxruntime-openvino==1.24.1",)),
    "openvino-xai": Environment(
        ("openvino-xai==1.1.0", "openvino==2024.4.0"),
        ("numpy<2", "scipy", "tqdm", "matplotlib", "opencv-python-headless<4.12"),
        ours=False,
    ),
}


def python(name: str) -> Path:
    """The interpreter of an environment, which is made if it is not there.

    Raises:
        RuntimeError: pip could not make it; the message is pip's last line.
    """
    folder, wanted = FOLDER / name, ENVIRONMENTS[name]
    done, scripts = folder / ".complete", "Scripts" if os.name == "nt" else "bin"
    interpreter = folder / scripts / "python"
    if done.is_file() and done.read_text(encoding="utf-8") == repr(wanted):
        return interpreter
    print(f"making the environment {folder.relative_to(ROOT)}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    site = Path(_run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    paths = [ROOT, ROOT / "export", ROOT / "bench"]
    lines = [str(path) for path in paths]
    if wanted.ours:  # behind its own packages; with what that folder's .pth files say
        lines.append(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})")
    (site / "_fastcam_bench.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    if wanted.needs:
        _run(interpreter, *pip, *wanted.needs)
    _run(interpreter, *pip, "--no-deps", *wanted.peers)
    done.write_text(repr(wanted), encoding="utf-8")
    return interpreter


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise RuntimeError(f"{' '.join(map(str, command[1:]))}: {lines[-1]}")
    return done.stdout.strip()


def main() -> None:
    """The command; see the module's docstring."""
    for name in ENVIRONMENTS:
        print(python(name))


if __name__ == "__main__":
    main()
