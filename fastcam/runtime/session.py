"""ONNX Runtime sessions of exported files: providers, threads, metadata, and errors a user can act on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import io
import os
import re
import sys
import warnings
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from types import FrameType, ModuleType, NoneType
from typing import Any, TypeAlias

from fastcam import cache
from fastcam.errors import FastcamError, shown, typed
from fastcam.runtime.engines.openvino import OpenVinoSession
from fastcam.runtime.engines.session_pool import SessionPool
from fastcam.runtime.providers import CPU as CPU
from fastcam.runtime.providers import (
    CUDA,
    DEFAULT,
    OPENVINO,
    OPENVINO_RUNTIME,
    TENSORRT,
    Settings,
    Shape,
    broken,
    compiled_for,
    refuse_free_shapes,
    refuse_unused,
    resolve_providers,
    short,
    takes,
    with_options,
)
from fastcam.runtime.providers import Providers as Providers
from fastcam.runtime.run_gate import RUNS
from fastcam.schema import METADATA_KEY, Metadata

MOST_THREADS = 1024
"""Of one run: ONNX Runtime starts them all, and a process has room for some thousands."""
Model: TypeAlias = "str | Path | bytes"


def onnxruntime() -> Any:
    """The onnxruntime module: whichever of its distributions is installed.

    Raises:
        FastcamError: none is.
    """
    try:
        import onnxruntime as ort

        ort.InferenceSession  # noqa: B018 - a half-removed installation imports as an empty namespace package
    except (ImportError, AttributeError) as error:
        raise FastcamError(
            "ONNX Runtime is not installed; run: pip install fastcam[cpu] (or fastcam[gpu] for NVIDIA)"
        ) from error
    return ort


def create_session(
    model: Model, providers: Providers = "auto", threads: int | None = None, settings: Settings = DEFAULT
) -> Any:
    """An ``onnxruntime.InferenceSession`` of an ONNX file or of its bytes.

    Args:
        providers: "auto" takes the best that is installed and runs (CUDA, OpenVINO, CPU) and warns of one that is
            installed and does not; or "cpu", "cuda", "tensorrt", "openvino", several joined by commas, or a list of
            names or (name, options) in order of preference, names as above or as ONNX Runtime has them: these must run.
            Single operators that a provider lacks run on the CPU (of TensorRT: on CUDA where that is there).
            "openvino-runtime", which must be alone, is OpenVINO itself: what comes back then has the methods of a
            session that FastCAM uses.
        threads: threads inside one operator; None leaves the choice to ONNX Runtime.
        settings: everything else.

    Raises:
        FastcamError: no such file, not ONNX, cut short, external data missing; a provider that is not installed or does
            not run; a setting that fits neither providers nor model.
    """
    ort = onnxruntime()
    typed("threads", threads, Integral | NoneType, "a whole number")
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise FastcamError(f"threads must be at least 1 and at most {MOST_THREADS}, got {threads}")
    if not isinstance(model, bytes):
        typed("model", model, str | os.PathLike, "the path of an exported ONNX file, or its bytes")
        check_file(Path(model))
        model = str(model)
    available = available_providers()
    chosen = resolve_providers(providers, available)
    if providers == "auto":
        return _first_that_runs(ort, model, chosen, threads, settings)
    names = [provider if isinstance(provider, str) else provider[0] for provider in chosen]
    if TENSORRT in names and CUDA not in names and CUDA in available:
        chosen.append(CUDA)
    session = _create(ort, model, chosen, threads, settings)
    absent = [name for name in names if name not in session.get_providers()]
    if absent:
        raise FastcamError(broken(absent[0]))
    return session


def available_providers() -> list[str]:
    """Names of the providers that are installed; whether they run here is seen when they are opened."""
    names: list[str] = onnxruntime().get_available_providers()
    return [*names, *([OPENVINO_RUNTIME] if importlib.util.find_spec("openvino") is not None else [])]


def _first_that_runs(ort: Any, model: Model, chosen: Sequence[str], threads: int | None, settings: Settings) -> Any:
    refuse_unused(settings, chosen)
    failed: list[str] = []
    for name in chosen:
        if not takes(settings, [name]):
            continue
        try:
            session = _create(ort, model, [name], threads, settings)
        except FastcamError:
            if name == chosen[-1]:  # as likely the model's fault
                raise
            session = None
        if session is None or name not in session.get_providers():
            failed.append(broken(name))
        elif name == OPENVINO and session.get_overridable_initializers():
            failed.append("openvino makes constants of inputs with a default; export with --targets required to use it")
        else:
            for reason in failed:
                warn_once(f"{reason}; going on with {short(name)}")
            return session
    raise FastcamError(failed[-1])


@functools.cache
def warn_once(text: str) -> None:
    """A warning, once in a process, that names the line outside this package that asked."""
    warnings.warn(text, stacklevel=_depth())


def _depth() -> int:
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "fastcam":
        level, frame = level + 1, frame.f_back
    return level


def _create(ort: Any, model: Model, chosen: Sequence[Any], threads: int | None, settings: Settings) -> Any:
    """A session with the providers ``chosen`` and their options, optimised models from the cache where that is set."""
    names = [provider if isinstance(provider, str) else provider[0] for provider in chosen]
    refuse_unused(settings, names)
    if OPENVINO_RUNTIME in names:
        return _openvino(model, chosen, threads, settings)
    if settings.sessions > 1 and threads != 1:
        one = dataclasses.replace(settings, sessions=1)
        return SessionPool(lambda: _create(ort, model, chosen, threads, one), settings.sessions)
    base = cache.root(settings.cache)
    if CUDA in names or TENSORRT in names:
        _preload(ort)
    inputs = _shapes(ort, model) if settings.batches is not None or settings.graph else {}
    refuse_free_shapes(settings, inputs)

    def folder(kind: str) -> Path:
        if kind == "timings":
            return cache.folder(base, kind)
        # not every engine's file says for which model, version of the runtime and options it was made
        digest, _ = cache.digest(model, base)
        about = repr((digest, ort.__version__, names, compiled_for(settings)))
        return cache.folder(base, kind, hashlib.sha256(about.encode()).hexdigest()[:32])

    providers = with_options(chosen, settings, threads, folder, inputs)

    wanted = f"ORT_ENABLE_{settings.optimization.upper()}"

    def make(path: Model, level: str = wanted, save: str = "") -> Any:
        options = _options(ort, threads, settings)
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        if save:
            options.optimized_model_filepath = save
        try:
            with RUNS:
                session = ort.InferenceSession(path, options, providers=providers, enable_fallback=0)
            [value.name for value in (*session.get_inputs(), *session.get_outputs())]
            return session
        except UnicodeDecodeError as error:
            raise FastcamError(f"{model_name(model)}: names in it are no text; copy or export it again") from error
        except ort_errors(ort) as error:
            raise FastcamError(f"{model_name(model)}: {_why(error)}") from error

    if settings.keep_optimized:
        about = [ort.__version__, ort.get_build_info(), chosen, compiled_for(settings)]
        save, load = functools.partial(make, model, wanted), functools.partial(make, level="ORT_DISABLE_ALL")
        session = cache.optimized(model, base, about, save, load)
        if session is not None:
            return session
    return make(model)


def _openvino(model: Model, chosen: Sequence[Any], threads: int | None, settings: Settings) -> Any:
    """A session of OpenVINO itself."""
    if len(chosen) > 1:
        raise FastcamError(f"{OPENVINO_RUNTIME} runs a whole file; give it as the only provider")
    options = {} if isinstance(chosen[0], str) else chosen[0][1]
    with RUNS:
        return OpenVinoSession(
            model if isinstance(model, bytes) else str(model), model_name(model), threads, settings, options
        )


def _options(ort: Any, threads: int | None, settings: Settings) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; the log would say it a second time on stderr
    if threads is not None:
        options.intra_op_num_threads = threads
    if settings.inter_threads is not None:
        options.inter_op_num_threads = settings.inter_threads
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    if not settings.spinning:
        for pool in ("intra_op", "inter_op"):
            options.add_session_config_entry(f"session.{pool}.allow_spinning", "0")
    if settings.spinning == "run":
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if settings.cores is not None:
        if threads is None or len(settings.cores) != threads - 1:
            wanted = (
                "threads" if threads is None else f"{threads - 1} for {threads} threads (the first is the caller's)"
            )
            raise FastcamError(f"cores has {len(settings.cores)} processor numbers; give {wanted}")
        cores = ";".join(str(core + 1) for core in settings.cores)  # ONNX Runtime counts from 1
        options.add_session_config_entry("session.intra_op_thread_affinities", cores)
    options.enable_cpu_mem_arena = settings.arena
    for name, size in (settings.fixed or {}).items():
        options.add_free_dimension_override_by_name(name, size)
    return options


def _shapes(ort: Any, model: Model) -> dict[str, Shape]:
    """Shape of each input that a run is given, by name."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        with RUNS:
            session = ort.InferenceSession(model, options, providers=[CPU])
        [value.name for value in session.get_inputs()]
    except ort_errors(ort) as error:
        raise FastcamError(f"{model_name(model)}: {_why(error)}") from error
    return {value.name: value.shape for value in (*session.get_inputs(), *session.get_overridable_initializers())}


@functools.cache
def _preload(ort: Any) -> None:
    """Load the CUDA and cuDNN libraries that pip installed beside ONNX Runtime, where this version can."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; the session will say it
            ort.preload_dlls()


def open_inputs(session: Any) -> set[str]:
    """Names of the inputs that a run may set. Of those with a default, TensorRT and OpenVINO make constants."""
    names = {value.name for value in session.get_inputs()}
    if {TENSORRT, OPENVINO} & {*session.get_providers()}:
        return names
    return names | {value.name for value in session.get_overridable_initializers()}


def model_name(model: Model) -> str:
    """How messages call the model."""
    return "the model given as bytes" if isinstance(model, bytes) else str(model)


def read_metadata(session: Any, name: str) -> Metadata:
    """What the export wrote into the file behind ``session``.

    Raises:
        FastcamError: it is a plain model, or its metadata cannot be read.
    """
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        source = name if name.endswith(".onnx") else "MODEL.onnx"
        raise FastcamError(f"{name} was not exported by FastCAM; run: fastcam export {source}")
    return Metadata.from_json(text)


def check_file(path: Path) -> None:
    """Raise a FastcamError for a path of no file, or of one that ONNX Runtime cannot be told of."""
    if not os.path.exists(path):  # Path.exists raises where a name is too long
        raise FastcamError(f"{shown(path)}: no such file; give the path of an exported ONNX file")
    if not path.is_file():
        raise FastcamError(f"{path}: not a file; give the path of an exported ONNX file")
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError as error:
        raise FastcamError(f"{shown(path)}: ONNX Runtime opens no file whose name is not UTF-8; rename it") from error


def ort_errors(ort: ModuleType) -> tuple[type[BaseException], ...]:
    """The exceptions of ONNX Runtime: siblings that derive from Exception and from nothing in common."""
    state = ort.capi.onnxruntime_pybind11_state
    kinds = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*kinds, RuntimeError, ValueError)


def one_line(error: BaseException) -> str:
    """The innermost cause in an ONNX Runtime message, behind its last ``[ONNXRuntimeError] : 7 : NAME :``."""
    text = " ".join(str(error).split())
    return re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", text)[-1][:300].rstrip(" .")


def _why(error: BaseException) -> str:
    """What is wrong with a model that ONNX Runtime refuses, and what to do."""
    text, kind = one_line(error), type(error).__name__
    missing = re.search(r'External data path does not exist: "([^"]*)"|GetFileLength for (\S+) failed', str(error))
    if missing:  # the second is ONNX Runtime 1.17's
        file = Path(missing[1] or missing[2]).name
        return f"its external data, {file}, is missing; put it beside the model and give the path"
    if "External initializer" in text or "External data" in text or "external data" in text:
        return f"its external data cannot be read or is cut short ({text}); copy it again"
    if "graph capture feature" in text:
        return (
            "a CUDA graph takes only operators that run on the GPU, and some of this file do not; export it with "
            "--for-engine cuda, or leave graph out"
        )
    if kind == "InvalidProtobuf" or "No graph was found" in text:
        return "not an ONNX file, or cut short; copy or export it again"
    if "ORT model verification failed" in text:
        return "not a file in ONNX Runtime's own format, or cut short; copy or export it again"
    return f"ONNX Runtime cannot load it ({text})"
