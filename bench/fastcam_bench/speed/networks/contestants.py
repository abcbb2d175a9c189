"""Our contestants: a source file's exports as ONNX Runtime sessions, and the whole way from pictures to boxes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort

import fastcam
from fastcam import schema
from fastcam.runtime.timing import Run, cpu_session
from fastcam_bench.models.networks import Network
from fastcam_bench.oracles.torch_oracle import Array, difference
from fastcam_bench.paths import CACHE
from fastcam_export import export_model, vjp

TOP = 5
Row = dict[str, Any]


def exported_file(name: str, network: Network, source: Path) -> tuple[Path, Row]:
    """The exported file as a user makes it (emit level weights, checked), and what it took."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"{name}.cam.onnx"
    start = time.perf_counter()
    made = export_model(source, path, layer=network.export_layer, preprocess=network.preset)
    taken = time.perf_counter() - start
    sizes = [file.stat().st_size for file in (source, path)]
    row = {
        "layer": made.metadata.layer.value,
        "export_seconds": round(taken, 2),
        "nodes_added": len(made.model.graph.node) - len(onnx.load(source, load_external_data=False).graph.node),
        "weights_read": round(weights_read(made.model) / weights_read(onnx.load(source)), 4),
        "file_bytes": {"source": sizes[0], "exported": sizes[1], "ratio": round(sizes[1] / sizes[0], 4)},
    }
    return path, row


def weights_read(model: onnx.ModelProto) -> int:
    """Bytes of the constants that convolutions and matrix products read in a run, each for itself; a Gather of rows
    reads next to nothing. Those that a Transpose or Neg makes of them are made before the first run."""
    sizes = {tensor.name: onnx.numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer}
    read = 0
    for node in model.graph.node:
        if node.op_type in ("Transpose", "Neg"):
            sizes[node.output[0]] = sizes.get(node.input[0], 0)
        elif node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            read += sum(sizes.get(name, 0) for name in node.input)
    return read


def feeds(session: Any, images: Array) -> dict[str, Array]:
    """The pictures under the name of the input that they go to."""
    image = next(value.name for value in session.get_inputs() if value.name != schema.TARGETS)
    return {image: images}


def forward(source: Path, exported: Path, network: Network, images: Array, threads: int) -> tuple[dict[str, Run], Row]:
    """The plain pass and every emit level, and how far the model's own outputs differ from the plain ones."""
    plain = cpu_session(source, threads)
    given = feeds(plain, images)
    runs: dict[str, Run] = {"plain": partial(plain.run, None, given)}
    top = {**given, schema.TARGETS: -np.arange(1, TOP + 1)[None]}
    for emit in schema.EMITS:
        if emit == "weights":
            session = cpu_session(exported, threads)
            runs[emit] = partial(session.run, None, given)
            runs[f"{emit}, {TOP} targets"] = partial(session.run, None, top)
        else:
            session = cpu_session(_bytes(source, network, emit=emit), threads)
            runs[emit] = partial(session.run, None, given)
    wanted = plain.run(None, given)
    equal = {}
    for name, run in runs.items():
        pairs = list(zip(run(), wanted))
        same = all(np.array_equal(a, b) for a, b in pairs)
        equal[name] = 0.0 if same else max(difference(a, b) for a, b in pairs)
    return runs, equal


def deeper(source: Path, network: Network, images: Array, threads: int) -> dict[str, Run]:
    """The plain pass, a layer in the middle, the gradient to the image (vjp), and guided Grad-CAM in one run."""
    plain = cpu_session(source, threads)
    given = feeds(plain, images)
    runs: dict[str, Run] = {"plain": partial(plain.run, None, given)}
    if network.middle is not None:
        title, layer = network.middle
        session = cpu_session(_bytes(source, network, layer=layer), threads)
        runs[f"weights at {title}"] = partial(session.run, None, given)
    if network.image_gradient:
        image, scores = next(iter(given)), plain.get_outputs()[0].name
        session = cpu_session(vjp(str(source), [image], [scores]).SerializeToString(), threads)
        one_hot = np.zeros_like(plain.run([scores], given)[0])
        one_hot[:, 0] = 1
        with_seed = {**given, f"cotangent.{scores}": one_hot}
        runs["gradient to the image"] = partial(session.run, None, with_seed)
        session = cpu_session(_bytes(source, network, input_gradient="guided"), threads)
        runs["guided Grad-CAM"] = partial(session.run, None, given)
    return runs


def explainer(exported: Path, threads: int) -> fastcam.Explainer:
    """An Explainer whose session's threads do not spin, as those of the other contestants."""
    with mock.patch.object(ort, "SessionOptions", _quiet_options):
        return fastcam.Explainer(exported, threads=threads)


_SessionOptions = ort.SessionOptions


def _quiet_options() -> Any:
    options = _SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def boxes(made: fastcam.Explainer, pictures: Sequence[Array]) -> Array:
    """[N, 4] in pixels of the pictures, of the predicted classes."""
    return np.asarray(made(list(pictures)).boxes[:, 0])


def maps(source: Path, network: Network, images: Array, threads: int) -> Array:
    """[N, h, w], by the file that emits the map."""
    session = cpu_session(_bytes(source, network, emit="cam"), threads)
    found: Array = session.run([schema.CAM], feeds(session, images))[0]
    return found[:, 0]


def _bytes(source: Path, network: Network, **options: Any) -> bytes:
    options = {"layer": network.export_layer, "check": False, **options}
    made: bytes = export_model(source, **options).model.SerializeToString()
    return made
