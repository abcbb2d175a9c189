"""What Score-CAM and Ablation-CAM cost: FastCAM beside pytorch-grad-cam, one picture, the class that is predicted.

    python -m fastcam_bench.speed.perturbed [--model resnet50] [--rounds 3] [--threads 2] [--out FILE]

The same seeded weights and layer, the same batch sizes (pytorch-grad-cam's own: 16 and 32), contestants in random order
in every round. Score-CAM runs the network once for each channel in both, so it compares runtimes, but for maps that are
flat; Ablation-CAM needs what lies behind the layer only, which is all that FastCAM runs (``--head``), while
pytorch-grad-cam runs the network. Maps are compared before the clock starts: pytorch-grad-cam's Score-CAM with
half-pixel centres, as the paper's code has them, for it aligns corners.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from fastcam import Explainer, Explanation
from fastcam.render.peer_styles import heatmaps
from fastcam.runtime.providers import Settings
from fastcam.runtime.timing import interleaved, summary
from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.oracles.torch_oracle import Array
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

OUTPUT = RESULTS / "speed" / "perturbed.json"
SIDE, TOLERANCE, TARGET = 224, 1e-3, 5.0
LAYERS = {"resnet50": "layer4", "resnet18": "layer4", "mobilenet_v2": "features"}
BATCHES = {"scorecam": 16, "ablationcam": 32}
PEERS = {"scorecam": "ScoreCAM", "ablationcam": "AblationCAM"}
PAUSE = 0.5
"""Seconds between contestants: torch's threads spin for a while when they have nothing to do."""


class Contest:
    """One method in both tools.

    Args:
        method: of :data:`PEERS`.
        model: exported with its head.
        module: the same network in PyTorch, for this contest alone.
        layer: its layer.
        x: the picture, float32 [1, 3, H, W].
        threads: of both.
    """

    def __init__(self, method: str, model: Path, module: nn.Module, layer: str, x: Array, threads: int) -> None:
        import pytorch_grad_cam

        self.method, self.x = method, x
        size = BATCHES[method]
        self._explainer = Explainer(
            model, "cpu", threads, preprocess="raw", batch_size=size, settings=Settings(spinning=False)
        )
        self._cam = getattr(pytorch_grad_cam, PEERS[method])(model=module, target_layers=[module.get_submodule(layer)])
        self._cam.batch_size = size
        self._tensor = torch.from_numpy(x)

    def ours(self) -> Explanation:
        return self._explainer(self.x, method=self.method)

    def theirs(self) -> Array:
        return np.asarray(self._cam(input_tensor=self._tensor, targets=None)[0])

    def difference(self) -> float:
        """Largest difference of the heatmaps 0..1, ours made as theirs are."""
        with mock.patch("torch.nn.UpsamplingBilinear2d", _half_pixel):
            theirs = self.theirs()
        e = self.ours()
        mine = heatmaps("pytorch-grad-cam", e.maps, (SIDE, SIDE))[0, 0]
        return float(np.abs(mine - theirs).max())


def _half_pixel(size: Any) -> nn.Module:
    return nn.Upsample(size=size, mode="bilinear", align_corners=False)


def measure(name: str, rounds: int, threads: int) -> dict[str, Any]:
    """The figures of one network."""
    torch.set_num_threads(threads)
    x = oracle.pictures(1, SIDE, seed=11)
    layer = LAYERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.cam.onnx"
        proto = oracle.to_onnx(oracle.build(name), dynamo=False)
        export_model(proto, path, layer=layer, head=True, check=False)
        contests = [Contest(method, path, oracle.build(name), layer, x, threads) for method in PEERS]
        apart = {one.method: one.difference() for one in contests}
        print({"largest difference": apart}, flush=True)
        if max(apart.values()) > TOLERANCE:
            raise SystemExit(f"the maps differ, so their cost says nothing: {apart}")
        runs: dict[str, Callable[[], Any]] = {}
        for one in contests:
            runs[f"fastcam {one.method}"] = one.ours
            runs[f"grad-cam {one.method}"] = one.theirs
        samples = interleaved(runs, 0, least=rounds, pause=PAUSE)
    results: list[dict[str, Any]] = []
    for method in PEERS:
        both = {tool: samples[f"{tool} {method}"] for tool in ("fastcam", "grad-cam")}
        figures = summary(both, "fastcam")
        results.append(
            {
                "method": method,
                "difference": float(f"{apart[method]:.1e}"),
                **figures,
                "target": TARGET,
                "met": figures["grad-cam"]["ratio"] >= TARGET,
                "samples": {tool: [round(second, 3) for second in taken] for tool, taken in both.items()},
            }
        )
    return {"model": name, "layer": layer, "threads": threads, "rounds": rounds, "results": results}


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Score-CAM and Ablation-CAM beside pytorch-grad-cam.")
    parser.add_argument("--model", choices=LAYERS, default="resnet50")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    options = parser.parse_args()
    found = measure(options.model, options.rounds, options.threads)
    report = {
        "command": f"python -m fastcam_bench.speed.perturbed --model {options.model} --rounds {options.rounds}",
        "machine": machine(),
        "versions": versions("fastcam", "grad-cam", "torch", "onnxruntime"),
        **found,
    }
    write_report(report, options.out)
    for row in found["results"]:
        print(f"{row['method']}: pytorch-grad-cam takes {row['grad-cam']['ratio']:.2f} times as long", flush=True)


if __name__ == "__main__":
    main()
