"""One measurement in a process and environment of its own; what it found goes into a JSON file.

    python -m fastcam_bench.speed.networks.job KIND NAME OUT --seconds S --threads T

The kinds are the functions of :data:`KINDS`. Only what a kind needs is imported: some run where torch or onnx is not.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.runtime.timing import Run, cpu_session, peak_memory
from fastcam_bench.oracles.machine import versions
from fastcam_bench.speed.networks.groups import Row, Settings, group

BATCHES = (1, 8)
PAUSE = 0.02  # longer than the threads of OpenMP spin: libgomp 300,000 times, a few milliseconds


def network(name: str, settings: Settings) -> Row:
    """All that runs on ONNX Runtime and torch."""
    import torch

    from fastcam_bench.models import networks
    from fastcam_bench.oracles import torch_oracle as oracle
    from fastcam_bench.speed.networks import contestants, peers

    torch.set_num_threads(settings.threads)
    chosen = networks.NETWORKS[name]
    made = networks.module(name) if chosen.layer else None
    source = networks.onnx_file(name, made)
    if source is None:
        return {"title": chosen.title, "left out": "its file is not on this machine"}
    exported, row = contestants.exported_file(name, chosen, source)
    found: Row = {"title": chosen.title, **row, "memory": {}, "batches": {}}
    size = _size(source, settings.threads)
    for batch in BATCHES:
        images = oracle.pictures(batch, size)
        found["memory"][str(batch)] = _memory(source, exported, batch, settings.threads)
        runs, equal = contestants.forward(source, exported, chosen, images, settings.threads)
        cell: Row = {"output_difference": equal, "forward": group(runs, settings)}
        del runs
        if chosen.middle or chosen.image_gradient:
            cell["deeper"] = group(contestants.deeper(source, chosen, images, settings.threads), settings, 0.4)
        pictures = networks.photos(batch)
        explainer = contestants.explainer(exported, settings.threads)
        runs = {"ours": partial(contestants.boxes, explainer, pictures)}
        plain = cpu_session(source, settings.threads)
        runs["plain"] = partial(plain.run, None, contestants.feeds(plain, images))
        if made is not None:
            cell["torch_difference"] = _same_network(made, plain, images, source)
            tools, cell["left out"] = peers.make(made, chosen)
            cell["map_difference"] = _differences(
                tools, contestants.maps(source, chosen, images, settings.threads), images
            )
            cell["box_overlap"] = {
                peer.name: _overlap(contestants.boxes(explainer, pictures), peers.end_to_end(peer, pictures)[0])
                for peer in tools.values()
            }
            runs |= {tool: partial(_laps, peer, pictures) for tool, peer in tools.items()}
        cell["end_to_end"] = group(runs, settings, 0.4, PAUSE if made is not None else 0.0)
        found["batches"][str(batch)] = cell
    if made is not None and chosen.middle is not None:
        found["work_above"] = {chosen.middle[0]: round(networks.work_above(made, chosen.middle[1]), 4)}
    found["versions"] = versions(
        "fastcam",
        "onnxruntime",
        "torch",
        "torchvision",
        "grad-cam",
        "torchcam",
        "captum",
        "opencv-python",
        "numpy",
        "onnx",
    )
    return found


def _same_network(made: Any, plain: Any, images: Any, source: Path) -> float:
    """Largest difference of the file's scores to the module's, as a share of the largest.

    Raises:
        ValueError: the file is of other weights.
    """
    import torch

    from fastcam_bench.oracles.torch_oracle import difference
    from fastcam_bench.speed.networks import contestants

    with torch.no_grad():
        want = made(torch.from_numpy(images)).numpy()
    gap = difference(plain.run(None, contestants.feeds(plain, images))[0], want)
    if gap > 1e-3:
        raise ValueError(f"{source} is not of the module's weights ({gap:.0e} apart); remove it, it is made anew")
    return float(f"{gap:.1e}")


def _laps(peer: Any, pictures: Any) -> Any:
    from fastcam_bench.speed.networks import peers

    return peers.end_to_end(peer, pictures)[1]


def _size(source: Path, threads: int) -> int:
    side = cpu_session(source, threads).get_inputs()[0].shape[2]
    return side if isinstance(side, int) else 224


def _memory(source: Path, exported: Path, batch: int, threads: int) -> Row:
    plain, ours = (peak_memory(path, batch, threads) for path in (source, exported))
    ratio = (ours["peak"] - ours["imports"]) / (plain["peak"] - plain["imports"])
    return {"plain_mb": plain, "exported_mb": ours, "ratio": round(ratio, 4)}


def _differences(tools: dict[str, Any], ours: Any, images: Any) -> Row:
    """How far our maps are from each peer's, of the same pictures and classes."""
    import torch

    given, found = torch.from_numpy(images), {}
    for name, peer in tools.items():
        maps = peer.maps(given, peer.predict(given))
        found[name] = float(f"{peer.difference(maps, ours):.1e}")
    return found


def _overlap(ours: Any, theirs: Any) -> float:
    """Mean intersection over union of boxes; their maps are normalised in other ways before the threshold."""
    shares = []
    for a, b in zip(np.asarray(ours, float), np.asarray(theirs, float)):
        sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
        both = sides.prod()
        shares.append(both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both))
    return round(float(np.mean(shares)), 3)


def compiled(name: str, settings: Settings) -> Row:
    """The peers on the module that torch.compile makes, batch 1; of a failure its message."""
    import torch

    from fastcam_bench.models import networks
    from fastcam_bench.oracles import torch_oracle as oracle
    from fastcam_bench.speed.networks import contestants, peers

    torch.set_num_threads(settings.threads)
    chosen, made = networks.NETWORKS[name], networks.module(name)
    source = networks.onnx_file(name, made)
    assert source is not None
    images, pictures = oracle.pictures(1), networks.photos(1)
    ours = contestants.maps(source, chosen, images, settings.threads)
    plain = cpu_session(source, settings.threads)
    runs: dict[str, Run] = {"plain": partial(plain.run, None, contestants.feeds(plain, images))}
    failed: Row = {}
    differences: Row = {}
    tools, _ = peers.make(made, chosen)
    for tool, peer in tools.items():
        runs[tool] = partial(_laps, peer, pictures)
        fast = type(peer)(peers.twin(made), chosen)
        try:
            peers.compile_module(fast)
            differences |= {f"{tool}, compiled": gap for gap in _differences({tool: fast}, ours, images).values()}
            runs[f"{tool}, compiled"] = partial(_laps, fast, pictures)
        except Exception as error:  # whatever a compiler raises is its result
            failed[tool] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return {"map_difference": differences, "failed": failed, "end_to_end": group(runs, settings, 0.4, PAUSE)}


def openvino(name: str, settings: Settings) -> Row:
    """The plain and the exported file on OpenVINO."""
    from fastcam_bench.speed.networks import engines

    return {str(batch): engines.openvino(name, batch, settings) for batch in BATCHES} | {
        "versions": versions("openvino")
    }


def openvino_xai(name: str, settings: Settings) -> Row:
    """The same, and openvino_xai's explanation, where that runs."""
    from fastcam_bench.speed.networks import engines

    return {"1": engines.openvino(name, 1, settings, with_xai=True)} | {
        "versions": versions("openvino", "openvino-xai")
    }


def openvino_ep(name: str, settings: Settings) -> Row:
    """The plain and the exported file on ONNX Runtime's OpenVINO provider."""
    from fastcam_bench.speed.networks import engines

    found: Row = {str(batch): engines.openvino_provider(name, batch, settings) for batch in BATCHES}
    return found | {"versions": versions("onnxruntime-openvino")}


KINDS: dict[str, Callable[[str, Settings], Row]] = {
    "network": network,
    "compiled": compiled,
    "openvino": openvino,
    "openvino-xai": openvino_xai,
    "openvino-ep": openvino_ep,
}


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="One measurement of fastcam_bench.speed.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--least", type=int, required=True)
    options = parser.parse_args()
    settings = Settings(options.seconds, options.threads, options.least)
    found = KINDS[options.kind](options.name, settings)
    found["python"] = platform.python_version()
    options.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
