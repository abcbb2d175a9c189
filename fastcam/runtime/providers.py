"""Which of ONNX Runtime's providers a session gets, and with which options; nothing here imports ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeAlias

from fastcam.errors import FastcamError, shown, typed

Provider: TypeAlias = "str | tuple[str, Mapping[str, Any]]"
Providers: TypeAlias = "str | Sequence[Provider]"
Shape: TypeAlias = "Sequence[int | str | None]"

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
Precision: TypeAlias = Literal["f32", "bf16", "f16"]
OPENVINO_RUNTIME = "openvino-runtime"
"""No provider of ONNX Runtime, but OpenVINO itself (:mod:`fastcam.runtime.engines.openvino`)."""
AUTO = (CUDA, OPENVINO, CPU)
"""What "auto" tries, in order. Not TensorRT, which builds engines for minutes: who wants that asks for it."""

_INSTALL = {
    CUDA: "pip install fastcam[gpu], and CUDA and cuDNN (pip install onnxruntime-gpu[cuda,cudnn])",
    TENSORRT: "pip install fastcam[gpu], and TensorRT, CUDA and cuDNN",
    OPENVINO: "pip install onnxruntime-openvino in place of onnxruntime, or use openvino-runtime",
    OPENVINO_RUNTIME: "pip install fastcam[openvino]",
}
_TARGETS = "fastcam.targets"


@dataclass(frozen=True)
class Settings:
    """How a session runs, beside its providers and its number of threads. One that no provider in use takes is refused.

    Attributes:
        device_id: which of several GPUs (CUDA, TensorRT).
        fp16: compute in float16 where the engine can (TensorRT; OpenVINO: in what it finds fastest). ONNX Runtime's CPU
            and CUDA compute in the file's types: give them a float16 file.
        int8: let TensorRT use int8, for files with QuantizeLinear, or with
        calibration: name of TensorRT's calibration table.
        batches: (least, usual, most) images per run, TensorRT's shape profile of a free batch.
        most_targets: most targets per image in that profile.
        size: (height, width) in it, where the file leaves them free.
        fixed: free dimensions of the file, by name, that are constant in this session.
        graph: record one CUDA graph of the run and replay it (CUDA, TensorRT); all inputs must have fixed shapes.
        stream: the CUDA stream to run on: its address, or an object of torch, CuPy or others that has one. It must
            outlive the session.
        memory_limit: most bytes that the arena on the GPU may hold (CUDA).
        arena: False gives memory back to the system after each run on the CPU.
        cache: folder of engines, timings and optimised models; None is FASTCAM_CACHE, or "fastcam" in the user's cache
            folder. It may be deleted at any time.
        keep_engines: keep what TensorRT and OpenVINO compile in that folder.
        keep_optimized: keep ONNX Runtime's optimised model there, for a faster start (CPU and CUDA).
        inter_threads: operators that run at the same time (CPU).
        spinning: False lets idle threads sleep at once: slower by some microseconds, and no power spent on waiting.
            "run" lets them spin as long as a run lasts, and sleep behind it: for a process that has its processors not
            for itself alone.
        cores: one processor number (from 0) per thread but the first, which is the caller's; needs ``threads``.
        sessions: runs that go on at the same time, each with ``threads`` threads; streams and batches use them. Of one
            thread they share one session of ONNX Runtime.
        optimization: what ONNX Runtime does to the graph: "all", "extended" (all but blocked layouts), or "basic".
        precision: "f32", "bf16" or "f16", what OpenVINO computes in (openvino-runtime); None is "f32".

    Raises:
        FastcamError: a value out of range.
    """

    device_id: int = 0
    fp16: bool = False
    int8: bool = False
    calibration: str | None = None
    batches: tuple[int, int, int] | None = None
    most_targets: int = 5
    size: tuple[int, int] | None = None
    fixed: Mapping[str, int] | None = None
    graph: bool = False
    stream: Any = None
    memory_limit: int | None = None
    arena: bool = True
    cache: str | Path | None = None
    keep_engines: bool = True
    keep_optimized: bool = False
    inter_threads: int | None = None
    spinning: bool | Literal["run"] = True
    cores: Sequence[int] | None = None
    sessions: int = 1
    optimization: Literal["all", "extended", "basic"] = "all"
    precision: Precision | None = None

    def __post_init__(self) -> None:
        self._check_types()
        wrong = next(self._wrong(), None)
        if wrong is not None:
            raise FastcamError(wrong)
        stream_address(self.stream)

    def _check_types(self) -> None:
        kinds: dict[str, Any] = {"device_id": Integral, "most_targets": Integral, "sessions": Integral}
        kinds |= {"memory_limit": Integral | NoneType, "inter_threads": Integral | NoneType}
        for name in kinds:
            typed(name, getattr(self, name), kinds[name], "a whole number")
        typed("optimization", self.optimization, str, "all, extended or basic")
        typed("precision", self.precision, str | NoneType, "f32, bf16 or f16")
        for name in ("batches", "size", "cores"):
            each = getattr(self, name)
            typed(name, each, list | tuple | range | NoneType, "whole numbers")
            for one in each or ():
                typed(name, one, Integral, "whole numbers")
        typed("fixed", self.fixed, Mapping | NoneType, "a dict of sizes by the names of dimensions")
        for one in (self.fixed or {}).values():
            typed("fixed", one, Integral, "whole numbers by the names of dimensions")

    def _wrong(self) -> Iterator[str]:
        """What is wrong with the values."""
        positive = {"most_targets": self.most_targets, "sessions": self.sessions}
        positive |= {"memory_limit": self.memory_limit or 1, "inter_threads": self.inter_threads or 1}
        positive |= {f"fixed[{name!r}]": size for name, size in (self.fixed or {}).items()}
        yield from (f"{name} must be at least 1, got {value}" for name, value in positive.items() if value < 1)
        if self.device_id < 0:
            yield f"device_id must be at least 0, got {self.device_id}"
        if self.batches is not None and not (
            len(self.batches) == 3 and 1 <= self.batches[0] <= self.batches[1] <= self.batches[2]
        ):
            yield f"batches are (least, usual, most) in ascending order from 1, got {self.batches}"
        if self.size is not None and not (len(self.size) == 2 and min(self.size) >= 1):
            yield f"size is (height, width), at least 1 each, got {self.size}"
        if self.calibration is not None and not self.int8:
            yield "calibration is a table for int8; set int8 too"
        if self.cores is not None and (not self.cores or min(self.cores) < 0):
            yield f"cores are processor numbers from 0, got {list(self.cores)}"
        if not (isinstance(self.spinning, bool) or (isinstance(self.spinning, str) and self.spinning == "run")):
            yield f'spinning is {self.spinning!r}; give True, False or "run"'
        if self.optimization not in ("all", "extended", "basic"):
            yield f"optimization is {self.optimization!r}; give all, extended or basic"
        if self.precision not in (None, "f32", "bf16", "f16"):
            yield f"precision is {self.precision!r}; give f32, bf16 or f16"


def stream_address(stream: Any) -> int | None:
    """The address of a CUDA stream: an integer, or of an object of torch (cuda_stream), CuPy (ptr) or with the protocol
    ``__cuda_stream__``.

    Raises:
        FastcamError: it is none, or CUDA's default stream, whose address 0 means "none" to ONNX Runtime.
    """
    if stream is None:
        return None
    address = stream
    if hasattr(stream, "__cuda_stream__"):  # (version of the protocol, address)
        found = stream.__cuda_stream__
        address = (found() if callable(found) else found)[1]
    elif not isinstance(stream, int):
        address = getattr(stream, "cuda_stream", getattr(stream, "ptr", None))
    if not isinstance(address, int) or isinstance(address, bool):
        raise FastcamError(
            f"stream is no CUDA stream ({type(stream).__name__}); give its address, or torch's or CuPy's object"
        )
    if address == 0:
        raise FastcamError(
            "ONNX Runtime cannot be given CUDA's default stream; make one (torch.cuda.Stream(), or "
            "cupy.cuda.Stream(non_blocking=True)) and work on it"
        )
    return address


def compiled_for(settings: Settings) -> tuple[Any, ...]:
    """Those of the settings that what is kept in the cache depends on."""
    kept = (settings.fp16, settings.int8, settings.calibration, settings.batches, settings.most_targets, settings.size)
    return (*kept, settings.graph, sorted((settings.fixed or {}).items()), settings.optimization)


DEFAULT = Settings()

_TAKEN_BY = {  # the rest is everyone's
    "device_id": (CUDA, TENSORRT),
    "fp16": (TENSORRT, OPENVINO),
    "int8": (TENSORRT,),
    "calibration": (TENSORRT,),
    "batches": (TENSORRT,),
    "graph": (CUDA, TENSORRT),
    "stream": (CUDA, TENSORRT),
    "memory_limit": (CUDA,),
    "keep_optimized": (CPU, CUDA),
    "precision": (OPENVINO_RUNTIME,),
}
_OF_ONNX_RUNTIME = {"fixed", "arena", "inter_threads", "cores", "optimization"}


def short(name: str) -> str:
    """ "CUDAExecutionProvider" -> "cuda"."""
    return name.lower().removesuffix("executionprovider")


def resolve_providers(providers: Providers, available: Sequence[str]) -> list[Any]:
    """ONNX Runtime's names of the ``providers`` (of "auto", all that it would try), in the same order.

    Args:
        providers: "auto"; a name ("cpu", "cuda", "tensorrt", "openvino" or as ONNX Runtime has it), several joined by
            commas, or a list of names and (name, options).
        available: what this installation of ONNX Runtime has.

    Raises:
        FastcamError: one of them is not in this installation.
    """
    typed("providers", providers, str | list | tuple, "names of providers")
    if providers == "auto":
        return [name for name in AUTO if name in available]
    if isinstance(providers, str):
        providers = [name.strip() for name in providers.split(",")]
    if not providers:
        raise FastcamError(f'no provider given; use "auto" or some of: {", ".join(map(short, available))}')
    known = {name.lower(): name for name in available} | {short(name): name for name in available}
    resolved: list[Any] = []
    for provider in providers:
        if not isinstance(provider, str) and not _with_options(provider):
            raise FastcamError(f"a provider is {shown(repr(provider))}; give a name, or (name, options)")
        name, *options = (provider,) if isinstance(provider, str) else provider
        found = known.get(str(name).lower())
        if found is None:
            raise FastcamError(missing(str(name), available))
        resolved.append((found, dict(options[0])) if options else found)
    return resolved


def _with_options(provider: Any) -> bool:
    """Whether it is (name,) or (name, options)."""
    pair = isinstance(provider, list | tuple) and 1 <= len(provider) <= 2 and isinstance(provider[0], str)
    return pair and all(isinstance(options, Mapping) for options in provider[1:])


def missing(name: str, available: Sequence[str]) -> str:
    """That a provider is not in this installation, and how to get it."""
    hint = next((hint for known, hint in _INSTALL.items() if short(known) == short(name)), None)
    hint = hint or "install the onnxruntime distribution that has it"
    return f"provider {name!r} is not in this ONNX Runtime, which has {', '.join(map(short, available))}; {hint}"


def broken(name: str, why: str = "") -> str:
    """That a provider which is installed does not run here, and what it may lack."""
    needs = {
        CUDA: "it needs an NVIDIA GPU with its driver, and CUDA and cuDNN of the version that this ONNX Runtime was "
        "built for (pip install onnxruntime-gpu[cuda,cudnn])",
        TENSORRT: "it needs an NVIDIA GPU with its driver, and TensorRT, CUDA and cuDNN of the versions that this ONNX "
        "Runtime was built for",
    }.get(name, "see its requirements in ONNX Runtime's documentation")
    return f"provider {short(name)!r} is installed but does not run here{f' ({why})' if why else ''}; {needs}"


def takes(settings: Settings, names: Sequence[str]) -> bool:
    """Whether every setting that differs from its default means something to one of the providers ``names``."""
    return _unused(settings, names) is None


def refuse_unused(settings: Settings, names: Sequence[str]) -> None:
    """Raise where :func:`takes` is false."""
    unused = _unused(settings, names)
    if unused is not None:
        who = " and ".join(map(short, _TAKEN_BY.get(unused, ()))) or "ONNX Runtime"
        raise FastcamError(
            f"{unused} is a setting of {who}, but the session runs on "
            f"{', '.join(map(short, names))}; leave it out, or choose other providers"
        )


def _unused(settings: Settings, names: Sequence[str]) -> str | None:
    changed = [each.name for each in fields(settings) if getattr(settings, each.name) != each.default]
    return next((name for name in changed if not _takers(name, names) & {*names}), None)


def _takers(name: str, names: Sequence[str]) -> set[str]:
    """Of the providers ``names`` and of those that are known, who takes a setting."""
    return {*_TAKEN_BY.get(name, names)} - ({OPENVINO_RUNTIME} if name in _OF_ONNX_RUNTIME else set())


def with_options(
    chosen: Sequence[Any],
    settings: Settings,
    threads: int | None,
    folder: Callable[[str], Path],
    inputs: Mapping[str, Shape],
) -> list[Any]:
    """``chosen`` with what ``settings`` mean to each; options that were given with a provider win.

    Args:
        chosen: from :func:`resolve_providers`.
        threads: of one operator, None for the engine's choice.
        folder: makes a folder of the cache, by name; called only where something is kept there.
        inputs: shape of each of the model's inputs, free dimensions as strings or None; used for TensorRT's profile.
    """
    made: list[Any] = []
    for provider in chosen:
        name, given = (provider, {}) if isinstance(provider, str) else provider
        options: dict[str, Any] = {}
        if name == CUDA:
            options = _cuda(settings)
        elif name == TENSORRT:
            options = _tensorrt(settings, folder, inputs)
        elif name == OPENVINO:
            options = _openvino(settings, threads, folder)
        options |= {key: value if isinstance(value, str) else str(value) for key, value in given.items()}
        made.append((name, options) if options else name)
    return made


def _cuda(settings: Settings) -> dict[str, str]:
    options = {"device_id": str(settings.device_id)} | _stream(settings)
    if settings.memory_limit is not None:  # an arena that doubles would reach the limit at half of it
        options |= {"gpu_mem_limit": str(settings.memory_limit), "arena_extend_strategy": "kSameAsRequested"}
    return options | ({"enable_cuda_graph": "1"} if settings.graph else {})


def _tensorrt(settings: Settings, folder: Callable[[str], Path], inputs: Mapping[str, Shape]) -> dict[str, str]:
    options = {"device_id": str(settings.device_id)} | _stream(settings)
    flags = {
        "trt_fp16_enable": settings.fp16,
        "trt_int8_enable": settings.int8,
        "trt_cuda_graph_enable": settings.graph,
    }
    options |= {name: "1" for name, wanted in flags.items() if wanted}
    if settings.calibration is not None:
        options["trt_int8_calibration_table_name"] = settings.calibration
    if settings.keep_engines:
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder("engines"))}
        options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder("timings"))}
    return options | profile(settings, inputs)


def _openvino(settings: Settings, threads: int | None, folder: Callable[[str], Path]) -> dict[str, str]:
    # without a precision OpenVINO computes in bfloat16 where the processor can, and maps differ in the third digit
    options = {} if settings.fp16 else {"precision": "ACCURACY"}
    if threads is not None:
        options["num_of_threads"] = str(threads)
    if settings.keep_engines:
        options["cache_dir"] = str(folder("openvino"))
    return options


def _stream(settings: Settings) -> dict[str, str]:
    address = stream_address(settings.stream)
    return {} if address is None else {"user_compute_stream": str(address)}


def profile(settings: Settings, inputs: Mapping[str, Shape]) -> dict[str, str]:
    """TensorRT's shape profile: the least, usual and largest shape of every input that has free dimensions.

    A free first dimension is the batch; the free second one of the targets input is their number; a free height and
    width are ``settings.size``. Without ``settings.batches`` there is no profile, and TensorRT builds an engine anew
    whenever a shape leaves the range that it has seen.

    Raises:
        FastcamError: a free dimension that none of this covers.
    """
    if settings.batches is None:
        return {}
    ranges: dict[str, list[str]] = {"min": [], "opt": [], "max": []}
    for name, shape in inputs.items():
        if all(isinstance(dim, int) for dim in shape):
            continue
        for kind, batch in zip(ranges, settings.batches, strict=True):
            dims = [_dim(settings, name, axis, shape, kind, batch) for axis in range(len(shape))]
            ranges[kind].append(f"{name}:{'x'.join(map(str, dims))}")
    return {f"trt_profile_{kind}_shapes": ",".join(shapes) for kind, shapes in ranges.items() if shapes}


def _dim(settings: Settings, name: str, axis: int, shape: Shape, kind: str, batch: int) -> int:
    dim = shape[axis]
    if isinstance(dim, int):
        return dim
    if isinstance(dim, str) and dim in (settings.fixed or {}):
        return (settings.fixed or {})[dim]
    if name == _TARGETS:  # one row may stand for all images
        return {"min": 1, "opt": 1 if axis else batch, "max": batch if axis == 0 else settings.most_targets}[kind]
    if axis == 0:
        return batch
    spatial = [a for a in range(1, len(shape)) if not isinstance(shape[a], int)]
    if len(shape) == 4 and settings.size is not None and len(spatial) <= 2:
        first = 1 if isinstance(shape[3], int) and shape[3] in (1, 3) else 2
        if first <= axis < first + 2:
            return settings.size[axis - first]
    raise FastcamError(
        f"input {name} has the free dimension {dim!r} at axis {axis}; set size, or fixed={{{dim!r}: ...}}"
    )


def refuse_free_shapes(settings: Settings, inputs: Mapping[str, Shape]) -> None:
    """Raise where CUDA graphs are wanted and an input could change its shape: a graph replays fixed addresses."""
    if not settings.graph:
        return
    for name, shape in inputs.items():
        free = [str(dim) for dim in shape if not isinstance(dim, int) and dim not in (settings.fixed or {})]
        if free:
            names = ", ".join(f"{dim!r}: ..." for dim in free)
            raise FastcamError(
                f"a CUDA graph needs fixed shapes, but input {name} has free dimensions; set fixed={{{names}}}"
            )
