"""A tiny network, written by hand, that obeys the contract of exported files, with its formulas in NumPy.

image -> 4 x 4 convolution of stride 4 -> ReLU (activations) -> weighted spatial mean -> linear head -> logits. The
gradient of logit c with respect to the activations is head[c, k] * place[i, j] / (h w), so every expected value follows
from a formula and nothing here needs the exporter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastcam import schema

PATCH = 4


@dataclass(frozen=True)
class ContractModel:
    """The network's constants. ``file`` builds the exported-like ONNX bytes, the other methods are the oracle."""

    conv: np.ndarray  # [K, C, 4, 4]
    bias: np.ndarray  # [K]
    head: np.ndarray  # [classes, K]
    place: np.ndarray  # [h, w], or [1, 1]: how much a place counts in the spatial mean
    size: tuple[int | str, int | str] = (32, 32)
    batch: int | str = "N"
    layout: str = "NCHW"
    end: str = ""  # "Softmax" or "Sigmoid" behind the logits
    labels: tuple[str, ...] | None = None
    preprocessing: schema.Preprocessing | None = field(default_factory=lambda: schema.preset("unit", size=(32, 32)))

    # --- the oracle ---------------------------------------------------------------------------------------------

    def activations(self, x: np.ndarray) -> np.ndarray:
        """[N, C, H, W] -> [N, K, H / 4, W / 4], float64."""
        n, c, height, width = x.shape
        patches = x.astype(np.float64).reshape(n, c, height // PATCH, PATCH, width // PATCH, PATCH)
        found = np.einsum("nchiwj,kcij->nkhw", patches, self.conv.astype(np.float64))
        return np.maximum(found + self.bias[:, None, None], 0)

    def logits(self, x: np.ndarray) -> np.ndarray:
        return (self.activations(x) * self.place).mean(axis=(2, 3)) @ self.head.astype(np.float64).T

    def scores(self, x: np.ndarray) -> np.ndarray:
        logits = self.logits(x)
        if self.end == "Softmax":
            e = np.exp(logits - logits.max(axis=1, keepdims=True))
            return e / e.sum(axis=1, keepdims=True)
        return 1 / (1 + np.exp(-logits)) if self.end == "Sigmoid" else logits

    def classes(self, x: np.ndarray, targets: list[int]) -> np.ndarray:
        order = np.argsort(-self.logits(x), axis=1, kind="stable")
        return np.array([[t if t >= 0 else row[-t - 1] for t in targets] for row in order])

    def signed(self, x: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """sum_k alpha_k A_k, [N, T, h, w]."""
        a = self.activations(x)
        alpha = self.head[classes] * self.place.mean() / (a.shape[2] * a.shape[3])
        return np.einsum("ntk,nkhw->nthw", alpha, a)

    # --- the file -----------------------------------------------------------------------------------------------

    def file(self, emit: schema.Emit = "weights", targets: str = "default", metadata: bool = True) -> bytes:
        """ONNX bytes. ``targets`` is "default", "required" or "constant"; without metadata it is a plain model."""
        nodes, constants = self._forward(), self._constants()
        if metadata:
            nodes += _targets() + self._backward(emit)
        sides = (self.conv.shape[1], *self.size) if self.layout == "NCHW" else (*self.size, self.conv.shape[1])
        inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [self.batch, *sides])]
        if metadata and targets != "constant":
            inputs.append(helper.make_tensor_value_info(schema.TARGETS, TensorProto.INT64, ["targets_n", "T"]))
        if metadata and targets != "required":
            constants.append(numpy_helper.from_array(np.array([[-1]], np.int64), schema.TARGETS))
        names = ("scores", *schema.OUTPUTS[emit]) if metadata else ("scores",)
        outputs = [helper.make_tensor_value_info(name, *self._type(name)) for name in names]
        graph = helper.make_graph(nodes, "contract", inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        if metadata:
            helper.set_model_props(model, {schema.METADATA_KEY: self.metadata(emit).to_json()})
        onnx.checker.check_model(model)
        return model.SerializeToString()

    def metadata(self, emit: schema.Emit) -> schema.Metadata:
        sides = (self.conv.shape[1], *self.size) if self.layout == "NCHW" else (*self.size, self.conv.shape[1])
        return schema.Metadata(
            emit=emit,
            layer=schema.TargetLayer("features", averaged=self.place.size == 1),
            score=schema.Score("scores", "logits", "logit" if self.end else "raw", len(self.head)),
            input="image",
            input_shape=(self.batch, *sides),
            preprocessing=self.preprocessing,
            labels=self.labels,
            source={"file": "contract.onnx"},
        )

    def _type(self, name: str) -> tuple[int, list[Any]]:
        kind = TensorProto.INT64 if name == schema.CLASSES else TensorProto.FLOAT
        ranks = {"scores": 2, schema.CLASSES: 2, schema.WEIGHTS: 3, schema.GRADIENTS: 5}
        return kind, [f"{name}_{axis}" for axis in range(ranks.get(name, 4))]

    def _constants(self) -> list[onnx.TensorProto]:
        arrays: dict[str, np.ndarray] = {
            "conv": self.conv,
            "bias": self.bias,
            "head": self.head,
            "place": self.place[None, None],
            "zero": np.int64(0),
            "one": np.int64(1),
            "axis0": np.array([0]),
            "axis1": np.array([1]),
            "axis2": np.array([2]),
            "axes": np.array([2, 3]),
            "spread": np.array([3, 4]),
            "end4": np.array([4]),
            "count": np.array([len(self.head)]),
        }
        return [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()]

    def _forward(self) -> list[onnx.NodeProto]:
        make = helper.make_node
        nodes = [make("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2])] if self.layout == "NHWC" else []
        nodes += [
            make("Conv", ["x" if nodes else "image", "conv", "bias"], ["pre"], strides=[PATCH, PATCH]),
            make("Relu", ["pre"], ["features"]),
            make("Mul", ["features", "place"], ["placed"]),
            make("ReduceMean", ["placed", "axes"], ["pooled"], keepdims=0),
            make("Gemm", ["pooled", "head"], ["logits"], transB=1),
            make(self.end or "Identity", ["logits"], ["scores"]),
        ]
        return nodes

    def _backward(self, emit: schema.Emit) -> list[onnx.NodeProto]:
        make = helper.make_node
        nodes = [
            make("Identity", ["features"], [schema.ACTIVATIONS]),
            make("Gather", ["head", schema.CLASSES], ["rows"]),
            make("Shape", ["features"], ["sides"]),
            make("Slice", ["sides", "axis2", "end4"], ["hw"]),
            make("ReduceProd", ["hw"], ["cells"], keepdims=0),
            make("Cast", ["cells"], ["area"], to=TensorProto.FLOAT),
            make("Unsqueeze", ["rows", "spread"], ["wide"]),
            make("Expand", ["place", "sides_place"], ["everywhere"]),
            make("Unsqueeze", ["everywhere", "axis0"], ["place5"]),
            make("Div", ["place5", "area"], ["share"]),
            make("Mul", ["wide", "share"], ["dy"]),
        ]
        nodes.insert(7, make("Concat", ["ones2", "hw"], ["sides_place"], axis=0))
        nodes.insert(7, make("Concat", ["axis1", "axis1"], ["ones2"], axis=0))
        nodes.append(make("ReduceMean", ["dy", "spread"], ["alpha"], keepdims=0))
        if emit == "weights":
            return [*nodes, make("Identity", ["alpha"], [schema.WEIGHTS])]
        if emit == "gradients":
            return [*nodes, make("Identity", ["dy"], [schema.GRADIENTS])]
        return [
            *nodes[1:],
            make("Einsum", ["alpha", "features"], ["signed"], equation="ntk,nkhw->nthw"),
            make("Relu", ["signed"], [schema.CAM]),
        ]


def _targets() -> list[onnx.NodeProto]:
    """fastcam.targets -> fastcam.classes: t where t >= 0, else the class of rank -t."""
    make = helper.make_node
    return [
        make("Shape", ["logits"], ["n"], start=0, end=1),
        make("Shape", [schema.TARGETS], ["t"], start=1, end=2),
        make("Concat", ["n", "t"], ["nt"], axis=0),
        make("Expand", [schema.TARGETS, "nt"], ["wanted"]),
        make("TopK", ["logits", "count"], ["sorted", "order"], axis=1),
        make("Neg", ["wanted"], ["negated"]),
        make("Sub", ["negated", "one"], ["rank"]),
        make("Max", ["rank", "zero"], ["place_in_order"]),
        make("GatherElements", ["order", "place_in_order"], ["ranked"], axis=1),
        make("Less", ["wanted", "zero"], ["by_rank"]),
        make("Where", ["by_rank", "ranked", "wanted"], [schema.CLASSES]),
    ]


def random_model(
    seed: int = 0, classes: int = 5, features: int = 6, channels: int = 3, **settings: Any
) -> ContractModel:
    """A contract model with seeded random weights, some positive and some negative."""
    rng = np.random.default_rng(seed)
    size = settings.get("size", (32, 32))
    free = not all(isinstance(side, int) for side in size)
    place = np.ones((1, 1)) if free else rng.uniform(0.5, 1.5, (size[0] // PATCH, size[1] // PATCH))
    return ContractModel(
        conv=rng.normal(0, 0.3, (features, channels, PATCH, PATCH)).astype(np.float32),
        bias=rng.normal(0, 0.3, features).astype(np.float32),
        head=rng.normal(0, 1, (classes, features)).astype(np.float32),
        place=place.astype(np.float32),
        **settings,
    )


def brightness_model(size: tuple[int, int], preprocessing: schema.Preprocessing, **settings: Any) -> ContractModel:
    """Two classes whose one feature is how much brighter than 0.7 a patch is: the map of class 0 is the bright region.

    Class 1 is its negative, so that its map has no positive value.
    """
    channels = 1 if preprocessing.color == "GRAY" else 3
    return ContractModel(
        conv=np.full((1, channels, PATCH, PATCH), 1 / (channels * PATCH * PATCH), np.float32),
        bias=np.array([-0.7], np.float32),
        head=np.array([[1.0], [-1.0]], np.float32),
        place=np.ones((1, 1), np.float32),
        size=size,
        preprocessing=preprocessing,
        **settings,
    )


LABELS = ("n001 ignored", "n02123045 tabby, tabby cat", "crane", "n02012849 crane, bird", "golden retriever")


def batch(count, size=(32, 32), seed=1, channels=3):
    return np.random.default_rng(seed).random((count, channels, *size)).astype(np.float32)


def noise(height=40, width=50, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(a, b):
    for name in ("scores", "classes", "maps", "heatmaps", "boxes"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-6, err_msg=name)
    assert a.status == b.status and a.files == b.files and a.geometry == b.geometry
    for one, other in zip(a.components, b.components, strict=True):
        for parts, others in zip(one, other, strict=True):
            np.testing.assert_allclose(parts, others, rtol=1e-5)
