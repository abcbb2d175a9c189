"""The Open Inference Protocol, version 2, with its extension for binary tensors: arrays in JSON or behind it.

Source: https://github.com/kserve/open-inference-protocol, and the extension "binary tensor data" of Triton's.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, listed, shown
from fastcam.methods.compatibility import servable
from fastcam.results.explanation import Explanation
from fastcam.schema import TARGETS, __version__
from fastcam.serving.bodies.tensors import (
    BY_DTYPE,
    BY_ORT,
    DATATYPES,
    checked_shape,
    checked_type,
    from_bytes,
    of_texts,
    to_bytes,
    words,
)
from fastcam.serving.errors import NotServed
from fastcam.serving.kept import Kept
from fastcam.serving.model import ServedModel
from fastcam.serving.parameters import NAMES, parse_parameters

PICTURES = "image"
"""The input by which encoded pictures come, as BYTES, beside the name of the file's own: the server prepares them."""
EXPLAINED: dict[str, str] = {
    "fastcam.classes": "INT64", "fastcam.maps": "FP32", "fastcam.boxes": "FP32", "fastcam.status": "BYTES",
    "fastcam.heatmaps": "FP32",
}  # fmt: skip
"""What is given of an explanation; heatmaps, which are large, only where they are asked for by name."""
EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
PREDICT, IDS = "predict", "fastcam.ids"
"""The parameter that asks for predictions alone, and that of their ids in the answer, with commas between."""
PREDICTION = "prediction"
"""The parameter that asks for the explanation of predictions, by such ids, without inputs."""
UNSERVED = ("classification", "shared_memory_region")
"""Parameters of an output by which other servers give something else than its tensor in the answer."""


@dataclass(frozen=True, eq=False)
class Reply:
    """An answer: what is JSON, and the tensors that follow it as bytes."""

    body: dict[str, Any]
    binary: list[bytes] = field(default_factory=list)


# ---- what is served


def server_metadata() -> dict[str, Any]:
    """Of ``GET /v2``."""
    return {"name": "fastcam", "version": __version__, "extensions": [*EXTENSIONS]}


def model_metadata(model: ServedModel, versions: Sequence[str]) -> dict[str, Any]:
    """Of ``GET /v2/models/NAME``: inputs and outputs of the file, and what the server adds."""
    inputs, outputs = model.explainer.signature
    return {
        "name": model.name,
        "versions": [*versions],
        "platform": "onnxruntime_onnx",
        "inputs": [_described(value) for value in inputs],
        "outputs": [_described(value) for value in outputs],
        "parameters": {
            "fastcam": {
                "pictures": PICTURES,
                "parameters": [*NAMES, PREDICT, PREDICTION],
                "outputs": [*EXPLAINED],
                "methods": servable(model.explainer.metadata),
                "layers": [layer.value for layer in model.explainer.metadata.layers],
            }
        },
    }


def _described(value: Any) -> dict[str, Any]:
    shape = [side if isinstance(side, int) else -1 for side in value.shape]
    return {"name": value.name, "datatype": BY_ORT.get(value.type, value.type), "shape": shape}


# ---- a request


def infer(model: ServedModel, request: Mapping[str, Any], binary: bytes, until: float, kept: Kept) -> Reply:
    """The answer to an inference request.

    Tensors go into the file as they are, and its outputs come back, ``fastcam.*`` among them. With a parameter that
    says what is explained or how (``targets``, ``method``, ...), or with encoded pictures, the server explains: then
    the outputs are the model's own and :data:`EXPLAINED`. With :data:`PREDICT` they are the model's own, and each row
    has an id by which it may be explained later: by :data:`PREDICTION`, and no inputs.

    Args:
        request: the JSON.
        binary: what follows it.
        until: see :class:`fastcam.serving.batching.Batcher`.
        kept: predictions.

    Raises:
        FastcamError: a request that is none, or values that the model does not take.
        NotServed: a prediction that is not kept any more.
    """
    feed = _inputs(request, binary)
    parameters = _object(request.get("parameters", {}), "parameters")
    wanted = _wanted(request)
    found, said = answer(model, feed, parameters, [name for name, _ in wanted], until, kept)
    raw, as_bytes = _switch(parameters, "binary_data_output"), dict(wanted)
    outputs, tail = [], []
    with model.statistics.step("compute_output"):
        for name, value in found.items():
            said_of = as_bytes.get(name)
            about, content = _output(name, value, raw if said_of is None else said_of)
            outputs.append(about)
            tail += [content] if content is not None else []
    body: dict[str, Any] = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
    if said:
        body["parameters"] = said
    if "id" in request:
        body["id"] = str(request["id"])
    return Reply(body, tail)


def answer(
    model: ServedModel,
    feed: Mapping[str, NDArray[Any]],
    parameters: Mapping[str, Any],
    names: Sequence[str],
    until: float,
    kept: Kept,
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The outputs of a request, however it came: those named, in their order, or all; and parameters of the answer.

    Args:
        feed: the inputs by name; byte strings are arrays of objects.
        parameters: of the request; those that say nothing of an explanation are left alone, unless one is nearly such
            a name.
        names, until, kept: see :func:`infer`.

    Raises:
        FastcamError, NotServed: see :func:`infer`.
    """
    if not feed and PREDICTION not in parameters:
        raise FastcamError("the request has no inputs; send the model's input")
    _refuse_mistyped(parameters)
    said = {name: parameters[name] for name in NAMES if name in parameters}
    pictures, about = _pictures(model, feed), {}
    if PREDICTION in parameters:
        if feed or _switch(parameters, PREDICT):
            raise FastcamError(f"{PREDICTION} asks for the explanation of what was predicted; send no inputs with it")
        found = _explained_later(model, parameters[PREDICTION], said, names, until, kept)
    elif _switch(parameters, PREDICT):
        if said:
            raise FastcamError(f"{PREDICT} asks for no explanation, and {listed(said)} for one; send one of them")
        each = model.predict(_sources(feed, pictures), until)
        found = _joined([one.outputs for one in each])
        about = {IDS: ",".join(kept.add(model, one) or "" for one in each)}
    elif pictures is not None or said:
        found = _explained(model, _sources(feed, pictures), said, names, until)
    else:
        have = [value.name for value in model.explainer.signature[1]]
        found = dict(model.infer(feed, names or have, until))
    missing = [name for name in names if name not in found]
    if missing:
        raise FastcamError(f"no output {shown(repr(missing[0]))}; there are {listed(found)}")
    return {name: found[name] for name in names or found}, about


def _explained(
    model: ServedModel,
    sources: Sequence[Any],
    said: Mapping[str, Any],
    names: Sequence[str],
    until: float,
) -> dict[str, NDArray[Any]]:
    """The model's outputs and the explanation of each row."""
    return _shown(model.explain(sources, parse_parameters(said, model.limits), until), names)


def _explained_later(
    model: ServedModel, ids: Any, said: Mapping[str, Any], names: Sequence[str], until: float, kept: Kept
) -> dict[str, NDArray[Any]]:
    """The same of predictions, by their ids with commas between."""
    wanted = ids.split(",") if isinstance(ids, str) else []
    if not 1 <= len(wanted) <= model.limits.pictures:
        raise FastcamError(f"{PREDICTION} has {len(wanted)} ids; send 1 to {model.limits.pictures} with commas between")
    how, each = parse_parameters(said, model.limits), []
    for own, prediction in [kept.get(one.strip()) for one in wanted]:
        if own is not model:
            raise NotServed(f"the prediction is of {own.name}, version {own.version}; ask that for its explanation")
        each.append(model.explain_later(prediction, how, until))
    return _shown(each, names)


def _shown(each: Sequence[Explanation], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    return _joined([one.outputs for one in each]) | explained_arrays(each, "fastcam.heatmaps" in names)


def _joined(each: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([np.asarray(one[name]) for one in each]) for name in each[0]}


def _sources(feed: Mapping[str, NDArray[Any]], pictures: NDArray[Any] | None) -> list[Any]:
    """What is explained or predicted one by one: the encoded pictures, or each row of the inputs."""
    if pictures is not None:
        if len(feed) > 1:
            raise FastcamError(f"encoded pictures come alone, and there are {listed(feed)}; send one of them")
        return list(pictures.ravel().tolist())
    if TARGETS in feed:
        raise FastcamError(f"{TARGETS} comes with no other parameter; say them all as parameters: targets, method, ...")
    lengths = {len(value) if value.ndim else 0 for value in feed.values()}
    if len(lengths) != 1:
        raise FastcamError("the inputs have different numbers of rows; give a row for each image")
    return [{name: value[i : i + 1] for name, value in feed.items()} for i in range(lengths.pop())]


def _pictures(model: ServedModel, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """The encoded pictures of a request; None where tensors came."""
    of_texts = {value.name for value in model.explainer.signature[0] if value.type == "tensor(string)"}
    for name in (PICTURES, model.explainer.metadata.input):
        if name in feed and feed[name].dtype == object and name not in of_texts:
            return feed[name]
    return None


def explained_arrays(each: Sequence[Explanation], heatmaps: bool = False) -> dict[str, NDArray[Any]]:
    """Explanations of pictures as tensors by name, see :data:`EXPLAINED`."""
    found: dict[str, NDArray[Any]] = {
        "fastcam.classes": np.concatenate([one.classes for one in each]),
        "fastcam.maps": np.concatenate([one.maps for one in each]),
        "fastcam.boxes": np.concatenate([one.boxes for one in each]),
        "fastcam.status": np.array([[word.encode() for word in row] for one in each for row in one.status], object),
    }
    return found | ({"fastcam.heatmaps": np.concatenate([one.heatmaps for one in each])} if heatmaps else {})


def _refuse_mistyped(parameters: Mapping[str, Any]) -> None:
    """Others may come, of other servers and their clients; "treshold" would be one that nobody reads."""
    ours = (*NAMES, PREDICT, PREDICTION)
    for name in parameters:
        near = [] if name in ours else get_close_matches(name, ours, 1, 0.8)
        if near:
            raise FastcamError(f"no parameter {shown(repr(name))}; the nearest is {near[0]!r}")


# ---- tensors


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise FastcamError(f"{name} is no JSON object; send one")
    return value


def _switch(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise FastcamError(f"{name} is {shown(repr(value))}; give true or false")
    return value


def refuse_unserved(output: str, parameters: Container[str]) -> None:
    """Raise a line where an output shall come otherwise than it would: clients would read it as what it is not."""
    other = next((name for name in UNSERVED if name in parameters), None)
    if other is not None:
        raise FastcamError(f"output {shown(repr(output))}: {other} is not served; leave it out, and read the tensor")


def _listed(value: Any, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise FastcamError(f"{name} is no JSON list; send one")
    return [_object(one, f"an element of {name}") for one in value]


def _wanted(request: Mapping[str, Any]) -> list[tuple[str, bool | None]]:
    """The outputs that are asked for, and whether as bytes; None where that is not said."""
    found: list[tuple[str, bool | None]] = []
    for one in _listed(request.get("outputs", []), "outputs"):
        name, parameters = one.get("name"), _object(one.get("parameters", {}), "parameters of an output")
        if not isinstance(name, str):
            raise FastcamError("an output has no name; give one")
        refuse_unserved(name, parameters)
        found.append((name, _switch(parameters, "binary_data") if "binary_data" in parameters else None))
    return found


def _inputs(request: Mapping[str, Any], binary: bytes) -> dict[str, NDArray[Any]]:
    feed: dict[str, NDArray[Any]] = {}
    at = 0
    for one in _listed(request.get("inputs", []), "inputs"):
        name, datatype = one.get("name"), one.get("datatype")
        if not isinstance(name, str) or name in feed:
            raise FastcamError("an input has no name, or one that another has; give each its own")
        datatype, shape = checked_type(datatype, name), checked_shape(one.get("shape"), name)
        size = _object(one.get("parameters", {}), "parameters of an input").get("binary_data_size")
        if size is None:
            feed[name] = _from_json(one.get("data"), datatype, shape, name)
            continue
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(binary) - at:
            raise FastcamError(f"input {shown(repr(name))} promises {shown(repr(size))} bytes, and {len(binary) - at} "
                               "follow; send as many")  # fmt: skip
        feed[name] = from_bytes(binary[at : at + size], datatype, shape, name)
        at += size
    if at != len(binary):
        raise FastcamError(f"{len(binary) - at} bytes follow the last input; send as many as binary_data_size says")
    return feed


def _from_json(data: Any, datatype: str, shape: list[int], name: str) -> NDArray[Any]:
    """Numbers, flat or nested as the shape says."""
    try:
        if datatype == "BYTES":
            array = of_texts([one.encode() for one in _flat(data)])
        else:
            array = _numbers(data, np.dtype(DATATYPES[datatype]))
        return array.reshape(shape)
    except (TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise FastcamError(
            f"input {shown(repr(name))}: data is no {datatype} of shape {shape}; send {math.prod(shape)} of them"
        ) from error


def _numbers(data: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers of JSON as an array of a type that holds them: 1.5 is no whole number, null, true and "1" are none.

    Raises:
        TypeError, ValueError, OverflowError: one that the type does not hold.
    """
    given = np.asarray(data)
    if given.size and given.dtype.kind not in ("biu" if dtype.kind == "b" else "iuf"):
        raise TypeError("no numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        array = given.astype(dtype)
    held = np.isfinite(array) if dtype.kind == "f" else array == given
    if not held.all():
        raise OverflowError("out of range")
    return array


def _flat(data: Any) -> list[Any]:
    return [each for one in data for each in _flat(one)] if isinstance(data, list) else [data]


def _output(name: str, value: Any, raw: bool) -> tuple[dict[str, Any], bytes | None]:
    """A tensor of the answer, in JSON or as bytes."""
    array = np.asarray(value)
    datatype = BY_DTYPE.get(array.dtype, "BYTES")
    about: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [*array.shape]}
    if not raw:
        texts = datatype == "BYTES"
        flat = [word.decode("utf-8", "replace") for word in words(array)] if texts else array.ravel().tolist()
        return about | {"data": flat}, None
    content = to_bytes(array)
    return about | {"parameters": {"binary_data_size": len(content)}}, content
