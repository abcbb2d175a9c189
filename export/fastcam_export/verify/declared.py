"""Where a file says another shape of a value than a run gives: what is made of such a file does not run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from fastcam_export.graph.query import Dim, dims_of
from fastcam_export.verify.session import quiet_session


def contradiction(source: onnx.ModelProto, model: ir.Model, feeds: Mapping[str, Any]) -> str:
    """The first value whose shape in a run is not that of the graph, as a sentence; "" where there is none.

    Args:
        source: the model as it was given.
        model: as it was loaded.
        feeds: the inputs of the run.
    """
    own = {name for node in source.graph.node for name in node.output if name}
    values = [value for node in model.graph for value in node.outputs if value.name in own]
    probe = onnx.ModelProto()
    probe.CopyFrom(source)
    there = {value.name for value in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=one.name) for one in values if one.name not in there)
    names = [one.name or "" for one in values]
    inputs = [(value, feeds[value.name or ""]) for value in model.graph.inputs if value.name in feeds]
    named = {dim: size for value, array in inputs for dim, size in zip(dims_of(value), np.shape(array))}
    try:
        arrays = quiet_session(probe, plain=True).run(names, dict(feeds))
    except Exception:  # the runtime's exceptions have no common base; it is said elsewhere what is wrong
        return ""
    for value, array in zip(values, arrays):
        if value.shape is None or not isinstance(array, np.ndarray):
            continue
        said = tuple(named.get(dim, dim) if isinstance(dim, str) else dim for dim in dims_of(value))
        if len(said) != array.ndim or any(isinstance(a, int) and a != b for a, b in zip(said, array.shape)):
            return f"the file says that {value.name!r} is {readable(said)}, and a run gives {list(array.shape)}"
    return ""


def readable(dims: Iterable[Dim]) -> str:
    """A shape for people."""
    return f"[{', '.join('?' if dim is None else str(dim) for dim in dims)}]"
