"""Models of torchvision, timm, pytorchcv and transformers: is the layer found, and is the gradient PyTorch's?

    pip install --no-deps timm pytorchcv transformers && pip install safetensors huggingface_hub tokenizers pyyaml regex
    python -m fastcam_bench.accuracy.architectures [--out FILE] [--only TEXT ...] [--again] [--limit SECONDS]

Seeded random weights. Each model is exported by torch (the older exporter; dynamo where that fails or FastCAM refuses
its file), then by FastCAM at the default layer, and run on ONNX Runtime; the gradient is held against PyTorch autograd
at the value that equals the exported activations. Classifiers and video models: the predicted class, by
``export_model``; torchvision's segmenters: the sum of one class's logits over the picture, by ``vjp``; its detectors
(of few boxes and classes): the score of the best box, by ``vjp``; what else pytorchcv and transformers have: a random
functional of all outputs, by cotangents. A file has no ``detach()``: of a model that detaches values PyTorch's gradient
is also taken without that, and the row says so. In float32 two implementations may fall to different sides of a kink;
where a picture differs, others are tried, and the row says how many agreed.
Writes architectures.json (model by model, resumable: what passed is not run again unless ``--again``) and a table.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from fastcam.schema import FastcamError
from fastcam_bench.models import zoo
from fastcam_bench.models.explained import ByCotangent, ByExport, ByVjp, Source, Way, session
from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.isolated import Row, each
from fastcam_bench.oracles.machine import versions, write_report
from fastcam_bench.oracles.torch_oracle import Array, difference
from fastcam_bench.paths import RESULTS
from fastcam_export import inspect_model
from fastcam_export.graph.weights import FULL

OUTPUT = RESULTS / "gradients" / "architectures.json"
COMMAND = "python -m fastcam_bench.accuracy.architectures"
LIMIT = 900
"""Seconds that a model may take; the row of one that takes longer has the status "not finished"."""
TOLERANCE = 1e-4
SEEDS = (7, 8, 9)


def measure(name: str) -> Row:
    """One model: status "passed", "failed" (a difference), "refused" (by FastCAM) or "not exported" (by torch).

    Only a row with "exporter" is of a model that torch is known to export.
    """
    try:
        member = zoo.build(name)
    except Exception as error:  # a library's own: it lacks a package, or takes no configuration as small as this
        return {"status": "not built", "reason": one_line(error)}
    about: Row = {"parameters": member.parameters, "input": list(member.images.shape)}
    with tempfile.TemporaryDirectory() as folder:
        return _measured(name, member, about, folder)


def _measured(name: str, member: zoo.Member, about: Row, folder: str) -> Row:
    wanted = _way(name, member)
    errors, refusals = [], []
    for exporter in EXPORTERS:
        try:
            proto = to_onnx(member, exporter, folder)
        except Exception as error:  # either exporter raises errors of every kind
            errors.append(f"{exporter}: {one_line(error)}")
            continue
        about["exporter"] = exporter
        start = time.perf_counter()
        try:
            explained = wanted(proto)
            about["export_seconds"] = round(time.perf_counter() - start, 2)
            try:
                compared = compare(member, explained)
            except LookupError:  # PyTorch computes the layer inside one of its functions: the one in front is compared
                about["inside"] = explained.about["layer"]
                explained = wanted(proto, layer=_in_front(proto, member, explained))
                compared = compare(member, explained)
        except FastcamError as error:
            refusals.append(f"{exporter}: {error}{_without_check(member, wanted, proto, error)}")
            continue
        except Exception as error:  # a defect of FastCAM's, or of this comparison
            return {**about, "status": "failed", "reason": one_line(error)}
        if compared["status"] == "failed":
            compared |= _by_differences(wanted, proto)
        return {**about, **({"refused": refusals} if refusals else {}), **explained.about, **compared}
    if refusals:
        return {**about, "status": "refused", "reason": " / ".join(refusals + errors)}
    return {**about, "status": "not exported", "reason": " / ".join(errors)}


def _by_differences(wanted: Way, proto: Source) -> Row:
    """What central differences of the file, in float64, say of a gradient that is not autograd's.

    Autograd's is not the derivative where a model brings a backward function of its own.
    """
    try:
        found = wanted(proto, check=True).checked
    except FastcamError as error:  # the check refuses it, or this way has none
        return {"differences": one_line(error)}
    return {"differences": float(f"{found['gradient_error']:.1e}")}


def _without_check(member: zoo.Member, wanted: Way, proto: Source, error: FastcamError) -> str:
    """What the comparison says of a gradient that FastCAM's own check refuses."""
    if not str(error).startswith("the check failed"):
        return ""
    try:
        found = compare(member, wanted(proto, check=False))
    except Exception as second:  # what a comparison raises is no news here
        return f"; without the check: {one_line(second)}"
    return f"; without the check, beside autograd: {found['status']}, {found.get('gradient', '')}"


def _in_front(proto: Source, member: zoo.Member, explained: ByExport | ByVjp | ByCotangent) -> str:
    """The live layer in front of the one that was explained, not a mere rearrangement."""
    names: list[str] = []
    for layer in inspect_model(proto, member.outputs[0] if len(member.outputs) > 1 else None).layers:
        if explained.about["layer"] in (layer.name, layer.scope) and layer.chosen:
            break
        if not layer.note and layer.layout in ("NCHW", "NHWC", "tokens"):
            names.append(layer.name)
    if not names:
        raise LookupError("no value of the PyTorch model equals the exported activations, and there is none in front")
    return names[-1]


def _way(name: str, member: zoo.Member) -> Way:
    """How a model is explained."""
    if member.task in ("classification", "video", "text"):
        check = not name.startswith(("torchvision/", "timm/"))
        with torch.no_grad():
            made = member.module(torch.from_numpy(member.images))
        first = made[0] if isinstance(made, tuple | list) else made
        if first.dim() == 2:
            return partial(ByExport, check=check)
        return partial(ByCotangent, outputs=member.outputs)  # a model of features, whatever its table is called
    return ByVjp if name.startswith("torchvision/") else partial(ByCotangent, outputs=member.outputs)


def one_line(error: BaseException) -> str:
    """An error as the report has it."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:240]


def to_onnx(member: zoo.Member, exporter: str, folder: str) -> Source:
    """The model as a file that computes what the model does: in memory, of more than one file can hold in ``folder``.

    Raises:
        Exception: the exporter's own, ONNX Runtime's, or a RuntimeError where the file computes something else.
    """
    image = torch.from_numpy(member.images)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it prints whole graphs
        warnings.simplefilter("ignore")
        free = member.task in ("classification", "segmentation", "video")
        proto = EXPORTERS[exporter](member.module, image, free, member.outputs, folder)
    plain = session(proto)
    gaps = []
    for seed in SEEDS:  # a detector may choose other boxes, where two are as good to float32
        images = member.more(seed)
        with torch.no_grad():
            expected = member.module(torch.from_numpy(images))
        expected = (expected[0] if isinstance(expected, (tuple, list)) else expected).numpy()
        if not np.isfinite(expected).all():
            raise RuntimeError("the model's own output is not finite")
        made = plain.run([plain.get_outputs()[0].name], {plain.get_inputs()[0].name: images})[0]
        gaps.append(difference(made, expected) if made.shape == expected.shape else float("inf"))
        if gaps[-1] <= 1e-2:
            break
    else:
        raise RuntimeError(f"the file's output is {min(gaps):.0e} off the model's on every picture")
    return proto


def _older(module: torch.nn.Module, image: torch.Tensor, free: bool, outputs: tuple[str, ...], folder: str) -> Source:
    names: dict[str, Any] = {"input_names": ["image"], "output_names": list(outputs)}
    if free:
        names["dynamic_axes"] = {"image": {0: "N"}, outputs[0]: {0: "N"}}
    path = os.path.join(folder, "model.onnx")
    torch.onnx.export(module, (image,), path, dynamo=False, opset_version=18, **names)
    return path if 4 * sum(parameter.numel() for parameter in module.parameters()) > FULL else onnx.load(path)


def _dynamo(module: torch.nn.Module, image: torch.Tensor, free: bool, outputs: tuple[str, ...], folder: str) -> Source:
    shapes = ({0: torch.export.Dim("N", min=1)},) if free else None
    program = torch.onnx.export(
        module,
        (image,),
        dynamo=True,
        dynamic_shapes=shapes,
        output_names=list(outputs),
        optimize=False,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


EXPORTERS = {"torchscript": _older, "dynamo": _dynamo}


def compare(member: zoo.Member, explained: ByExport | ByVjp | ByCotangent) -> Row:
    """:func:`_compare`; of a model that detaches values also where that is left out, as a file leaves it out."""
    row = _compare(member, explained, through=False)
    if row["status"] == "failed" and "gradient" in row:
        again = _compare(member, explained, through=True)
        if again["status"] == "passed":
            return {**again, "detached": True}
    return row


def _expected(
    member: zoo.Member,
    images: Array,
    activations: Array,
    score: Callable[[Any], torch.Tensor],
    prefix: int,
    gradients: Array,
    through: bool,
) -> Array:
    readings = oracle.gradients_of(member.module, images, activations, score, prefix, through)
    return min(readings, key=partial(difference, gradients))  # copies of one value: any may be the layer's


def _compare(member: zoo.Member, explained: ByExport | ByVjp | ByCotangent, through: bool) -> Row:
    """Gradient and map beside autograd's, picture by picture: the best and worst difference of each."""
    rows: list[tuple[float, float]] = []
    for seed in SEEDS:
        images = member.images if seed == SEEDS[0] else member.more(seed)
        activations, gradients, classes = explained.run(images)
        if not np.isfinite(gradients).all():
            return {"status": "failed", "reason": "the gradient is not finite"}
        if not np.any(gradients):
            return {"status": "failed", "reason": "the gradient is zero everywhere"}
        score = partial(explained.score, classes=classes)
        expected = _expected(member, images, activations, score, explained.prefix, gradients, through)
        rows += list(zip(map(difference, gradients, expected), map(map_difference, activations, gradients, expected)))
        if max(max(row) for row in rows) <= TOLERANCE:
            break
    good = [row for row in rows if max(row) <= TOLERANCE]
    shown = good or rows
    worst = {"gradient": max(row[0] for row in shown), "map": max(row[1] for row in shown)}
    figures: Row = {name: float(f"{value:.1e}") for name, value in worst.items()}
    figures |= {"pictures": len(rows), "agreeing": len(good), "activations": list(activations.shape[1:])}
    if good:
        return {"status": "passed", **figures}
    return {"status": "failed", "reason": "the gradient differs on every picture", **figures}


def map_difference(activations: Array, ours: Array, theirs: Array) -> float:
    """Difference of the maps that two gradients of one picture give, [K, ...] each; of one that ReLU leaves empty, of
    the sums before it; of gradients whose mean over positions is zero, as covariance pooling's is, HiResCAM's."""
    means = [g.mean(tuple(range(1, g.ndim)), keepdims=True, dtype=np.float64) for g in (ours, theirs)]
    if np.abs(means[1]).max() <= 1e-5 * np.abs(theirs).mean(tuple(range(1, theirs.ndim))).max():
        means = [ours, theirs]
    pair = [(mean * activations).sum(0) for mean in means]
    rectified = [np.maximum(one, 0) for one in pair]
    return difference(*(rectified if rectified[1].any() else pair))


def write(rows: dict[str, Row], out: Path) -> None:
    """The report, and the table beside it."""
    report = {
        "command": COMMAND,
        "versions": versions(
            "fastcam", "torch", "torchvision", "timm", "pytorchcv", "transformers", "onnxruntime", "onnx"
        ),
        "tolerance": TOLERANCE,
        "results": [rows[name] for name in sorted(rows)],
    }
    write_report(report, out, table)


def table(report: Row) -> str:
    """Markdown: a line per model."""
    results = report["results"]
    count = Counter(row["status"] for row in results)
    exported = sum("exporter" in row for row in results)
    versions = report["versions"]
    lines = [
        "# Architectures",
        "",
        f"`{report['command']}`: torchvision {versions['torchvision']}, timm {versions['timm']}, pytorchcv "
        f"{versions['pytorchcv']}, transformers {versions['transformers']}, PyTorch {versions['torch']}, seeded random "
        "weights.",
        f"Of {len(results)} models torch exports {exported}; gradient and map at the default layer equal PyTorch "
        f"autograd within {report['tolerance']:g} of their maximum in {count['passed']} of these. FastCAM refuses "
        f"{count['refused']}; {count['failed']} failed; torch does not export {count['not exported']}; the libraries "
        f"do not build {count['not built']} here; "
        f"{count['not finished']} did not finish within the limits of time and memory.",
        "Where fewer pictures agree than were tried, float32 falls to another side of a kink on the others; the",
        "differences are then those of the agreeing ones.",
        *_measured_again(results),
        "",
        "| model | exporter | layer | layout | gradient | map | pictures | export s | note |",
        "|---|---|---|---|---:|---:|---:|---:|---|",
    ]
    return "\n".join([*lines, *map(_line, results)]) + "\n"


def _measured_again(results: list[Row]) -> list[str]:
    """Which rows are of a later run than the others."""
    names = [f"`{row['model']}`" for row in results if row.get("again")]
    return [f"Measured again, after the others (`--only NAME`): {', '.join(names)}."] if names else []


def _line(row: Row) -> str:
    gap = [f"{row[key]:.0e}" if key in row else "" for key in ("gradient", "map")]
    pictures = f"{row['agreeing']} of {row['pictures']}" if "pictures" in row else ""
    layer = f"`{row['layer']}`" if "layer" in row else ""
    refused = [f"refused: {reason}" for reason in row.get("refused", [])]
    refused += ["equal where values that the model detaches pass their gradient"] * row.get("detached", False)
    note = " / ".join(refused) if row["status"] == "passed" else f"**{row['status']}**: {row.get('reason', '')}"
    if "differences" in row:
        note += f"; beside central differences in float64: {row['differences']}"
    cells = [row["model"], row.get("exporter", ""), layer, row.get("layout", ""), *gap, pictures]
    return "| " + " | ".join([*cells, str(row.get("export_seconds", "")), note.replace("|", "/")]) + " |"


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Gradients of torchvision's and timm's architectures.")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--only", nargs="+", default=[""], help="models whose name has one of these in it")
    parser.add_argument("--again", action="store_true", help="also those that passed before")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that a model may take (%(default)g)")
    options = parser.parse_args()
    rows: dict[str, Row] = {}
    if options.out.is_file():
        rows = {row["model"]: row for row in json.loads(options.out.read_text(encoding="utf-8"))["results"]}
    passed = {name for name, row in rows.items() if row["status"] == "passed"}
    found = dict.fromkeys(name for text in options.only for name in zoo.names(text))
    wanted = [name for name in found if options.again or name not in passed]
    for name, row in each(measure, wanted, options.limit):
        if row.pop("unfinished", False):
            row["status"] = "not finished"
        again = {"again": True} if name in rows else {}
        rows[name] = {"model": name, **row, **again}
        write(rows, options.out)
        print(name, row["status"], row.get("map", ""), row.get("reason", "")[:150], flush=True)


if __name__ == "__main__":
    main()
