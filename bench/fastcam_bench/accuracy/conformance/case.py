"""ONNX's own conformance cases as problems of differentiation: which inputs, at which point, along which directions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter
from onnx.backend.test.loader import load_model_tests

Array = npt.NDArray[Any]

KINDS = ("node", "pytorch-converted", "pytorch-operator")
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
SETTINGS = {"Resize": {1, 2}, "Upsample": {1}, "Dropout": {1, 2}, "OneHot": {1}, "RoiAlign": {1}}
"""Float inputs that set how an operator works and are no data: roi, scales, ratio, depth; and regions, which PyTorch,
whose word counts, does not differentiate either."""
DISPUTED = {
    "test_maxunpool_export_with_output_shape": "ONNX Runtime and PyTorch count through the elements of the output that "
    "is asked for, the case through those of a smaller one",
}
"""Cases of which runtimes compute something else than what is stated, and what."""
OLDEST = 7
"""The oldest opset that vjp reads; PyTorch's cases of opset 6 are converted to it by ONNX."""
JITTER = 2e-2
"""How far, as a share of a number, a case's data are moved off the whole numbers that many cases consist of."""


@dataclass(frozen=True)
class Problem:
    """A case that has float tensors to differentiate by and of.

    Attributes:
        name, kind: of the case.
        operator: what it is a case of.
        model: as published, with the weights moved off ties.
        feeds: inputs by name, float ones moved off ties.
        stated: feeds and weights as published, and the outputs that the case states.
        wrt: float inputs and weights.
        of: float outputs.
    """

    name: str
    kind: str
    operator: str
    model: onnx.ModelProto
    feeds: dict[str, Array]
    stated: tuple[dict[str, Array], dict[str, Array]]
    wrt: tuple[str, ...]
    of: tuple[str, ...]


@dataclass(frozen=True)
class LeftOut:
    """A case without anything to differentiate, and why."""

    name: str
    kind: str
    operator: str
    reason: str


@lru_cache(1)
def cases() -> dict[str, Any]:
    """All published cases by ``kind/name``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of casts that overflow on purpose
        return {f"{kind}/{case.name}": case for kind in KINDS for case in load_model_tests(kind=kind)}


def problems() -> Iterator[str]:
    """Names of all cases, for :func:`problem`."""
    yield from cases()


def operator(name: str) -> str:
    """What a case is a case of: its node's operator; of a function body written out, the function's."""
    kind, short = name.split("/")
    known = cases()
    base = re.sub(r"_expanded.*$", "", short)
    graph = _read(known.get(f"{kind}/{base}") or known[name])[0].graph
    if len(graph.node) == 1 or base != short:
        return _operator(graph)
    counts = [node.op_type for node in graph.node if node.op_type not in ("Constant", "Identity")]
    return counts[0] if len(set(counts)) == 1 else "several operators"


def _operator(graph: onnx.GraphProto) -> str:
    node = next((node for node in graph.node if node.op_type != "Constant"), graph.node[0])
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else str(node.op_type)


def problem(name: str) -> Problem | LeftOut:
    """The case as a problem, or why it is none."""
    kind, short = name.split("/")
    model, stated, outputs = _read(cases()[name])
    what = operator(name)
    initial = {tensor.name: tensor for tensor in model.graph.initializer}
    inputs = [v.name for v in model.graph.input if _is_float(v) and v.name in stated and v.name not in initial]
    weights = [name for name, tensor in initial.items() if tensor.data_type in FLOATS]
    wrt = [name for name in (*inputs, *weights) if name not in _settings(model.graph)]
    of = [value.name for value in model.graph.output if _is_float(value)]
    for reason in [DISPUTED[short]] if short in DISPUTED else _reasons(model, wrt, of):
        return LeftOut(short, kind, what, reason)
    rng = np.random.default_rng(len(short))
    feeds = {name: _moved(array, rng) if name in wrt else array for name, array in stated.items()}
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    for tensor in moved.graph.initializer:
        if tensor.name in wrt:
            array = _moved(numpy_helper.to_array(tensor), rng)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    whole = {**stated, **{name: numpy_helper.to_array(initial[name]) for name in weights}}
    return Problem(short, kind, what, moved, feeds, (whole, outputs), tuple(wrt), tuple(of))


def positive(found: Problem) -> Problem:
    """The problem at the absolute values of its data: negative numbers have no fractional powers."""
    model = onnx.ModelProto()
    model.CopyFrom(found.model)
    for tensor in model.graph.initializer:
        if tensor.name in found.wrt:
            tensor.CopyFrom(numpy_helper.from_array(np.abs(numpy_helper.to_array(tensor)), tensor.name))
    feeds = {name: np.abs(array) if name in found.wrt else array for name, array in found.feeds.items()}
    return replace(found, model=model, feeds=feeds)


def _reasons(model: onnx.ModelProto, wrt: list[str], of: list[str]) -> Iterator[str]:
    kinds = {value.type.WhichOneof("value") for value in (*model.graph.input, *model.graph.output)} - {None}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            yield f"operators of the domain {node.domain}"
    if not of:
        yield "no float output" if kinds <= {"tensor_type"} else "its outputs are sequences or optionals, not tensors"
    if not wrt:
        yield "no float input" if kinds <= {"tensor_type"} else "its inputs are sequences or optionals, not tensors"
    if kinds - {"tensor_type"}:
        yield "an input or output is a sequence or an optional, not a tensor"


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in FLOATS


def _settings(graph: onnx.GraphProto) -> set[str]:
    return {
        name
        for node in graph.node
        for index, name in enumerate(node.input)
        if name and index in SETTINGS.get(node.op_type, ())
    }


def _moved(array: Array, rng: np.random.Generator) -> Array:
    """Off ties and whole numbers, on the same side of zero; zeros become small numbers, infinities stay."""
    wide = np.asarray(array, np.float64)
    unset = np.isfinite(wide) & (wide != 0) & ((np.abs(wide) < 1e-30) | (np.abs(wide) > 1e30))
    if array.dtype == np.float64 and unset.any():  # a few cases were published with memory that nobody had written
        return rng.standard_normal(wide.shape)
    with np.errstate(invalid="ignore"):
        shift = wide * rng.uniform(-JITTER, 0, wide.shape)  # towards zero: what lies in [-1, 1] stays there
        moved = np.where(wide == 0, rng.uniform(0.1, 1, wide.shape) * JITTER, wide + shift)
    moved = np.where(np.abs(wide - 1) < 1e-6, 1 + np.abs(shift), moved)  # what begins at 1, like Acosh, stays there
    return np.where(np.isfinite(wide), moved, wide).astype(array.dtype)


def _read(case: Any) -> tuple[onnx.ModelProto, dict[str, Array], dict[str, Array]]:
    """Model, inputs and stated outputs of a case; those that are no tensors are left out."""
    if case.model is not None:
        model, (inputs, outputs) = case.model, case.data_sets[0]
    else:
        folder = Path(case.model_dir)
        model = onnx.load(folder / "model.onnx")
        inputs, outputs = (_files(folder / "test_data_set_0", side) for side in ("input", "output"))
    if max((entry.version for entry in model.opset_import if not entry.domain), default=OLDEST) < OLDEST:
        model = version_converter.convert_version(model, OLDEST)
    return model, _named(model.graph.input, inputs), _named(model.graph.output, outputs)


def _files(folder: Path, side: str) -> list[Any]:
    count = len(list(folder.glob(f"{side}_*.pb")))
    return [onnx.load_tensor(str(folder / f"{side}_{i}.pb")) for i in range(count)]


def _named(values: Any, arrays: Any) -> dict[str, Array]:
    made = {}
    for value, array in zip(values, arrays):
        if isinstance(array, TensorProto):
            array = numpy_helper.to_array(array)
        if value.type.HasField("tensor_type") and not isinstance(array, (list, type(None))):
            made[value.name] = np.asarray(array)
    return made


def with_weights_as_inputs(problem: Problem) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model with its float weights as inputs, so that they can be stepped, and all of its feeds."""
    model = onnx.ModelProto()
    model.CopyFrom(problem.model)
    feeds = dict(problem.feeds)
    kept = []
    have = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in problem.wrt:
            kept.append(tensor)
            continue
        feeds[tensor.name] = numpy_helper.to_array(tensor)
        if tensor.name not in have:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    kept = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model, feeds


def with_constants(problem: Problem) -> onnx.ModelProto:
    """The model with the inputs that are not differentiated (axes, shapes, indices) as constants of the file."""
    model = onnx.ModelProto()
    model.CopyFrom(problem.model)
    fixed = {value.name for value in model.graph.input if value.name not in problem.wrt and value.name in problem.feeds}
    inputs = [value for value in model.graph.input if value.name not in fixed]
    inputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(numpy_helper.from_array(problem.feeds[name], name) for name in sorted(fixed))
    return model


def retyped(model: onnx.ModelProto, to: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """The model with one float type, ``to``, in place of all others; subgraphs and functions included."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    _retype_graph(made.graph, to)
    for function in made.functions:
        _retype_nodes(function.node, to)
    return made


def _retype_graph(graph: onnx.GraphProto, to: int) -> None:
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if _is_float(value):
            value.type.tensor_type.elem_type = to
    for tensor in graph.initializer:
        _retype_tensor(tensor, to)
    _retype_nodes(graph.node, to)


def _retype_nodes(nodes: Any, to: int) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype", "stash_type", "output_dtype", "precision", "softmax_precision"):
                attribute.i = to if attribute.i in FLOATS else attribute.i
            if attribute.HasField("t"):
                _retype_tensor(attribute.t, to)
            if attribute.HasField("g"):
                _retype_graph(attribute.g, to)
        if node.op_type == "Constant" and node.attribute[0].name in ("value_float", "value_floats"):
            content = np.asarray(helper.get_attribute_value(node.attribute[0]), helper.tensor_dtype_to_np_dtype(to))
            node.attribute[0].CopyFrom(helper.make_attribute("value", numpy_helper.from_array(content)))


def _retype_tensor(tensor: TensorProto, to: int) -> None:
    if tensor.data_type in FLOATS:
        array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(to))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def cast(feeds: Mapping[str, Array], model: onnx.ModelProto) -> dict[str, Array]:
    """The feeds in the types that the model's inputs have, and only those that it has."""
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    return {
        name: array.astype(helper.tensor_dtype_to_np_dtype(types[name])) if types[name] in FLOATS else array
        for name, array in feeds.items()
        if name in types
    }
