"""What gradients of whole networks cost, of a layer in the middle and of the image: a part of
fastcam_bench.speed.lowerings.

torchvision models with seeded weights (PyTorch is needed) as multiples of their plain forward pass, beside what the
multiply-adds behind the layer predict; size of the file, time to make a session, and memory of a process that does
nothing else.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from fastcam.runtime.timing import Run, cpu_session, interleaved, peak_memory, random_feeds
from fastcam_export import export_model, vjp

BATCHES = (1, 8)
NETWORKS = {"resnet50": "layer3", "vgg16": "features.22", "mobilenet_v2": "", "googlenet": "", "squeezenet1_1": ""}
"""torchvision model -> scope of a layer in its middle (VGG-16: relu4_3)."""


def shares(model: onnx.ModelProto, layer: str) -> float:
    """Of all multiply-adds of Conv, Gemm and MatMul, the share behind the value ``layer``."""
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph
    behind, above, everything = {layer}, 0.0, 0.0
    for node in graph:
        reads = any(value is not None and value.name in behind for value in node.inputs)
        behind |= {value.name or "" for value in node.outputs} if reads else set()
        weight = node.inputs[1] if node.op_type in ("Conv", "Gemm", "MatMul") else None
        if weight is not None and weight.shape is not None:
            positions = list(node.outputs[0].shape or ())[2:] if node.op_type == "Conv" else []
            work = math.prod(d for d in (*weight.shape, *positions) if isinstance(d, int))
            everything += work
            above += work * reads
    return above / everything


def exports(name: str) -> Iterator[tuple[str, onnx.ModelProto, float]]:
    """(what, model, predicted multiple of the plain pass) of one network; the plain model first."""
    from fastcam_bench.oracles import torch_oracle

    plain = torch_oracle.to_onnx(torch_oracle.build(name), optimize=True)
    yield "plain", plain, 1.0
    if scope := NETWORKS[name]:
        made = export_model(plain, layer=scope, check=False)
        yield f"weights at {scope}", made.model, 1 + shares(plain, made.metadata.layer.value)
    yield "image (vjp)", vjp(plain), 2.0


def rows(name: str, threads: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Rows of one network, each batch timed for about so long."""
    found = list(exports(name))
    with tempfile.TemporaryDirectory() as folder:
        paths = {what: Path(folder) / f"{index}.onnx" for index, (what, _, _) in enumerate(found)}
        for what, model, _ in found:
            onnx.save(model, paths[what])
        began, sessions, making = time.perf_counter(), {}, {}
        for what, path in paths.items():
            sessions[what] = cpu_session(path, threads)
            making[what], began = round(time.perf_counter() - began, 2), time.perf_counter()
        for batch in BATCHES:
            runs: dict[str, Run] = {w: partial(s.run, None, random_feeds(s, batch)) for w, s in sessions.items()}
            times = {what: np.array(taken) * 1e3 for what, taken in interleaved(runs, seconds, 5).items()}
            peaks = {what: peak_memory(path, batch, threads) for what, path in paths.items()}
            memory = {what: round(peak["peak"] - peak["imports"]) for what, peak in peaks.items()}
            for what, _, predicted in found[1:]:
                yield {
                    "model": name,
                    "what": what,
                    "batch": batch,
                    "plain_ms": round(float(np.median(times["plain"])), 2),
                    "ratio": round(float(np.median(times[what] / times["plain"])), 3),
                    "predicted": round(predicted, 3),
                    "file": round(paths[what].stat().st_size / paths["plain"].stat().st_size, 4),
                    "session_s": {each: making[each] for each in ("plain", what)},
                    "memory_mb": {each: memory[each] for each in ("plain", what)},
                    "samples_ms": {each: times[each].round(3).tolist() for each in ("plain", what)},
                }


def lines(results: list[dict[str, Any]]) -> Iterator[str]:
    """The rows as Markdown."""
    yield "Multiples of the plain forward pass. Predicted: one, and the share of multiply-adds behind the layer."
    yield ""
    yield "| model | gradient of | batch | measured | predicted | file | session, s (plain) | memory, MB (plain) |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in results:
        sessions, memory, what = row["session_s"], row["memory_mb"], row["what"]
        figures = f"{row['ratio']:.2f} | {row['predicted']:.2f} | {row['file']:.4f}"
        cost = f"{sessions[what]} ({sessions['plain']}) | {memory[what]} ({memory['plain']})"
        yield f"| {row['model']} | {what} | {row['batch']} | {figures} | {cost} |"
