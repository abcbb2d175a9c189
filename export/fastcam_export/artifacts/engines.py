"""Engine forms: which nodes of a graph an engine other than ONNX Runtime does not read, by its published matrix.

``export_model(for_engine=...)`` chooses other forms of what it adds (:attr:`Builder.engine`), and holds the result
against the engine's own list of operators, which is data of this package (``data/ENGINE.json``, with version and
source). What FastCAM adds has to pass; what the model itself brings is reported.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import onnx_ir as ir

from fastcam.schema import Engine, FastcamError
from fastcam_export.autodiff.core.rule import describe
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import in_default_domain, input_at, is_added

TYPES = {
    ir.DataType.FLOAT: "FP32",
    ir.DataType.DOUBLE: "FP32",  # read as float32
    ir.DataType.FLOAT16: "FP16",
    ir.DataType.BFLOAT16: "BF16",
    ir.DataType.FLOAT8E4M3FN: "FP8",
    ir.DataType.FLOAT4E2M1: "FP4",
}
"""Names of element types in a matrix, where they are not ONNX's."""


def form(engine: Engine) -> Engine:
    """The engine whose form the added nodes have: onnxruntime-web has all kernels of ONNX Runtime."""
    return "onnxruntime" if engine == "web" else engine


def requires_targets(engine: Engine) -> bool:
    """Whether the engine takes no value for an input that has a default."""
    return has_list(engine) or engine == "web"


def targets_note(engine: Engine) -> str:
    """What is particular about the targets of a file for ``engine``."""
    if engine == "web":
        return "fastcam.targets has no default, for it takes no value for an input that has one"
    no_default = "fastcam.targets has no default (its parser makes constants of defaults), and "
    return f"{no_default if has_list(engine) else ''}a target that is no class of the model gives class -1 and NaN"


def has_list(engine: Engine) -> bool:
    """Whether the engine reads only the operators of a list; ONNX Runtime, on any device, reads all of the standard."""
    return engine == "tensorrt"


@cache
def matrix(engine: Engine) -> dict[str, Any]:
    """The operator matrix of ``engine``: version, opsets, source, and each operator's types and restrictions."""
    text = files("fastcam_export").joinpath("data", f"{engine}.json").read_text(encoding="utf-8")
    read: dict[str, Any] = json.loads(text)
    return read


def title(engine: Engine) -> str:
    """The engine's name and, where its matrix is known here, the version of that."""
    if not has_list(engine):
        return {"cuda": "ONNX Runtime on CUDA", "web": "onnxruntime-web"}.get(engine, "ONNX Runtime")
    return f"{matrix(engine)['engine']} {matrix(engine)['version']}"


def refused(graph: ir.Graph, engine: Engine) -> list[tuple[ir.Node, str]]:
    """(node, reason) for the nodes that ``engine`` does not read, in the graph's order, subgraphs included."""
    if not has_list(engine):
        return []
    found = ((node, _why_not(node, matrix(engine))) for node in ir.traversal.RecursiveGraphIterator(graph))
    return [(node, why) for node, why in found if why]


def hold(graph: ir.Graph, engine: Engine) -> tuple[str, ...]:
    """Hold an exported graph against the engine's matrix.

    Returns:
        One line for each thing about the model's own nodes that the engine does not read; none for ONNX Runtime.

    Raises:
        FastcamError: the engine does not read a node that FastCAM added.
    """
    found = refused(graph, engine)
    for node, why in found:
        if is_added(node):
            raise FastcamError(
                f"the gradient needs {describe(node)}, which {title(engine)} does not read ({why}); choose a later "
                "layer (fastcam inspect lists them), or export for ONNX Runtime"
            )
    return report(graph, engine, found)


def report(graph: ir.Graph, engine: Engine, found: list[tuple[ir.Node, str]]) -> tuple[str, ...]:
    """Lines for people: the opset and the operators that the engine does not read."""
    if not has_list(engine):
        return ()
    lines = []
    first, last = matrix(engine)["opsets"]
    opset = graph.opset_imports.get("", first)
    if not first <= opset <= last:
        lines.append(f"it reads opsets {first} to {last}, the model has {opset}")
    counts = Counter((f"{node.domain}.{node.op_type}" if node.domain else node.op_type, why) for node, why in found)
    lines += [f"it does not read {op_type} of the model itself ({n}x): {why}" for (op_type, why), n in counts.items()]
    return tuple(f"{title(engine)}: {line}" for line in lines)


def _why_not(node: ir.Node, table: dict[str, Any]) -> str:
    """Why the engine does not read ``node``; empty where it does."""
    if not in_default_domain(node):
        return f"operators of {node.domain} need a plugin"
    entry = table["operators"].get(node.op_type)
    if entry is None:
        return "not in its list of operators"
    reasons = (
        _wrong_type(node, entry["types"]),
        *(test(node, entry[key]) for key, test in TESTS.items() if key in entry),
    )
    return next((reason for reason in reasons if reason), "")


def _wrong_type(node: ir.Node, types: list[str]) -> str:
    data = [*node.inputs[1 if node.op_type == "Where" else 0 :][:1], *(node.outputs if node.op_type == "Cast" else ())]
    names = [
        TYPES.get(value.dtype, value.dtype.name) for value in data if value is not None and value.dtype is not None
    ]
    wrong = [name for name in names if name not in types]
    return f"it does not take {wrong[0]}" if wrong else ""


# ---- restrictions: (node, what the matrix says) -> why the node does not meet it, or ""


def _constant(node: ir.Node, indices: list[int]) -> str:
    computed = [i for i in indices if (value := input_at(node, i)) is not None and constant_array(value) is None]
    return f"its input {computed[0]} must be a constant" if computed else ""


def _zero(node: ir.Node, indices: list[int]) -> str:
    for index in indices:
        array = constant_array(input_at(node, index))
        if input_at(node, index) is not None and (array is None or np.any(np.asarray(array, np.float64))):
            return f"its input {index} must be zero"
    return ""


def _below(node: ir.Node, limits: dict[str, int]) -> str:
    for index, limit in limits.items():
        array = constant_array(input_at(node, int(index)))
        if array is None or np.any(array >= limit):
            return f"its input {index} must be a constant below {limit}"
    return ""


def _absent(node: ir.Node, indices: list[int]) -> str:
    given = [index for index in indices if input_at(node, index) is not None]
    return f"it takes no input {given[0]}" if given else ""


def _outputs(node: ir.Node, count: int) -> str:
    used = [value for value in node.outputs[count:] if value.uses() or value.is_graph_output()]
    return f"only its first {count} output(s) can be used" if used else ""


def _ones(node: ir.Node, names: list[str]) -> str:
    other = [name for name in names if any(i != 1 for i in node.attributes.get_ints(name, ()))]
    return f"its {other[0]} must be one" if other else ""


def _only(node: ir.Node, allowed: dict[str, list[Any]]) -> str:
    for name, values in allowed.items():
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.value not in values:
            return f"its {name} must be {' or '.join(map(str, values))}"
    return ""


def _without(node: ir.Node, names: list[str]) -> str:
    given = [name for name in names if name in node.attributes]
    return f"it takes no {given[0]}" if given else ""


def _ranks(node: ir.Node, ranks: list[int]) -> str:
    value = input_at(node, 0)
    if value is None or value.shape is None or len(value.shape) in ranks:
        return ""
    return f"its input has {len(value.shape)} axes, not {' or '.join(map(str, ranks))}"


TESTS: dict[str, Callable[[ir.Node, Any], str]] = {
    "absent": _absent,
    "below": _below,
    "constant": _constant,
    "ones": _ones,
    "only": _only,
    "outputs": _outputs,
    "ranks": _ranks,
    "without": _without,
    "zero": _zero,
}
"""A restriction's name in the matrix -> its test. What stands under "note" there no program checks."""
