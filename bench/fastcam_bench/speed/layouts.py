"""Sessions and threads on the processor: which layout explains most pictures a second, and what post-processing takes.

    python -m fastcam_bench.speed.layouts [--out FILE] [--seconds S] [--only NAME ...] [--pictures FOLDER]

A layout is a number of sessions (Explainers), threads in each, and who keeps them busy: callers, each with pictures in
memory and a batch at a time, or ``Explainer.stream`` over files, with workers that decode, and one run at a time or
several: two runs of one thread on two cores are what ``fastcam stream`` does without a profile. Layouts of one network
and batch size take turns over the same pictures; a ratio is that of one round to an Explainer as one gets it (one
session, a thread for each core, which spin while they wait; the others' sleep). All layouts must find the same boxes
before the clock starts. Post-processing is measured alone: the kernels, and all that follows a run, beside the plain
forward pass. torchvision's networks with random weights; pictures are the JPEG files of a folder, or drawn noise.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx

from fastcam import Explainer, kernels
from fastcam.image.preprocess import JPEG, decode, pictures_in
from fastcam.runtime.providers import Settings
from fastcam.runtime.timing import cpu_session, interleaved, random_feeds, summary
from fastcam.schema import ACTIVATIONS, WEIGHTS
from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

OUTPUT = RESULTS / "speed" / "layouts.json"
NETWORKS = ("squeezenet1_1", "mobilenet_v2", "resnet50")
BATCHES = (1, 8)
PICTURES = 16  # of one run
TARGET = 0.01  # the share of post-processing in ResNet-50's forward pass
Row = dict[str, Any]
Boxes = list[Any]


@dataclass(frozen=True)
class Layout:
    """Sessions, threads of each, callers (or, of a stream, decoding workers) of each, and runs of a stream at once."""

    sessions: int
    threads: int
    callers: int = 1
    stream: bool = False
    spinning: bool = False
    runs: int = 1

    @property
    def name(self) -> str:
        """As tables call it."""
        of = "worker" if self.stream else "caller"
        who = f"{self.callers} {of}{'s' if self.callers > 1 else ''}" + (" each" if self.sessions > 1 else "")
        more = (f", {self.runs} runs" if self.runs > 1 else "") + (", spinning" if self.spinning else "")
        return f"{self.sessions} x {self.threads}, {who}{more}"


def layouts(cores: int, stream: bool) -> list[Layout]:
    """The layouts for so many cores; the first is the Explainer's default."""
    found = [Layout(1, cores, 2 if stream else 1, stream, spinning=True)]
    for callers in (1, 2) if stream else sorted({1, cores}):
        found += [Layout(1, cores, callers, stream), Layout(1, 1, callers, stream)]
    several = [Layout(1, 1, callers, stream, runs=cores) for callers in (1, 2)] if stream else []
    return list(dict.fromkeys([*found, *several, Layout(cores, 1, 1, stream)]))


class Sessions:
    """Explainers of one file, made when they are first asked for; layouts share them."""

    def __init__(self, model: Path | bytes) -> None:
        self._model = model
        self._made: dict[tuple[int, bool, int, int], Explainer] = {}

    def of(self, layout: Layout) -> list[Explainer]:
        """Those of a layout."""
        return [self._one(layout, i) for i in range(layout.sessions)]

    def _one(self, layout: Layout, index: int) -> Explainer:
        key = (layout.threads, layout.spinning, layout.runs, index)
        if key not in self._made:
            settings = Settings(spinning=layout.spinning, sessions=layout.runs)
            self._made[key] = Explainer(self._model, "cpu", threads=layout.threads, settings=settings)
        return self._made[key]


def contestant(layout: Layout, sessions: Sessions, sources: Sequence[Any], batch: int) -> Callable[[], Boxes]:
    """A function that explains all sources, all sessions at the same time, and returns their boxes in order."""
    explainers = sessions.of(layout)
    pool = ThreadPoolExecutor(layout.sessions * (1 if layout.stream else layout.callers))

    def called(explainer: Explainer, parts: list[Sequence[Any]]) -> Boxes:
        return [box for part in parts for box in explainer(part).boxes]

    def streamed(explainer: Explainer, files: Sequence[Any]) -> Boxes:
        found: Boxes = []
        for frame in explainer.stream(files, batch_size=batch, workers=layout.callers):
            assert frame.explanation is not None, frame.error
            found.extend(frame.explanation.boxes)
        return found

    def shares() -> Iterator[Any]:
        if layout.stream:
            each = -(-len(sources) // layout.sessions)
            for i, explainer in enumerate(explainers):
                yield pool.submit(streamed, explainer, sources[i * each : (i + 1) * each])
            return
        parts = [sources[start : start + batch] for start in range(0, len(sources), batch)]
        who = [explainer for explainer in explainers for _ in range(layout.callers)]
        each = -(-len(parts) // len(who))
        for i, explainer in enumerate(who):
            yield pool.submit(called, explainer, parts[i * each : (i + 1) * each])

    return lambda: [box for share in list(shares()) for box in share.result()]


def compare(name: str, runs: dict[str, Callable[[], Boxes]]) -> None:
    """All layouts find the boxes of the first one, give or take a pixel of the network's input: sums may differ."""
    wanted = None
    for layout, run in runs.items():
        boxes = np.array(run())
        wanted = boxes if wanted is None else wanted
        slack = wanted.max() / 100  # of the pictures' size
        assert boxes.shape == wanted.shape and np.abs(boxes - wanted).max() <= slack, f"{name}: {layout} differs"


def throughput(name: str, model: Path, files: list[Path], seconds: float, cores: int) -> list[Row]:
    """Pictures a second of every layout, in memory and as a stream of files, for each batch size."""
    sessions, rows = Sessions(model), []
    pictures = [decode(file) for file in files]
    for batch in BATCHES:
        for stream in (False, True):
            given: list[Any] = list(files if stream else pictures)
            each = layouts(cores, stream)
            runs = {layout.name: contestant(layout, sessions, given, batch) for layout in each}
            compare(name, runs)
            found = summary(interleaved(runs, seconds, least=5, pause=0.02), each[0].name)
            for layout in each:
                took = found[layout.name]
                row = {"network": name, "batch": batch, "source": "files" if stream else "memory"}
                rate = round(len(given) / took["median_ms"] * 1000, 2)
                row |= {"layout": layout.name, "pictures_per_second": rate}
                row["gain"] = round(1 / took["ratio"], 4)
                row["gain_95"] = [round(1 / end, 4) for end in reversed(took["ratio_95"])]
                rows.append(row)
                print(name, batch, row["source"], layout.name, rate, flush=True)
    return rows


def post_processing(name: str, model: Path, source: Path, picture: Any, seconds: float, threads: int) -> Row:
    """Milliseconds of the plain forward pass, of the kernels, and of all that follows a run, for one picture."""
    plain = cpu_session(source, threads)
    explainer = Explainer(model, "cpu", threads=threads, settings=Settings(spinning=False))
    prediction = explainer.predict(picture)  # which explains the predicted class by the way
    run, k = prediction.runs[0], kernels.get()
    found, size = run.forward.explained, run.batch.geometry[0].network
    feeds = random_feeds(plain, 1)
    runs: dict[str, Callable[[], Any]] = {
        "forward": lambda: plain.run(None, feeds),
        "kernels": lambda: k.explain_maps(found[ACTIVATIONS], found[WEIGHTS], size),
        "kernels without heatmaps": lambda: k.explain_maps(
            found[ACTIVATIONS], found[WEIGHTS], size, want_heatmaps=False
        ),
        "all that follows a run": lambda: explainer.explain(prediction),
    }
    timed = summary(interleaved(runs, seconds, least=20), "forward")
    return {"network": name, "threads": threads, "contestants": timed}


def recommended(rows: Sequence[Row]) -> list[str]:
    """For each source, the layout with the largest geometric mean of gains; the default, where none gains 2 %."""
    lines = []
    for source, call in (("memory", "pictures in memory"), ("files", "streams of files")):
        gains: dict[str, list[float]] = {}
        for row in rows:
            if row["source"] == source:
                gains.setdefault(row["layout"], []).append(row["gain"])
        if not gains:
            continue
        means = {name: float(np.exp(np.mean(np.log(each)))) for name, each in gains.items()}
        best, default = max(means, key=lambda name: means[name]), next(iter(means))
        if means[best] < 1.02:
            lines.append(f"For {call} the default ({default}) is as good as any.")
            continue
        low, high = min(gains[best]), max(gains[best])
        lines.append(
            f"For {call}: {best}, {means[best]:.2f} times the default's pictures a second ({low:.2f} to {high:.2f})."
        )
    return lines


def share_line(row: Row) -> str:
    """What post-processing takes of the forward pass, beside the target where there is one."""
    found = row["contestants"]
    parts = [f"{name} {found[name]['ratio']:.2%}" for name in found if name != "forward"]
    text = f"{row['network']}, {found['forward']['median_ms']:.1f} ms: {', '.join(parts)}"
    if row["network"] == "resnet50":
        reached = "reached" if found["kernels"]["ratio"] <= TARGET else "MISSED"
        text += f" (target for the kernels {TARGET:.0%}: {reached})"
    return text


def table(report: Row) -> str:
    """Markdown."""
    lines = [
        "# Layouts of sessions and threads",
        "",
        f"`{report['command']}`, ONNX Runtime {report['versions']['onnxruntime']}, {report['cores']} cores of",
        f"{report['machine']['cpu']}. Pictures a second, and in brackets the gain over the first line of each block,",
        "an Explainer's default: medians of the ratios of interleaved rounds and their 95 % interval. A layout is",
        "sessions x threads of each, callers, or decoding workers, of each, and runs of a stream at the same time.",
        "",
        *[f"- {line}" for line in recommended(report["results"])],
        "",
        "| network | batch | from | layout | pictures a second |",
        "|---|---:|---|---|---:|",
    ]
    for row in report["results"]:
        low, high = row["gain_95"]
        gain = f"{row['pictures_per_second']:.1f} ({row['gain']:.2f}, {low:.2f}-{high:.2f})"
        lines.append(f"| {row['network']} | {row['batch']} | {row['source']} | {row['layout']} | {gain} |")
    lines += [
        "",
        "Post-processing of one picture and one class as a share of the plain forward pass at batch 1:",
        "",
        *[f"- {share_line(row)}" for row in report["post_processing"]],
    ]
    return "\n".join(lines) + "\n"


def write_model(name: str, folder: Path) -> tuple[Path, Path]:
    """The network's file and its export."""
    source, exported = folder / f"{name}.onnx", folder / f"{name}.cam.onnx"
    onnx.save(oracle.to_onnx(oracle.build(name), dynamo=False), source)
    export_model(source, exported, preprocess="imagenet", check=False)
    return source, exported


def picture_files(folder: Path | None, scratch: Path) -> list[Path]:
    """JPEG files, as many as a run takes: those of ``folder`` over and over, or noise of 640 x 480 with structure."""
    if folder is not None:
        found = pictures_in(folder, JPEG)
        if not found:
            raise SystemExit(f"{folder}: no JPEG files; give a folder that has some")
        return [found[i % len(found)] for i in range(PICTURES)]
    files = []
    for i, image in enumerate(oracle.pictures(PICTURES, 480)):
        files.append(scratch / f"{i}.jpg")
        shown = np.clip(image.transpose(1, 2, 0) * 60 + 128, 0, 255).astype(np.uint8)
        cv2.imwrite(str(files[-1]), cv2.resize(shown, (640, 480)))
    return files


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Sessions and threads on the processor.")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--seconds", type=float, default=20.0, help="per network, batch size and source")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, help="these networks; the others' results are kept")
    parser.add_argument("--pictures", type=Path, help="a folder of JPEG files")
    options = parser.parse_args(arguments)
    names = options.only or NETWORKS
    old: Row = json.loads(options.out.read_text(encoding="utf-8")) if options.only and options.out.exists() else {}
    rows = {name: [row for row in old.get("results", []) if row["network"] == name] for name in NETWORKS}
    shares = {row["network"]: row for row in old.get("post_processing", [])}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            source, exported = write_model(name, Path(folder))
            files = picture_files(options.pictures, Path(folder))
            rows[name] = throughput(name, exported, files, options.seconds, options.cores)
            picture = decode(files[0])
            shares[name] = post_processing(name, exported, source, picture, options.seconds, options.cores)
        report = {
            "command": "python -m fastcam_bench.speed.layouts",
            "versions": versions("fastcam", "onnxruntime", "torchvision", "numpy"),
            "machine": machine(),
            "cores": options.cores,
            "seconds": options.seconds,
            "results": [row for network in NETWORKS for row in rows[network]],
            "post_processing": [shares[network] for network in NETWORKS if network in shares],
        }
        write_report(report, options.out, table)


if __name__ == "__main__":
    main()
