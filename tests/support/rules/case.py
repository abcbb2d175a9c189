"""What a case of a gradient rule is: a small model, its inputs, and short ways to write one down."""

import zlib
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 18
"""The oldest form that rules see."""

SHAPELESS = {"GroupNormalization", "Loop", "MeanVarianceNormalization"}
"""Operators whose result, of the shape of x, ONNX's shape inference does not find."""


@dataclass(frozen=True)
class Free:
    """A dimension that may be free: its name, and the two sizes that it is tried at."""

    name: str
    sizes: tuple


N, C, H, W = Free("N", (2, 3)), Free("C", (4, 4)), Free("H", (7, 10)), Free("W", (6, 9))


@dataclass(frozen=True)
class Case:
    """A model of one node or a few.

    Attributes:
        nodes: (operator, input names, output names, attributes).
        inputs: name -> shape of numbers and Free, of the floating point inputs.
        constants: name -> array; those of float64 get the model's type.
        wrt: inputs to differentiate.
        outputs: outputs that have a cotangent.
        sample: "normal", "positive", "unit" (between -1 and 1), "above one" or "apart" values.
        runtime: False where ONNX Runtime has no such form of the operator.
        opset: of the model.
    """

    nodes: tuple
    inputs: dict
    constants: dict
    wrt: tuple
    outputs: tuple = ("y",)
    sample: str = "normal"
    runtime: bool = True
    opset: int = OPSET
    seed: int = 0

    def __str__(self):
        op_type, inputs, _, attributes = self.nodes[-1]
        shapes = [
            self.shape(name) if name in self.inputs else self.constants.get(name, np.zeros(0)).shape for name in inputs
        ]
        return f"{op_type}{shapes}{attributes}".replace(" ", "")

    def shape(self, name, size=0):
        return tuple(d.sizes[size] if isinstance(d, Free) else d for d in self.inputs[name])

    def feeds(self, dtype, size=0):
        """Random inputs whose numbers float32 can hold."""
        rng = np.random.default_rng(zlib.crc32(str(self).encode()) + self.seed)
        feeds = {name: rng.standard_normal(self.shape(name, size)).astype(np.float32) for name in self.inputs}
        if self.sample == "positive":
            feeds = {name: np.abs(x) + np.float32(0.5) for name, x in feeds.items()}
        if self.sample == "unit":
            feeds = {name: np.float32(0.9) * np.tanh(x) for name, x in feeds.items()}
        if self.sample == "apart":  # any two far enough for a step of central differences not to swap them
            ranks = {name: rng.permutation(x.size).reshape(x.shape) for name, x in feeds.items()}
            feeds = {name: ((x - x.size // 2) * np.float32(4 / x.size)).astype(np.float32) for name, x in ranks.items()}
        if self.sample == "above one":
            feeds = {name: np.abs(x) + np.float32(1.25) for name, x in feeds.items()}
        return {name: np.asarray(x, dtype) for name, x in feeds.items()}

    def model(self, dtype=np.float32, shapes="fixed", size=0, opset=None):
        """The model; ``shapes`` "fixed", "named" (free dimensions have names) or "unknown" (they have none)."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

        def dim(d):
            return d if not isinstance(d, Free) else {"fixed": d.sizes[size], "named": d.name, "unknown": None}[shapes]

        inputs = [helper.make_tensor_value_info(n, element, [dim(d) for d in s]) for n, s in self.inputs.items()]
        nodes = [helper.make_node(op, i, o, name=f"node_{k}", **a) for k, (op, i, o, a) in enumerate(self.nodes)]
        made = [name for node in nodes[-1:] for name in node.output if name]
        outputs = [helper.make_empty_tensor_value_info(name) for name in made]
        if nodes[-1].op_type in SHAPELESS:
            outputs = [helper.make_tensor_value_info(made[0], element, [dim(d) for d in self.inputs["x"]])]
        arrays = {n: a.astype(dtype) if a.dtype == np.float64 else a for n, a in self.constants.items()}
        constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        graph = helper.make_graph(nodes, "case", inputs, outputs, constants)
        imports = [helper.make_opsetid("", opset or self.opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        return onnx.shape_inference.infer_shapes(model, strict_mode=nodes[-1].op_type not in SHAPELESS, data_prop=True)


def one(op_type, *, wrt=None, outputs=("y",), cotangents=None, sample="normal", runtime=True, opset=OPSET, **operands):
    """A case of one node: tuples are inputs of a shape, arrays constants, None inputs left out, the rest attributes."""
    inputs = {name: value for name, value in operands.items() if isinstance(value, tuple)}
    constants = {name: value for name, value in operands.items() if isinstance(value, np.ndarray)}
    named = (*inputs, *constants)
    names = [n if n in named else "" for n, v in operands.items() if n in named or v is None]
    attributes = {name: v for name, v in operands.items() if name not in named and v is not None}
    nodes = ((op_type, names, list(outputs), attributes),)
    return Case(nodes, inputs, constants, wrt or tuple(inputs), cotangents or tuple(outputs), sample, runtime, opset)


def weight(*shape, seed=5):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def ints(*numbers):
    return np.array(numbers, np.int64)


IMAGE = (N, C, H, W)
ELEMENTWISE = ((N, C, H, W), (N, 5), (4,))


def unary(op_type, *attributes, **options):
    return [one(op_type, x=shape, **options) for shape in ELEMENTWISE] + [
        one(op_type, x=IMAGE, **options, **given) for given in attributes
    ]


def binary(op_type, **options):
    pairs = [
        (IMAGE, IMAGE), (IMAGE, (C, 1, 1)), ((1, C, 1, 1), IMAGE), (IMAGE, (N, C, 1, 1)), (IMAGE, ()), ((W,), IMAGE),
        ((N, 1), (1, 5)), ((N, 1, H), (C, 1)), ((1,), (N, 3)), ((N, 1, 1, W), (1, C, H, 1)), ((3,), (3,)), ((), ()),
    ]  # fmt: skip
    return [one(op_type, a=a, b=b, **options) for a, b in pairs]
