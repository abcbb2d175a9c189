"""What Triton is told of each model: the messages of ``config.pbtxt``.

Source: ``model_config.proto`` of https://github.com/triton-inference-server/common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import TensorProto

from fastcam import schema
from fastcam.schema import FastcamError, Metadata
from fastcam_export.artifacts.triton.text_format import Word

TYPES: dict[int, str] = {
    TensorProto.BOOL: "BOOL", TensorProto.UINT8: "UINT8", TensorProto.UINT16: "UINT16", TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64", TensorProto.INT8: "INT8", TensorProto.INT16: "INT16", TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64", TensorProto.FLOAT16: "FP16", TensorProto.FLOAT: "FP32", TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "STRING", TensorProto.BFLOAT16: "BF16",
}  # fmt: skip
"""Triton's types by ONNX's."""
MOST = 8
"""Pictures of a run at most, where the batch is free."""
PICTURES = "image"
"""The ensemble's input: an encoded picture, BYTES."""
BOXES = {
    "fastcam.maps": ("FP32", [-1, -1, -1]), "fastcam.boxes": ("FP32", [-1, 4]), "fastcam.status": ("STRING", [-1]),
}  # fmt: skip
"""What the last step gives of each picture: type and shape."""


@dataclass(frozen=True)
class Tensor:
    """An input or output, as ``config.pbtxt`` has it.

    Attributes:
        name, kind: its name, and Triton's type without ``TYPE_``.
        dims: sizes, -1 where they are free; without the batch where Triton makes batches.
        optional: an input that a request may leave out.
        labels: the file of an output's class names.
    """

    name: str
    kind: str
    dims: list[int]
    optional: bool = False
    labels: str = ""

    def message(self) -> dict[str, Any]:
        """As a message; Triton takes no tensor without axes, but one of a single number that it reshapes."""
        said: dict[str, Any] = {"name": self.name, "data_type": Word(f"TYPE_{self.kind}"), "dims": self.dims or [1]}
        said |= {} if self.dims else {"reshape": {"shape": []}}
        said |= {"optional": True} if self.optional else {}
        return said | ({"label_filename": self.labels} if self.labels else {})


@dataclass(frozen=True)
class Config:
    """A model of the repository.

    Attributes:
        name: its folder's.
        runs_by: the fields that say what runs it.
        batch: pictures of a run at most; 0: Triton makes no batches, and each tensor has its whole shape.
        inputs, outputs: its tensors.
        more: further fields.
    """

    name: str
    runs_by: dict[str, Any]
    batch: int
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    more: dict[str, Any] = field(default_factory=dict)

    def message(self) -> dict[str, Any]:
        """As a message."""
        return {
            "name": self.name,
            **self.runs_by,
            "max_batch_size": self.batch,
            "input": [one.message() for one in self.inputs],
            "output": [one.message() for one in self.outputs],
            **self.more,
        }


def of_model(model: onnx.ModelProto, metadata: Metadata, name: str, labels: str) -> Config:
    """The exported file in Triton's ONNX Runtime backend, which needs nothing else.

    Args:
        labels: name of the file of class names beside the configuration, or "".

    Raises:
        FastcamError: an input or output that is no tensor.
    """
    graph = model.graph
    defaults = {tensor.name for tensor in graph.initializer}
    batched = _batched(graph, metadata.input)
    given = [_tensor(value, batched, optional=value.name in defaults) for value in graph.input]
    found = [
        _tensor(value, batched, labels=labels if value.name == metadata.score.output and _is_scores(value) else "")
        for value in graph.output
    ]
    batching: dict[str, Any] = {"dynamic_batching": {"max_queue_delay_microseconds": 1000}} if batched else {}
    return Config(name, {"backend": "onnxruntime"}, MOST if batched else 0, given, found, batching)


def around(whole: Config, metadata: Metadata) -> list[Config]:
    """The models around it: pictures to its input, its outputs to boxes, and the ensemble of the three."""
    front = [] if whole.batch else [1]
    about = Tensor(schema.GEOMETRY, "INT64", [*front, 12])
    taken = {one.name: one for one in whole.inputs}
    asked = [taken[schema.TARGETS]] if schema.TARGETS in taken else []
    optional = [Tensor(one.name, one.kind, one.dims, optional=True) for one in asked]
    pictures = Tensor(PICTURES, "STRING", [1])
    plain = [Tensor(one.name, one.kind, one.dims) for one in (taken[metadata.input], *asked)]
    read = {metadata.score.output, *metadata.emitted()}
    outputs = [Tensor(one.name, one.kind, one.dims) for one in whole.outputs if one.name in read]
    boxes = [Tensor(key, kind, [*front, *dims]) for key, (kind, dims) in BOXES.items()]
    python: dict[str, Any] = {"instance_group": {"count": 1, "kind": Word("KIND_CPU")}}
    first = Config(f"{whole.name}_pictures", {"backend": "python"}, whole.batch, [pictures, *optional],
                   [*plain, about], python | {"parameters": _parameters(max_pixels="100000000")})  # fmt: skip
    last = Config(f"{whole.name}_boxes", {"backend": "python"}, whole.batch, [*outputs, about], boxes,
                  python | {"parameters": _parameters(threshold="0.15", connectivity="8")})  # fmt: skip
    said = [one for one in whole.outputs if one.name in (metadata.score.output, schema.CLASSES)]
    steps = [
        _step(first, {one.name: one.name for one in first.inputs}, _prepared(plain) | {about.name: about.name}),
        _step(whole, _prepared(plain), {one.name: one.name for one in outputs}),
        _step(last, {one.name: one.name for one in last.inputs}, {one.name: one.name for one in boxes}),
    ]
    ensemble = Config(f"{whole.name}_explain", {"platform": "ensemble"}, whole.batch, [pictures, *optional],
                      [*(Tensor(one.name, one.kind, one.dims) for one in said), *boxes],
                      {"ensemble_scheduling": {"step": steps}})  # fmt: skip
    return [first, last, ensemble]


def why_alone(model: onnx.ModelProto, metadata: Metadata) -> str:
    """Why there is no ensemble around a file; "" where there is one."""
    shape = metadata.input_shape
    wanted = [one.name for one in metadata.inputs if one.read and one.default is None]
    if metadata.cotangents:
        return "what it explains is no class, and follows from its outputs"
    if metadata.kind != "picture" or (metadata.preprocessing is not None and metadata.preprocessing.stack > 1):
        return "it takes no single pictures"
    if metadata.preprocessing is None:
        return "it does not say how a picture becomes its input (--preprocess)"
    if metadata.score.output == PICTURES:
        return f"it calls its output {PICTURES}, which the ensemble calls the pictures"
    if wanted:
        return f"it wants {wanted[0]} too"
    if not _batched(model.graph, metadata.input) and shape[0] != 1:
        return "a run of it takes a fixed number of pictures, or gives what has no row for each"
    return ""


def _prepared(inputs: Sequence[Tensor]) -> dict[str, str]:
    """What the ensemble calls the file's inputs, which the first step makes: clients send others of these names."""
    return {one.name: f"{one.name}.prepared" for one in inputs}


def _step(config: Config, inputs: dict[str, str], outputs: dict[str, str]) -> dict[str, Any]:
    """A step: the ensemble's tensors by the names that they have in the model."""
    maps = {
        side: [{"key": key, "value": value} for key, value in names.items()]
        for side, names in (("input_map", inputs), ("output_map", outputs))
    }
    return {"model_name": config.name, "model_version": -1, **maps}


def _parameters(**values: str) -> list[dict[str, Any]]:
    return [{"key": name, "value": {"string_value": value}} for name, value in values.items()]


def _batched(graph: onnx.GraphProto, image: str) -> bool:
    """Whether every input and output has a row for each image, of which there may be any number."""
    values = {value.name: _sides(value) for value in (*graph.input, *graph.output)}
    first = values[image][0] if values[image] else 1
    rest = [sides for name, sides in values.items() if name != schema.TARGETS]
    return isinstance(first, str) and all(sides and sides[0] == first for sides in rest)


def _sides(value: onnx.ValueInfoProto) -> list[int | str]:
    dims = value.type.tensor_type.shape.dim
    return [one.dim_value if one.WhichOneof("value") == "dim_value" else one.dim_param for one in dims]


def _tensor(value: onnx.ValueInfoProto, batched: bool, **more: Any) -> Tensor:
    kind = TYPES.get(value.type.tensor_type.elem_type)
    if kind is None:
        raise FastcamError(f"{value.name!r} is no tensor that Triton takes; export the model without it")
    dims = [side if isinstance(side, int) else -1 for side in _sides(value)]
    return Tensor(value.name, kind, dims[1:] if batched else dims, **more)


def _is_scores(value: onnx.ValueInfoProto) -> bool:
    return len(_sides(value)) == 2
