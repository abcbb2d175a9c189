"""What a file may not hold, because ONNX's tools or ONNX Runtime answer it with a crash, an endless loop or a guess.

All of it is seen in the file itself, before anything reads the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from google.protobuf.message import Message

from fastcam.errors import listed, shown
from fastcam.schema import FastcamError
from fastcam_export.graph.reading.bodies import bodies

MOST_NODES = 1_000_000
"""Nodes of a model with its functions written out."""
NEWEST = (1 << 31) - 1
"""The largest number of a version that ONNX's tools take."""

WINDOWS = frozenset({"dilations", "kernel_shape", "output_padding", "output_shape", "pads", "shape", "strides"})
LARGEST = 1 << 24
"""Of what :data:`WINDOWS` say."""

MOST_ELEMENTS = 1 << 44
MOST_LISTED = 1 << 24
"""Of a row of numbers: where one is added to, ONNX's inference lists its elements, a gigabyte for so many."""
GROWING = {"ConstantOfShape": -1, "Expand": -1, "Range": 1, "Tile": -1}
"""Operators that make values as large as a number says, and which input says it."""
RANKS = range(8, 65, 8)
"""Bytes of the sizes of one to eight axes."""

Key = tuple[str, str]
"""Domain and name of a function."""


def refuse_unsound(model: onnx.ModelProto, name: str) -> None:
    """Raise where a file is damaged in a way that nothing behind it sees, or survives.

    Args:
        model: the model.
        name: how messages call it.

    Raises:
        FastcamError: names are no text, weights are sparse or have one name, versions are no versions, windows are
            larger than pictures, or functions, written out, never end.
    """
    if not all(_are_texts(model)):
        raise FastcamError(f"{name} is damaged: names in it are no text; export or copy it again")
    if not all(0 <= entry.version <= NEWEST for entry in model.opset_import):
        versions = listed(f"{shown(entry.domain or 'ai.onnx')} {entry.version}" for entry in model.opset_import)
        raise FastcamError(f"{name} imports opsets of impossible versions ({versions}); export it again")
    opsets = {("" if entry.domain == "ai.onnx" else entry.domain, entry.version) for entry in model.opset_import}
    if len(opsets) > len({domain for domain, _ in opsets}):
        said = listed(f"{shown(domain or 'ai.onnx')} {version}" for domain, version in sorted(opsets))
        raise FastcamError(f"{name} imports several opsets of one domain ({said}); export it again")
    _refuse_weights(model.graph, name)
    _refuse_windows(model.graph.node, name)
    _refuse_growth(model.graph, name)
    _refuse_endless_functions(model, name)


def _are_texts(message: Message) -> Iterator[bool]:
    """Of each text of a message whether it is one; protobuf leaves what is no UTF-8 as bytes."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from (isinstance(text, str) for text in ([value] if isinstance(value, str | bytes) else value))
        elif field.type == field.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _are_texts(inner)


def _refuse_weights(graph: onnx.GraphProto, name: str) -> None:
    if graph.sparse_initializer:
        sparse = listed((shown(tensor.values.name) for tensor in graph.sparse_initializer), 3)
        raise FastcamError(f"{name} has weights in sparse form ({sparse}), which cannot be read; make them dense first")
    again = [weight for weight, count in Counter(tensor.name for tensor in graph.initializer).items() if count > 1]
    if again:
        raise FastcamError(f"{name} has several weights of one name ({listed(map(shown, again), 3)}); export it again")


def _refuse_windows(nodes: Iterable[onnx.NodeProto], name: str) -> None:
    """Pads and the like are multiplied, which overflows unseen; ONNX infers for minutes what follows of a shape."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in WINDOWS and any(abs(size) > LARGEST for size in attribute.ints):
                raise FastcamError(
                    f"{name} has {node.op_type} {shown(node.name)!r} with {attribute.name} "
                    f"[{listed(attribute.ints)}], which no picture has; export it again"
                )


def _refuse_growth(graph: onnx.GraphProto, name: str) -> None:
    """Sizes of values that no memory holds, over which ONNX's inference takes minutes."""
    sizes = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT64}
    for node in graph.node:
        which = GROWING.get(node.op_type) if len(node.input) > (node.op_type == "Range") else None
        given = sizes.get(node.input[which]) if which is not None else None
        known = given is not None and len(given.raw_data) in RANKS
        numbers: list[int] = np.frombuffer(given.raw_data, "<i8").tolist() if given is not None and known else []
        if any(abs(size) > (MOST_LISTED if len(numbers) == 1 else MOST_ELEMENTS) for size in numbers):
            raise FastcamError(
                f"{name} has {node.op_type} {shown(node.name)!r} of sizes [{listed(numbers)}], more than can be read; "
                "export it again"
            )


def _refuse_endless_functions(model: onnx.ModelProto, name: str) -> None:
    """Each function may call others, but not itself; one that doubles forty times has a million million nodes."""
    functions = {_key(one.domain, one.name): one for one in model.functions}
    sizes: dict[Key, int] = {}
    for key in functions:
        waiting = [key]
        while waiting:  # no recursion: calls may be nested as deep as there are functions
            now = waiting[-1]
            calls = [_key(node.domain, node.op_type) for node in _nodes(functions[now].node)]
            missing = [one for one in calls if one in functions and one not in sizes]
            if set(missing) & set(waiting):
                raise FastcamError(f"{name} has a function that calls itself ({shown(now[1])}); export it again")
            if missing:
                waiting.append(missing[0])
                continue
            sizes[now] = 1 + sum(sizes.get(one, 1) for one in calls)
            waiting.pop()
    if not functions:
        return
    whole = sum(sizes.get(_key(node.domain, node.op_type), 1) for node in _nodes(model.graph.node))
    if whole > MOST_NODES:
        raise FastcamError(
            f"{name} has {whole:.1e} nodes when its functions are written out, and {MOST_NODES:.0e} can be read; "
            "export it again"
        )


def _key(domain: str, name: str) -> Key:
    return "" if domain == "ai.onnx" else domain, name


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those in their bodies."""
    waiting = [*nodes]
    while waiting:
        node = waiting.pop()
        yield node
        for body in bodies(node):
            waiting += body.node
