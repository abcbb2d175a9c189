"""``fastcam bench``: what an exported file costs on this machine, beside its own plain forward part."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcam.cli.shared.console import print_table, say
from fastcam.cli.shared.options import ExportedFile, ProfileName
from fastcam.errors import FastcamError
from fastcam.input_files import in_ort_format
from fastcam.schema import COTANGENT, PREFIX, TARGETS

if TYPE_CHECKING:
    import onnx

    from fastcam.runtime.profile import Choice, Goal

EXAMPLES = (
    "fastcam bench resnet50.cam.onnx",
    "fastcam bench resnet50.cam.onnx --batch 1 --batch 8 --threads 4 --json",
)
TOP = 5
"""Classes that a run is asked for beside the predicted one; of fewer all."""
Row = dict[str, Any]
START = """
import json, sys, time
model, values, images, threads = sys.argv[1:]
marks = [time.perf_counter()]
import numpy, onnxruntime
marks.append(time.perf_counter())
from fastcam import Explainer, FastcamError, Settings
Explainer
marks.append(time.perf_counter())
from fastcam.runtime.timing import own_peak
given = dict(numpy.load(values))
pictures = given.pop(images)
try:
    marks.append(time.perf_counter())
    explainer = Explainer(model, threads=int(threads), settings=Settings(spinning=False), inputs=given or None)
    marks.append(time.perf_counter())
    if pictures.dtype.itemsize == 1:
        pictures = [*pictures] if explainer.metadata.frames else pictures.astype(numpy.float32)
    explainer(pictures)
    marks.append(time.perf_counter())
except FastcamError as error:
    sys.exit(f"{error}")
first, needs, own, ready, session, mapped = (1e3 * (mark - marks[0]) for mark in marks)
took = {"numpy_onnxruntime": needs, "fastcam": own - needs, "session": session - ready, "first_map": mapped - session}
print(json.dumps({name: round(ms, 1) for name, ms in took.items()} | {"peak_mb": round(own_peak(), 1)}))
"""
"""A fresh process: imports, session, first map, each timed, and the largest resident size."""


def bench(
    model: ExportedFile,
    batch: Annotated[
        list[int] | None, typer.Option(help="Pictures per run; repeatable.", show_default="1, or the file's own")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of ONNX Runtime.", show_default="2; of tuned runs the profile's")
    ] = None,
    profile: ProfileName = "auto",
    seconds: Annotated[float, typer.Option(help="Time for each batch size.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only, with all samples.")] = False,
) -> None:
    """Measure an exported file beside its own plain forward part: time, throughput, memory and start.

    With a profile its choices are measured too, as tuned for latency and for throughput.
    """
    from fastcam.runtime.profile import GOALS, chosen
    from fastcam.runtime.session import create_session, read_metadata

    said, threads = threads, 2 if threads is None else threads
    if threads < 1 or not 0 < seconds < math.inf or min(batch or [1]) < 1:
        raise FastcamError("--threads and --batch must be at least 1, --seconds above 0")
    session = create_session(model, threads=threads)
    pair = read_metadata(session, str(model)).pair
    if pair is not None and pair.part == "explanation":
        raise FastcamError(f"{model} is the explanation part of two files; give the forward part, {pair.other}")
    first = session.get_inputs()[0].shape[:1]
    choices = {goal: choice for goal in GOALS if (choice := chosen(profile, model, goal)) is not None}
    fixed = [one for one in first if isinstance(one, int)]
    sizes = batch or fixed or sorted({1, *(choice.batch for choice in choices.values())})
    start = _start(model, session, sizes[0], threads)
    del session
    with tempfile.TemporaryDirectory() as folder:
        plain = None if in_ort_format(model) else _write_plain(model, Path(folder), pair.extra if pair else ())
        what = "forward part" if pair else "explained"
        rows = []
        for size in sizes:
            own = {goal: choice for goal, choice in choices.items() if batch or choice.batch == size}
            tuned = _tuned(model, own, said)
            rows.append(_measure(what, model, plain, size, threads, seconds, tuned))
    report = {"model": str(model), "threads": threads, "seconds": seconds, "versions": _versions(), "start": start}
    report |= {"results": rows, "profile": {goal: choice.title for goal, choice in choices.items()}}
    if as_json:
        typer.echo(json.dumps(report))
        return
    _print(report)


def _start(model: Path, session: Any, batch: int, threads: int) -> Row:
    """What a fresh process takes to its first map, in ms, and its peak in MB; or why that is not measured."""
    import numpy as np

    from fastcam.runtime.session import read_metadata
    from fastcam.runtime.timing import random_feeds

    about = read_metadata(session, str(model))
    feeds = _own(random_feeds(session, batch))
    with tempfile.TemporaryDirectory() as folder:
        values = Path(folder) / "values.npz"
        np.savez(values, **feeds)
        command = [sys.executable, "-c", START, str(model), str(values), about.input, str(threads)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        return {"not_measured": lines[-1]}
    found: Row = json.loads(done.stdout)
    return found


def _tuned(model: Path, choices: Mapping[Goal, Choice], threads: int | None) -> dict[str, tuple[Any, int]]:
    """Sessions as a profile has them, and how many runs go on at the same time, by what they are called."""
    from fastcam.runtime.profile import opening
    from fastcam.runtime.providers import DEFAULT
    from fastcam.runtime.session import create_session

    found = {}
    for goal, choice in choices.items():
        providers, of_run, _, settings = opening(choice, goal, "auto", threads, None, DEFAULT)
        found[f"tuned for {goal}"] = create_session(model, providers, of_run, settings), settings.sessions
    return found


def _measure(
    what: str,
    model: Path,
    plain: Path | None,
    batch: int,
    threads: int,
    seconds: float,
    tuned: Mapping[str, tuple[Any, int]],
) -> Row:
    """The file at one batch size, in turns with its plain part; ``what`` is how the exported one's run is called.

    Of sessions ``tuned`` to several runs at the same time the time of one is their time by their number.
    """
    import numpy as np

    from fastcam.runtime.session import read_metadata
    from fastcam.runtime.timing import cpu_session, interleaved, peak_memory, random_feeds, summary

    exported = cpu_session(model, threads)
    feeds = random_feeds(exported, batch)
    own, files = _own(feeds), {what: model}
    runs = {what: partial(exported.run, None, feeds)}
    if plain is not None:
        runs, files = {"plain": partial(cpu_session(plain, threads).run, None, own), **runs}, {"plain": plain, **files}
    top = min(TOP, read_metadata(exported, str(model)).score.classes or TOP)
    inputs = (*exported.get_inputs(), *exported.get_overridable_initializers())
    if top > 1 and TARGETS in {value.name for value in inputs}:
        runs[f"{what}, top {top}"] = partial(exported.run, None, {**own, TARGETS: -np.arange(1, top + 1)[None]})
    wanted = runs["plain"]() if plain is not None else ()
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(wanted, runs[what](), strict=False))
    with ThreadPoolExecutor(max([1, *(count for _, count in tuned.values())])) as pool:
        for name, (session, count) in tuned.items():
            run = partial(session.run, None, feeds)
            runs[name] = run if count == 1 else partial(_at_once, pool, run, count)
        samples = interleaved(runs, seconds)
    for name, (_, count) in tuned.items():
        samples[name] = [taken / count for taken in samples[name]]
    found = summary(samples, next(iter(runs)))
    for name, row in found.items():
        row["images_per_second"] = round(batch / row["median_ms"] * 1e3, 1)
        row["samples_ms"] = [round(taken * 1e3, 3) for taken in samples[name]]
        if plain is None:
            del row["ratio"], row["ratio_95"]
    memory = {}
    for name, path in files.items():
        used = peak_memory(path, batch, threads)
        memory[name] = round(used["peak"] - used["imports"], 1)
    return {"batch": batch, "same_outputs": same, "contestants": found, "memory_mb": memory}


def _at_once(pool: Executor, run: Callable[[], Any], count: int) -> None:
    for done in [pool.submit(run) for _ in range(count)]:
        done.result()


def _own(feeds: Row) -> Row:
    """The values of a model's own inputs."""
    return {name: value for name, value in feeds.items() if not name.startswith((TARGETS, COTANGENT))}


def _print(report: Row) -> None:
    titles = ("batch", "run", "images/s", "median ms", "p99 ms", "times plain", "95 % interval", "memory MB")
    rows = []
    for result in report["results"]:
        for name, found in result["contestants"].items():
            low, high = found.get("ratio_95", (None, None))
            rows.append(
                (
                    str(result["batch"]),
                    name,
                    f"{found['images_per_second']:.1f}",
                    f"{found['median_ms']:.2f}",
                    f"{found['p99_ms']:.2f}",
                    f"{found['ratio']:.3f}" if low else "",
                    "" if name == "plain" or not low else f"{low:.3f} to {high:.3f}",
                    str(result["memory_mb"].get(name, "")),
                )
            )
    print_table(titles, rows)
    rounds = min(len(one["samples_ms"]) for result in report["results"] for one in result["contestants"].values())
    runtime = f"ONNX Runtime {report['versions']['onnxruntime']}, CPU, {report['threads']} threads"
    say(f"{runtime}, random input; at least {rounds} rounds in random order, the ratio is the median over rounds.")
    plain = "the same file without what FastCAM added"
    if in_ort_format(Path(report["model"])):
        plain = "not measured, for a file in ONNX Runtime's own format cannot be cut; give the .onnx file"
    say(f"plain: {plain}. memory: of a fresh process, less what its imports need.")
    for goal, title in report["profile"].items():
        say(f"tuned for {goal}: {title}")
    _print_start(report["start"])
    if not all(result["same_outputs"] for result in report["results"]):
        say("The model's own outputs differ in their last bits: the runtime fuses the two files differently.")


def _print_start(start: Row) -> None:
    if "not_measured" in start:
        say(f"start: not measured ({start['not_measured']})")
        return
    imports = f"numpy and onnxruntime {start['numpy_onnxruntime']:.0f} ms, fastcam {start['fastcam']:.0f} ms"
    rest = f"session {start['session']:.0f} ms, first map {start['first_map']:.0f} ms"
    say(f"start of a fresh process: {imports}, {rest}; then its peak is {start['peak_mb']:.0f} MB.")


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
    for values, added in ((graph.input, (TARGETS, COTANGENT)), (graph.output, PREFIX)):
        kept = [value for value in values if not value.name.startswith(added) and value.name not in extra]
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
