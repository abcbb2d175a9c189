"""Maps of the methods by name beside those of pytorch-grad-cam, torch-cam and Captum, where these have the method.

    python -m fastcam_bench.accuracy.methods_agreement [--out FILE]

A small random network in float32, one random picture, the same weights in all tools. Its layer has a third of the
picture's size, so that an upsampled map has the layer's own minimum and maximum, whichever way round a tool does it.
Where a method draws noise, the tools are handed ours. "difference": the largest, as a share of their largest value. A
note says where a tool means something else by a name, or was helped to the same meaning.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from fastcam import Explainer, Explanation
from fastcam.render.peer_styles import heatmaps
from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.machine import versions, write_report
from fastcam_bench.oracles.torch_oracle import Array
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

OUTPUT = RESULTS / "methods" / "methods_agreement.json"
TOLERANCE = 1e-3
SIDE, CLASS, CHANNELS = 45, 2, 12
Row = dict[str, Any]
NOISE: Row = {"samples": 5, "noise": 0.2, "seed": 1}


class Net(nn.Module):
    """12 maps of 15 x 15, and behind them a convolution, or only a mean."""

    def __init__(self, linear: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, CHANNELS, 3, stride=3), nn.ReLU()
        )
        middle = [] if linear else [nn.Conv2d(CHANNELS, 16, 3), nn.ReLU()]
        self.head = nn.Sequential(
            *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS if linear else 16, 6)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.features(x))
        return found


def built(linear: bool = False) -> Net:
    """Seeded, in inference mode; scores of one order of magnitude, so that a softmax over channels is not all one."""
    torch.manual_seed(3)
    net = Net(linear).eval()
    for parameter in net.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
    if linear:  # so that the epsilon in torch-cam's denominator is nothing beside the gradient's square
        for parameter in net.head.parameters():
            parameter.data *= 100
    return net


X = oracle.pictures(1, SIDE, seed=5)
TENSOR = torch.from_numpy(X)


def ours(method: str, linear: bool = False, options: dict[str, Any] | None = None, **export: Any) -> Explanation:
    """What the exported network says by a method."""
    made = export_model(oracle.to_onnx(built(linear), SIDE, dynamo=False), layer="features", check=False, **export)
    head = made.head.SerializeToString() if made.head is not None else None
    explainer = Explainer(made.model.SerializeToString(), head=head, preprocess="raw")
    return explainer(X, targets=CLASS, method=method, options=options)


# ---- pytorch-grad-cam


def _pytorch_grad_cam(name: str, **how: Any) -> Array:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net = built()
    with getattr(pytorch_grad_cam, name)(model=net, target_layers=[net.features]) as cam:
        return np.asarray(cam(input_tensor=TENSOR, targets=[ClassifierOutputTarget(CLASS)], **how)[0])


def _half_pixel(size: Any) -> nn.Module:
    return nn.Upsample(size=size, mode="bilinear", align_corners=False)


def _scorecam() -> Array:
    with mock.patch("torch.nn.UpsamplingBilinear2d", _half_pixel):
        return _pytorch_grad_cam("ScoreCAM")


def _in_their_style(e: Explanation) -> Array:
    return np.asarray(heatmaps("pytorch-grad-cam", e.maps, (SIDE, SIDE))[0, 0])


# ---- torch-cam


class Handed:
    """In place of a tool's normal distribution: our noise, which is drawn in the same order."""

    def __init__(self, deviation: float, seed: int) -> None:
        self._deviation, self._rng = deviation, np.random.default_rng(seed)

    def sample(self, size: Any) -> torch.Tensor:
        return torch.from_numpy(self._rng.normal(0, self._deviation, tuple(size)).astype(np.float32))


def _torch_cam(name: str, noise: Handed | None = None, **how: Any) -> Array:
    import torchcam.methods

    net = built()
    with getattr(torchcam.methods, name)(net, target_layer="features", **how) as cam:
        if noise is not None:
            cam._distrib = noise
        scores = net(TENSOR)
        return np.asarray(cam(CLASS, scores)[0][0].detach().numpy())


def _smoothgradcam() -> Array:
    """Its weights, of the image's own activations."""
    from torchcam.methods import SmoothGradCAMpp

    net = built(linear=True)
    with SmoothGradCAMpp(net, target_layer="features", num_samples=3, std=0.5) as cam:
        cam._distrib = Handed(0.5, 2)
        net(TENSOR)
        weights = cam._get_weights(CLASS)[0]
    found = torch.relu(torch.einsum("k,khw->hw", weights[0], net.features(TENSOR)[0])).detach().numpy()
    return np.asarray((found - found.min()) / (found.max() - found.min()))


def _scaled(e: Explanation) -> Array:
    """The map from its minimum to its maximum, as torch-cam returns it."""
    found = e.maps[0, 0] - e.maps[0, 0].min()
    return np.asarray(found / (found.max() + 1e-8))


# ---- Captum


def _captum(name: str, *arguments: Any, **how: Any) -> Array:
    import captum.attr

    net = built()
    explained = getattr(captum.attr, name)(net, *(getattr(net, one) for one in arguments))
    found: Array = explained.attribute(TENSOR.clone().requires_grad_(), target=CLASS, **how)[0].detach().numpy()
    return found


@contextmanager
def _captums_noise(deviation: float, seed: int) -> Iterator[None]:
    with mock.patch("torch.normal", lambda _, like: Handed(deviation, seed).sample(like.shape)):
        yield


def _noise_tunnel(kind: str) -> Array:
    import captum.attr

    deviation = NOISE["noise"] * float(X.max() - X.min())
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(built()))
    with _captums_noise(deviation, NOISE["seed"]):
        how = {"nt_type": kind, "nt_samples": NOISE["samples"], "stdevs": deviation, "abs": False}
        return np.asarray(tunnel.attribute(TENSOR.clone(), target=CLASS, **how)[0].detach().numpy())


def _attributions(e: Explanation) -> Array:
    assert e.attributions is not None
    return np.asarray(e.attributions[0, 0])


# ---- the comparisons

GRADIENT: Row = {"input_gradient": "gradient"}
GUIDED: Row = {"input_gradient": "guided"}
Case = tuple[str, str, Callable[[], Array], Callable[[], Array], str]


def cases() -> list[Case]:
    """Method, tool, theirs, ours, note."""
    upsampled = "its masks upsampled with half-pixel centres, as the paper's code does, in place of aligned corners"
    unscaled = "both divided by their largest value: its heatmap is not scaled to 0..1"
    adds_up = "its coefficients add up, 1/n + 2/n + ..., up to (n + 1)/2, where ours end at 1: equal for one step only"
    joint = (
        "its weights on the image's own activations, where it takes the last noisy image's; of a layer with the same "
        "gradient at all positions: elsewhere it has sum_ab D3 A for D3 sum_ab A"
    )
    steps = {"samples": 3, "noise": 0.5, "seed": 2}
    occlude = {"window": (9, 9), "stride": (6, 6)}
    windows = {"sliding_window_shapes": (3, 9, 9), "strides": (3, 6, 6)}
    return [
        ("scorecam", "grad-cam", _scorecam, lambda: _in_their_style(ours("scorecam")), upsampled),
        ("scorecam", "torchcam", lambda: _torch_cam("ScoreCAM"), lambda: _scaled(ours("scorecam")), ""),
        (
            "sscam",
            "torchcam",
            lambda: _torch_cam("SSCAM", noise=Handed(0.5, 2), num_samples=3, std=0.5),
            lambda: _scaled(ours("sscam", options=steps)),
            "",
        ),
        (
            "iscam",
            "torchcam",
            lambda: _torch_cam("ISCAM", num_samples=1),
            lambda: _scaled(ours("iscam", options={"steps": 1})),
            adds_up,
        ),
        (
            "smoothgradcam++",
            "torchcam",
            _smoothgradcam,
            lambda: _scaled(ours("smoothgradcam++", linear=True, options=steps, emit="gradients")),
            joint,
        ),
        (
            "ablationcam",
            "grad-cam",
            lambda: _pytorch_grad_cam("AblationCAM"),
            lambda: _in_their_style(ours("ablationcam", head=True)),
            "",
        ),
        (
            "augsmooth",
            "grad-cam",
            lambda: _pytorch_grad_cam("GradCAM", aug_smooth=True),
            lambda: ours("augsmooth").maps[0, 0],
            "its heatmaps begin at the map's minimum: the same where that is zero, as here",
        ),
        (
            "occlusion",
            "captum",
            lambda: _captum("Occlusion", baselines=0, **windows)[0],
            lambda: np.asarray(ours("occlusion", options=occlude).maps[0, 0]),
            "of what speaks for the class (ReLU): ours has no signed map of the image",
        ),
        (
            "integrated-gradients",
            "captum",
            lambda: _captum("IntegratedGradients", n_steps=50),
            lambda: _attributions(ours("integrated-gradients", **GRADIENT)),
            "",
        ),
        *(
            (
                name,
                "captum",
                lambda name=name: _noise_tunnel(name),
                lambda name=name: _attributions(ours(name, options=NOISE, **GRADIENT)),
                "",
            )
            for name in ("smoothgrad", "vargrad")
        ),
        (
            "gradient",
            "captum",
            lambda: _captum("Saliency", abs=False),
            lambda: _attributions(ours("gradient", **GRADIENT)),
            "",
        ),
        (
            "input-x-gradient",
            "captum",
            lambda: _captum("InputXGradient"),
            lambda: _attributions(ours("input-x-gradient", **GRADIENT)),
            "",
        ),
        (
            "guided",
            "captum",
            lambda: _captum("GuidedBackprop"),
            lambda: _attributions(ours("guided", **GUIDED)),
            "",
        ),
        (
            "deconvolution",
            "captum",
            lambda: _captum("Deconvolution"),
            lambda: _attributions(ours("deconvolution", input_gradient="deconvolution")),
            "",
        ),
        (
            "guided-gradcam",
            "captum",
            lambda: _unit(_captum("GuidedGradCam", "features", interpolate_mode="bilinear")),
            lambda: _unit(_attributions(ours("guided-gradcam", **GUIDED))),
            unscaled,
        ),
    ]


def _unit(array: Array) -> Array:
    return np.asarray(array / np.abs(array).max())


def measure(case: Case) -> Row:
    """One method beside one tool."""
    method, tool, theirs, mine, note = case
    a, b = mine(), theirs()
    if method == "occlusion":
        b = np.maximum(b, 0)
    assert a.shape == b.shape and np.abs(b).max() > 0, (method, a.shape, b.shape)
    return {"method": method, "tool": tool, "difference": float(f"{oracle.difference(a, b):.1e}"), "note": note}


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Maps of the methods beside those of other tools.")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    options = parser.parse_args()
    results = []
    for case in cases():
        results.append(measure(case))
        print(results[-1], flush=True)
    report = {
        "command": "python -m fastcam_bench.accuracy.methods_agreement",
        "versions": versions("fastcam", "grad-cam", "torchcam", "captum", "torch", "onnxruntime"),
        "tolerance": TOLERANCE,
        "without a peer": "rise, reciprocam, vit-reciprocam, excitation, lrp: tests hold these against the formulas",
        "results": results,
    }
    write_report(report, options.out)


if __name__ == "__main__":
    main()
