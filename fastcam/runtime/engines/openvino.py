"""A file on OpenVINO's own runtime, behind the part of ``onnxruntime.InferenceSession`` that FastCAM uses."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastcam.errors import FastcamError
from fastcam.runtime.providers import OPENVINO_RUNTIME, Precision, Settings, missing
from fastcam.schema import TARGETS

Feed: TypeAlias = "Mapping[str, Any]"
_TYPES = {"f32": "float", "f16": "float16", "f64": "double", "bf16": "bfloat16", "u8": "uint8", "i8": "int8"}
_TYPES |= {"i32": "int32", "i64": "int64", "boolean": "bool"}
_SHARED = {*_TYPES} - {"bf16", "boolean"}
OUTPUTS = 4
"""Outputs of runs whose memory is kept for later ones, for each compiled model."""
KINDS = 64
"""Names, shapes and types of inputs that are kept with what runs them, so that they need not be checked again."""
OWN_SHAPES = 2
"""Shapes that are compiled for themselves, those that are asked first; all others share a model of free shapes, which
is slower, but needs no second at each new one. Each compiled model holds weights of its own."""


class Value(NamedTuple):
    """An input or output; free dimensions are None."""

    name: str
    shape: list[int | None]
    type: str


class OpenVinoSession:
    """A model on OpenVINO's CPU device. Safe to share between threads, each of which runs a request of its own.

    An input with a default, as ``fastcam.targets``, stays an input: ONNX Runtime's provider makes a constant of it.

    Args:
        model: path or bytes of an ONNX file.
        name: how messages call it.
        threads: of one run; None leaves the choice to OpenVINO.
        settings: ``sessions`` is the number of streams, ``precision`` the type that is computed in.
        options: further properties of ``Core.compile_model``, which win.

    Raises:
        FastcamError: OpenVINO is not installed, or cannot read the file.
    """

    def __init__(
        self, model: str | bytes, name: str, threads: int | None, settings: Settings, options: Mapping[str, Any]
    ) -> None:
        self._name, self._process = name, os.getpid()
        try:
            self._model = _core().read_model(model)
        except RuntimeError as error:
            raise FastcamError(f"{name}: OpenVINO cannot read it ({_cause(error)})") from error
        self._defaults = _open_targets(self._model)
        several = settings.sessions > 1
        self._config = {
            "PERFORMANCE_HINT": "THROUGHPUT" if several else "LATENCY",
            "NUM_STREAMS": settings.sessions,
            "INFERENCE_PRECISION_HINT": settings.precision or "f32",  # else bfloat16 where the processor can
            "ENABLE_CPU_PINNING": False,  # other processes of the same models would be pinned to the same processors
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads * settings.sessions
        self._config |= options
        self._every = {one.name: one for one in map(_input, self._model.inputs)}
        self._outputs = [_output(one) for one in self._model.outputs]
        self._at = {one.name: i for i, one in enumerate(self._outputs)}
        self._dtypes = {
            name: np.dtype(one.get_element_type().to_dtype())
            for name, one in zip(self._every, self._model.inputs)
            if self._every[name].type != "tensor(bfloat16)"
        }
        self._lock = threading.Lock()
        self._compiled: dict[tuple[Any, ...] | None, _Compiled] = {}
        self._checked: dict[tuple[Any, ...], _Compiled] = {}

    def get_inputs(self) -> list[Value]:
        """Inputs that a run must be given."""
        return [one for one in self._every.values() if one.name not in self._defaults]

    def get_overridable_initializers(self) -> list[Value]:
        """Inputs with a default."""
        return [one for one in self._every.values() if one.name in self._defaults]

    def get_outputs(self) -> list[Value]:
        """Outputs, in the file's order."""
        return self._outputs

    def get_modelmeta(self) -> Any:
        """The file's metadata, as ``custom_metadata_map``."""
        try:
            said = self._model.get_rt_info(["framework"])
            found = {key: value.astype(str) for key, value in said.astype(dict).items()}
        except (RuntimeError, AttributeError, KeyError):
            found = {}
        return SimpleNamespace(custom_metadata_map=found)

    def get_providers(self) -> list[str]:
        """As of ONNX Runtime."""
        return [OPENVINO_RUNTIME]

    def get_provider_options(self) -> dict[str, Any]:
        """How it is compiled."""
        return {OPENVINO_RUNTIME: dict(self._config)}

    def run(self, names: Sequence[str] | None, feed: Feed, options: Any = None) -> list[Any]:
        """Outputs by name, or all of them.

        Raises:
            FastcamError: a value that the file does not take; OpenVINO cannot compile or run it; a forked process.
        """
        if os.getpid() != self._process:
            raise FastcamError("OpenVINO does not go on in a forked process; open the file there")
        feed = {**self._defaults, **feed}
        kinds = tuple(
            [(name, getattr(value, "shape", None), getattr(value, "dtype", None)) for name, value in feed.items()]
        )
        compiled = self._checked.get(kinds)
        if compiled is None:
            self._check(feed)
            compiled = self._for(tuple((name, np.shape(value)) for name, value in sorted(feed.items())))
            if len(self._checked) < KINDS:
                self._checked[kinds] = compiled
        wanted = [self._at[name] for name in names] if names is not None else range(len(self._outputs))
        try:
            found = compiled.infer([feed[name] for name in self._every])
        except RuntimeError as error:
            raise FastcamError(f"{self._name}: OpenVINO could not run it ({_cause(error)})") from error
        return [found[i] for i in wanted]

    def run_with_ort_values(self, *given: Any) -> Any:
        """Refused: it takes and gives NumPy's arrays."""
        raise FastcamError(
            f"{self._name}: openvino-runtime takes arrays of the host, in types that NumPy has; choose other providers"
        )

    io_binding = run_with_ort_values

    def _check(self, feed: Feed) -> None:
        for name, value in feed.items():
            one = self._every.get(name)
            if one is None:
                raise FastcamError(f"{self._name} has no input {name!r}")
            shape, dtype = np.shape(value), self._dtypes.get(name)
            fits = len(shape) == len(one.shape) and all(b in (None, a) for a, b in zip(shape, one.shape))
            if not fits or getattr(value, "dtype", None) != dtype:
                raise FastcamError(f"{self._name}: input {name} takes {one.type} {one.shape}; got {list(shape)}")
        absent = [name for name in self._every if name not in feed]
        if absent:
            raise FastcamError(f"{self._name}: input {absent[0]} is missing; give it")

    def _for(self, shapes: tuple[Any, ...]) -> _Compiled:
        with self._lock:
            key = shapes if shapes in self._compiled or len(self._compiled) < OWN_SHAPES else None
            if key not in self._compiled:
                self._compiled[key] = self._compile(key)
            return self._compiled[key]

    def _compile(self, shapes: tuple[Any, ...] | None) -> _Compiled:
        model = self._model
        try:
            if shapes is not None:
                model = model.clone()
                model.reshape({name: [*shape] for name, shape in shapes})
            return _Compiled(_core().compile_model(model, "CPU", self._config))
        except RuntimeError as error:
            raise FastcamError(f"{self._name}: OpenVINO cannot compile it ({_cause(error)})") from error


class _Compiled:
    """A compiled model, its requests, as many as runs have gone on at the same time, and memory for their outputs.

    A run writes its outputs where its caller reads them. That memory is written again once nobody holds an array of it.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._free, self._given = model, deque[Any](), deque[Any]()
        self._ports = [(port.get_element_type(), port.get_partial_shape()) for port in model.outputs]
        self._direct = all(shape.is_static and kind.get_type_name() in _SHARED for kind, shape in self._ports)

    def infer(self, values: Sequence[Any]) -> Any:
        """All outputs for the values of the inputs, in the model's order."""
        inputs = [_tensor(value) for value in values]
        try:
            request = self._free.pop()
        except IndexError:
            request = self._model.create_infer_request()
        try:
            for number, tensor in enumerate(inputs):
                request.set_input_tensor(number, tensor)
            if not self._direct:
                return request.infer(share_outputs=False)
            tensors = self._tensors()
            for number, tensor in enumerate(tensors):
                request.set_output_tensor(number, tensor)
            request.infer(share_outputs=True)
        finally:
            self._free.append(request)
        arrays = [tensor.data for tensor in tensors]
        if len(self._given) < OUTPUTS:
            self._given.append((tensors, [weakref.ref(array) for array in arrays]))
        return arrays

    def _tensors(self) -> list[Any]:
        """Memory that nobody reads any more, or new memory. A slice of an array holds the array."""
        import openvino

        for _ in range(len(self._given)):
            try:
                tensors, arrays = self._given.popleft()
            except IndexError:  # another thread has taken it
                break
            if all(array() is None for array in arrays):
                found: list[Any] = tensors
                return found
            self._given.append((tensors, arrays))
        return [openvino.Tensor(kind, shape.to_shape()) for kind, shape in self._ports]


def _tensor(value: Any) -> Any:
    """An array as OpenVINO takes it, without a copy where it can be read in order; it holds the array."""
    import openvino

    array = np.asarray(value)
    whole = array.flags.c_contiguous and array.flags.writeable  # OpenVINO shares no other
    return openvino.Tensor(array if whole else array.copy(), shared_memory=True)


def native_precisions() -> list[Precision]:
    """Types that OpenVINO computes in on this processor at no less than float32's speed, of "f32", "bf16" and "f16".

    Raises:
        FastcamError: OpenVINO is not installed.
    """
    able = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    named: dict[Precision, str] = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
    return [name for name, said in named.items() if said in able]


@functools.cache
def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise FastcamError(missing(OPENVINO_RUNTIME, ())) from error
    return openvino.Core()


def _open_targets(model: Any) -> dict[str, Any]:
    """Make an input of the constant that has become of ``fastcam.targets``, in place; its default by name."""
    import openvino
    from openvino import opset8

    for node in model.get_ops():
        if node.get_friendly_name() == TARGETS and node.get_type_name() == "Constant":
            default = node.get_data()
            given = opset8.parameter([-1] * default.ndim, openvino.Type.i64, name=TARGETS)
            given.output(0).set_names({TARGETS})
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(given.output(0))
            model.add_parameters([given])
            model.validate_nodes_and_infer_types()
            return {TARGETS: np.array(default)}
    return {}


def _input(port: Any) -> Value:
    return _value(port, port.get_node().get_friendly_name())


def _output(port: Any) -> Value:
    """An output by the file's name; a value that passes through several nodes has several."""
    names = port.get_names()
    said = port.get_node().get_friendly_name().rpartition("/sink_port_")[0]
    return _value(port, said if said in names else port.get_any_name())


def _value(port: Any, name: str) -> Value:
    shape = port.get_partial_shape()
    sides = [side.get_length() if side.is_static else None for side in shape] if shape.rank.is_static else []
    kind = port.get_element_type().get_type_name()
    return Value(name, sides, f"tensor({_TYPES.get(kind, kind)})")


def _cause(error: RuntimeError) -> str:
    """The last line of OpenVINO's message, which says what was wrong; those before say where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or ["no message"])[-1][:300].rstrip(" .")
