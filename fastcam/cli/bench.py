"""``fastcam bench``: what an exported file costs on this machine, beside its own plain forward part."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcam.cli.shared.console import print_table, say
from fastcam.cli.shared.options import ExportedFile
from fastcam.errors import FastcamError
from fastcam.schema import COTANGENT, PREFIX, TARGETS

if TYPE_CHECKING:
    import onnx

EXAMPLES = (
    "fastcam bench resnet50.cam.onnx",
    "fastcam bench resnet50.cam.onnx --batch 1 --batch 8 --threads 4 --json",
)
TOP = 5
Row = dict[str, Any]


def bench(
    model: ExportedFile,
    batch: Annotated[
        list[int] | None, typer.Option(help="Pictures per run; repeatable.", show_default="1, or the file's own")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of ONNX Runtime.")] = 2,
    seconds: Annotated[float, typer.Option(help="Time for each batch size.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only, with all samples.")] = False,
) -> None:
    """Measure an exported file beside its own plain forward part: time, throughput and memory."""
    from fastcam.runtime.session import create_session, read_metadata

    if threads < 1 or seconds <= 0 or min(batch or [1]) < 1:
        raise FastcamError("--threads and --batch must be at least 1, --seconds above 0")
    session = create_session(model, threads=threads)
    pair = read_metadata(session, str(model)).pair
    if pair is not None and pair.part == "explanation":
        raise FastcamError(f"{model} is the explanation part of two files; give the forward part, {pair.other}")
    first = session.get_inputs()[0].shape[:1]
    sizes = batch or [first[0] if first and isinstance(first[0], int) else 1]
    del session
    with tempfile.TemporaryDirectory() as folder:
        plain = _write_plain(model, Path(folder), pair.extra if pair else ())
        what = "forward part" if pair else "explained"
        rows = [_measure(what, model, plain, size, threads, seconds) for size in sizes]
    report = {"model": str(model), "threads": threads, "seconds": seconds, "versions": _versions(), "results": rows}
    if as_json:
        typer.echo(json.dumps(report))
        return
    _print(report)


def _measure(what: str, model: Path, plain: Path, batch: int, threads: int, seconds: float) -> Row:
    """Both files in turns at one batch size; ``what`` is how the exported one's run is called."""
    import numpy as np

    from fastcam.runtime.timing import cpu_session, interleaved, peak_memory, random_feeds, summary

    base, exported = cpu_session(plain, threads), cpu_session(model, threads)
    feeds = random_feeds(exported, batch)
    own = {name: value for name, value in feeds.items() if not name.startswith((TARGETS, COTANGENT))}
    runs = {"plain": partial(base.run, None, own), what: partial(exported.run, None, feeds)}
    if TARGETS in {value.name for value in (*exported.get_inputs(), *exported.get_overridable_initializers())}:
        runs[f"{what}, top {TOP}"] = partial(exported.run, None, {**own, TARGETS: -np.arange(1, TOP + 1)[None]})
    wanted = runs["plain"]()
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(wanted, runs[what](), strict=False))
    samples = interleaved(runs, seconds)
    found = summary(samples, "plain")
    for name, row in found.items():
        row["images_per_second"] = round(batch / row["median_ms"] * 1e3, 1)
        row["samples_ms"] = [round(taken * 1e3, 3) for taken in samples[name]]
    memory = {}
    for name, path in (("plain", plain), (what, model)):
        used = peak_memory(path, batch, threads)
        memory[name] = round(used["peak"] - used["imports"], 1)
    return {"batch": batch, "same_outputs": same, "contestants": found, "memory_mb": memory}


def _print(report: Row) -> None:
    titles = ("batch", "run", "images/s", "median ms", "p99 ms", "times plain", "95 % interval", "memory MB")
    rows = []
    for result in report["results"]:
        for name, found in result["contestants"].items():
            low, high = found["ratio_95"]
            rows.append(
                (
                    str(result["batch"]),
                    name,
                    f"{found['images_per_second']:.1f}",
                    f"{found['median_ms']:.2f}",
                    f"{found['p99_ms']:.2f}",
                    f"{found['ratio']:.3f}",
                    "" if name == "plain" else f"{low:.3f} to {high:.3f}",
                    str(result["memory_mb"].get(name, "")),
                )
            )
    print_table(titles, rows)
    rounds = min(len(result["contestants"]["plain"]["samples_ms"]) for result in report["results"])
    runtime = f"ONNX Runtime {report['versions']['onnxruntime']}, CPU, {report['threads']} threads"
    say(f"{runtime}, random input; at least {rounds} rounds in random order, the ratio is the median over rounds.")
    say("plain: the same file without what FastCAM added. memory: of a fresh process, less what its imports need.")
    if not all(result["same_outputs"] for result in report["results"]):
        say("The model's own outputs differ in their last bits: the runtime fuses the two files differently.")


def _versions() -> dict[str, str]:
    from fastcam.runtime.session import onnxruntime
    from fastcam.schema import __version__

    return {"fastcam": __version__, "onnxruntime": onnxruntime().__version__}


def _write_plain(model: Path, folder: Path, extra: Collection[str]) -> Path:
    """The file without what the export added (``extra``: outputs of other names), as a file of its own."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise FastcamError(f"cutting out the plain forward part needs onnx ({error}); run: pip install onnx") from error
    try:
        proto = onnx.load(model)
    except (DecodeError, OSError) as error:
        raise FastcamError(f"{model}: onnx cannot read it ({' '.join(str(error).split())})") from error
    cut_added(proto, extra)
    path = folder / "plain.onnx"
    large = proto.ByteSize() > 2**30
    onnx.save(proto, path, save_as_external_data=large, location="plain.weights" if large else None)
    return path


def cut_added(proto: onnx.ModelProto, extra: Collection[str] = ()) -> None:
    """Remove FastCAM's inputs and outputs, and all that only they need, from a model in place."""
    graph = proto.graph
    for values in (graph.input, graph.output):
        kept = [value for value in values if not value.name.startswith(PREFIX) and value.name not in extra]
        del values[:]
        values.extend(kept)
    needed = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(_reads(node))
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    for weights in (graph.initializer, graph.sparse_initializer):
        used = [one for one in weights if getattr(one, "name", None) in needed or not hasattr(one, "name")]
        del weights[:]
        weights.extend(used)
    del graph.value_info[:]


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its subgraphs read from outside included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)
            yield from (value.name for value in graph.output)
