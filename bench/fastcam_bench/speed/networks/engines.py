"""The exported file beside its source on OpenVINO and on ONNX Runtime's OpenVINO provider; openvino_xai beside both."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.runtime.timing import Run
from fastcam.schema import TARGETS
from fastcam_bench.paths import CACHE
from fastcam_bench.speed.networks.groups import Row, Settings, group

SIZE = 224


def _files(name: str) -> dict[str, Path]:
    """The files that the measurement on ONNX Runtime left."""
    source = next(CACHE.glob(f"{name}-torch*.onnx"))
    return {"plain": source, "weights": CACHE / f"{name}.cam.onnx"}


def _images(batch: int) -> Any:
    return np.random.default_rng(0).standard_normal((batch, 3, SIZE, SIZE)).astype(np.float32)


def openvino(name: str, batch: int, settings: Settings, with_xai: bool = False) -> Row:
    """Compiled models on the CPU: fixed batch, latency hint, the same threads, and float32 as the file says it.

    Without the last, OpenVINO computes in bfloat16 where the processor can, and no two files can be compared.
    """
    import openvino as ov

    core = ov.Core()
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": settings.threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    images, found = _images(batch), {}
    runs: dict[str, Run] = {}
    models = {contestant: core.read_model(str(path)) for contestant, path in _files(name).items()}
    row: Row = {}
    if with_xai:
        try:
            models["openvino_xai"] = _xai(core, _files(name)["plain"])
        except Exception as error:  # what it cannot explain is a result
            row["failed"] = {"openvino_xai": " ".join(str(error).split())[:300]}
    for contestant, model in models.items():
        model.reshape({model.inputs[0]: [batch, 3, SIZE, SIZE]})
        request = core.compile_model(model, "CPU", config).create_infer_request()
        runs[contestant] = partial(request.infer, [images], share_inputs=True, share_outputs=True)
        found[contestant] = [np.array(value) for value in runs[contestant]().values()]
    row["output_difference"] = {
        contestant: float(f"{_difference(values[0], found['plain'][0]):.1e}") for contestant, values in found.items()
    }
    return row | {"forward": group(runs, settings)}


def _xai(core: Any, path: Path) -> Any:
    """openvino_xai's model with its white-box explanation (ReciproCAM) inserted, as its README shows."""
    import openvino_xai as xai

    model = core.read_model(str(path))
    return xai.insert_xai(model, task=xai.Task.CLASSIFICATION)


def openvino_provider(name: str, batch: int, settings: Settings) -> Row:
    """ONNX Runtime with the OpenVINO provider for both files."""
    import onnxruntime as ort

    images, found = _images(batch), {}
    runs: dict[str, Run] = {}
    row: Row = {"nodes_run": {}}
    for contestant, path in _files(name).items():
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = settings.threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for free in _free(path):
            options.add_free_dimension_override_by_name(free, batch)
        provider = ("OpenVINOExecutionProvider", {"device_type": "CPU", "num_of_threads": str(settings.threads)})
        session = ort.InferenceSession(str(path), options, providers=[provider])
        image = next(value.name for value in session.get_inputs() if value.name != TARGETS)
        runs[contestant] = partial(session.run, None, {image: images})
        found[contestant] = runs[contestant]()
        row["nodes_run"][contestant] = _nodes_run(path, options, provider, {image: images})
    gap = _difference(found["weights"][0], found["plain"][0])
    return row | {"output_difference": {"weights": float(f"{gap:.1e}")}, "forward": group(runs, settings)}


def _nodes_run(path: Path, options: Any, provider: Any, feeds: Any) -> dict[str, int]:
    """How many nodes each provider ran, by the runtime's own profile."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = ort.InferenceSession(str(path), options, providers=[provider])
        session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran = [event["args"]["provider"] for event in events if event.get("args", {}).get("provider")]
    return dict(Counter(ran))


def _free(path: Path) -> set[str]:
    """Names of the free dimensions of the file's inputs."""
    import onnx

    inputs = onnx.load(path, load_external_data=False).graph.input
    return {dim.dim_param for value in inputs for dim in value.type.tensor_type.shape.dim if dim.dim_param}


def _difference(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max())
