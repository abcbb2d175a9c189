"""What everything around the network costs: from pictures to boxes, beside the plain forward pass.

    python -m fastcam_bench.speed.networks.picture_to_box [--only NAME ...] [--seconds S] [--threads T] [--json FILE]

Pictures are uint8 arrays of 640 x 480 in memory. Three contestants take turns in random order, whose threads do not
spin: "plain" runs the source file on prepared tensors; "prepared" first prepares the pictures with OpenCV and NumPy, as
a host without FastCAM would; "explained" is a call of an Explainer, pictures in, boxes out. Each round gives one ratio
and one difference to plain, and to prepared; medians with a bootstrap interval of 95 %.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import fit
from fastcam.runtime.timing import Run, Samples, cpu_session, interleaved, summary
from fastcam.schema import Preprocessing
from fastcam_bench.models import networks
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS
from fastcam_bench.speed.networks import contestants

OUT = RESULTS / "speed" / "picture_to_box.json"
NETWORKS = ("squeezenet1_1", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "scenes")
AIM, AIM_OF_8, AIM_MS = 1.15, 1.10, 0.4
"""What explained should be of plain at most, at batch 1 and 8, and milliseconds above it at batch 1."""
AIMS = {"scenes": 1.5}
"""Of networks that take about a millisecond themselves."""
BATCHES = (1, 8)
Row = dict[str, Any]


def tensor(pictures: Sequence[NDArray[np.uint8]], how: Preprocessing) -> NDArray[np.float32]:
    """Pictures as the network's input [N, 3, H, W], by OpenCV and NumPy."""
    assert how.size is not None and how.layout == "NCHW" and how.color == "RGB"
    std = np.asarray(how.std)
    factor, shift = (np.float32(one) for one in (how.scale / std, np.asarray(how.mean) / std))
    out = np.empty((len(pictures), 3, *how.size), np.float32)
    for picture, place in zip(pictures, out, strict=True):
        x0, y0, x1, y1 = fit(picture.shape[:2], how.size, how).source
        small = cv2.resize(picture[y0:y1, x0:x1], how.size[::-1], interpolation=cv2.INTER_AREA)
        place[:] = (small * factor - shift).transpose(2, 0, 1)
    return out


def above(samples: Samples, name: str, yardstick: str) -> Row:
    """Milliseconds that a contestant takes more than another in the same round: the median, and its interval."""
    more = (np.asarray(samples[name]) - np.asarray(samples[yardstick])) * 1e3
    rows = np.random.default_rng(0).integers(0, len(more), (1000, len(more)))
    low, high = np.quantile(np.median(more[rows], axis=1), (0.025, 0.975))
    return {"ms": round(float(np.median(more)), 3), "ms_95": [round(float(low), 3), round(float(high), 3)]}


def measure(name: str, batch: int, seconds: float, threads: int) -> Row:
    """One network at one batch size.

    Raises:
        ValueError: the contestants do not see the same picture.
    """
    network = networks.NETWORKS[name]
    source = networks.onnx_file(name, networks.module(name) if network.layer else None)
    assert source is not None
    exported, _ = contestants.exported_file(name, network, source)
    explainer, plain = contestants.explainer(exported, threads), cpu_session(source, threads)
    how = explainer.metadata.preprocessing
    assert how is not None
    pictures = networks.photos(batch)
    images = tensor(pictures, how)
    seen = explainer.probes(pictures[:1])[0].x
    if not np.array_equal(seen, images[0]):
        raise ValueError(f"{name}: the Explainer prepares pictures otherwise than OpenCV and NumPy")
    (image,) = contestants.feeds(plain, images)
    runs: dict[str, Run] = {
        "plain": partial(plain.run, None, {image: images}),
        "prepared": lambda: plain.run(None, {image: tensor(pictures, how)}),
        "explained": partial(contestants.boxes, explainer, pictures),
    }
    samples = interleaved(runs, seconds, 30)
    found: Row = dict(summary(samples, "plain"))
    found["explained above plain"] = above(samples, "explained", "plain")
    found["explained above prepared"] = above(samples, "explained", "prepared")
    found["explained over prepared"] = summary(samples, "prepared")["explained"]["ratio"]
    gc.collect()
    return found


def verdict(name: str, batch: int, found: Row) -> str:
    """A line with what was measured beside what is aimed at."""
    ratio, more = found["explained"]["ratio"], found["explained above plain"]["ms"]
    aim = AIMS.get(name, AIM) if batch == 1 else AIM_OF_8
    wanted = f"{aim:.2f}" + (f" and {AIM_MS} ms" if batch == 1 else "")
    return (
        f"{name:20} batch {batch}: plain {found['plain']['median_ms']:.2f} ms, explained {ratio:.3f} of it, "
        f"{more:.2f} ms more (at most {wanted}); beside a prepared one {found['explained over prepared']:.3f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.speed.networks.picture_to_box", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each network and batch size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    cv2.setNumThreads(options.threads)
    report: Row = {"networks": {}}
    for name in options.only:
        report["networks"][name] = {}
        for batch in BATCHES:
            found = measure(name, batch, options.seconds, options.threads)
            report["networks"][name][str(batch)] = found
            print(verdict(name, batch, found), flush=True)
    given = sys.argv[1:] if arguments is None else arguments
    about: Row = {"command": " ".join(["python -m fastcam_bench.speed.networks.picture_to_box", *given])}
    about |= {"machine": machine(), "versions": versions("fastcam", "onnxruntime", "opencv-python", "numpy", "torch")}
    write_report({**about, "threads": options.threads, **report}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
