"""Explain on demand: what a frame costs that nobody asks about, and what it costs to ask.

    python -m fastcam_bench.speed.on_demand [--out FILE] [--seconds S] [--threads T] [--only NAME ...]

Contestants, interleaved, as multiples of the plain forward pass: the export in one file; the forward part of the export
in two (``on_demand=True``), the same and the explanation part, the explanation part alone; and the other design, one
file in which an If computes the explanation where an input says so, with that input false and true. Asked later, this
one has to run the model again: only the pair keeps what the forward pass has computed. ONNX Runtime, CPU, threads that
do not spin; torchvision's networks with random weights. Outputs are compared before the clock starts. Beside the clock
stands the time of the processor in all threads, which other work on the machine disturbs least. Memory is the peak of a
fresh process that loads the files and runs them once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fastcam.runtime.timing import Laps, Run, cpu_session, interleaved, summary
from fastcam.schema import PREFIX
from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.oracles.torch_oracle import Array, difference
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

OUTPUT = RESULTS / "speed" / "on_demand.json"
CASES = {
    "resnet50": ("resnet50", "auto", (1,)),
    "mobilenet_v2": ("mobilenet_v2", "auto", (1, 8)),
    "resnet50 layer3": ("resnet50", "layer3", (1,)),
    "vgg16": ("vgg16", "auto", (1,)),
}
"""Title -> torchvision's name, layer, batch sizes."""
EXPLAIN = PREFIX + "explain"
SIZE = 224
Row = dict[str, Any]


def conditional(whole: onnx.ModelProto) -> onnx.ModelProto:
    """An export in one file as one with an If around what was added; the boolean input defaults to true."""
    model = onnx.ModelProto()
    model.CopyFrom(whole)
    graph = model.graph
    added = [node for node in whole.graph.node if node.name.startswith(PREFIX)]
    outputs = [value for value in graph.output if value.name.startswith(PREFIX)]
    kept = [node for node in whole.graph.node if not node.name.startswith(PREFIX)]
    del graph.node[:]
    graph.node.extend(kept)
    then, otherwise = [], []
    for value in outputs:
        kind, rank = value.type.tensor_type.elem_type, len(value.type.tensor_type.shape.dim)
        value.type.tensor_type.ClearField("shape")
        then.append(helper.make_tensor_value_info(f"{value.name}.then", kind, None))
        added.append(helper.make_node("Identity", [value.name], [f"{value.name}.then"]))
        empty = numpy_helper.from_array(np.zeros((0,) * rank, helper.tensor_dtype_to_np_dtype(kind)))
        otherwise.append(helper.make_node("Constant", [], [f"{value.name}.else"], value=empty))
    empties = [helper.make_tensor_value_info(f"{v.name}.else", v.type.tensor_type.elem_type, None) for v in outputs]
    branches = {
        "then_branch": helper.make_graph(added, "then", [], then),
        "else_branch": helper.make_graph(otherwise, "else", [], empties),
    }
    graph.node.append(helper.make_node("If", [EXPLAIN], [v.name for v in outputs], f"{PREFIX}if", **branches))
    graph.input.append(helper.make_tensor_value_info(EXPLAIN, onnx.TensorProto.BOOL, []))
    graph.initializer.append(numpy_helper.from_array(np.array(True), EXPLAIN))
    return model


class PairOfSessions:
    """The forward part, and the explanation part of what it has left."""

    def __init__(self, forward: Path, explanation: Path, threads: int) -> None:
        self.sessions = [cpu_session(path, threads) for path in (forward, explanation)]
        self.names = [[value.name for value in session.get_outputs()] for session in self.sessions]
        self.taken = [value.name for value in self.sessions[1].get_inputs()]

    def forward(self, given: dict[str, Any]) -> dict[str, Any]:
        """All values by name."""
        return given | dict(zip(self.names[0], self.sessions[0].run(self.names[0], given)))

    def explain(self, values: dict[str, Any]) -> dict[str, Array]:
        """The explanation's outputs by name."""
        found = self.sessions[1].run(self.names[1], {name: values[name] for name in self.taken})
        return dict(zip(self.names[1], found))


def write_files(title: str, folder: Path) -> tuple[dict[str, list[Path]], Row]:
    """The files of every design, and their sizes."""
    name, layer, _ = CASES[title]
    source = folder / f"{name}.onnx"
    if not source.exists():
        onnx.save(oracle.to_onnx(oracle.build(name), dynamo=False), source)
    whole = export_model(source, folder / "one.cam.onnx", layer=layer, check=False)
    pair = export_model(source, folder / "pair.cam.onnx", layer=layer, on_demand=True, check=False)
    onnx.save(conditional(whole.model), folder / "if.onnx")
    files = {"plain": [source], "one file": [folder / "one.cam.onnx"], "pair": list(pair.files)}
    files["If"] = [folder / "if.onnx"]
    sizes = {design: sum(path.stat().st_size for path in paths) for design, paths in files.items()}
    assert pair.metadata.pair is not None
    row = {
        "layer": pair.metadata.layer.value,
        "file_bytes": sizes,
        "size_ratio": {design: round(size / sizes["plain"], 4) for design, size in sizes.items()},
        "pair_bytes": [path.stat().st_size for path in pair.files],
        "extra_outputs": len(pair.metadata.pair.extra),
    }
    return files, row


def contestants(files: dict[str, list[Path]], batch: int, threads: int) -> tuple[dict[str, Run], Row]:
    """What is timed, and what was compared before."""
    sessions = {design: cpu_session(files[design][0], threads) for design in ("plain", "one file", "If")}
    image = sessions["plain"].get_inputs()[0].name
    feeds = {image: np.random.default_rng(0).standard_normal((batch, 3, SIZE, SIZE)).astype(np.float32)}
    *_, explanation, forward = files["pair"]
    pair = PairOfSessions(forward, explanation, threads)
    left = pair.forward(feeds)
    runs: dict[str, Run] = {
        "plain": partial(sessions["plain"].run, None, feeds),
        "one file": partial(sessions["one file"].run, None, feeds),
        "forward part": partial(pair.forward, feeds),
        "forward and explanation": lambda: pair.explain(pair.forward(feeds)),
        "explanation alone": lambda: pair.explain(left),
        "If false": partial(sessions["If"].run, None, feeds | {EXPLAIN: np.array(False)}),
        "If true": partial(sessions["If"].run, None, feeds | {EXPLAIN: np.array(True)}),
    }
    own = [value.name for value in sessions["plain"].get_outputs()]
    plain = runs["plain"]()
    whole = dict(zip([value.name for value in sessions["one file"].get_outputs()], runs["one file"]()))
    found = {name: runs[name]() for name in ("one file", "If false", "If true")}
    found["forward part"] = [left[name] for name in own]
    added = {name: whole[name] for name in whole if name.startswith(PREFIX)}
    ours, theirs = pair.explain(left), found["If true"][len(own) :]
    return runs, {
        "outputs_equal_plain": {
            name: all(map(np.array_equal, values[: len(own)], plain)) for name, values in found.items()
        },
        "difference_to_one_file": {
            "pair": max(difference(ours[name], added[name]) for name in added),
            "If": max(map(difference, theirs, added.values())),
        },
    }


def memory(files: list[Path], batch: int, threads: int) -> float:
    """MB that a fresh process needs at its peak to load the files and run them once, above its imports."""
    command = [sys.executable, "-m", "fastcam_bench.speed.on_demand", "--memory", *map(str, files)]
    command += [f"--threads={threads}", f"--batch={batch}"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _print_memory(files: list[Path], batch: int, threads: int) -> None:
    def peak() -> float:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    before = peak()
    images = np.random.default_rng(0).standard_normal((batch, 3, SIZE, SIZE)).astype(np.float32)
    if len(files) == 2:
        pair = PairOfSessions(files[0], files[1], threads)
        pair.explain(pair.forward({pair.sessions[0].get_inputs()[0].name: images}))
    else:
        session = cpu_session(files[0], threads)
        session.run(None, {session.get_inputs()[0].name: images})
    print(round(peak() - before, 1))


def _processor(run: Run) -> Laps:
    start = time.process_time()
    run()
    return Laps(processor=time.process_time() - start)


def measure(title: str, seconds: float, threads: int) -> Row:
    """One case."""
    with tempfile.TemporaryDirectory() as folder:
        files, row = write_files(title, Path(folder))
        *_, explanation, forward = files["pair"]
        processes = {**files, "forward part": [forward], "pair": [forward, explanation]}
        row["batches"] = []
        for batch in CASES[title][2]:
            used = {name: memory(paths, batch, threads) for name, paths in processes.items()}
            runs, compared = contestants(files, batch, threads)
            samples = interleaved({name: partial(_processor, run) for name, run in runs.items()}, seconds)
            timed = summary({name: samples[name] for name in runs}, "plain")
            used_up = summary({name: samples[f"{name}, processor"] for name in runs}, "plain")
            found = {"memory_mb": used, "contestants": timed, "processor": used_up}
            row["batches"].append({"batch": batch, **compared, **found})
            print(title, batch, {name: (timed[name]["ratio"], used_up[name]["ratio"]) for name in runs}, flush=True)
    return {"case": title, **row}


def table(report: Row) -> str:
    """Markdown."""
    names = [name for name in report["results"][0]["batches"][0]["contestants"] if name != "plain"]
    lines = [
        "# Explain on demand",
        "",
        f"`{report['command']}`, ONNX Runtime {report['versions']['onnxruntime']}, CPU, {report['threads']} threads,",
        f"{report['machine']['cpu']}. Multiples of the plain forward pass: medians of the ratios of interleaved rounds",
        "and their 95 % interval, by the clock and by the time of the processor in all threads. An If that is asked",
        "later costs both its columns, because it runs the model again.",
        "",
        f"| network | batch | by | plain ms | {' | '.join(names)} |",
        f"|---|---:|---|---:|{'---:|' * len(names)}",
    ]
    for result in report["results"]:
        for row in result["batches"]:
            for by, found in (("clock", row["contestants"]), ("processor", row["processor"])):
                ends = {name: "-".join(f"{end:.2f}" for end in found[name]["ratio_95"]) for name in names}
                cells = [f"{found[name]['ratio']:.3f} ({ends[name]})" for name in names]
                plain = found["plain"]["median_ms"]
                lines.append(f"| {result['case']} | {row['batch']} | {by} | {plain:.1f} | {' | '.join(cells)} |")
    lines += [
        "",
        "Files as a share of the source's size, the pair with the file of constants that both parts read; outputs that",
        "the forward part has more than the source; peak memory in MB of a process that loads the files and runs them",
        "once (the forward part beside the whole pair):",
        "",
        "| network | batch | size: one file | pair | If | outputs | MB: plain | one file | forward part | pair | If |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for result in report["results"]:
        for row in result["batches"]:
            sizes = [f"{result['size_ratio'][design]:.3f}" for design in ("one file", "pair", "If")]
            used = [f"{row['memory_mb'][d]:.0f}" for d in ("plain", "one file", "forward part", "pair", "If")]
            cells = [*sizes, str(result["extra_outputs"]), *used]
            lines.append(f"| {result['case']} | {row['batch']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Explain on demand, two designs.")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--seconds", type=float, default=20.0, help="per network and batch size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=CASES, help="these networks; the others' results are kept")
    parser.add_argument("--memory", nargs="+", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        _print_memory(options.memory, options.batch, options.threads)
        return
    results = {}
    if options.only and options.out.exists():
        results = {row["case"]: row for row in json.loads(options.out.read_text(encoding="utf-8"))["results"]}
    for title in options.only or CASES:
        results[title] = measure(title, options.seconds, options.threads)
        report = {
            "command": "python -m fastcam_bench.speed.on_demand",
            "versions": versions("fastcam", "onnxruntime", "onnx", "torch"),
            "machine": machine(),
            "threads": options.threads,
            "seconds": options.seconds,
            "results": [results[case] for case in CASES if case in results],
        }
        write_report(report, options.out, table)


if __name__ == "__main__":
    main()
