"""Modes that are further nodes of the graph, beside PyTorch on the same weights: differences, and what they cost.

    python -m fastcam_bench.accuracy.graph_methods [--seconds 3] [--only vit_b_16 ...] [--out FILE]

torchvision's networks with seeded weights (BatchNorm with statistics of pictures), one random picture. The oracles are
the papers' formulas in PyTorch, with hooks and autograd: rollout and LeGrad of attention that is written out, FullGrad
by gradients at every biased layer's output, ShapleyCAM by double backward. Differences are the largest as a share of
the largest value; of convolutional networks to PyTorch in float64, of the file in float32 and in float64 and of
PyTorch in float32: those in float32 are large where a value lies within rounding of a kink. LeGrad and ShapleyCAM
also beside torch-cam and pytorch-grad-cam, where these are installed, normalised as they do. With --seconds the price:
the file with the mode and the file without it, as multiples of the plain forward pass.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from fastcam.render.peer_styles import heatmaps
from fastcam.schema import RELEVANCE, TARGETS
from fastcam_bench.oracles import double_runtime
from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.oracles.torch_oracle import Array, difference
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model
from fastcam_export.verify.session import quiet_session

OUTPUT = RESULTS / "methods" / "graph_methods.json"
CASES: dict[str, tuple[str, ...]] = {
    "vit_b_16": ("rollout", "rollout-max", "rollout-min", "legrad"),
    "squeezenet1_1": ("fullgrad", "shapleycam"),
    "mobilenet_v2": ("fullgrad",),
    "resnet50": ("fullgrad", "shapleycam"),
}
LAYERS = {"squeezenet1_1": "features.7", "resnet50": "layer3"}
"""Where ShapleyCAM is compared: in the middle, where curvature is not that of the softmax alone."""
TARGET = 3
Row = dict[str, Any]


class LogSoftmax(torch.nn.Module):
    """A network's log-probabilities."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, classes]"""
        return torch.log_softmax(self.network(x), 1)


# ---- the oracles: [h, w] of one picture


def attention(module: Any, images: Array, mode: str, layer: str) -> Array:
    """Rollout or LeGrad of torchvision's vision transformer."""
    weights: list[torch.Tensor] = []
    tokens: list[torch.Tensor] = []

    def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any) -> torch.Tensor:
        weights.append((q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1))
        return weights[-1] @ v

    functional: Any = torch.nn.functional
    kept, functional.scaled_dot_product_attention = functional.scaled_dot_product_attention, written_out
    hooks = [layer.register_forward_hook(lambda m, x, y: tokens.append(y)) for layer in module.encoder.layers]
    try:
        module(torch.from_numpy(images))
    finally:
        functional.scaled_dot_product_attention = kept
        for hook in hooks:
            hook.remove()
    row = _rollout(weights, mode) if mode != "legrad" else _legrad(module, weights, tokens)
    side = int(row.numel() ** 0.5)
    return np.asarray(row.detach().reshape(side, side).numpy())


def _rollout(weights: list[torch.Tensor], mode: str) -> torch.Tensor:
    fuse: Any = {"rollout": torch.mean, "rollout-max": torch.amax, "rollout-min": torch.amin}[mode]
    product = torch.eye(weights[0].shape[-1])
    for matrices in weights:
        joined = fuse(matrices.detach(), dim=1)[0] + torch.eye(len(product))
        product = joined / joined.sum(1, keepdim=True) @ product
    return product[0, 1:]


def _legrad(module: Any, weights: list[torch.Tensor], tokens: list[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros(())
    for matrices, z in zip(weights, tokens):
        score = module.heads(module.encoder.ln(z.mean(1)))[0, TARGET]
        (gradient,) = torch.autograd.grad(score, matrices, retain_graph=True)
        total = total + gradient.clamp(min=0).mean((0, 1, 2))[1:] / len(weights)
    return total


def fullgrad(module: torch.nn.Module, images: Array, mode: str, layer: str) -> Array:
    """FullGrad by autograd at the output of every layer with a bias."""
    kept: list[tuple[Any, torch.Tensor]] = []
    kinds = (torch.nn.Conv2d, torch.nn.BatchNorm2d)
    biased = [m for m in module.modules() if (isinstance(m, kinds) and m.bias is not None) or _saturates(m)]

    def keep(layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        kept.append((layer, output))
        return output.clone()  # in which the ReLU behind may work

    hooks = [m.register_forward_hook(keep) for m in biased]
    x = torch.from_numpy(images).requires_grad_()
    score = module(x)[0, TARGET]
    for hook in hooks:
        hook.remove()
    first, *gradients = torch.autograd.grad(score, [x, *(y for _, y in kept)])
    total = _psi(first * x, x.shape[2:])
    for (one, output), gradient in zip(kept, gradients):
        bias = output * (output >= 6) if _saturates(one) else _bias(one)[None, :, None, None]
        total = total + _psi(gradient * bias, x.shape[2:])
    return np.asarray(total.detach().numpy())


def _saturates(module: torch.nn.Module) -> bool:
    """Whether it is a ReLU6, which from 6 on is a bias."""
    return isinstance(module, torch.nn.ReLU6)


def _bias(layer: Any) -> torch.Tensor:
    """A convolution's bias, or the one that a BatchNorm implies."""
    bias: torch.Tensor = layer.bias
    if isinstance(layer, torch.nn.BatchNorm2d):
        assert layer.running_mean is not None and layer.running_var is not None
        bias = bias - layer.weight * layer.running_mean / (layer.running_var + layer.eps).sqrt()
    return bias


def _psi(term: torch.Tensor, size: Any) -> torch.Tensor:
    size_of = term.abs()
    scaled = (size_of - size_of.min()) / (size_of.max() - size_of.min())
    return torch.nn.functional.interpolate(scaled, size, mode="bilinear", align_corners=False).sum(1)[0]


def shapleycam(module: torch.nn.Module, images: Array, mode: str, layer: str) -> Array:
    """ShapleyCAM of the log-probability by double backward, signed."""
    kept: list[torch.Tensor] = []
    hook = module.get_submodule(layer).register_forward_hook(lambda m, x, y: kept.append(y))
    score = LogSoftmax(module)(torch.from_numpy(images))[0, TARGET]
    hook.remove()
    (a,) = kept
    (g,) = torch.autograd.grad(score, a, create_graph=True)
    (h,) = torch.autograd.grad(g, a, grad_outputs=a.detach())
    found = torch.einsum("nk,nkhw->hw", (g - h / 2).mean((2, 3)), a)
    return np.asarray(found.detach().numpy())


ORACLES: dict[str, Callable[[torch.nn.Module, Array, str, str], Array]] = {
    "fullgrad": fullgrad,
    "shapleycam": shapleycam,
    **dict.fromkeys(CASES["vit_b_16"], attention),
}


def torch_cam(module: Any, images: Array) -> Array | None:
    """torch-cam's LeGrad of all layers, [h, w], minimum 0 and maximum 1; None where it is not installed."""
    try:
        from torchcam.methods import LeGrad
    except ImportError:
        return None
    layers = list(module.encoder.layers)
    with LeGrad(module, layers) as cam:
        scores = module(torch.from_numpy(images))
        maps = [one[0].numpy() for one in cam(TARGET, scores, normalized=False)]
    return _min_max(np.mean(maps, axis=0))


def _min_max(found: Array) -> Array:
    return np.asarray((found - found.min()) / (found.max() - found.min()))


def pytorch_grad_cam(module: torch.nn.Module, images: Array, layer: str) -> Array | None:
    """pytorch-grad-cam's ShapleyCAM of the log-probability, [H, W] in 0..1; None where it is not installed."""
    try:
        from pytorch_grad_cam import ShapleyCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        return None
    with ShapleyCAM(LogSoftmax(module), [module.get_submodule(layer)]) as cam:
        return np.asarray(cam(torch.from_numpy(images), [ClassifierOutputTarget(TARGET)])[0])


# ---- ours


def _built(name: str) -> torch.nn.Module:
    """A network with biases that are not zero, where it begins with such."""
    module = oracle.build(name)
    for parameter in module.parameters():
        if parameter.dim() == 1 and not parameter.any():
            parameter.data.normal_(0, 0.1)
    return module


def measure(name: str, modes: tuple[str, ...], seconds: float) -> list[Row]:
    """A network's rows."""
    module = _built(name)
    images = oracle.pictures(1)
    proto = oracle.to_onnx(module, optimize=True)
    rows = []
    for mode in modes:
        layer = LAYERS[name] if mode == "shapleycam" else "auto"
        options: dict[str, Any] = {"layer": layer, "score": "log-probability" if mode == "shapleycam" else "logit"}
        made = export_model(proto, input_gradient=mode, check=False, **options).model  # type: ignore[arg-type]
        found = _run(_session(made), images)[0, 0]
        single = ORACLES[mode](module, images, mode, layer)
        expected = single
        row: Row = {"network": name, "mode": mode, "layer": layer, "grid": list(found.shape)}
        if mode not in CASES["vit_b_16"]:  # which has no kinks, and is large
            expected = ORACLES[mode](copy.deepcopy(module).double(), images.astype(np.float64), mode, layer)
            row["PyTorch's own"] = float(f"{difference(single, expected):.1e}")
            wide = double_runtime.run(made, _feeds(_session(made), images))[RELEVANCE][0, 0]
            row["float64"] = float(f"{difference(wide, expected):.1e}")
        row["difference"] = float(f"{difference(found, expected):.1e}")
        row |= _beside_peers(module, images, mode, layer, found)
        if seconds:
            plain = export_model(proto, check=False, **options).model
            row |= _price({"plain": proto, "without": plain, "with": made}, images, seconds)
        rows.append(row)
        print(row, flush=True)
        gc.collect()
    return rows


def _beside_peers(module: torch.nn.Module, images: Array, mode: str, layer: str, found: Array) -> Row:
    """Differences to the tools that have the method too, as they normalise its map."""
    row: Row = {}
    if mode == "shapleycam" and (theirs := pytorch_grad_cam(module, images, layer)) is not None:
        ours = heatmaps("pytorch-grad-cam", found, (images.shape[2], images.shape[3]))
        row["peer"] = f"pytorch-grad-cam: {difference(ours, theirs):.0e}"
    if mode == "legrad" and (theirs := torch_cam(module, images)) is not None:
        row["peer"] = f"torch-cam: {difference(_min_max(found), theirs):.0e}"
    return row


def _session(model: onnx.ModelProto) -> Any:
    return quiet_session(model)


def _run(session: Any, images: Array) -> Array:
    found: Array = session.run([RELEVANCE], _feeds(session, images))[0]
    return found


def _feeds(session: Any, images: Array) -> dict[str, Array]:
    names = [value.name for value in (*session.get_inputs(), *session.get_overridable_initializers())]
    targets = {TARGETS: np.array([[TARGET]])} if TARGETS in names else {}
    return {names[0]: images, **targets}


def _price(models: dict[str, onnx.ModelProto], images: Array, seconds: float) -> Row:
    """Medians of interleaved rounds, as multiples of the plain forward pass."""
    sessions = {name: _session(model) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["plain"]) < 3:
        for name, session in sessions.items():
            feeds = _feeds(session, images)
            start = time.perf_counter()
            session.run(None, feeds)
            times[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return {f"price {name}": round(medians[name] / medians["plain"], 2) for name in ("without", "with")}


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = [
        "Modes that are further nodes, beside PyTorch on the same seeded weights",
        "(`python -m fastcam_bench.accuracy.graph_methods`, "
        f"{', '.join(f'{k} {v}' for k, v in report['versions'].items())}).",
        "Largest differences as a share of the largest value; price as multiples of the plain forward pass, of the",
        "export without and with the mode, where it was measured.",
        "",
        "Of convolutional networks to PyTorch in float64, of the file in float32 and in float64 and of PyTorch",
        "in float32: those in float32 are large where a value lies within rounding of a kink.",
        "",
        "| network | mode | layer | grid | to PyTorch | float64 | PyTorch float32 | peer | price | with |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["rows"]:
        shown = [
            row["network"],
            row["mode"],
            row["layer"],
            " x ".join(map(str, row["grid"])),
            f"{row['difference']:.0e}",
        ]
        shown += [f"{row[key]:.0e}" if key in row else "" for key in ("float64", "PyTorch's own")]
        shown += [row.get("peer", "")]
        shown += [str(row.get(f"price {name}", "")) for name in ("without", "with")]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.0, help="per row, for prices; 0 measures none")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), help="others keep their rows")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    given = parser.parse_args()
    known = json.loads(given.out.read_text(encoding="utf-8"))["rows"] if given.out.is_file() else []
    rows = [row for row in known if row["network"] not in given.only]
    rows += [row for name in given.only for row in measure(name, CASES[name], given.seconds)]
    rows.sort(key=lambda row: list(CASES).index(row["network"]))
    about = versions("torch", "onnxruntime", "grad-cam", "torchcam")
    write_report({"machine": machine(), "versions": about, "rows": rows}, given.out, table)


if __name__ == "__main__":
    main()
