"""Whether the map of a key point lies on what the point marks: ``python -m fastcam_bench.accuracy.key_points``.

A small network learns, in seconds and with a fixed seed, to find the middle of a disk and of a square in noise: by a
map for each, as HRNet and ViTPose have it, or by rows along both sides, as SimCC has it. Each point is then explained
on new pictures. Counted:

    found     how often the point lies at most four pixels from the middle
    inside    how often the heatmap's maximum lies in the figure whose middle is asked, or three pixels beside it
    other     how often in the other one
    heat      the share of the heat that lies in the figure and three pixels around it
    share     the share of the picture that this takes: what a map of chance would reach

Writes ``key_points.json`` to ``--out``.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fastcam import Explainer
from fastcam_bench.oracles.machine import versions
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.accuracy.key_points"
FORMS = {"maps": ("heatmaps",), "rows": ("simcc_x", "simcc_y")}
"""The forms of key points, and the outputs of each."""
METHODS = ("hirescam", "gradcam", "layercam")
SIDE, STRIDE, RADIUS = 64, 2, 6
STEPS, BATCH, TESTED = 150, 16, 64
FOUND, NEAR = 4, 3
NAMES = ("disk", "square")

Array = npt.NDArray[Any]


def pictures(count: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """float32 [N, 1, 64, 64] of noise with a disk and a square, their middles [N, 2, 2] as x, y, and masks [N, 2, 64,
    64]."""
    images = rng.standard_normal((count, 1, SIDE, SIDE)).astype(np.float32) * 0.5
    middles = np.zeros((count, 2, 2), np.int64)
    masks = np.zeros((count, 2, SIDE, SIDE), bool)
    for n in range(count):
        while np.abs(middles[n, 0] - middles[n, 1]).max() <= 3 * RADIUS:
            middles[n] = rng.integers(RADIUS + 1, SIDE - RADIUS - 1, (2, 2))
        for k, (x, y) in enumerate(middles[n].tolist()):
            drawn = np.zeros((SIDE, SIDE), np.uint8)
            if k == 0:
                cv2.circle(drawn, (x, y), RADIUS, 1, -1)
            else:
                cv2.rectangle(drawn, (x - RADIUS, y - RADIUS), (x + RADIUS, y + RADIUS), 1, -1)
            masks[n, k] = drawn > 0
            images[n, 0][masks[n, k]] += 1.5
    return images, middles, masks


def network(form: str) -> Any:
    """A small torch network of two key points."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[Any] = []
            for before, after, stride in ((1, 16, STRIDE), (16, 24, 1), (24, 24, 1), (24, 24, 1)):
                layers += [nn.Conv2d(before, after, 5, stride, 2), nn.BatchNorm2d(after), nn.ReLU()]
            self.body, self.head = nn.Sequential(*layers), nn.Conv2d(24, 2, 1)

        def forward(self, x: Any) -> Any:
            maps = self.head(self.body(x))
            if form == "maps":
                return maps
            return torch.logsumexp(maps, 2), torch.logsumexp(maps, 3)

    return Net()


def trained(form: str, steps: int = STEPS) -> bytes:
    """The network as an ONNX file."""
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    torch.set_num_threads(1)
    net, rng = network(form), np.random.default_rng(0)
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(steps):
        images, middles, _ = pictures(BATCH, rng)
        cells = torch.as_tensor(middles // STRIDE)
        out = net(torch.as_tensor(images))
        if form == "maps":
            places = cells[..., 1] * (SIDE // STRIDE) + cells[..., 0]
            loss = functional.cross_entropy(out.flatten(2).flatten(0, 1), places.flatten())
        else:
            both = [functional.cross_entropy(y.flatten(0, 1), cells[..., i].flatten()) for i, y in enumerate(out)]
            loss = both[0] + both[1]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    file, example = io.BytesIO(), (torch.zeros(1, 1, SIDE, SIDE),)
    free = {name: {0: "N"} for name in ("image", *FORMS[form])}
    named = {"input_names": ["image"], "output_names": list(FORMS[form]), "dynamic_axes": free}
    torch.onnx.export(net.eval(), example, file, dynamo=False, opset_version=17, **named)  # type: ignore[arg-type]
    return file.getvalue()


def measured(file: bytes) -> dict[str, Any]:
    """The counts, by method."""
    made = export_model(file, labels=NAMES)
    explainer = Explainer(made.model.SerializeToString(), "cpu")
    images, middles, masks = pictures(TESTED, np.random.default_rng(2))
    around = np.ones((2 * NEAR + 1, 2 * NEAR + 1), np.uint8)
    reached = np.array([[cv2.dilate(each.astype(np.uint8), around) for each in row] for row in masks]) > 0
    rows: dict[str, Any] = {}
    for method in METHODS:
        found = explainer(images, targets=list(NAMES), method=method)
        heat = found.heatmaps.astype(np.float64)
        highest = heat.reshape(TESTED, 2, -1).argmax(2)
        own, other = (
            np.take_along_axis(masks_of.reshape(TESTED, 2, -1), highest[..., None], 2)
            for masks_of in (reached, reached[:, ::-1])
        )
        share = (heat * reached).sum((2, 3)) / np.maximum(heat.sum((2, 3)), 1e-9)
        rows[method] = {
            "inside": round(float(own.mean()), 3),
            "other": round(float(other.mean()), 3),
            "heat": round(float(share.mean()), 3),
        }
    boxes = np.array([[found.predicted_box(n, t) for t in range(2)] for n in range(TESTED)], np.float64)
    off = np.abs((boxes[..., :2] + boxes[..., 2:]) / 2 - middles - 0.5).max(2)
    return {
        "layer": made.metadata.layer.value,
        "found": round(float((off <= FOUND).mean()), 3),
        "share": round(float(reached.mean()), 4),
        "methods": rows,
    }


def main(arguments: Sequence[str], report: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "pictures")
    chosen = parser.parse_args(arguments)
    result: dict[str, Any] = {
        "command": COMMAND,
        "versions": versions("torch", "onnxruntime", "numpy"),
        "tested": TESTED,
        "forms": {},
    }
    for form in FORMS:
        result["forms"][form] = row = measured(trained(form))
        report(f"{form}: {row}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "key_points.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
