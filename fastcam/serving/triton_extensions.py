"""What Triton's clients ask beyond the Open Inference Protocol: a model's configuration, and its statistics.

Source: https://github.com/triton-inference-server/server, docs/protocol/extension_model_configuration.md and
extension_statistics.md; the messages are those of model_config.proto and grpc_service.proto.
"""

from __future__ import annotations

from typing import Any

from fastcam.serving.bodies.tensors import BY_ORT
from fastcam.serving.model import ServedModel
from fastcam.serving.repository import Repository


def config(model: ServedModel) -> dict[str, Any]:
    """The fields of Triton's ModelConfig that say how a model is asked; the same in JSON."""
    inputs, outputs = model.explainer.signature
    batched = model.explainer.fixed_batch is None and model.rows_alike([value.name for value in outputs])
    found: dict[str, Any] = {
        "name": model.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": model.limits.pictures if batched else 0,
        "input": [_tensor(value, batched) | {"optional": False} for value in inputs],
        "output": [_tensor(value, batched) for value in outputs],
    }
    if batched:
        delay = {"max_queue_delay_microseconds": int(1e6 * model.delay)}
        found["dynamic_batching"] = {"preferred_batch_size": [model.size], **delay}
    return found


def _tensor(value: Any, batched: bool) -> dict[str, Any]:
    """Name, type and sides, without the batch where Triton adds it."""
    kind = BY_ORT.get(value.type, "INVALID")
    sides = [side if isinstance(side, int) else -1 for side in value.shape][batched:]
    about = {"name": value.name, "data_type": f"TYPE_{'STRING' if kind == 'BYTES' else kind}", "is_shape_tensor": False}
    return about | ({"dims": sides} if sides else {"dims": [1], "reshape": {"shape": []}})


def statistics(repository: Repository, name: str = "", version: str = "") -> dict[str, Any]:
    """The fields of Triton's ModelStatisticsResponse: of a version, of all of a model, or of all models.

    Raises:
        NotServed: no such model, or version of it.
    """
    if name:
        repository.get(name, version or None)
    models = {name: repository.models[name]} if name else repository.models
    each = [model for versions in models.values() for model in versions.values() if version in ("", model.version)]
    return {
        "model_stats": [{"name": one.name, "version": one.version, **one.statistics.report()} for one in each]
    }  # fmt: skip
