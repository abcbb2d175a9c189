"""Whether ``threads=1`` holds for each method and verb: the process's processor time over the caller's, at most 1.1.

    python -m fastcam_bench.speed.processor_share [--seconds 0.4] [--only WORD] [--json FILE]

Each group runs in a process of its own whose libraries may start as many threads as they like: what NumPy and OpenCV
divide counts as what ONNX Runtime does. A photo of twelve million pixels is among what is read. Of a call that only
computes, the calling thread's processor time is the wall time of a machine with nothing else to do; on a busy one the
wall time would hide what other threads take.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from fastcam import Explainer
from fastcam.concepts import concepts
from fastcam.methods import METHODS
from fastcam.methods.layer_fusion import FUSIONS
from fastcam.render.peer_styles import STYLES
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_export import export_model, from_torch

MOST = 1.1
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
DATA = Path(str(files("fastcam"))) / "data"
SCENE, SIDE, WIDE = DATA / "scene.jpg", 224, 512
TOKENS = ("rollout", "rollout-max", "rollout-min", "legrad", "vit-reciprocam")
"""Methods of vision transformers."""
Case = Callable[[], Any]


def opened(model: Path, **how: Any) -> Explainer:
    """An export of the model at one thread."""
    made = export_model(model, preprocess="imagenet", check=False, **how)
    head = made.head.SerializeToString() if made.head is not None else None
    return Explainer(made.model.SerializeToString(), head=head, threads=1)


def of_methods(folder: Path) -> dict[str, Case]:
    """Every method that the bundled model serves, of its picture; files are made as they are needed."""

    @functools.cache
    def explainer(mode: str | None) -> Explainer:
        how: dict[str, Any] = {"input_gradient": mode} if mode else {"head": True}
        return opened(DATA / "scenes.onnx", emit="gradients", **how)

    def case(name: str) -> Any:
        return explainer(METHODS[name].mode)(SCENE, targets=[-1, -2], method=name)

    return {f"method {name}": partial(case, name) for name in METHODS if name not in TOKENS}


def of_transformers(folder: Path) -> dict[str, Case]:
    """The methods of transformers: of one with random weights, whose time is that of a trained one."""
    import torch
    from torch import nn

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.token = nn.Conv2d(3, 64, 16, 16), nn.Parameter(torch.zeros(1, 1, 64))
            self.norm, self.project, self.out = nn.LayerNorm(64), nn.Linear(64, 192), nn.Linear(64, 64)
            self.last, self.head = nn.LayerNorm(64), nn.Linear(64, 10)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x = self.patches(image).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
            n, length, _ = x.shape
            q, k, v = self.project(self.norm(x)).reshape(n, length, 3, 4, 16).permute(2, 0, 3, 1, 4)
            mixed = (q @ k.transpose(-2, -1) / 4).softmax(-1) @ v
            x = x + self.out(mixed.transpose(1, 2).reshape(n, length, 64))
            found: torch.Tensor = self.head(self.last(x)[:, 0])
            return found

    torch.manual_seed(0)
    model = Tokens().eval()
    found: dict[str, Case] = {}
    for name in TOKENS:
        mode, out = METHODS[name].mode, folder / f"{name}.onnx"
        how: dict[str, Any] = {"input_gradient": mode} if mode else {"head": True}
        example = torch.zeros(1, 3, SIDE, SIDE)
        from_torch(model, example, output=out, preprocess="imagenet", check=False, **how)
        found[f"method {name}"] = partial(Explainer(out, threads=1), SCENE, method=name)
    return found


def of_large_maps(folder: Path) -> dict[str, Case]:
    """What is factorised and multiplied, of a wide layer: 512 channels of 28 x 28."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 3, 4, 1), nn.ReLU(), nn.Conv2d(64, WIDE, 3, 2, 1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDE, 10)).eval()
    out = folder / "wide.onnx"
    example = torch.zeros(1, 3, SIDE, SIDE)
    from_torch(model, example, output=out, preprocess="imagenet", check=False, emit="gradients", layer=model[3])
    explainer, photo = Explainer(out, threads=1), large_photo()
    e = explainer(photo)
    names = ("gradcam", "gradcam+eigen", "eigencam", "eigengradcam", "kpcacam", "hirescam", "fem")
    found: dict[str, Case] = {f"wide {name}": partial(explainer, SCENE, method=name) for name in names}
    found |= {f"style {name}": partial(explainer, SCENE, style=name) for name in STYLES}
    path = folder / "large.jpg"
    cv2.imwrite(str(path), photo)
    return found | {
        "verb concepts": lambda: concepts(explainer, [SCENE, SCENE], 4),
        "verb predict, large file": lambda: explainer.predict(path),
        "verb explain, large array": lambda: explainer(photo),
        "verb explain, many": lambda: explainer([SCENE] * 16),
        "draw overlay": lambda: e.overlay(0, 0),
        "draw save": lambda: e.save(folder / "saved"),
    }


def of_layers(folder: Path) -> dict[str, Case]:
    """Several layers in one file, and their maps as one."""
    explainer = opened(DATA / "scenes.onnx", layer="all", emit="gradients")
    found: dict[str, Case] = {"layers all": partial(explainer, SCENE, layers="all")}
    return found | {f"fusion {name}": partial(explainer, SCENE, fuse=name) for name in FUSIONS}


def large_photo() -> Any:
    """uint8 [3000, 4000, 3] of smooth content."""
    small = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return cv2.resize(small, (4000, 3000), interpolation=cv2.INTER_CUBIC)


GROUPS: dict[str, Callable[[Path], dict[str, Case]]] = {
    "methods": of_methods,
    "transformers": of_transformers,
    "large maps": of_large_maps,
    "layers": of_layers,
}


def share(case: Case, seconds: float) -> dict[str, float]:
    """Milliseconds a call, of all processors and of this thread, and the one over the other."""
    case()
    time.sleep(0.05)  # threads of the preparation that still spin
    calls, until = 0, time.perf_counter() + seconds
    own, whole = time.thread_time(), time.process_time()
    while time.perf_counter() < until:
        case()
        calls += 1
    own, whole = time.thread_time() - own, time.process_time() - whole
    numbers = {"thread ms": own / calls * 1e3, "process ms": whole / calls * 1e3, "share": whole / own}
    return {name: round(value, 3) for name, value in numbers.items()}


def one_group(name: str, seconds: float, only: Sequence[str]) -> None:
    """In a process of its own: prints the shares as JSON."""
    with TemporaryDirectory() as folder:
        cases = GROUPS[name](Path(folder))

        def wanted(case: str) -> bool:
            return not only or any(word in case for word in only)

        print(json.dumps({case: share(run, seconds) for case, run in cases.items() if wanted(case)}))


def main() -> int:
    """The command; exit status 1 where a share is larger than it may be."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.speed.processor_share")
    parser.add_argument("--seconds", type=float, default=0.4, help="for each case")
    parser.add_argument("--only", action="append", default=[], help="cases with this in their name; repeatable")
    parser.add_argument("--group", choices=GROUPS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    if options.group:
        one_group(options.group, options.seconds, options.only)
        return 0
    free = {name: value for name, value in os.environ.items() if name not in POOLS}
    shares: dict[str, dict[str, float]] = {}
    for group in GROUPS:
        command = [sys.executable, "-m", "fastcam_bench.speed.processor_share", "--group", group]
        command += ["--seconds", str(options.seconds), *(part for word in options.only for part in ("--only", word))]
        done = subprocess.run(command, capture_output=True, text=True, env=free)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        shares |= json.loads(done.stdout.splitlines()[-1])
    for name, found in sorted(shares.items(), key=lambda item: -item[1]["share"]):
        print(f"{name:32} {found['process ms']:9.1f} ms, {found['thread ms']:9.1f} of its thread: {found['share']:.2f}")
    if options.json:
        said = f"python -m fastcam_bench.speed.processor_share --seconds {options.seconds} --json {options.json}"
        about = {"command": said, "machine": machine(), "versions": versions("fastcam", "numpy", "onnxruntime")}
        write_report(about | {"most": MOST, "threads": 1, "cases": shares}, options.json)
    return int(any(found["share"] > MOST for found in shares.values()))


if __name__ == "__main__":
    sys.exit(main())
