"""Every public function, with arguments that mean nothing for it: a FastcamError of one line, or it works after all."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

import fastcam
import fastcam_export
from fastcam import Explainer, FastcamError, Preprocessing, Settings
from fastcam.concepts import concepts
from fastcam.results.method_sheet import methods_sheet
from fastcam_export import (
    export_captioner,
    export_model,
    exported,
    from_torch,
    inspect_model,
    triton_folders,
    vjp,
    write_slim,
    write_triton_repository,
)
from support.models.pyramid_model import pyramid


class Odd:
    """An object that nothing takes."""


PICTURE = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
VALUES: dict[str, Any] = {
    "None": None, "text": "x\0y", "number": 5, "negative": -3, "huge": 10**400, "NaN": math.nan, "list": [object()],
    "dict": {"a": 1}, "object": Odd(), "type": int, "arrays": np.full((2, 3), np.nan), "empty": np.zeros((2, 0)),
    "bytes": b"x",
}  # fmt: skip
MODULE = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU()).eval()
OPTIONS = {"layer", "output_name", "emit", "targets", "score", "preprocess", "labels", "output_layout", "check"}
OPTIONS |= {"for_engine", "input_gradient", "input_gradient_at", "inputs", "size", "order", "grid", "output", "model"}
"""Of an export: those whose refusal comes before any work."""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """By name: a function, and arguments that it takes."""
    file = tmp_path_factory.mktemp("walk") / "m.cam.onnx"
    export_model(pyramid()[0], file, layer=["r3", "r2"], preprocess="unit", emit="gradients", check=False)
    explainer = Explainer(file, threads=1)
    e, p = explainer(PICTURE, targets=[0, 1], layers="all"), explainer.predict(PICTURE)
    found: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "Explainer": (Explainer, {"model": file}),
        "__call__": (explainer.__call__, {"images": PICTURE}),
        "predict": (explainer.predict, {"images": PICTURE}),
        "explain": (explainer.explain, {"prediction": p}),
        "stream": (explainer.stream, {"frames": [PICTURE]}),
        "on_device": (explainer.on_device, {"images": PICTURE}),
        "at": (explainer.at, {"layer": "r2"}),
        "question": (explainer.question, {"cotangent": "x"}),
        "Preprocessing": (Preprocessing, {}),
        "Settings": (Settings, {}),
        "concepts": (concepts, {"explainer": explainer, "images": PICTURE, "count": 2}),
        "methods_sheet": (methods_sheet, {"found": [e]}),
        "exported": (exported, {"path": file}),
        "inspect_model": (inspect_model, {"model": pyramid()[0]}),
        "vjp": (vjp, {"model": pyramid()[0], "wrt": ["r3"], "of": ["logits"]}),
        "export_model": (export_model, {"model": pyramid()[0], "check": False}),
        "export_captioner": (export_captioner, {"model": pyramid()[0], "start": 1, "end": 2}),
        "triton_folders": (triton_folders, {"path": file, "repository": tmp_path_factory.mktemp("repository")}),
        "write_triton_repository": (
            write_triton_repository,
            {"path": file, "repository": tmp_path_factory.mktemp("repository")},
        ),
        "write_slim": (write_slim, {"path": file}),
        "from_torch": (from_torch, {"module": MODULE, "example_inputs": torch.zeros(1, 3, 8, 8), "layer": "nowhere"}),
    }
    for of in (e, p):
        for name, _ in inspect.getmembers(type(of), inspect.isfunction):
            if not name.startswith("_") or name == "__getitem__":
                found[f"{type(of).__name__}.{name}"] = getattr(of, name), {}
    return found


def outcome(call: Callable[[], Any]) -> str:
    """What is wrong with how a call ends; empty where nothing is."""
    try:
        result = call()
        for frame in islice(result, 3) if isinstance(result, Iterator) else ():
            if frame.error is not None:
                raise frame.error
    except FastcamError as error:
        return "several lines" if "\n" in str(error) else ""
    except IndexError:
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


NAMES = ["Explainer", "__call__", "predict", "explain", "stream", "on_device", "at", "question", "Preprocessing"]
NAMES += [
    "Settings",
    "concepts",
    "methods_sheet",
    "exported",
    "inspect_model",
    "vjp",
    "export_model",
    "export_captioner",
    "from_torch",
    "triton_folders",
    "write_slim",
    "write_triton_repository",
]
NAMES += ["Explanation", "Prediction"]


@pytest.mark.parametrize("name", NAMES)
def test_arguments_of_any_kind(name: str, functions: Any, recwarn: Any) -> None:
    wrong = {}
    before = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
    for own, (function, arguments) in functions.items():
        if own.partition(".")[0] != name:
            continue
        for argument in inspect.signature(function).parameters:
            if name in ("export_model", "inspect_model") and argument not in OPTIONS:
                continue
            for kind, value in VALUES.items():
                if name == "from_torch" and argument not in ("module", "example_inputs"):
                    continue
                given = {**arguments, argument: value}
                said = outcome(lambda function=function, given=given: function(**given))
                if "missing" in said and "required positional argument" in said:
                    continue
                if said:
                    wrong[f"{own}({argument}={kind})"] = said
    assert wrong == {}
    assert set("012") <= set(os.listdir("/proc/self/fd") if before else "012")  # a number is no file to be closed


def test_all_that_is_public_is_walked() -> None:
    walked = {*NAMES, "FastcamError", "__version__"}
    data = {"Export", "InspectedLayer", "InspectedValue", "Inspection", "UnsupportedOperator"}  # made by functions
    assert {*fastcam.__all__, *fastcam_export.__all__} <= walked | data
