"""ResNet-50 on the GPU of this machine: what an explanation costs beside the plain forward pass in the same runtime.

    python -m fastcam_bench.speed.pipeline_gpu [--seconds 3] [--json bench/results/kernels/pipeline_gpu.json]

Needs a GPU, onnxruntime with CUDA, CuPy and torch with CUDA; without them it says so in one line and ends with 2.
Contestants take turns as in :mod:`fastcam.runtime.timing`; every run is timed until the device has finished it, and
maps are compared before the clock starts. Weights are random from a seed.

- throughput, batch 64 in float16 and float32, input on the device, eight batches queued on a stream before anything is
  waited for: the plain file, the exported one (by default, and ``--for-engine cuda``, as all that follows), and that
  with the kernels, to boxes on the host; the same one batch at a time, with Explainer's call beside it, which brings
  everything to the host;
- the bus: the plain file from float32 on the host, and pictures uint8 from the host to boxes by a file with frames;
- latency of one image from and to the host, with and without CUDA graphs;
- pytorch-grad-cam, torch-cam and captum on the same GPU beside torch's plain forward pass, where they are installed;
- the largest batch (of 64, 128, 256, ...) that runs, plain and explained.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from fastcam import Explainer
from fastcam.explain.on_device import Resident
from fastcam.kernels import cuda
from fastcam.runtime import io_binding
from fastcam.runtime.providers import CUDA, Settings
from fastcam.runtime.session import create_session, onnxruntime
from fastcam.runtime.timing import interleaved, summary
from fastcam.schema import FastcamError
from fastcam_bench.models import networks
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.speed.kernels_gpu import device
from fastcam_bench.speed.networks import peers
from fastcam_export import export_model

BATCH = 64
TARGET = 1 / 0.95  # of plain's time: at least 0.95 of its throughput
LARGEST = 32768
HEADINGS = ("| run | median ms | p99 ms | times the first | 95 % |", "|---|---:|---:|---:|---|")
QUEUED = 8
TO_BOXES = "to boxes on the host"
PICTURE = (256, 256)  # what crosses the bus as uint8
Run = Callable[[], Any]
Row = dict[str, Any]


class Files:
    """The network in one precision: its module, the plain file, the one that an export makes by default, one for CUDA.

    Args:
        half: float16, weights, inputs and all; else float32.
    """

    def __init__(self, half: bool) -> None:
        self.dtype: Any = np.float16 if half else np.float32
        self.module = networks.module("resnet50")
        self.module = self.module.half() if half else self.module
        self.plain = to_onnx(self.module)
        self.usual = export_model(self.plain, preprocess="imagenet", check=False).model.SerializeToString()
        self.exported = self.export()

    def export(self, **options: Any) -> bytes:
        """The file for CUDA."""
        made = export_model(self.plain, preprocess="imagenet", for_engine="cuda", check=False, **options)
        model: bytes = made.model.SerializeToString()
        return model

    def images(self, n: int, seed: int = 0) -> Any:
        """Noise on the device, [n, 3, 224, 224]."""
        generator = torch.Generator("cuda").manual_seed(seed)
        made = torch.randn((n, 3, networks.SIZE, networks.SIZE), device="cuda", generator=generator)
        return made.to(torch.float16 if self.dtype == np.float16 else torch.float32).contiguous()


def to_onnx(module: torch.nn.Module) -> bytes:
    """The module's file with a free batch."""
    like = torch.zeros((2, 3, networks.SIZE, networks.SIZE), dtype=next(module.parameters()).dtype)
    axes = {"image": {0: "N"}, "logits": {0: "N"}}
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path, names = Path(folder) / "model.onnx", {"input_names": ["image"], "output_names": ["logits"]}
        torch.onnx.export(module, (like,), path, dynamo=False, opset_version=17, dynamic_axes=axes, **names)  # type: ignore[arg-type]
        return path.read_bytes()


def bound(session: Any, images: Any, same_stream: bool = False) -> Run:
    """A run whose input lies on the device and whose outputs stay there; of ``same_stream`` it does not wait."""
    names = [value.name for value in session.get_outputs()]
    given = {"image": io_binding.DeviceTensor(images)}
    return partial(io_binding.run, session, names, given, ("cuda", 0), names, same_stream)


def finished(run: Run) -> Run:
    """The run, until the device has done it."""

    def whole() -> None:
        run()
        torch.cuda.synchronize()

    return whole


def compare(runs: dict[str, Run], seconds: float) -> dict[str, Row]:
    """Time the runs side by side; ratios are to the first. Images per second are left to who knows the batch."""
    return summary(interleaved(runs, seconds), next(iter(runs)))


# --- what is measured ------------------------------------------------------------------------------------------------


def throughput(files: Files, seconds: float) -> Row:
    """Batches of 64 on the device, :data:`QUEUED` of them queued on one stream before anything is waited for."""
    x = files.images(BATCH)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    settings = Settings(stream=stream)
    explainer = Explainer(files.exported, "cuda", kernels="cuda", settings=settings)
    torch.cuda.synchronize()
    runs = {
        "plain": queued(bound(create_session(files.plain, "cuda", settings=settings), x, True), stream),
        "exported by default": queued(bound(create_session(files.usual, "cuda", settings=settings), x, True), stream),
        "exported for CUDA": queued(bound(create_session(files.exported, "cuda", settings=settings), x, True), stream),
        TO_BOXES: lambda: boxes([explainer.on_device(x, heatmaps=False) for _ in range(QUEUED)]),
        "to heatmaps that stay, boxes on the host": lambda: boxes([explainer.on_device(x) for _ in range(QUEUED)]),
    }
    found = compare(runs, seconds)
    for row in found.values():
        row["images_per_second"] = round(QUEUED * BATCH / row["median_ms"] * 1e3, 1)
    about = {"batch": BATCH, "queued": QUEUED, "dtype": np.dtype(files.dtype).name}
    return about | {"map_error": map_error(files, explainer, x), "runs": found}


def queued(run: Run, stream: Any) -> Run:
    """:data:`QUEUED` runs, then what they gave is waited for."""

    def whole() -> None:
        kept = [run() for _ in range(QUEUED)]
        stream.synchronize()
        del kept

    return whole


def boxes(found: list[Resident]) -> list[Any]:
    """The boxes of all batches, on the host."""
    return [one.explained.boxes() for one in found]


def waiting(files: Files, seconds: float) -> Row:
    """Batches of 64 on the device, each waited for."""
    x = files.images(BATCH)
    explainer = Explainer(files.exported, "cuda", kernels="cuda", batch_size=BATCH)
    runs = {
        "plain": bound(create_session(files.plain, "cuda"), x),
        "exported for CUDA": bound(create_session(files.exported, "cuda"), x),
        TO_BOXES: lambda: boxes([explainer.on_device(x, heatmaps=False)]),
        "to heatmaps that stay, boxes on the host": lambda: boxes([explainer.on_device(x)]),
        "Explainer, everything on the host": lambda: explainer(x),
    }
    return {"batch": BATCH, "dtype": np.dtype(files.dtype).name, "runs": compare(runs, seconds)}


def map_error(files: Files, explainer: Explainer, x: Any) -> float:
    """Largest difference of maps to torch autograd's in float32 without TF32, as a share of the maximum."""
    module = copy.deepcopy(files.module).float().cuda()
    kept: list[torch.Tensor] = []
    hook = module.get_submodule("layer4").register_forward_hook(lambda _m, _i, value: kept.append(value))
    images = x[:8].float()
    scores = module(images)
    hook.remove()
    ours = explainer.on_device(x[:8].contiguous())
    ours.explained.boxes()  # waits
    classes = torch.as_tensor(ours.classes)
    (gradient,) = torch.autograd.grad(scores.gather(1, classes).sum(), kept[0])
    maps = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1).relu()
    got = torch.as_tensor(ours.explained.maps)[:, 0]
    return round(float((got - maps).abs().max() / maps.max()), 6)


def bus(files: Files, seconds: float) -> Row:
    """Batch 64 from the host: floats into the plain file, pictures into one with frames."""
    explainer = Explainer(files.export(frames=PICTURE), "cuda", kernels="cuda", batch_size=BATCH)
    pictures = np.random.default_rng(0).integers(0, 256, (BATCH, *PICTURE, 3), np.uint8)
    x, session = files.images(BATCH).cpu().numpy(), create_session(files.plain, "cuda")
    runs = {
        "plain, floats from the host": lambda: session.run(None, {"image": x}),
        "uint8 frames from the host to boxes": lambda: boxes([explainer.on_device(pictures, heatmaps=False)]),
    }
    sizes = {"floats_mb": round(x.nbytes / 2**20, 1), "frames_mb": round(pictures.nbytes / 2**20, 1)}
    return {"batch": BATCH, "dtype": np.dtype(files.dtype).name, **sizes, "runs": compare(runs, seconds)}


def latency(files: Files, seconds: float) -> Row:
    """One image, NumPy to NumPy."""
    x = files.images(1).cpu().numpy()
    plain, fixed = create_session(files.plain, "cuda"), {"N": 1, "T": 1, "targets_n": 1}
    graphed = create_session(files.plain, "cuda", settings=Settings(graph=True, fixed=fixed))
    replay = io_binding.Replay(graphed, ("cuda", 0))
    native, on_gpu = Explainer(files.exported, "cuda"), Explainer(files.exported, "cuda", kernels="cuda")
    names = free_dimensions(files.exported)
    graph = Explainer(files.exported, "cuda", settings=Settings(graph=True, fixed=dict.fromkeys(names, 1)))
    runs = {
        "plain": lambda: plain.run(None, {"image": x}),
        "plain, CUDA graph": lambda: replay.run(["logits"], {"image": x}),
        "Explainer": lambda: native(x),
        "Explainer, CUDA kernels": lambda: on_gpu(x),
        "Explainer, CUDA graph": lambda: graph(x),
        "on_device to boxes": lambda: boxes([on_gpu.on_device(x, heatmaps=False)]),
    }
    error = float(np.abs(graph(x).maps - native(x).maps).max())
    return {"dtype": np.dtype(files.dtype).name, "graph_map_error": error, "runs": compare(runs, seconds)}


def free_dimensions(model: bytes) -> set[str]:
    """Names of the free dimensions of a file's inputs."""
    inputs = onnx.load_from_string(model).graph.input
    return {dim.dim_param for value in inputs for dim in value.type.tensor_type.shape.dim if dim.dim_param}


def beside_peers(files: Files, seconds: float, batch: int) -> Row:
    """From the input on the device to maps as each tool returns them; a tool that fails is named with its reason."""
    x, network = files.images(batch), networks.NETWORKS["resnet50"]
    module = files.module.cuda()
    explainer = Explainer(files.exported, "cuda", kernels="cuda")
    runs: dict[str, Run] = {"torch, plain forward": finished(partial(forward, module, x))}
    runs["FastCAM, plain file"] = bound(create_session(files.plain, "cuda"), x)
    runs["FastCAM"] = finished(lambda: explainer.on_device(x))
    failed: dict[str, str] = {}
    for kind in peers.PEERS:
        try:
            peer = kind(peers.twin(module), network)
            run = finished(partial(peer_maps, peer, x))
            run()
            runs[peer.name] = run
        except Exception as error:  # what a peer raises is its own affair; it is reported
            failed[kind.name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    found = compare(runs, seconds)
    module.cpu()
    return {"batch": batch, "dtype": np.dtype(files.dtype).name, "failed": failed, "runs": found}


def forward(module: torch.nn.Module, x: Any) -> Any:
    with torch.no_grad():
        return module(x)


def peer_maps(peer: peers.Peer, x: Any) -> Any:
    return peer.maps(x, peer.predict(x))


def largest_batch(files: Files, explained: bool) -> Row:
    """The largest power of two that runs, and what the next one said."""
    batch, found, said = BATCH, 0, ""
    while batch <= LARGEST and not said:
        try:
            x = files.images(batch)
            if explained:
                Explainer(files.exported, "cuda", kernels="cuda").on_device(x, heatmaps=True).explained.read()
            else:
                bound(create_session(files.plain, "cuda", settings=Settings()), x)()
            torch.cuda.synchronize()
            found, batch = batch, batch * 2
        except Exception as error:  # memory that is not there has as many names as there are allocators
            said = " ".join(f"{type(error).__name__}: {error}".split(" ; ")[0].split())[:200]
        x = None
        torch.cuda.empty_cache()
        cuda.get().cupy.get_default_memory_pool().free_all_blocks()
    return {"explained": explained, "dtype": np.dtype(files.dtype).name, "batch": found, "next": said}


# --- report ----------------------------------------------------------------------------------------------------------


def markdown(report: Row) -> str:
    """The report as tables."""
    made = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [f"# ResNet-50 on {report['gpu']}", "", f"`{report['command']}`; {made}.", ""]
    for title in ("throughput", "waiting", "bus", "latency", "peers"):
        for part in report[title]:
            head = ", ".join(f"{key} {part[key]}" for key in ("batch", "queued", "dtype", "map_error") if key in part)
            lines += [f"## {title}: {head}", "", *HEADINGS]
            for name, row in part["runs"].items():
                low, high = row["ratio_95"]
                figures = f"{row['median_ms']:.3f} | {row['p99_ms']:.3f} | {row['ratio']:.3f} | {low:.3f} to {high:.3f}"
                lines.append(f"| {name} | {figures} |")
            lines += ["", *(f"{name} did not run: {why}" for name, why in part.get("failed", {}).items()), ""]
    lines += ["## largest batch of powers of two", ""]
    for one in report["largest"]:
        what = "explained" if one["explained"] else "plain"
        lines.append(f"- {what}, {one['dtype']}: {one['batch']}; {one['next'] or 'the largest that was tried'}")
    ratio = report["throughput"][0]["runs"][TO_BOXES]["ratio"]
    share, verdict = 1 / ratio, "met" if ratio <= TARGET else "missed"
    lines += [
        "",
        f"Target: whole pipeline at batch 64, float16, at least 0.95 of plain's throughput: {share:.3f}, {verdict}.",
    ]
    return "\n".join(lines) + "\n"


def lacking() -> str:
    """What this machine lacks, or nothing."""
    if CUDA not in onnxruntime().get_available_providers():
        return "onnxruntime has no CUDA here; install onnxruntime-gpu"
    if not torch.cuda.is_available():
        return "torch has no CUDA here; install its CUDA build"
    try:
        cuda.get()
    except FastcamError as error:
        return str(error)
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="ResNet-50 on a GPU: an explanation beside the plain forward pass")
    parser.add_argument("--seconds", type=float, default=3.0, help="per comparison")
    parser.add_argument("--json", type=Path, help="where to write the figures; a table lies beside it")
    options = parser.parse_args(arguments)
    if why := lacking():
        print(why, file=sys.stderr)
        return 2
    command = f"python -m fastcam_bench.speed.pipeline_gpu --seconds {options.seconds:g} --json {options.json}"
    report: Row = {"command": command, "machine": machine()} | device(cuda.get().cupy)
    report["versions"] |= versions("torch", "onnxruntime-gpu", "grad-cam", "torchcam", "captum", "onnx")
    report["versions"]["onnxruntime"] = onnxruntime().__version__
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    half, single = Files(half=True), Files(half=False)
    steps: dict[str, list[Callable[[], Row]]] = {
        "throughput": [partial(throughput, files, options.seconds) for files in (half, single)],
        "waiting": [partial(waiting, files, options.seconds) for files in (half, single)],
        "bus": [partial(bus, single, options.seconds)],
        "latency": [partial(latency, files, options.seconds) for files in (half, single)],
        "peers": [partial(beside_peers, f, options.seconds, n) for f in (half, single) for n in (1, BATCH)],
        "largest": [partial(largest_batch, half, explained) for explained in (False, True)],
    }
    for title, parts in steps.items():
        report[title] = []
        for part in parts:
            report[title].append(part())
            print(title, report[title][-1], flush=True)
            if options.json:  # a run that is cut short keeps what it has
                write_report(report, options.json)
    if options.json:
        write_report(report, options.json, markdown)
    print(markdown(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
