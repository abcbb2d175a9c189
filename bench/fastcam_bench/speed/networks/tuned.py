"""From picture to boxes with a tuned profile, beside the fastest plain forward pass of any engine.

    python -m fastcam_bench.speed.networks.tuned [--only NAME ...] [--resume] [--seconds S] [--tune S] [--out FILE]

Each of torchvision's twelve networks is measured in a process of its own, in the environment that has OpenVINO: its
export is tuned (``fastcam tune``), then contestants take turns in random order. Plain passes have the network's input
ready: ONNX Runtime (threads spin, or sleep), OpenVINO in float32 and bfloat16, PyTorch as it is and compiled. The tuned
Explainer begins at pictures of 640 x 480, uint8 in memory, and ends at boxes. Batch 1 is a call with the choice for
latency; each turn makes one that does not count before the one that does. Batch 8 is two plain passes one after the
other, and a stream of four batches with the choice for throughput. Ratios are of a picture's times in a round, to the
plain pass with the smallest median. --resume keeps networks that the file has already. All twelve take half an hour.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastcam import Explainer
from fastcam.runtime.session import create_session
from fastcam.runtime.timing import Run, cpu_session, interleaved, summary
from fastcam.tuning.tune import tune
from fastcam_bench.models.networks import NETWORKS
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS
from fastcam_bench.speed.networks import environments

OUTPUT = RESULTS / "speed" / "tuned.json"
NAMES = tuple(name for name, network in NETWORKS.items() if network.layer)
BATCHES = {1: (1, 1), 8: (2, 4)}
"""Pictures of a run, plain runs of a round, and batches of the tuned one."""
TUNED = "tuned, picture to boxes"
TORCH = ("PyTorch", "PyTorch, compiled")
TARGET = 1.10
PAUSE = 0.02  # longer than the threads of one contestant spin into the next one's time
LEAST = 5
LIMIT = 1800.0
Row = dict[str, Any]


def measure(name: str, seconds: float, tuning: float, threads: int) -> Row:
    """One network: its profile, and for each batch size all contestants."""
    import torch

    from fastcam_bench.models import networks
    from fastcam_bench.oracles import torch_oracle as oracle
    from fastcam_bench.speed.networks import contestants

    torch.set_num_threads(threads)
    network, made = NETWORKS[name], networks.module(name)
    source = networks.onnx_file(name, made)
    assert source is not None
    exported, about = contestants.exported_file(name, network, source)
    found = tune(exported, seconds=tuning)
    found.write()
    row: Row = {"title": network.title, "chosen": {goal: one.choice.title for goal, one in found.chosen.items()}}
    row |= {"weights_read": about["weights_read"], "candidates": [one.to_dict() for one in found.rows]}
    row |= {"failed": {}, "batches": {}}
    for batch, (rounds, batches) in BATCHES.items():
        images = oracle.pictures(batch)
        runs: dict[str, Run] = {key: _times(run, rounds) for key, run in engines(source, images, threads).items()}
        given = torch.from_numpy(images)
        runs["PyTorch"] = _times(partial(_inferred, made, given), rounds)
        try:
            fast = torch.compile(made, dynamic=False)
            _inferred(fast, given)
            runs["PyTorch, compiled"] = _times(partial(_inferred, fast, given), rounds)
        except Exception as error:  # whatever a compiler raises is its result
            row["failed"][f"PyTorch, compiled, batch {batch}"] = " ".join(f"{type(error).__name__}: {error}".split())[
                :300
            ]
        pictures = networks.photos(batch) * batches
        explainer = Explainer(exported, profile="auto", goal="latency" if batch == 1 else "throughput")
        assert explainer.profile is not None
        runs[TUNED] = partial(boxes, explainer, pictures)
        samples = interleaved(runs, seconds, LEAST, PAUSE, uncounted="turn" if batch == 1 else "round")
        each = dict.fromkeys(runs, batch * rounds) | {TUNED: len(pictures)}
        row["batches"][str(batch)] = cell({key: [one / each[key] for one in taken] for key, taken in samples.items()})
        torch.compiler.reset()
    return row | {"versions": versions("fastcam", "onnxruntime", "openvino", "torch", "torchvision", "numpy")}


def engines(source: Path, images: Any, threads: int) -> dict[str, Run]:
    """Plain passes of the source file."""
    import openvino

    sleeping, spinning = cpu_session(source, threads), create_session(source, "cpu", threads)
    feed = {sleeping.get_inputs()[0].name: images}
    runs: dict[str, Run] = {"ONNX Runtime": partial(spinning.run, None, feed)}
    runs["ONNX Runtime, no spinning"] = partial(sleeping.run, None, feed)
    core = openvino.Core()
    for precision in ("f32", "bf16"):
        model = core.read_model(str(source))
        model.reshape([*images.shape])
        how = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
        request = core.compile_model(model, "CPU", how).create_infer_request()
        runs[f"OpenVINO {precision}"] = partial(request.infer, [images], share_inputs=True, share_outputs=True)
    return runs


def boxes(explainer: Explainer, pictures: Sequence[Any]) -> Any:
    """Of one picture by a call, of several by a stream."""
    if len(pictures) == 1:
        return explainer(pictures[0]).boxes
    frames = [*explainer.stream(pictures)]
    assert all(frame.error is None for frame in frames)
    return np.concatenate([frame.explanation.boxes for frame in frames if frame.explanation is not None])


def _inferred(made: Callable[[Any], Any], images: Any) -> Any:
    import torch

    with torch.inference_mode():
        return made(images)


def _times(run: Run, rounds: int) -> Run:
    return run if rounds == 1 else lambda: [run() for _ in range(rounds)]


def cell(samples: Mapping[str, Sequence[float]]) -> Row:
    """Milliseconds of a picture and ratios to the fastest plain pass, and the tuned way's to PyTorch's.

    Args:
        samples: seconds of a picture, by contestant.
    """
    medians = {name: float(np.median(taken)) for name, taken in samples.items()}
    fastest = min((name for name in medians if name != TUNED), key=lambda name: medians[name])
    found: Row = {"fastest": fastest, "contestants": summary(samples, fastest)}
    for name, taken in samples.items():
        found["contestants"][name]["ms_per_picture"] = round(medians[name] * 1e3, 3)
        found["contestants"][name]["samples_ms"] = [round(one * 1e3, 3) for one in taken]
    ours = np.asarray(samples[TUNED])
    found["to_torch"] = {
        name: round(float(np.median(ours / np.asarray(samples[name]))), 4) for name in TORCH if name in samples
    }
    return found


def verdict(found: Row) -> str:
    """Whether a cell is where it should be."""
    missed = [] if found["contestants"][TUNED]["ratio"] <= TARGET else [f"above {TARGET:.2f}"]
    missed += [f"slower than {name}" for name, ratio in found["to_torch"].items() if ratio >= 1]
    return ", ".join(missed) or "reached"


def table(report: Row) -> str:
    """Markdown."""
    lines = [
        "# Picture to boxes with a tuned profile",
        "",
        f"`{report['command']}`, {report['threads']} threads on {report['machine']['cpu']}. Milliseconds a picture;",
        f"ratio to the fastest plain forward pass, with its 95 % interval, target {TARGET:.2f}; and to PyTorch's,",
        "which should be below 1. Weights: bytes of weights that the explained pass reads, over the plain one's:",
        "where a run only waits for its weights, no explained pass is faster than that.",
        "",
        "| network | batch | tuned | fastest plain | ratio | weights | to PyTorch, compiled | runs on | |",
        "|---|---:|---:|---|---|---:|---|---|---|",
    ]
    for row in report["networks"].values():
        if "failed" in row and "batches" not in row:
            lines.append(f"| {row['title']} | | | | | | | | failed: {row['failed']} |")
            continue
        for batch, found in row["batches"].items():
            each = found["contestants"]
            low, high = each[TUNED]["ratio_95"]
            plain = f"{each[found['fastest']]['ms_per_picture']:.2f} ({found['fastest']})"
            torch = ", ".join(f"{found['to_torch'][name]:.2f}" for name in TORCH if name in found["to_torch"])
            choice = row["chosen"]["latency" if batch == "1" else "throughput"]
            ratio = f"{each[TUNED]['ratio']:.2f} ({low:.2f}-{high:.2f})"
            ours = f"{each[TUNED]['ms_per_picture']:.2f}"
            lines.append(
                f"| {row['title']} | {batch} | {ours} | {plain} | {ratio} | {row['weights_read']:.2f} | {torch} | "
                f"{choice} | {verdict(found)} |"
            )
    return "\n".join(lines) + "\n"


def in_process(name: str, options: argparse.Namespace) -> Row:
    """A network in a process and environment of its own; of one that failed why it did."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        how = [f"--{key}={getattr(options, key)}" for key in ("seconds", "tune", "threads")]
        try:
            command = [
                str(environments.python("openvino")),
                "-m",
                "fastcam_bench.speed.networks.tuned",
                "--inside",
                name,
            ]
            done = subprocess.run([*command, f"--out={out}", *how], capture_output=True, text=True, timeout=LIMIT)
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            return {"title": NETWORKS[name].title, "failed": f"{type(error).__name__}: {error}"}
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
            return {"title": NETWORKS[name].title, "failed": said[-1]}
        found: Row = json.loads(out.read_text(encoding="utf-8"))
        return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Picture to boxes with a tuned profile.")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--resume", action="store_true", help="leave out networks that the file has already")
    parser.add_argument("--seconds", type=float, default=12.0, help="for all contestants at one batch size")
    parser.add_argument("--tune", type=float, default=40.0, help="seconds of tuning a network")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--inside", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        found = measure(options.inside, options.seconds, options.tune, options.threads)
        options.out.write_text(json.dumps(found), encoding="utf-8")
        return
    old: Row = {}
    if (options.only or options.resume) and options.out.is_file():
        old = json.loads(options.out.read_text(encoding="utf-8"))["networks"]
        old = {name: row for name, row in old.items() if "weights_read" in row}  # others were measured in another way
    for name in options.only or NAMES:
        if options.resume and "batches" in old.get(name, {}):
            continue
        began = time.perf_counter()
        old[name] = in_process(name, options) | {"took_seconds": round(time.perf_counter() - began, 1)}
        report: Row = {
            "command": "python -m fastcam_bench.speed.networks.tuned",
            "machine": machine(),
            "threads": options.threads,
        }
        report |= {"seconds": options.seconds, "tuning_seconds": options.tune}
        report["networks"] = {known: old[known] for known in NAMES if known in old}
        write_report(report, options.out, table)
        cells = old[name].get("batches", {})
        said = [f"batch {b}: {one['contestants'][TUNED]['ratio']:.2f}, {verdict(one)}" for b, one in cells.items()]
        print(f"{NETWORKS[name].title}: {'; '.join(said) or old[name]['failed']}", flush=True)


if __name__ == "__main__":
    main()
