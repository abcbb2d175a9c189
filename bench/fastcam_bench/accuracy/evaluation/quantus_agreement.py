"""FastCAM's faithfulness beside Quantus's, on the same maps.

    python -m fastcam_bench.accuracy.evaluation.quantus_agreement

Quantus lives in an environment of its own, which ``python -m fastcam_bench.speed.networks.environments`` makes; run
this with that one's interpreter (``.venv/bench/quantus/bin/python``).

Two small networks with random weights, of one channel and of three, in PyTorch for Quantus and exported for FastCAM,
and for each some pictures of random numbers. A map is Grad-CAM's with a little of random order on top, so that no two
pixels are alike: Quantus sorts equal pixels in any order. Where Quantus makes maps again it does so by PyTorch's
autograd, and FastCAM by its file. Where Quantus draws numbers these are recorded, and given to FastCAM.

Writes the largest difference of each metric to ``--json``, and how the definitions differ where they do.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional as F

from fastcam import Explainer
from fastcam.evaluation import faithfulness as formulas
from fastcam.evaluation.protocols.faithfulness import randomised_copy
from fastcam.methods.context import Probe
from fastcam_bench.oracles.machine import versions, write_report
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.accuracy.evaluation.quantus_agreement"
OUT = RESULTS / "evaluation" / "quantus_agreement.json"
SIDE, CLASSES, PICTURES = 24, 6, 3
BOUND = 1e-6
"""Differences up to this are rounding."""
DIFFERS = {
    "pixel flipping": "FastCAM flips all channels of a pixel at once, Quantus each number of the input: the same where "
    "a step has a whole number of pixels. FastCAM's curve begins with the untouched picture, Quantus's a step later.",
    "selectivity": "Quantus centres the grid of patches where the side is no multiple of a patch, FastCAM begins at "
    "the top left corner: the same where it is one.",
    "deletion": "Quantus has it as pixel flipping with a constant; FastCAM's default baseline and step are RISE's.",
    "insertion": "Quantus has none: here its pixel flipping with a function that puts pixels back.",
    "road": "Quantus numbers pixels over all channels and then looks them up in one: it fits models of one channel "
    "alone; and its accuracy is that of its first batch, so that all pictures must be one. Compared are its "
    "imputation, without noise, and whether the class stays the first.",
    "infidelity": "Quantus lets squares stay away, one after the other, and measures the map as it is; the paper, and "
    "FastCAM by default, take one square away at a time, and scale the map. Compared in Quantus's way, as a share.",
    "max-sensitivity": "None; FastCAM's defaults are a radius of 0.02 and 10 pictures, Quantus's 0.2 and 200.",
    "sensitivity-n": "Quantus's SensitivityN takes growing sets in the map's own order and correlates over pictures. "
    "What Ancona et al. define, random sets of n pixels of a picture, is its FaithfulnessCorrelation: compared.",
    "randomisation": "Quantus draws weights by each PyTorch module's reset_parameters, biases too; FastCAM draws "
    "kernels and matrices of an ONNX file with the layer's own mean and deviation. Compared on the same weights.",
}

Array = npt.NDArray[Any]


def network(channels: int) -> torch.nn.Sequential:
    """Two convolutions, a pool, two more layers; no biases."""
    torch.manual_seed(channels)
    return (
        torch.nn.Sequential(
            torch.nn.Conv2d(channels, 8, 3, padding=1, bias=False),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(8, 12, 3, padding=1, bias=False),
            torch.nn.ReLU(),
            torch.nn.AvgPool2d(4),
            torch.nn.Flatten(),
            torch.nn.Linear(12 * 9, CLASSES, bias=False),
        )
        .eval()
        .requires_grad_(False)
    )


def as_onnx(net: torch.nn.Sequential, channels: int) -> onnx.ModelProto:
    """The same network as an ONNX model."""
    parts: Any = net
    w1, w2, fc = (parts[i].weight.numpy() for i in (0, 3, 7))
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "w1"], ["c1"], pads=[1] * 4),
        make("Relu", ["c1"], ["r1"]),
        make("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Conv", ["p1", "w2"], ["c2"], pads=[1] * 4),
        make("Relu", ["c2"], ["r2"]),
        make("AveragePool", ["r2"], ["p2"], kernel_shape=[4, 4], strides=[4, 4]),
        make("Flatten", ["p2"], ["flat"]),
        make("Gemm", ["flat", "fc"], ["logits"], transB=1),
    ]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [info("x", onnx.TensorProto.FLOAT, ["N", channels, SIDE, SIDE])],
        [info("logits", onnx.TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(np.ascontiguousarray(a), n) for a, n in ((w1, "w1"), (w2, "w2"), (fc, "fc"))],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 8
    return model


def gradcam(net: torch.nn.Sequential, inputs: Array, targets: Array) -> Array:
    """Grad-CAM by autograd, as FastCAM scales it: float32 [N, 1, H, W] in 0..1."""
    with torch.enable_grad():
        layer = net[:5](torch.tensor(np.asarray(inputs, np.float32))).detach().requires_grad_(True)
        score = net[5:](layer)[torch.arange(len(inputs)), torch.as_tensor(targets)].sum()
        (gradient,) = torch.autograd.grad(score, layer)
    maps = F.relu((gradient.mean((2, 3), keepdim=True) * layer).sum(1, keepdim=True)).detach()
    high = maps.amax((2, 3), keepdim=True)
    heat = F.interpolate(maps / torch.where(high > 0, high, 1), size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return heat.numpy()


@dataclass
class Subject:
    """A network for both sides, pictures, their classes and maps."""

    channels: int
    net: torch.nn.Sequential = field(init=False)
    explainer: Explainer = field(init=False)
    exported: onnx.ModelProto = field(init=False)
    x: Array = field(init=False)
    y: Array = field(init=False)
    heat: Array = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.channels)
        self.net = network(self.channels)
        self.x = rng.standard_normal((PICTURES, self.channels, SIDE, SIDE)).astype(np.float32)
        self.exported = export_model(as_onnx(self.net, self.channels), check=False, layer="r2").model
        self.explainer = Explainer(self.exported.SerializeToString(), "cpu")
        self.y = self.net(torch.tensor(self.x)).argmax(1).numpy()
        order = np.stack([rng.permutation(SIDE * SIDE).reshape(1, SIDE, SIDE) for _ in self.x]) / SIDE**2
        self.heat = gradcam(self.net, self.x, self.y) + np.float32(0.01) * order.astype(np.float32)

    def probes(self) -> list[Probe]:
        """FastCAM's side of each picture."""
        return self.explainer.probes(self.x, [[int(y)] for y in self.y])

    def score(self, probe: Probe) -> Callable[[Array], Array]:
        return lambda pictures: probe.scores(pictures)[:, 0]

    def probability(self, probe: Probe, n: int) -> Callable[[Array], Array]:
        def softmax(pictures: Array) -> Array:
            logits = probe.class_scores(pictures).astype(np.float64)
            powers = np.exp(logits - logits.max(1, keepdims=True))
            return np.asarray((powers / powers.sum(1, keepdims=True))[:, self.y[n]])

        return softmax

    def quantus(self, metric: Any, softmax: bool, **more: Any) -> Any:
        """What Quantus measures."""
        given = {"x_batch": self.x, "y_batch": self.y, "a_batch": self.heat} | more
        given = {"batch_size": 1, "device": "cpu", "softmax": softmax} | given
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return metric(self.net, **given)


def worst(pairs: list[tuple[Any, Any]]) -> float:
    """The largest difference of all numbers."""
    return max(float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()) for a, b in pairs)


PLAIN: dict[str, Any] = {"normalise": False, "abs": False, "disable_warnings": True}


def pixel_flipping(s: Subject, quantus: Any) -> float:
    pixels = 32
    metric = quantus.PixelFlipping(features_in_step=pixels * s.channels, perturb_baseline=0.0, **PLAIN)
    theirs, pairs = s.quantus(metric, True), []
    for n, probe in enumerate(s.probes()):
        given = s.probability(probe, n), s.x[n], s.heat[n, 0], 0 * s.x[n]
        pairs.append((theirs[n], formulas.pixel_flipping(*given, 1, pixels)[1:]))
    return worst(pairs)


def deletion(s: Subject, quantus: Any) -> float:
    metric = quantus.PixelFlipping(features_in_step=SIDE * s.channels, perturb_baseline=0.0, **PLAIN)
    theirs = s.quantus(metric, True)
    ours = [
        formulas.deletion(s.probability(probe, n), s.x[n], s.heat[n, 0], 0 * s.x[n])
        for n, probe in enumerate(s.probes())
    ]
    return worst([(theirs[n], curve[1:]) for n, curve in enumerate(ours)])


def insertion(s: Subject, quantus: Any) -> float:
    pairs = []
    for n, probe in enumerate(s.probes()):
        whole, start = s.x[n].reshape(1, -1), formulas.baseline(s.x[n], "blur")

        def put_back(arr: Array, indices: Array, whole: Array = whole, **_: Any) -> Array:
            arr = arr.copy()
            arr[:, indices[0]] = whole[:, indices[0]]
            return arr

        metric = quantus.PixelFlipping(features_in_step=SIDE * s.channels, perturb_func=put_back, **PLAIN)
        one = slice(n, n + 1)
        theirs = s.quantus(metric, True, x_batch=start[None], y_batch=s.y[one], a_batch=s.heat[one])
        pairs.append((theirs[0], formulas.insertion(s.probability(probe, n), s.x[n], s.heat[n, 0], start)[1:]))
    return worst(pairs)


def selectivity(s: Subject, quantus: Any) -> float:
    metric = quantus.Selectivity(patch_size=4, perturb_baseline=0.0, **PLAIN)
    theirs, pairs = s.quantus(metric, True), []
    for n, probe in enumerate(s.probes()):
        given = s.probability(probe, n), s.x[n], s.heat[n, 0], 0 * s.x[n]
        pairs.append((theirs[n], formulas.pixel_flipping(*given, 4)[1:]))
    return worst(pairs)


def road(s: Subject, quantus: Any) -> float:
    from quantus.functions.perturb_func import noisy_linear_imputation

    shares = (10, 50, 90)
    kept, pairs = np.zeros(len(shares)), list[tuple[Any, Any]]()
    for n, probe in enumerate(s.probes()):
        order = np.argsort(-s.heat[n].ravel())
        for i, share in enumerate(shares):
            gone = order[: int(SIDE * SIDE * share / 100)]
            known = np.ones(SIDE * SIDE, bool)
            known[gone] = False
            ours = formulas.imputed(s.x[n], known.reshape(SIDE, SIDE), tolerance=1e-9)
            pairs.append((noisy_linear_imputation(s.x[n].astype(np.float64), gone, noise=0.0), ours))
            kept[i] += probe.class_scores(ours[None]).argmax() == s.y[n]
    theirs = s.quantus(quantus.ROAD(percentages=list(shares), noise=0.0, **PLAIN), False, batch_size=PICTURES)
    pairs.append(([theirs[share] for share in shares], kept / PICTURES))
    return worst(pairs)


def infidelity(s: Subject, quantus: Any) -> float:
    metric = quantus.Infidelity(perturb_baseline=0.0, perturb_patch_sizes=[4], n_perturb_samples=1, **PLAIN)
    theirs, pairs = s.quantus(metric, False), []
    for n, probe in enumerate(s.probes()):
        squares = formulas.squares(s.x[n], 0 * s.x[n], 4, 4, add_up=True)
        ours = formulas.infidelity(s.score(probe), s.x[n], s.heat[n, 0], squares, binary=False).raw
        pairs.append((theirs[n] / ours, 1.0))  # in units of itself
    return worst(pairs)


def sensitivity_n(s: Subject, quantus: Any) -> float:
    subsets: list[Array] = []

    def record(arr: Array, indices: Array, **_: Any) -> Array:
        subsets.append(indices[0])
        arr = arr.copy()
        arr[:, indices[0]] = 0
        return arr

    np.random.seed(0)
    metric = quantus.FaithfulnessCorrelation(
        subset_size=100, nr_runs=40, perturb_func=record, return_aggregate=False, **PLAIN
    )
    theirs = s.quantus(metric, False)
    ours = [
        formulas.sensitivity_n(s.score(probe), s.x[n], s.heat[n, 0], 0 * s.x[n], subsets[40 * n : 40 * (n + 1)])
        for n, probe in enumerate(s.probes())
    ]
    return worst([(theirs, ours)])


def max_sensitivity(s: Subject, quantus: Any) -> float:
    near: list[Array] = []

    def explain(model: Any, inputs: Array, targets: Array, **_: Any) -> Array:
        near.append(np.array(inputs))
        return gradcam(model, inputs, targets)

    np.random.seed(0)
    metric = quantus.MaxSensitivity(nr_samples=8, lower_bound=0.2, **PLAIN)
    theirs = s.quantus(metric, False, a_batch=gradcam(s.net, s.x, s.y), explain_func=explain)
    ours = []
    for n, y in enumerate(s.y):
        moved = np.concatenate(near[8 * n : 8 * (n + 1)]).astype(np.float32)
        heats = s.explainer(np.concatenate([s.x[n : n + 1], moved]), int(y)).heatmaps[:, 0]
        ours.append(formulas.max_sensitivity(heats[0], heats[1:]))
    return worst([(theirs, ours)])


def randomisation(s: Subject, quantus: Any) -> float:
    """Cascading and independent: FastCAM's maps on both sides, which are PyTorch's of the same weights too."""
    pairs: list[tuple[Any, Any]] = []
    for order in ("top_down", "independent"):
        seen: list[Array] = []

        def explain(model: Any, inputs: Array, targets: Array, seen: list[Array] = seen, **_: Any) -> Array:
            weights = {name: model[i].weight.numpy() for name, i in (("w1", 0), ("w2", 3), ("fc", 7))}

            def drawn(name: str, _: Array) -> Array:
                return np.asarray(weights[name])

            copy = s.explainer.with_model(randomised_copy.randomised(s.exported, weights, drawn))
            seen.append(copy(np.asarray(inputs, np.float32), int(targets[0])).heatmaps)
            pairs.append((gradcam(model, inputs, targets), seen[-1]))
            return seen[-1]

        heats = np.concatenate([s.explainer(s.x[n : n + 1], int(y)).heatmaps for n, y in enumerate(s.y)])
        metric = quantus.MPRT(layer_order=order, return_average_correlation=False, **PLAIN)
        theirs = s.quantus(metric, False, a_batch=heats, explain_func=explain)
        columns = np.concatenate([theirs[key] for key in theirs])
        ours = [formulas.spearman(heats[k % PICTURES], other) for k, other in enumerate(seen)]
        pairs.append((columns, ours))
    return worst(pairs)


METRICS: dict[str, tuple[Callable[[Subject, Any], float], tuple[int, ...]]] = {
    "pixel flipping": (pixel_flipping, (1, 3)),
    "deletion": (deletion, (1, 3)),
    "insertion": (insertion, (1, 3)),
    "selectivity": (selectivity, (1, 3)),
    "road": (road, (1,)),
    "infidelity": (infidelity, (1, 3)),
    "sensitivity-n": (sensitivity_n, (1,)),
    "max-sensitivity": (max_sensitivity, (1, 3)),
    "randomisation": (randomisation, (1, 3)),
}
"""Each metric, and the channels of the networks that it is compared on."""


def main() -> None:
    """Compare, and write."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Figures of faithfulness beside Quantus's.")
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args()
    try:
        import quantus
    except ImportError:
        parser.exit(2, f"{COMMAND}: quantus is missing; run it with the interpreter of .venv/bench/quantus\n")
    subjects = {channels: Subject(channels) for channels in (1, 3)}
    rows = {}
    for name, (compare, channels) in METRICS.items():
        found = max(compare(subjects[count], quantus) for count in channels)
        rows[name] = {"difference": float(f"{found:.3g}"), "definitions": DIFFERS[name]}
        print(f"{name:18} {found:.2e} {'' if found <= BOUND else 'above rounding'}")
    packages = versions("fastcam", "quantus", "torch", "onnxruntime", "numpy")
    write_report({"command": COMMAND, "versions": packages, "bound": BOUND, "metrics": rows}, options.json)


if __name__ == "__main__":
    main()
