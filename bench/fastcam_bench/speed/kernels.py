"""The native kernels beside NumPy + OpenCV, cc3d, SciPy and scikit-image: one thread, contestants interleaved.

    python -m fastcam_bench.speed.kernels [--seconds 2] [--json bench/results/kernels/kernels.json]

cv2 (opencv-python), cc3d (connected-components-3d), scipy and scikit-image take part where they are installed. Every
case calls its contestants in turn, round after round, in an order that rotates; a ratio is that of the two times of one
round, and the median over the rounds is reported. All contestants of a case must agree before the clock starts.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.schema import __version__
from fastcam_bench.oracles.machine import machine, write_report

Contestant = Callable[[int], Any]
SIZES = {"224": (224, 224), "1080p": (1080, 1920), "4K": (2160, 3840)}
PEERS = {
    "cv2": "opencv-python",
    "cc3d": "connected-components-3d",
    "scipy.ndimage": "scipy",
    "skimage.measure": "scikit-image",
}
INPUTS = 8  # taken in turn, so that no contestant lives on one input's cached values and learnt branches
FRACTION, ALPHA = 0.15, 0.5


@dataclass
class Case:
    """Contestants by name; ``ours`` is the one that the others are compared with, ``target`` the wanted ratio."""

    name: str
    ours: str
    contestants: dict[str, Contestant]
    target: dict[str, float] = field(default_factory=dict)


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Median and p99 of each contestant in microseconds, and of the ratios to ours, round by round."""
    names = list(case.contestants)
    rounds: list[dict[str, float]] = []
    stop = time.perf_counter() + seconds
    for number in range(-3, 5000):  # three rounds to warm up
        times: dict[str, float] = {}
        for i in range(len(names)):
            name = names[(i + number) % len(names)]
            call = case.contestants[name]
            begin = time.perf_counter_ns()
            call(number % INPUTS)
            times[name] = (time.perf_counter_ns() - begin) / 1000
        if number >= 0:
            rounds.append(times)
        if time.perf_counter() > stop and len(rounds) >= 5:
            break
    result: dict[str, Any] = {"case": case.name, "ours": case.ours, "rounds": len(rounds), "us": {}, "ratio": {}}
    for name in names:
        samples = np.array([times[name] for times in rounds])
        result["us"][name] = {"median": round(float(np.median(samples)), 2), "p99": round(_percentile(samples, 99), 2)}
        if name != case.ours:
            ratios = samples / np.array([times[case.ours] for times in rounds])
            spread = [round(_percentile(ratios, q), 2) for q in (10, 90)]
            result["ratio"][name] = {"median": round(float(np.median(ratios)), 2), "p10_p90": spread}
            if name in case.target:
                result["ratio"][name] |= {"target": case.target[name]}
    return result


def _percentile(samples: NDArray[np.float64], q: float) -> float:
    return float(np.percentile(samples, q))


# --- maps, boxes, overlays -----------------------------------------------------------------------------------------


def inputs() -> tuple[list[kernels.Floats], list[kernels.Floats]]:
    """Activations [1, 2048, 7, 7] after a ReLU, with one smooth object in each, and weights [1, 1, 2048]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:7, :7]
    activations, weights = [], []
    for _ in range(INPUTS):
        cy, cx, width = rng.uniform((1.5, 1.5, 0.8), (4.5, 4.5, 1.6))
        bump = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))
        noise = rng.standard_normal((2048, 7, 7)) * 0.3
        activations.append(np.maximum(bump * rng.uniform(0.5, 1.5, (2048, 1, 1)) + noise, 0)[None].astype(np.float32))
        weights.append((rng.standard_normal((1, 1, 2048)) * 0.02 + 0.005).astype(np.float32))
    return activations, weights


def opencv_boxes(cv2: Any, cam: kernels.Floats, size: tuple[int, int]) -> kernels.Ints:
    """ReLU, normalise, resize, threshold, label, largest box, as one writes it with NumPy and OpenCV."""
    cam = np.maximum(cam, 0)
    cam = cam / cam.max()
    heat = cv2.resize(cam, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    mask = (heat >= FRACTION * heat.max()).astype(np.uint8)
    stats = cv2.connectedComponentsWithStats(mask, connectivity=8)[2]
    x, y, w, h, pixels = stats[1 + np.argmax(stats[1:, 4])]
    return np.array([x, y, x + w, y + h, pixels], np.int32)


def separate_boxes(k: kernels.Kernels, cam: kernels.Floats, size: tuple[int, int]) -> kernels.Ints:
    """The same by our kernels, one call a step."""
    k.status(cam)
    labels, counts = k.label(k.threshold(k.upsample(k.normalize(k.relu(cam)), size), FRACTION))
    found = k.boxes(labels[0, 0], int(counts[0, 0]))
    row: kernels.Ints = found[k.largest(found)]
    return row


def map_cases(cv2: Any) -> list[Case]:
    """From activations to the heatmap and its largest box, as the Explainer calls it, and to the box alone."""
    k = kernels.get("native")
    activations, weights = inputs()
    maps = [k.weigh(a, w) for a, w in zip(activations, weights)]
    cases = []
    for label, size in SIZES.items():
        whole, alone = from_activations(cv2, activations, weights, size), from_maps(cv2, maps, size)
        first = label == "224"
        heatmap, box = {"numpy+opencv": 4.0} if first else {}, {"numpy+opencv": 8.0} if first else {}
        cases.append(Case(f"2048x7x7 to {label}: heatmap and box", "fused with heatmap", whole, heatmap))
        cases.append(Case(f"7x7 to {label}: box alone, no heatmap", "fused", alone, box))
    for case in cases:
        check_boxes(case)
    return cases


def from_activations(
    cv2: Any, activations: list[kernels.Floats], weights: list[kernels.Floats], size: tuple[int, int]
) -> dict[str, Contestant]:
    k = kernels.get("native")
    flat = [a.reshape(2048, 49) for a in activations]

    def fused(i: int, heatmap: bool = False) -> Any:
        found = k.explain_maps(activations[i], weights[i], size, FRACTION, want_heatmaps=heatmap)
        return found.largest[0, 0]

    return {
        "fused": fused,
        "fused with heatmap": lambda i: fused(i, True),
        "separate": lambda i: separate_boxes(k, k.weigh(activations[i], weights[i]), size),
        "numpy+opencv": lambda i: opencv_boxes(cv2, (weights[i][0] @ flat[i]).reshape(7, 7), size),
    }


def from_maps(cv2: Any, maps: list[kernels.Floats], size: tuple[int, int]) -> dict[str, Contestant]:
    k = kernels.get("native")

    def fused(i: int) -> Any:
        found = k.explain_maps(maps[i], None, size, FRACTION, want_heatmaps=False)
        return found.largest[0, 0]

    return {
        "fused": fused,
        "separate": lambda i: separate_boxes(k, maps[i], size),
        "numpy+opencv": lambda i: opencv_boxes(cv2, maps[i][0, 0], size),
    }


def check_boxes(case: Case) -> None:
    """Ours agree exactly; OpenCV's resize rounds otherwise, which may move a border by one pixel."""
    for i in range(INPUTS):
        wanted = case.contestants["separate"](i)
        for name, call in case.contestants.items():
            slack = 1 if name == "numpy+opencv" else 0
            assert np.all(np.abs(call(i) - wanted)[:4] <= slack), f"{case.name}: {name} differs on input {i}"


def overlay_cases(cv2: Any) -> list[Case]:
    """The coloured heatmap over a picture."""
    cases = []
    for label, size in SIZES.items():
        contestants = overlays(cv2, size)
        results = [call(0).astype(int) for call in contestants.values()]
        assert np.abs(results[0] - results[1]).max() <= 1  # OpenCV rounds halves to even
        target = {"applyColorMap+addWeighted": 5.0} if label == "224" else {}
        cases.append(Case(f"overlay {label}", "overlay", contestants, target))
    return cases


def overlays(cv2: Any, size: tuple[int, int]) -> dict[str, Contestant]:
    k = kernels.get("native")
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    activations, weights = inputs()
    heat = k.upsample(k.normalize(k.relu(k.weigh(activations[0], weights[0])))[0, 0], size)
    lut = np.ascontiguousarray(cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_JET)[:, 0])

    def opencv(i: int) -> Any:
        color = cv2.applyColorMap(np.uint8(255 * heat + 0.5), cv2.COLORMAP_JET)
        return cv2.addWeighted(image, 1 - ALPHA, color, ALPHA, 0)

    return {
        "overlay": lambda i: k.overlay(image, heat, lut, ALPHA),
        "applyColorMap+addWeighted": opencv,
    }


# --- pictures ------------------------------------------------------------------------------------------------------

PICTURES = {"640 x 480": (480, 640), "700 x 500": (500, 700), "1080p": (1080, 1920), "4000 x 3000": (3000, 4000)}


def prepare_cases(cv2: Any) -> list[Case]:
    """A picture, shrunk to 224 x 224 and normalised, in planes."""
    from fastcam.kernels import native

    size, factor, shift = (224, 224), np.full(3, 0.0171, np.float32), np.full(3, 2.1, np.float32)
    cases = []
    for label, shape in PICTURES.items():
        picture = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)

        def ours(i: int, picture: kernels.Bytes = picture) -> kernels.Floats:
            out = np.empty((3, *size), np.float32)
            native.prepare(picture, factor, shift, out.transpose(1, 2, 0))
            return out

        def opencv(i: int, picture: kernels.Bytes = picture) -> kernels.Floats:
            shrunk = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
            out = np.empty((3, *size), np.float32)
            for channel in range(3):
                np.multiply(shrunk[:, :, channel], factor[channel], out=out[channel], dtype=np.float32)
                out[channel] -= shift[channel]
            return out

        assert np.array_equal(ours(0), opencv(0)), f"prepare {label}: the contestants differ"
        contestants: dict[str, Contestant] = {"fastcam": ours, "cv2.resize+numpy": opencv}
        cases.append(Case(f"prepare {label} to 224", "fastcam", contestants, {"cv2.resize+numpy": 2.0}))
    return cases


# --- labelling ------------------------------------------------------------------------------------------------------


def spiral(size: tuple[int, int]) -> kernels.Bytes:
    """One path that winds inwards, one pixel wide, with one pixel between its turns."""
    mask = np.zeros(size, np.uint8)
    top, left, bottom, right = 0, 0, size[0] - 1, size[1] - 1
    while top <= bottom and left <= right:
        mask[top, max(left - 2, 0) : right + 1] = 1
        mask[top : bottom + 1, right] = 1
        mask[bottom, left : right + 1] = 1
        mask[top + 2 : bottom + 1, left] = 1
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    return mask


def masks(size: tuple[int, int]) -> dict[str, kernels.Bytes]:
    """What labelling is tried on."""
    rng = np.random.default_rng(2)
    k = kernels.get("native")
    activations, weights = inputs()
    cam = k.relu(k.weigh(activations[0], weights[0]))
    several = rng.random((1, 1, 7, 7), np.float32)
    found = {f"random {share}": (rng.random(size) < share).astype(np.uint8) for share in (0.1, 0.3, 0.5, 0.7, 0.9)}
    found["spiral"] = spiral(size)
    y, x = np.mgrid[: size[0], : size[1]]
    found["comb"] = ((x % 2 == 0) | (y == size[0] - 1)).astype(np.uint8)
    found["checkerboard"] = ((x + y) % 2).astype(np.uint8)
    found["diagonals"] = ((x - y) % 3 == 0).astype(np.uint8)
    found["dots"] = ((x % 2 == 0) & (y % 2 == 0)).astype(np.uint8)
    found["heatmap, one object"] = k.threshold(k.upsample(cam, size), FRACTION)[0, 0]
    found["heatmap, several objects"] = k.threshold(k.upsample(several, size), 0.7)[0, 0]
    return found


def label_cases(peers: dict[str, Any]) -> list[Case]:
    """8-connected components of one mask: the label image and their number."""
    cases = []
    for label in ("224", "1080p"):
        for name, mask in masks(SIZES[label]).items():
            contestants = {"fastcam": labeller("fastcam", kernels.get("native"), mask)}
            contestants |= {peer: labeller(peer, module, mask) for peer, module in peers.items()}
            counts = {int(call(0)[1]) for call in contestants.values()}
            assert len(counts) == 1, f"the contestants disagree about {name}: {counts}"
            target = dict.fromkeys(peers, 1.0) if name.startswith("heatmap") else {}  # what features label
            cases.append(Case(f"label {label}: {name}", "fastcam", contestants, target))
    return cases


def labeller(peer: str, module: Any, mask: kernels.Bytes) -> Contestant:
    """``peer``'s call that returns (labels, count)."""
    if peer == "fastcam":
        return lambda i: module.label(mask)
    if peer == "cv2":
        return lambda i: _opencv_label(module, mask)
    if peer == "cc3d":
        return lambda i: module.connected_components(mask, connectivity=8, return_N=True)
    if peer == "scipy.ndimage":
        return lambda i: module.label(mask, np.ones((3, 3)))
    return lambda i: module.label(mask, connectivity=2, return_num=True)


def _opencv_label(cv2: Any, mask: kernels.Bytes) -> tuple[Any, int]:
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    return labels, count - 1  # it counts the background


# --- report ----------------------------------------------------------------------------------------------------------


def find_peers() -> tuple[dict[str, Any], list[str]]:
    """The modules that are installed, and the distributions that are not."""
    found, missing = {}, []
    for name, distribution in PEERS.items():
        try:
            found[name] = importlib.import_module(name)
        except ImportError:
            missing.append(distribution)
    return found, missing


def versions(peers: dict[str, Any]) -> dict[str, str]:
    """Of ourselves and of all that takes part. cv2 comes from several distributions, cc3d does not know its own."""
    found = {PEERS[peer]: importlib.metadata.version(PEERS[peer]) for peer in peers if peer != "cv2"}
    found |= {"cv2": peers["cv2"].__version__} if "cv2" in peers else {}
    return {"fastcam": __version__, "numpy": np.__version__, "python": platform.python_version()} | found


def show(result: dict[str, Any]) -> None:
    print(result["case"])
    for name, us in result["us"].items():
        ratio = result["ratio"].get(name)
        text = "" if ratio is None else f"  {ratio['median']:7.2f}x ours"
        if ratio and "target" in ratio:
            reached = "reached" if ratio["median"] >= ratio["target"] else "MISSED"
            text += f"  (target {ratio['target']:.2f}x: {reached})"
        print(f"  {name:28} {us['median']:11.1f} us  p99 {us['p99']:11.1f}{text}")


def record(cases: Iterable[Case], seconds: float, report: dict[str, Any], out: Path | None) -> None:
    """Measure and show every case; the ``report`` with all of them to ``out``, if that is given."""
    results = []
    for case in cases:
        results.append(measure(case, seconds))
        show(results[-1])
    if out:
        write_report(report | {"results": results}, out)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="FastCAM's native kernels beside their peers, on one thread")
    parser.add_argument("--seconds", type=float, default=2.0, help="per case")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    peers, missing = find_peers()
    if missing:
        print(f"not installed, so not measured: {', '.join(missing)}", file=sys.stderr)
    cases = label_cases(peers)
    if "cv2" in peers:
        peers["cv2"].setNumThreads(1)
        cases = [*map_cases(peers["cv2"]), *overlay_cases(peers["cv2"]), *prepare_cases(peers["cv2"]), *cases]
    command = f"python -m fastcam_bench.speed.kernels --seconds {options.seconds:g} --json {options.json}"
    report = {"command": command, "threads": 1, "machine": machine(), "versions": versions(peers), "missing": missing}
    record(cases, options.seconds, report, options.json)
    return 0


if __name__ == "__main__":
    if "OPENBLAS_NUM_THREADS" not in os.environ:  # read when NumPy is loaded, which is long ago
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "fastcam_bench.speed.kernels", *sys.argv[1:]])
    raise SystemExit(main())
