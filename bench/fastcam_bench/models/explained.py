"""How the models of the architecture sweep are explained: by a class score, by vjp, or by cotangents of outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from fastcam import schema
from fastcam.schema import FastcamError
from fastcam_bench.oracles.isolated import Row
from fastcam_bench.oracles.torch_oracle import Array
from fastcam_export import export_model, inspect_model, vjp
from fastcam_export.verify.session import quiet_session

CLASS = 3
"""The class that segmenters are explained for."""


Source = onnx.ModelProto | str
"""A model in memory, or the path of one whose weights lie beside it."""


def session(model: Source) -> ort.InferenceSession:
    """A quiet CPU session."""
    return quiet_session(model)


class ByExport:
    """The predicted class's score at the default layer, by ``export_model``."""

    def __init__(self, proto: Source, check: bool = False, layer: str = "auto") -> None:
        output = f"{proto}.cam.onnx" if isinstance(proto, str) else None
        exported = export_model(proto, output, layer=layer, emit="gradients", check=check, on_demand=False)
        self.layer, self.checked = exported.metadata.layer, exported.check
        self.prefix = self.layer.prefix_tokens
        self.session = session(output or exported.model)
        self.about = {"layer": self.layer.scope or self.layer.value, "layout": self.layer.layout}

    def run(self, images: Array) -> tuple[Array, Array, Array]:
        """Activations, their gradient, and each image's class."""
        names = [schema.ACTIVATIONS, schema.GRADIENTS, schema.CLASSES]
        feeds = {self.session.get_inputs()[0].name: images}
        activations, gradients, classes = self.session.run(names, feeds)
        return activations, gradients[:, 0], classes[:, 0]

    @staticmethod
    def score(made: torch.Tensor, classes: Array) -> torch.Tensor:
        """PyTorch's sum of what was differentiated."""
        made = made[0] if isinstance(made, (tuple, list)) else made
        return made.gather(1, torch.from_numpy(classes)[:, None]).sum()


class ByVjp:
    """A segmenter's one class, or a detector's best score, at the layer that "auto" would choose, by ``vjp``.

    For a detector whose picture's size reaches the boxes past every layer: at the last activation of its backbone that
    the best box hangs on; those of other scales have a gradient of zero.
    """

    prefix = 0

    def __init__(self, proto: onnx.ModelProto, check: bool = False) -> None:
        if check:
            raise FastcamError("vjp checks nothing")
        self.checked: dict[str, Any] = {}
        self.output = proto.graph.output[0].name
        try:
            layer = next(line for line in inspect_model(proto, self.output).layers if line.chosen)
            self.layers = {layer.name: layer.scope or layer.name}
        except FastcamError:
            self.layers = {node.output[0]: f"{node.name}, named" for node in proto.graph.node if _of_backbone(node)}
            if not self.layers:
                raise
        made = vjp(proto, list(self.layers), [self.output])
        known = {output.name for output in made.graph.output}
        for name in self.layers.keys() - known:
            made.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        self.plain, self.session = session(proto), session(made)
        self.about: Row = {}

    def run(self, images: Array) -> tuple[Array, Array, Array]:
        """Activations and their gradient; the classes are of no use here."""
        image = self.plain.get_inputs()[0].name
        scores = self.plain.run([self.output], {image: images})[0]
        seed = np.zeros_like(scores)
        seed[(slice(None), CLASS) if scores.ndim == 4 else 0] = 1
        feeds = {image: images, f"cotangent.{self.output}": seed}
        for layer in reversed(self.layers):
            activations, gradients = self.session.run([layer, f"grad.{layer}"], feeds)
            if gradients.any():
                break
        self.about = {"layer": self.layers[layer], "layout": "NCHW"}
        return activations, gradients, np.zeros(0, np.int64)

    @staticmethod
    def score(made: torch.Tensor, classes: Array) -> torch.Tensor:
        """PyTorch's sum of what was differentiated."""
        return made[:, CLASS].sum() if made.dim() == 4 else made[0]


class ByCotangent:
    """A random functional of all outputs that are asked for, at the layer that "auto" chooses, by ``export_model``."""

    def __init__(self, proto: onnx.ModelProto, outputs: Sequence[str], layer: str = "auto", check: bool = True) -> None:
        names = list(outputs)
        exported = export_model(
            proto, layer=layer, targets="cotangent", output_name=names, emit="gradients", check=check
        )
        self.layer, self.checked = exported.metadata.layer, exported.check
        self.prefix = self.layer.prefix_tokens
        self.plain, self.session = session(proto), session(exported.model)
        self.about: Row = {"layer": self.layer.scope or self.layer.value, "layout": self.layer.layout}
        self.names = [value.name for value in proto.graph.output]
        self.asked = exported.metadata.cotangents
        self.cotangents: dict[str, Array] = {}

    def run(self, images: Array) -> tuple[Array, Array, Array]:
        """Activations and their gradient; the classes are of no use here."""
        image = self.session.get_inputs()[0].name
        made = dict(zip(self.names, self.plain.run(self.names, {image: images})))
        rng = np.random.default_rng(0)
        self.cotangents = {one.output: self._random(rng, made[one.output]) for one in self.asked}
        axes = {one.output: 1 if one.batched else (0, 1) for one in self.asked}  # without an axis of images it has one
        given = {one.input: np.expand_dims(self.cotangents[one.output], axes[one.output]) for one in self.asked}
        names = [schema.ACTIVATIONS, schema.GRADIENTS]
        activations, gradients = self.session.run(names, {image: images, **given})
        return activations, gradients[:, 0], np.zeros(0, np.int64)

    def score(self, made: Any, classes: Array) -> torch.Tensor:
        """PyTorch's value of the functional."""
        made = dict(zip(self.names, made if isinstance(made, (tuple, list)) else [made]))
        terms = [(made[name] * torch.from_numpy(cotangent)).sum() for name, cotangent in self.cotangents.items()]
        return torch.stack(terms).sum()

    @staticmethod
    def _random(rng: np.random.Generator, output: Array) -> Array:
        return rng.standard_normal(output.shape).astype(np.float32)


Way = Callable[..., ByExport | ByVjp | ByCotangent]


def _of_backbone(node: onnx.NodeProto) -> bool:
    """An activation of torchvision's backbones, in the older exporter's names."""
    return node.op_type in ("Relu", "HardSwish", "Clip") and "/backbone/" in node.name and "/fpn/" not in node.name
