"""What half precision costs an explanation: a float16 file beside its float32 twin, and what is done for it left out.

    python -m fastcam_bench.accuracy.half [--out FILE] [--assets FOLDER]

SqueezeNet 1.1 as ``squeezenet1.1_fp16.onnx`` and as ``squeezenet1.1.onnx``, 12 photos, the class that the latter
predicts. For the default layer, one in the middle and an early one: |half - single| / |single| of weights, gradients
and maps (Euclidean norms, one figure a photo; median and largest of them), and the share of gradient entries that are
exactly zero. "probability": at the default layer, with a Softmax behind both files, the probability of the class of
rank 10, whose gradients are small. Each with the exporter as it is, with a seed of one, with sums in float16, and with
both. Figures are of ONNX Runtime's CPU, which itself computes most of float16 in float32 and rounds what it stores.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import onnx

from fastcam import schema
from fastcam.image.preprocess import decode, prepare
from fastcam_bench.accuracy.photos import read_photos
from fastcam_bench.oracles.machine import versions, write_report
from fastcam_bench.oracles.torch_oracle import Array, grad_cam
from fastcam_bench.paths import RESULTS, default_assets
from fastcam_export import export_model
from fastcam_export.autodiff.core import builder
from fastcam_export.autodiff.pooled import spatial_mean
from fastcam_export.outputs import cam
from fastcam_export.verify.session import quiet_session

OUTPUT = RESULTS / "gradients" / "half.json"
HALF, SINGLE = "squeezenet1.1_fp16.onnx", "squeezenet1.1.onnx"
LAYERS = {"default": "auto", "middle": "squeezenet0_concat3", "early": "squeezenet0_relu4_fwd", "probability": "auto"}
RANK = 10
VARIANTS = {
    "as exported": (True, True),
    "seed of one": (False, True),
    "sums in float16": (True, False),
    "seed of one, sums in float16": (False, False),
}
"""Whether the seed is scaled, and whether sums are taken in float32."""


@contextmanager
def exporting(scaled: bool, wide: bool) -> Iterator[None]:
    """The exporter without one or both of what it does for half precision."""
    with ExitStack() as stack:
        if not scaled:
            stack.enter_context(mock.patch.object(cam, "HALF_SCALE", 1.0))
        if not wide:
            stack.enter_context(mock.patch.object(builder, "SUMS", frozenset()))
            for module in (cam, spatial_mean):
                stack.enter_context(mock.patch.object(module, "wide", lambda op, x: x))
        yield


def pictures(folder: Path) -> Array:
    """All photos of the assets as the network's input, float32 [12, 3, 224, 224]."""
    how = schema.preset("imagenet", resize="stretch")
    return np.concatenate([prepare(decode(p.path), how, (224, 224))[0] for p in read_photos(folder / "photos")])


def run(model: onnx.ModelProto, images: Array, targets: Array | None = None) -> dict[str, Array]:
    """Outputs by name, one picture at a time, on ONNX Runtime's CPU provider."""
    session = quiet_session(model)
    names = [value.name for value in session.get_outputs()]
    image = session.get_inputs()[0].name
    made = []
    for at in range(len(images)):
        more = {} if targets is None else {schema.TARGETS: targets[at : at + 1]}
        made.append(session.run(None, {image: images[at : at + 1], **more}))
    return {name: np.concatenate([arrays[index] for arrays in made]) for index, name in enumerate(names)}


def with_probabilities(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a Softmax behind its logits, in the type in which they are computed."""
    longer = onnx.ModelProto()
    longer.CopyFrom(model)
    graph, last = longer.graph, longer.graph.node[-1]
    logits = last.input[0] if last.op_type == "Cast" else graph.output[0].name
    softmax = onnx.helper.make_node("Softmax", [logits], ["probabilities.computed"], axis=1)
    cast = onnx.helper.make_node("Cast", ["probabilities.computed"], ["probabilities"], to=onnx.TensorProto.FLOAT)
    graph.node.extend([softmax, cast])
    graph.output[0].name = "probabilities"
    return longer


def both_levels(source: onnx.ModelProto, layer: str, images: Array, targets: Array) -> dict[str, Array]:
    """Weights, gradients, activations and the model's own outputs."""
    score: Literal["probability", "logit"] = (
        "probability" if source.graph.output[0].name == "probabilities" else "logit"
    )
    gradients = export_model(source, layer=layer, emit="gradients", score=score, check=False).model
    weights = export_model(source, layer=layer, emit="weights", score=score, check=False).model
    return run(gradients, images, targets) | run(weights, images, targets)


def distances(half: Array, single: Array) -> dict[str, float]:
    """Median and largest |half - single| / |single| over the photos."""
    each = [
        float(np.linalg.norm(a.astype(np.float64) - b)) / float(np.linalg.norm(b.astype(np.float64)))
        for a, b in zip(half, single)
    ]
    return {"median": float(f"{np.median(each):.3g}"), "largest": float(f"{max(each):.3g}")}


def compare(half: dict[str, Array], single: dict[str, Array]) -> dict[str, Any]:
    """The figures of one layer and variant."""
    maps = [grad_cam(found[schema.ACTIVATIONS], found[schema.GRADIENTS]) for found in (half, single)]
    return {
        "weights": distances(half[schema.WEIGHTS], single[schema.WEIGHTS]),
        "gradients": distances(half[schema.GRADIENTS], single[schema.GRADIENTS]),
        "maps": distances(*maps),
        "exact_zeros": float(f"{np.mean(half[schema.GRADIENTS] == 0):.6f}"),
        "exact_zeros_float32": float(f"{np.mean(single[schema.GRADIENTS] == 0):.6f}"),
    }


def measure(assets: Path) -> list[dict[str, Any]]:
    """One entry a layer."""
    images = pictures(assets)
    sources = [onnx.load(assets / "models" / name) for name in (HALF, SINGLE)]
    (logits,) = run(sources[1], images).values()
    ranked = np.argsort(-logits, axis=1, kind="stable")
    results = []
    for what, layer in LAYERS.items():
        half, single = sources if what != "probability" else map(with_probabilities, sources)
        targets = ranked[:, :1] if what != "probability" else ranked[:, RANK - 1 : RANK]
        results.append({"what": what, **measure_layer(half, single, layer, images, targets)})
    return results


def measure_layer(
    half: onnx.ModelProto, single: onnx.ModelProto, layer: str, images: Array, targets: Array
) -> dict[str, Any]:
    """The figures of one layer: all variants, and whether the half file's own output stayed what it was."""
    (shipped,) = run(half, images).values()
    exact = both_levels(single, layer, images, targets)
    found = {}
    for name, switches in VARIANTS.items():
        with exporting(*switches):
            found[name] = both_levels(half, layer, images, targets)
    ours = found["as exported"]
    own = next(array for output, array in ours.items() if not output.startswith(schema.PREFIX))
    return {
        "layer": export_model(half, layer=layer, check=False).metadata.layer.value,
        "outputs_bit_identical": own.tobytes() == shipped.tobytes(),
        "outputs_largest_difference": float(np.abs(own - shipped).max()),
        "activations": distances(ours[schema.ACTIVATIONS], exact[schema.ACTIVATIONS]),
        "largest_gradient": float(f"{np.abs(exact[schema.GRADIENTS]).max():.3g}"),
        "variants": {name: compare(each, exact) for name, each in found.items()},
    }


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Half precision against float32.")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--assets", type=Path, default=default_assets())
    options = parser.parse_args()
    results = measure(options.assets)
    for entry in results:
        print(f"{entry['what']} ({entry['layer']}): outputs bit-identical {entry['outputs_bit_identical']}")
        for name, row in entry["variants"].items():
            figures = "  ".join(f"{key} {row[key]['median']:.1e}" for key in ("weights", "gradients", "maps"))
            print(f"  {name:30} {figures}  zeros {row['exact_zeros']:.6f} (float32 {row['exact_zeros_float32']:.6f})")
    report = {
        "command": "python -m fastcam_bench.accuracy.half",
        "versions": versions("fastcam", "onnxruntime", "onnx"),
        "half": HALF,
        "single": SINGLE,
        "seed_scale": cam.HALF_SCALE,
        "results": results,
    }
    write_report(report, options.out)


if __name__ == "__main__":
    main()
