"""ONNX Runtime sessions of exported files: providers, threads, metadata, and errors a user can act on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from fastcam.schema import METADATA_KEY, FastcamError, Metadata

Model: TypeAlias = "str | Path | bytes"
Provider: TypeAlias = "str | tuple[str, Mapping[str, Any]]"
Providers: TypeAlias = "str | Sequence[Provider]"

CPU = "CPUExecutionProvider"


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


def create_session(model: Model, providers: Providers = "auto", threads: int | None = None) -> Any:
    """An ``onnxruntime.InferenceSession`` of an ONNX file or of its bytes.

    Args:
        providers: "auto" and "cpu" take the CPU; or one name, or a list of names or (name, options) pairs in order of
            preference, as ONNX Runtime knows them ("CUDAExecutionProvider", or short "cuda").
        threads: threads inside one operator; None leaves the choice to ONNX Runtime.

    Raises:
        FastcamError: no such file, not ONNX, cut short, external data missing, a provider that is not there.
    """
    ort = onnxruntime()
    chosen = resolve_providers(providers, ort.get_available_providers())
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; the log would say it a second time on stderr
    if threads is not None:
        if threads < 1:
            raise FastcamError(f"threads must be at least 1, got {threads}")
        options.intra_op_num_threads = threads
    name = model_name(model)
    if not isinstance(model, bytes):
        _check_file(Path(model))
        model = str(model)
    try:
        return ort.InferenceSession(model, options, providers=chosen)
    except ort_errors(ort) as error:
        raise FastcamError(f"{name}: {_why(error)}") from error


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


def resolve_providers(providers: Providers, available: Sequence[str]) -> list[Any]:
    """ONNX Runtime's names of ``providers``, in the same order.

    Raises:
        FastcamError: one of them is not in this installation.
    """
    if isinstance(providers, str):
        providers = [CPU] if providers in ("auto", "cpu") else [providers]
    if not providers:
        raise FastcamError(f'no provider given; use "auto" or some of: {", ".join(available)}')
    known = {name.lower(): name for name in available}
    known |= {name.lower().removesuffix("executionprovider"): name for name in available}
    resolved: list[Any] = []
    for provider in providers:
        name, *options = (provider,) if isinstance(provider, str) else provider
        found = known.get(str(name).lower())
        if found is None:
            raise FastcamError(_missing_provider(str(name), available))
        resolved.append((found, dict(options[0])) if options else found)
    return resolved


def _missing_provider(name: str, available: Sequence[str]) -> str:
    gpu = any(word in name.lower() for word in ("cuda", "tensorrt"))
    hint = "pip install fastcam[gpu]" if gpu else "install the onnxruntime distribution that has it"
    return f"provider {name!r} is not in this ONNX Runtime, which has {', '.join(available)}; {hint}"


def _check_file(path: Path) -> None:
    if not path.exists():
        raise FastcamError(f"{path}: no such file; give the path of an exported ONNX file")
    if not path.is_file():
        raise FastcamError(f"{path}: not a file; give the path of an exported ONNX file")


def ort_errors(ort: ModuleType) -> tuple[type[BaseException], ...]:
    """The exceptions of ONNX Runtime: siblings that derive from Exception and from nothing in common."""
    state = ort.capi.onnxruntime_pybind11_state
    kinds = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*kinds, RuntimeError)


def one_line(error: BaseException) -> str:
    """The innermost cause in an ONNX Runtime message, behind its last ``[ONNXRuntimeError] : 7 : NAME :``."""
    text = " ".join(str(error).split())
    return re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", text)[-1][:300].rstrip(" .")


def _why(error: BaseException) -> str:
    """What is wrong with a model that ONNX Runtime refuses, and what to do."""
    text, kind = one_line(error), type(error).__name__
    missing = re.search(r'External data path does not exist: "([^"]*)"', str(error))
    if missing:
        return f"its external data, {Path(missing[1]).name}, is missing; put it beside the model and give the path"
    if "External initializer" in text or "External data" in text or "external data" in text:
        return f"its external data cannot be read or is cut short ({text}); copy it again"
    if kind == "InvalidProtobuf" or "No graph was found" in text:
        return "not an ONNX file, or cut short; copy or export it again"
    return f"ONNX Runtime cannot load it ({text})"
