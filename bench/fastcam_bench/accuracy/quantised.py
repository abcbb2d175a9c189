"""Explanations of quantised models beside those of their float twins: every form that ONNX Runtime's quantiser writes.

    python -m fastcam_bench.accuracy.quantised [--out FILE] [--assets FOLDER] [--only NAME...]

Real float networks of the assets and networks of torchvision with seeded random weights, whose BatchNorm statistics are
those of the photos. Each is quantised statically on some of the photos, as QDQ and with integer operators (QOperator),
with activations and weights of several types, a scale to the tensor or to the channel, and dynamically; then exported
at the default layer and at one in the middle. Of each: whether it exports, whether outputs keep their bits, what the
check says, and the rank correlation of the signed maps (sum_k alpha_k A^k) with those of the float network at the same
layer, for the class that the float network predicts: mean over the photos, and the least. Beside it, how well the
quantised network computes what the float one does: the correlation of their scores.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from scipy.stats import spearmanr

from fastcam import schema
from fastcam.image.preprocess import decode, prepare
from fastcam.schema import FastcamError
from fastcam_bench.accuracy.photos import read_photos
from fastcam_bench.oracles.machine import versions, write_report
from fastcam_bench.oracles.torch_oracle import Array
from fastcam_bench.paths import RESULTS, default_assets
from fastcam_export import export_model, inspect_model
from fastcam_export.result import InspectedLayer
from fastcam_export.verify.session import quiet_session

import torch  # isort: skip
import torchvision  # isort: skip

OUTPUT = RESULTS / "gradients" / "quantised.json"
REAL = {
    "squeezenet1.1": ("squeezenet1.1.onnx", 224, "imagenet"),
    "mobilenet_v1_0.25": ("mobilenet_v1_0.25_128_quant.float.onnx", 128, "tf128"),
    "mobilenet_v2": ("mobilenet_v2_1.0_224_quant.float.onnx", 224, "tf128"),
    "resnet20": ("resnet20_cifar10.onnx", 32, "imagenet"),
}
"""File, side of the pictures, how they are prepared."""
RANDOM = {"densenet121": 96, "efficientnet_b0": 96, "vit": 64}
"""Networks without trained files here, and the side of the pictures."""
SETTINGS = {
    "QDQ, uint8, tensor": ("QDQ", "QUInt8", "QInt8", False, False),
    "QDQ, uint8, channel": ("QDQ", "QUInt8", "QInt8", True, False),
    "QDQ, int8, tensor": ("QDQ", "QInt8", "QInt8", False, False),
    "QDQ, int8 symmetric, channel": ("QDQ", "QInt8", "QInt8", True, True),
    "QOperator, uint8, tensor": ("QOperator", "QUInt8", "QUInt8", False, False),
    "QOperator, int8, channel": ("QOperator", "QInt8", "QInt8", True, False),
    "dynamic": None,
}
"""Format, types of activations and weights, a scale to each channel, symmetric activations."""

FEWER = ["QDQ, uint8, channel", "QDQ, int8 symmetric, channel", "QOperator, uint8, tensor", "dynamic"]
"""Settings of the networks with random weights."""


@dataclass(frozen=True)
class Network:
    """A float network, its image input and pictures for it."""

    name: str
    path: Path
    image: str
    pictures: Array


def networks(assets: Path, folder: Path, only: list[str]) -> Iterator[Network]:
    """The real networks, then those with random weights."""
    photos = read_photos(assets / "photos")[::3]
    for name in only or [*REAL, *RANDOM]:
        size = REAL[name][1] if name in REAL else RANDOM[name]
        how = schema.preset(REAL[name][2] if name in REAL else "imagenet", resize="stretch")
        pictures = np.concatenate([prepare(decode(photo.path), how, (size, size))[0] for photo in photos])
        path = assets / "models" / REAL[name][0] if name in REAL else _random(name, pictures, folder)
        yield Network(name, path, onnx.load(path).graph.input[0].name, pictures)


def _random(name: str, pictures: Array, folder: Path) -> Path:
    """A network of torchvision, by torch's older exporter."""
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)
    if name == "vit":
        module = torchvision.models.VisionTransformer(pictures.shape[-1], 8, 4, 4, 64, 128, num_classes=20)
        torch.nn.init.normal_(module.heads.head.weight)
    else:
        module = torchvision.models.get_model(name, weights=None, num_classes=20)
    with torch.no_grad():
        for _ in range(8):
            module.train()(torch.tensor(pictures))
    path = folder / f"{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the older exporter, that there is a newer one
        torch.onnx.export(
            module.eval(), (torch.zeros(1, *pictures.shape[1:]),), str(path), dynamo=False, opset_version=14,
            input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
        )  # fmt: skip
    return path


def quantised(network: Network, setting: str, folder: Path) -> Path:
    """The network in one of :data:`SETTINGS`."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Pictures(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter([{network.image: each[None]} for each in network.pictures])

        def get_next(self) -> dict[str, Array] | None:
            return next(self.rest, None)

    output, how = folder / "quantised.onnx", SETTINGS[setting]
    source = folder / f"{network.name}.prepared.onnx"
    if how is None:
        quantize_dynamic(source, output)
        return output
    form, activations, weights, channel, symmetric = how
    quantize_static(
        source, output, Pictures(), quant_format=QuantFormat[form], per_channel=channel,
        activation_type=QuantType[activations], weight_type=QuantType[weights],
        extra_options={"ActivationSymmetric": symmetric},
    )  # fmt: skip
    return output


def prepared(network: Network, folder: Path) -> Path:
    """The float network with its BatchNorms folded, as the quantiser wants it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    output = folder / f"{network.name}.prepared.onnx"
    quant_pre_process(str(network.path), str(output), skip_symbolic_shape=True)
    return output


def signed_maps(model: onnx.ModelProto, network: Network, classes: Array | None = None) -> tuple[Array, Array]:
    """sum_k alpha_k A^k of each picture, [N, h w], and the predicted classes."""
    session = quiet_session(model)
    names = [schema.CLASSES, schema.ACTIVATIONS, schema.WEIGHTS]
    maps, found = [], []
    for at, picture in enumerate(network.pictures):
        wanted = np.array([[-1]]) if classes is None else classes[at : at + 1]
        feeds = {network.image: picture[None], schema.TARGETS: wanted}
        which, activations, weights = session.run(names, feeds)
        maps.append(np.einsum("nkhw,ntk->nhw", activations, weights).reshape(-1))
        found.append(which[0])
    return np.stack(maps), np.stack(found)


def measure(network: Network, folder: Path) -> list[dict[str, Any]]:
    """One entry for each setting and layer."""
    source = prepared(network, folder)
    layers = [line for line in inspect_model(source).layers if not line.note]
    middle = layers[len(layers) // 2]
    places = {"default": None, "middle": middle}
    rows: list[dict[str, Any]] = []
    twins, answers = {}, scores(network.path, network)
    for place in places:
        at = "auto" if place == "default" else middle.name
        twins[place] = signed_maps(export_model(source, layer=at, check=False).model, network)
    for setting in SETTINGS if network.name in REAL else FEWER:
        path = quantised(network, setting, folder)
        for place, layer in places.items():
            row: dict[str, Any] = {"network": network.name, "setting": setting, "place": place}
            row["trained"] = network.name in REAL
            rows.append(row | measure_one(path, network, layer, twins[place], answers))
            print(rows[-1], flush=True)
    return rows


def same_layer(path: Path, network: Network, wanted: InspectedLayer) -> str:
    """The name of a float network's layer in a quantised file, or of that in front of an activation that it merged."""
    layers = [line.name for line in inspect_model(path).layers if not line.note]
    made = {output: node for node in onnx.load(network.path).graph.node for output in node.output}
    names = [wanted.name, *(made[wanted.name].input[:1] if wanted.name in made else [])]
    found = (layer for name in names for layer in reversed(layers) if layer.startswith(name))
    return next(found, wanted.name)


def scores(model: Path, network: Network) -> Array:
    """What a network answers to the pictures."""
    session = quiet_session(model)
    return np.stack([session.run(None, {network.image: picture[None]})[0] for picture in network.pictures])


def measure_one(
    path: Path, network: Network, twin_layer: InspectedLayer | None, twin: tuple[Array, Array], float_scores: Array
) -> dict[str, Any]:
    """The figures of one export: at the default layer, or at the one that a layer of the float network has become."""
    try:
        export = export_model(path, layer="auto" if twin_layer is None else same_layer(path, network, twin_layer))
    except FastcamError as error:
        return {"exports": False, "why": str(error)}
    maps, _ = signed_maps(export.model, network, twin[1])
    ranks = [float(spearmanr(a, b).statistic) for a, b in zip(maps, twin[0])]
    return {
        "exports": True,
        "layer": export.metadata.layer.value,
        "bit_identical": export.check["bit_identical"],
        "output_difference": export.check["output_difference"],
        "gradient_error": export.check["gradient_error"],
        "unconfirmed": export.check.get("unconfirmed", ""),
        "notes": export.check.get("notes", []),
        "scores": round(float(np.corrcoef(scores(path, network).ravel(), float_scores.ravel())[0, 1]), 4),
        "rank_mean": round(float(np.mean(ranks)), 4),
        "rank_least": round(min(ranks), 4),
    }


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Quantised networks against their float twins.")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--assets", type=Path, default=default_assets())
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # the quantiser's advice on preparation
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for network in networks(options.assets, Path(folder), options.only):
            rows += measure(network, Path(folder))
    report = {
        "command": "python -m fastcam_bench.accuracy.quantised",
        "versions": versions("fastcam", "onnxruntime", "onnx", "torch", "torchvision"),
        "results": rows,
    }
    write_report(report, options.out)


if __name__ == "__main__":
    main()
