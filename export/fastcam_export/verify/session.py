"""The one place of the exporter that makes sessions of ONNX Runtime: quiet ones, on the CPU.

Reading and rewriting models goes without ONNX Runtime; only what runs one comes here.
"""

from __future__ import annotations

import re
from os import PathLike
from typing import TYPE_CHECKING, Any

import onnx

from fastcam.schema import FastcamError
from fastcam_export.graph import weights

if TYPE_CHECKING:
    import onnxruntime as ort

TAKES_A_FOLDER = (1, 20)
"""The version of ONNX Runtime from which bytes of a model may have weights in a folder that an option names."""
SILENT = 4
"""ONNX Runtime's severity "fatal": what fails is raised, and the log would say it a second time on stderr."""


def onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        FastcamError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise FastcamError(
            "an export runs the model to check its own result, and ONNX Runtime is not installed; "
            "run: pip install fastcam[cpu] (or fastcam[gpu] for NVIDIA)"
        ) from error
    return onnxruntime


def quiet_options(threads: int | None = None, plain: bool = False) -> ort.SessionOptions:
    """Options of a session that logs nothing and whose threads sleep between runs.

    Args:
        threads: threads inside one operator; None leaves the choice to ONNX Runtime.
        plain: run the graph as it is written: no operators are fused.
    """
    options: ort.SessionOptions = onnxruntime().SessionOptions()
    options.log_severity_level = SILENT
    if plain:
        options.graph_optimization_level = onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # results are the same with and without
    return options


def quiet_session(
    model: onnx.ModelProto | PathLike[str] | str, threads: int | None = None, plain: bool = False
) -> ort.InferenceSession:
    """A session of a model or file on the CPU, with :func:`quiet_options`.

    Weights that lie apart (:mod:`fastcam_export.graph.weights`) are mapped. Of more than one file can hold the runtime
    makes no copies for its kernels either.

    Raises:
        FastcamError: ONNX Runtime is not installed.
    """
    runtime, options = onnxruntime(), quiet_options(threads, plain)
    given: bytes | str
    if not isinstance(model, onnx.ModelProto):
        given = str(model)
    else:
        known = tuple(map(int, runtime.__version__.split(".")[:2])) >= TAKES_A_FOLDER
        given, folder = weights.runnable(model if known else weights.inside(model))
        if folder:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        if weights.size(model) > weights.FULL:
            options.add_session_config_entry("session.disable_prepacking", "1")
    return runtime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def save_optimised(path: PathLike[str], out: PathLike[str], without: list[str]) -> None:
    """Write a file's graph, as ONNX Runtime optimises it for the CPU, in its own format.

    Args:
        path: of the model; ``out`` is where the result goes.
        without: optimisers that are left out.

    Raises:
        FastcamError: ONNX Runtime is not installed.
    """
    options = quiet_options()
    options.optimized_model_filepath = str(out)
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=without)


def said(error: BaseException) -> str:
    """The reason that the runtime gives, in one line."""
    why = re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", " ".join(str(error).split()))[-1]
    return why[:200].rstrip(" .")
