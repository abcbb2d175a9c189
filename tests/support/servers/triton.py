"""A model repository of Triton's, read by Triton's published messages and run without Triton."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

TYPES = {"FP32": np.float32, "FP16": np.float16, "INT64": np.int64, "STRING": np.object_, "UINT8": np.uint8}


def messages() -> Any:
    """Triton's ``model_config_pb2``, without the rest of its client, which wants grpc."""
    client = importlib.util.find_spec("tritonclient")
    if client is None or not client.submodule_search_locations:
        pytest.skip("no tritonclient here: the configuration was not read by Triton's messages")
    file = Path(client.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_messages", file)
    assert isinstance(spec, ModuleSpec) and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configs(repository: Path) -> dict[str, Any]:
    """The configurations of a repository, as Triton's own parser reads them: unknown fields are errors."""
    from google.protobuf import text_format

    known = messages()
    found = {}
    for folder in sorted(repository.iterdir()):
        text = (folder / "config.pbtxt").read_text(encoding="utf-8")
        found[folder.name] = text_format.Parse(text, known.ModelConfig())
        assert found[folder.name].name == folder.name, "Triton wants a model's name to be its folder's"
    return found


class Tensor:
    """As of ``triton_python_backend_utils``."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array


class Request:
    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors

    def inputs(self) -> list[Tensor]:
        return self._tensors


class Response:
    def __init__(self, output_tensors: list[Tensor], error: Any = None) -> None:
        self.output_tensors, self.error = output_tensors, error


class Failed(Exception):
    """What a step says in place of tensors."""


class Repository:
    """Runs the models of a repository; what goes in and comes out of each must be what its configuration says."""

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        backend: Any = types.ModuleType("triton_python_backend_utils")
        backend.Tensor, backend.InferenceResponse, backend.TritonError = Tensor, Response, Failed
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
        self.folder, self.configs = folder, configs(folder)
        self.kinds = messages().DataType
        self._python: dict[str, Any] = {}

    def __call__(self, name: str, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        config = self.configs[name]
        given = {one.name for one in config.input if not one.optional} - set(feed)
        assert not given, f"{name} was not given {given}"
        self._check(config.input, config, feed)
        by = config.backend or config.platform
        found = {"onnxruntime": self._onnx, "python": self._steps, "ensemble": self._ensemble}[by](config, feed)
        assert set(found) == {one.name for one in config.output}
        self._check(config.output, config, found)
        return found

    def _check(self, tensors: Any, config: Any, arrays: dict[str, np.ndarray]) -> None:
        known = {one.name: one for one in tensors}
        for name, array in arrays.items():
            kind = self.kinds.Name(known[name].data_type).removeprefix("TYPE_")
            assert array.dtype == TYPES[kind], f"{config.name}: {name} is {array.dtype}"
            dims = [*known[name].dims] if not known[name].HasField("reshape") else [*known[name].reshape.shape]
            shape = array.shape[1:] if config.max_batch_size else array.shape
            fits = len(shape) == len(dims) and all(want in (-1, have) for want, have in zip(dims, shape))
            assert fits, f"{config.name}: {name} is {array.shape}"
            assert not config.max_batch_size or 1 <= len(array) <= config.max_batch_size

    def _onnx(self, config: Any, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        session = onnxruntime.InferenceSession(self.folder / config.name / "1" / "model.onnx",
                                               providers=["CPUExecutionProvider"])  # fmt: skip
        names = [one.name for one in config.output]
        return dict(zip(names, session.run(names, feed)))

    def _steps(self, config: Any, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (response,) = self.python(config.name).execute([Request([Tensor(*one) for one in feed.items()])])
        if response.error is not None:
            raise response.error
        return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors}

    def python(self, name: str) -> Any:
        """The model of a ``model.py``, opened as Triton opens it."""
        from google.protobuf import json_format

        if name not in self._python:
            file = self.folder / name / "1" / "model.py"
            space: dict[str, Any] = {}
            exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), space)
            self._python[name] = space["TritonPythonModel"]()
            said = json.loads(json_format.MessageToJson(self.configs[name], preserving_proto_field_name=True))
            self._python[name].initialize({"model_config": json.dumps(said), "model_name": name, "model_version": "1",
                                           "model_repository": str(self.folder / name)})  # fmt: skip
        return self._python[name]

    def _ensemble(self, config: Any, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = dict(feed)
        for step in config.ensemble_scheduling.step:
            wanted = {key: values[value] for key, value in step.input_map.items() if value in values}
            for key, array in self(step.model_name, wanted).items():
                if key in step.output_map:
                    assert step.output_map[key] not in values, "two tensors of an ensemble have one name"
                    values[step.output_map[key]] = array
        return {one.name: values[one.name] for one in config.output}
