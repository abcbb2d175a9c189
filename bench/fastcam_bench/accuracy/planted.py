"""Signals, volumes, sequences and pairs with a planted answer: ``python -m fastcam_bench.accuracy.planted``.

For each kind of input a small network learns, in seconds and with a fixed seed, to say whether something was planted
into noise: a bump in a signal, a ball in a volume, a disk in one picture of a sequence, in a grey picture, or in the
second of two pictures. Its class is then explained on new samples in which it is planted. Counted:

    maximum   how often the heatmap's maximum lies in what was planted
    near      or at most three positions beside it: the networks see seven positions at once, and its rim is what is new
    heat      the share of the heat that lies there
    share     the share of the sample that it takes: what a map of chance would reach
    accuracy  of the network, on as many samples with as without

Writes ``planted.json`` and a picture of one sample of each kind to ``--out``.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, uniform_filter

from fastcam import Explainer, Explanation
from fastcam_bench.oracles.machine import versions
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.accuracy.planted"
METHODS = ("gradcam", "hirescam", "layercam")
STEPS, BATCH, TESTED = 120, 16, 64
NEAR = 3
"""How many positions a network's window of seven reaches beyond its centre."""
SIZES = {"signal": (256,), "volume": (12, 24, 24), "picture": (40, 40), "sequence": (5, 32, 32), "pair": (40, 40)}
"""Kinds of samples, and the positions of each."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Kind:
    """A kind of sample.

    Attributes:
        name: a key of :data:`SIZES`.
        shape: of the explained input, without the axis of samples.
    """

    name: str
    shape: tuple[int, ...]

    def samples(
        self, count: int, rng: np.random.Generator, share: float = 0.5
    ) -> tuple[dict[str, Array], Array, Array]:
        """Inputs by name [N, ...], what is planted as a mask [N, positions], and the classes [N]."""
        size = SIZES[self.name]
        ground = 0.5 * _smooth(rng.standard_normal((count, *size)), len(size))
        classes = (np.arange(count) < round(count * share)).astype(np.int64)
        masks = np.stack([_ball(size, rng, self.name == "sequence") if c else np.zeros(size, bool) for c in classes])
        x = (ground + 2 * masks + 0.3 * rng.standard_normal(ground.shape)).astype(np.float32)
        inputs = {"x": x.reshape(count, *self.shape)}
        if self.name == "pair":  # the same ground, in which nothing was planted
            inputs["before"] = (ground + 0.3 * rng.standard_normal(ground.shape)).astype(np.float32)[:, None]
        return inputs, masks, classes


KINDS = [
    Kind("signal", (1, *SIZES["signal"])),
    Kind("volume", (1, *SIZES["volume"])),
    Kind("picture", (1, *SIZES["picture"])),
    Kind("sequence", (SIZES["sequence"][0], 1, *SIZES["sequence"][1:])),
    Kind("pair", (1, *SIZES["pair"])),
]


def _smooth(noise: Array, axes: int) -> Array:
    """Noise that varies slowly along its last ``axes``, of standard deviation one."""
    slow = uniform_filter(noise, (0, *[13] * axes), mode="wrap")
    return np.asarray(slow / slow.std())


def _ball(size: Sequence[int], rng: np.random.Generator, one_picture: bool) -> Array:
    """A ball (disk, segment) of 8 to 12 % of the longest side in radius; of a sequence in one picture alone."""
    radius = max(2.5, max(size) * rng.uniform(0.08, 0.12))
    centre = [rng.uniform(min(radius, side / 2), side - min(radius, side / 2)) for side in size]
    grid = list(np.meshgrid(*(np.arange(side) + 0.5 for side in size), indexing="ij"))
    if one_picture:
        grid[0] = np.where(grid[0].astype(int) == int(centre[0]), centre[0], np.inf)
    return np.asarray(sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True)) <= radius**2)


# ---- networks


def network(kind: str) -> Any:
    """A small torch network of two classes: convolutions, a mean over positions, one matrix."""
    import torch
    from torch import nn

    conv = {"signal": nn.Conv1d, "volume": nn.Conv3d}.get(kind, nn.Conv2d)
    norm = {"signal": nn.BatchNorm1d, "volume": nn.BatchNorm3d}.get(kind, nn.BatchNorm2d)

    def stage(before: int, after: int, stride: int) -> list[Any]:
        return [conv(before, after, 3, stride, 1), norm(after), nn.ReLU()]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*stage(1, 8, 2 if kind == "signal" else 1), *stage(8, 16, 1), *stage(16, 16, 1))
            self.head = nn.Linear(16, 2)

        def forward(self, x: Any, before: Any = None) -> Any:
            if before is not None:
                maps = torch.relu(self.body(x) - self.body(before))
            elif kind == "sequence":
                maps = self.body(x.reshape(-1, *x.shape[2:]))
                each = maps.mean((2, 3)).reshape(x.shape[0], -1, 16)
                return self.head(each.max(1).values)
            else:
                maps = self.body(x)
            return self.head(maps.flatten(2).mean(2))

    return Net()


def trained(kind: Kind, steps: int = STEPS) -> tuple[bytes, float]:
    """The network as an ONNX file, and its accuracy on new samples."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    net, rng = network(kind.name), np.random.default_rng(0)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(steps):
        inputs, _, classes = kind.samples(BATCH, rng)
        loss = torch.nn.functional.cross_entropy(net(*map(torch.as_tensor, inputs.values())), torch.as_tensor(classes))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    net.eval()
    inputs, _, classes = kind.samples(2 * TESTED, np.random.default_rng(1))
    with torch.no_grad():
        found = net(*map(torch.as_tensor, inputs.values())).argmax(1).numpy()
    file = io.BytesIO()
    names, examples = list(inputs), tuple(torch.as_tensor(array[:1]) for array in inputs.values())
    free = {name: {0: "N"} for name in names}
    named = {"input_names": names, "output_names": ["y"], "dynamic_axes": free}
    torch.onnx.export(net, examples, file, dynamo=False, opset_version=17, **named)  # type: ignore[arg-type]
    return file.getvalue(), float((found == classes).mean())


# ---- measured


def judge(heat: Array, masks: Array, one_picture: bool = False) -> dict[str, float]:
    """The counts of heatmaps [N, positions] of samples in which ``masks`` were planted.

    Args:
        one_picture: the first axis of positions is one of pictures, of which no other is near.
    """
    reach = [1e6, 1, 1] if one_picture else None
    reached = np.stack([distance_transform_edt(~mask, reach) <= NEAR for mask in masks])
    flat, rows = heat.reshape(len(heat), -1), np.arange(len(heat))
    highest = flat.argmax(1)
    shares = (heat * masks).reshape(len(heat), -1).sum(1) / np.maximum(flat.sum(1), 1e-9)
    return {
        "maximum": float(masks.reshape(len(heat), -1)[rows, highest].mean()),
        "near": float(reached.reshape(len(heat), -1)[rows, highest].mean()),
        "heat": round(float(shares.mean()), 3),
    }


def measured(kind: Kind, file: bytes) -> tuple[dict[str, dict[str, float]], float, Explanation]:
    """Counts by method, the share of the samples that is planted, and the explanation by the first method."""
    options: dict[str, Any] = {"input_name": "x"} if kind.name == "pair" else {}
    explainer = Explainer(export_model(file, emit="gradients", **options).model.SerializeToString())
    inputs, masks, _ = kind.samples(TESTED, np.random.default_rng(2), share=1.0)
    given = inputs if len(inputs) > 1 else inputs["x"]
    found = {method: explainer(given, targets=1, method=method) for method in METHODS}
    rows = {
        method: judge(each.heatmaps[:, 0].reshape(masks.shape), masks, kind.name == "sequence")
        for method, each in found.items()
    }
    return rows, float(masks.mean()), found[METHODS[0]]


def sheet(found: Sequence[Explanation], width: int = 480) -> Array:
    """The first sample of each kind under its heat, one below the other, uint8 RGB."""
    pictures = []
    for each in found:
        rows = each.heatmaps[: len(each) // TESTED, 0]  # of a sequence one for each picture: the hottest is shown
        pictures.append(each.overlay(int(rows.reshape(len(rows), -1).max(1).argmax()), min_side=192))
    scaled = [cv2.resize(p, (width, round(width * p.shape[0] / p.shape[1]))) for p in pictures]
    return np.concatenate(scaled)


def main(arguments: Sequence[str], report: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "pictures")
    chosen = parser.parse_args(arguments)
    result: dict[str, Any] = {
        "command": COMMAND,
        "versions": versions("torch", "onnxruntime", "numpy"),
        "tested": TESTED,
        "kinds": {},
    }
    shown = []
    for kind in KINDS:
        file, accuracy = trained(kind)
        rows, share, found = measured(kind, file)
        result["kinds"][kind.name] = {"accuracy": accuracy, "share": round(share, 4), "methods": rows}
        shown.append(found)
        report(f"{kind.name}: accuracy {accuracy:.2f}, planted {share:.1%}, {rows}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "planted.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    cv2.imwrite(str(chosen.out / "planted.jpg"), sheet(shown)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
