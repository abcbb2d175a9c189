"""From picture to boxes with a tuned profile, beside the fastest plain forward pass of any engine, and beside peers.

    python -m fastcam_bench.speed.networks.tuned [--only NAME ...] [--resume] [--seconds S] [--tune S] [--out FILE]

Each of torchvision's twelve networks is measured in a process of its own, in an environment that has OpenVINO and the
peers: its export is tuned (``fastcam tune``), then contestants take turns in random order. Plain passes have the
network's input ready: ONNX Runtime (threads spin, or sleep), OpenVINO in float32 and bfloat16, PyTorch as it is and
compiled. The tuned Explainer begins at pictures of 640 x 480, uint8 in memory, and ends at boxes, and so do
pytorch-grad-cam, torch-cam and captum (peers.py). Two more are parts of the tuned way: the run of its engine alone,
on pictures that are prepared already, and preparing them.

Batch 1 is a call with the choice for latency; each turn makes one that does not count before the one that does. Batch 8
is a stream of four batches with the choice for throughput, and two passes one after the other of all that takes less
than a quarter of a second, one pass of what takes more. Ratios are of a picture's times in a round: to the plain pass
with the smallest median, and of the peers' times to the tuned one's. --resume goes on: it keeps networks that the file
has already. --only measures some and keeps the others. All twelve take half an hour, a third of it in torch.compile,
which needs minutes for Swin-T; what it has compiled is kept in build/bench/inductor for the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastcam import Explainer
from fastcam.explain.request import ExplainOptions
from fastcam.runtime.session import create_session
from fastcam.runtime.timing import Run, cpu_session, interleaved, summary
from fastcam.tuning.tune import tune
from fastcam_bench.models.networks import NETWORKS
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import CACHE, RESULTS
from fastcam_bench.speed.networks import environments
from fastcam_bench.speed.networks.picture_to_box import above
from fastcam_bench.speed.networks.report import PEERS, SPEEDUPS

OUTPUT = RESULTS / "speed" / "tuned.json"
NAMES = tuple(name for name, network in NETWORKS.items() if network.layer)
BATCHES = {1: 1, 8: 4}
"""Pictures of a run, and how many batches of them the tuned Explainer is given."""
TUNED, RUN, PREPARED = "tuned, picture to boxes", "tuned, the run alone", "tuned, preparing"
TORCH = ("PyTorch", "PyTorch, compiled")
NO_PLAIN_PASS = {TUNED, RUN, PREPARED, *PEERS.values()}
TARGET = 1.10
PAUSE = 0.02  # longer than the threads of one contestant spin into the next one's time
SLOW = 0.25  # seconds: what runs so long has fetched its weights into the caches by itself
LEAST = 5
LIMIT = 1800.0
Row = dict[str, Any]


def measure(name: str, seconds: float, tuning: float, threads: int) -> Row:
    """One network: its profile, and for each batch size all contestants."""
    import torch

    from fastcam_bench.models import networks
    from fastcam_bench.oracles import torch_oracle as oracle
    from fastcam_bench.speed.networks import contestants, peers

    torch.set_num_threads(threads)
    network, made = NETWORKS[name], networks.module(name)
    source = networks.onnx_file(name, made)
    assert source is not None
    exported, about = contestants.exported_file(name, network, source)
    took = {"preparation": time.perf_counter()}
    found = tune(exported, seconds=tuning)
    found.write()
    took["tuning"] = time.perf_counter()
    row: Row = {"title": network.title, "chosen": {goal: one.choice.title for goal, one in found.chosen.items()}}
    row |= {"weights_read": about["weights_read"], "candidates": [one.to_dict() for one in found.rows]}
    tools, refused = peers.make(made, network)
    row |= {"left_out": {PEERS[tool]: why for tool, why in refused.items()}, "failed": {}, "batches": {}}
    for batch, batches in BATCHES.items():
        images, pictures = oracle.pictures(batch), networks.photos(batch)
        runs = engines(source, images, threads)
        runs |= torch_passes(made, images, row["failed"])
        runs |= {PEERS[tool]: partial(peers.end_to_end, peer, pictures) for tool, peer in tools.items()}
        each = dict.fromkeys(runs, batch)
        for key, run in runs.items() if batch > 1 else ():
            runs[key], times = repeated(run)
            each[key] = times * batch
        explainer = Explainer(exported, profile="auto", goal="latency" if batch == 1 else "throughput")
        assert explainer.profile is not None
        own = parts(explainer, pictures * batches)
        each |= dict.fromkeys(own, batch * batches)
        for run in own.values():
            run()
        samples = interleaved(runs | own, seconds, LEAST, PAUSE, uncounted="turn" if batch == 1 else "none")
        row["batches"][str(batch)] = cell({key: [one / each[key] for one in taken] for key, taken in samples.items()})
        took[f"batch {batch}"] = time.perf_counter()
        torch.compiler.reset()
    ends = [*took.values()]
    row["seconds"] = {key: round(end - start, 1) for key, start, end in zip([*took][1:], ends, ends[1:])}
    names = ("fastcam", "onnxruntime", "openvino", "torch", "torchvision", "numpy", "grad-cam", "torchcam", "captum")
    return row | {"versions": versions(*names)}


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


def torch_passes(made: Callable[[Any], Any], images: Any, failed: dict[str, str]) -> dict[str, Run]:
    """Plain passes of PyTorch; of a compiler that fails ``failed`` is told why."""
    import torch

    given = torch.from_numpy(images)
    runs: dict[str, Run] = {"PyTorch": partial(_inferred, made, given)}
    try:
        fast = torch.compile(made, dynamic=False)
        _inferred(fast, given)
        runs["PyTorch, compiled"] = partial(_inferred, fast, given)
    except Exception as error:  # whatever a compiler raises is its result
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        failed[f"PyTorch, compiled, batch {len(images)}"] = said
    return runs


def parts(explainer: Explainer, pictures: Sequence[Any]) -> dict[str, Run]:
    """The tuned way from pictures to boxes, the run of its engine alone, and the preparing of its pictures alone.

    The run is the one that the Explainer makes: batches of its size, and as many of them at the same time.
    """
    prepare = explainer.steps(ExplainOptions()).prepare
    ready = np.concatenate([prepare(picture).tensor for picture in pictures])
    size, name = explainer.batch_size, explainer.metadata.input
    feeds = [{name: ready[start : start + size]} for start in range(0, len(ready), size)]
    pool = ThreadPoolExecutor(explainer.sessions)
    many = len(feeds) > 1
    return {
        TUNED: partial(boxes, explainer, pictures),
        RUN: (lambda: [*pool.map(explainer.run, feeds)]) if many else partial(explainer.run, feeds[0]),
        PREPARED: lambda: [prepare(picture) for picture in pictures],
    }


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


def repeated(run: Run) -> tuple[Run, int]:
    """What takes one turn, and how often it runs in it: twice where it is quick."""
    run()
    began = time.perf_counter()
    run()
    return (run, 1) if time.perf_counter() - began > SLOW else (lambda: [run(), run()], 2)


def cell(samples: Mapping[str, Sequence[float]]) -> Row:
    """Milliseconds of a picture and ratios to the fastest plain pass; the tuned way's to PyTorch's, peers' to it.

    Args:
        samples: seconds of a picture, by contestant.
    """
    medians = {name: float(np.median(taken)) for name, taken in samples.items()}
    fastest = min((name for name in medians if name not in NO_PLAIN_PASS), key=lambda name: medians[name])
    found: Row = {"fastest": fastest, "contestants": summary(samples, fastest)}
    for name, taken in samples.items():
        found["contestants"][name]["ms_per_picture"] = round(medians[name] * 1e3, 3)
        found["contestants"][name]["samples_ms"] = [round(one * 1e3, 3) for one in taken]
    ours = np.asarray(samples[TUNED])
    others = {name: np.asarray(samples[name]) for name in (*TORCH, *PEERS.values()) if name in samples}
    found["to_torch"] = {name: round(float(np.median(ours / others[name])), 4) for name in TORCH if name in others}
    peers = [name for name in PEERS.values() if name in others]
    found["times_faster"] = {name: round(float(np.median(others[name] / ours)), 3) for name in peers}
    found["around_run"] = above({name: [*samples[name]] for name in (TUNED, RUN)}, TUNED, RUN)
    return found


def misses(found: Row) -> list[str]:
    """Targets that a cell does not reach."""
    missed = [] if found["contestants"][TUNED]["ratio"] <= TARGET else [f"above {TARGET:.2f}"]
    missed += [f"slower than {name}" for name, ratio in found["to_torch"].items() if ratio >= 1]
    bounds = {PEERS[tool]: least for tool, least in SPEEDUPS.items()}
    faster = found["times_faster"].items()
    return missed + [f"below {bounds[tool]:g} x {tool}" for tool, times in faster if times < bounds[tool]]


def bound(found: Row, weights: float) -> str:
    """What keeps a cell above the target: milliseconds around the run, or the run itself; empty below it.

    Args:
        weights: bytes of weights that the explained pass reads, over the plain one's.
    """
    each, fastest = found["contestants"], found["fastest"]
    if each[TUNED]["ratio"] <= TARGET:
        return ""
    alone = each[RUN]["ratio"]
    left = (TARGET - alone) * each[fastest]["ms_per_picture"]
    if left > 0:
        return f"{found['around_run']['ms']:.2f} ms around the run, {left:.2f} may be"
    why = f", {weights:.2f} times the weights" if weights > TARGET else ""
    return f"its run alone takes {alone:.2f}{why}"


def verdict(found: Row) -> str:
    """Whether a cell is where it should be."""
    return ", ".join(misses(found)) or "reached"


def reached(report: Row) -> list[str]:
    """Lines on how many cells reach each target."""
    cells = [one for row in report["networks"].values() for one in row.get("batches", {}).values()]
    ratios = [one["contestants"][TUNED]["ratio"] for one in cells]
    torch = [ratio for one in cells for ratio in one["to_torch"].values()]
    lines = [f"- at most {TARGET:.2f} of the fastest plain pass: {sum(r <= TARGET for r in ratios)} of {len(ratios)}"]
    lines.append(f"- faster than PyTorch's plain passes: {sum(ratio < 1 for ratio in torch)} of {len(torch)}")
    for tool, least in SPEEDUPS.items():
        times = [one["times_faster"][PEERS[tool]] for one in cells if PEERS[tool] in one["times_faster"]]
        worst = f", the least {min(times):.2f}" if times else ""
        lines.append(
            f"- at least {least:g} times as fast as {PEERS[tool]}: "
            f"{sum(one >= least for one in times)} of {len(times)}{worst}"
        )
    return lines


def table(report: Row) -> str:
    """Markdown."""
    lines = [
        "# Picture to boxes with a tuned profile",
        "",
        f"`{report['command']}`, {report['threads']} threads on {report['machine']['cpu']}. Milliseconds a picture;",
        f"ratio to the fastest plain forward pass, with its 95 % interval, target {TARGET:.2f}; and to PyTorch's,",
        "which should be below 1. Run: the engine's run alone, on prepared pictures, to the same pass. Around: the",
        "milliseconds that the way from picture to boxes takes more than that run, and in brackets those of preparing",
        "alone; of a stream they overlap with runs. Weights: bytes of weights that the explained pass reads, over the",
        "plain one's: where a run only waits for its weights, no explained pass is faster than that. Peers: how many",
        f"times faster than {', '.join(PEERS.values())}, from the same pictures to boxes.",
        "",
        *reached(report),
        "",
        "| network | batch | tuned | fastest plain | ratio | run | around, ms | weights | to PyTorch, compiled | peers "
        "| runs on | | what keeps it above |",
        "|---|---:|---:|---|---|---:|---|---:|---|---|---|---|---|",
    ]
    left_out = []
    for row in report["networks"].values():
        if "batches" not in row:
            lines.append(f"| {row['title']} |{' |' * 10} failed: {row['failed']} | |")
            continue
        lines += [_line(row, batch, found) for batch, found in row["batches"].items()]
        left_out += [f"{row['title']}, {tool}: {why}." for tool, why in row["left_out"].items()]
        left_out += [f"{row['title']}, {what}: {why}" for what, why in row["failed"].items()]
    return "\n".join([*lines, *(part for one in left_out for part in ("", one))]) + "\n"


def _line(row: Row, batch: str, found: Row) -> str:
    each, fastest = found["contestants"], found["fastest"]
    low, high = each[TUNED]["ratio_95"]
    columns = [row["title"], batch, f"{each[TUNED]['ms_per_picture']:.2f}"]
    columns.append(f"{each[fastest]['ms_per_picture']:.2f} ({fastest})")
    columns += [f"{each[TUNED]['ratio']:.2f} ({low:.2f}-{high:.2f})", f"{each[RUN]['ratio']:.2f}"]
    columns.append(f"{found['around_run']['ms']:.2f} ({each[PREPARED]['ms_per_picture']:.2f})")
    columns.append(f"{row['weights_read']:.2f}")
    columns.append(", ".join(f"{found['to_torch'][name]:.2f}" for name in TORCH if name in found["to_torch"]))
    times = found["times_faster"]
    columns.append(", ".join(f"{times[tool]:.2f}" if tool in times else "-" for tool in PEERS.values()))
    columns.append(row["chosen"]["latency" if batch == "1" else "throughput"])
    return f"| {' | '.join([*columns, verdict(found), bound(found, row['weights_read'])])} |"


def in_process(name: str, options: argparse.Namespace) -> Row:
    """A network in a process and environment of its own; of one that failed why it did."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        how = [f"--{key}={getattr(options, key)}" for key in ("seconds", "tune", "threads")]
        try:
            command = [
                str(environments.python("tuned")),
                "-m",
                "fastcam_bench.speed.networks.tuned",
                "--inside",
                name,
            ]
            kept = {"TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"), **os.environ}
            called: Any = {"env": kept, "capture_output": True, "text": True, "timeout": LIMIT}
            done = subprocess.run([*command, f"--out={out}", *how], **called)
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
    parser.add_argument("--seconds", type=float, default=10.0, help="for all contestants at one batch size")
    parser.add_argument("--tune", type=float, default=30.0, help="seconds of tuning a network")
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
        old = {name: row for name, row in old.items() if "left_out" in row}  # others were measured in another way
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
