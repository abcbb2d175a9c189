"""Sections of what things cost: explanations, kernels, and targets that were missed; of bench/results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastcam_bench.report.markdown import table
from fastcam_bench.report.results import read


def speed() -> str:
    """The cost of an explanation, a line per network and batch size, and the plot."""
    from fastcam_bench.speed.networks import report

    measured = read("speed/speed.json")
    versions = measured["networks"]["resnet50"]["network"]["versions"]
    tools = ", ".join(f"{tool} {versions[peer]}" for peer, tool in report.PEERS.items())
    lines = [
        "Multiples of the plain forward pass of the same file in the same runtime, medians of interleaved rounds",
        f"(`{measured['command']}`; ONNX Runtime {versions['onnxruntime']}, PyTorch {versions['torch']}, CPU,",
        f"{measured['threads']} threads, {measured['machine']['cpu']}). T = 1 and T = 5: one run of the exported file,",
        f"for one class and for five. Then all the way from pictures to boxes, beside {tools},",
        "each as its README shows it, on the same weights and layer:",
        "",
    ]
    titles = ["network", "batch", "plain ms", "T = 1", "T = 5", "picture to box: FastCAM", *report.PEERS.values()]
    rows = (
        [entry["title"], batch, *_speeds(cell, report.TOP, list(report.PEERS))]
        for entry in measured["networks"].values()
        for batch, cell in entry.get("network", {}).get("batches", {}).items()
    )
    lines += [
        *table(titles, rows),
        "",
        "![From picture to box: FastCAM and its peers as multiples of the plain forward pass]"
        "(bench/results/speed/speed.svg)",
        "",
        f"{report.verdict(measured)}: each of them, layers in the middle, the gradient to the image, OpenVINO beside",
        "openvino_xai, torch.compile, memory and file sizes are in [speed.md](bench/results/speed/speed.md).",
    ]
    return "\n".join(lines)


def _speeds(cell: dict[str, Any], top: str, peers: list[str]) -> list[str]:
    """The figures of one line of the table."""
    forward, whole = cell["forward"], cell["end_to_end"]
    figures = [f"{forward['plain']['median_ms']:.1f}"]
    figures += [f"{forward[name]['ratio']:.2f}" for name in ("weights", top)]
    return figures + [f"{whole[name]['ratio']:.2f}" if name in whole else "" for name in ("ours", *peers)]


def kernels() -> str:
    """The native kernels beside what they replace: the nearest peer of each case."""
    measured = read("kernels/kernels.json")
    lines = [
        f"What follows the graph, {measured['threads']} thread, beside the fastest of NumPy with OpenCV, cc3d, scipy",
        f"and scikit-image (median of pairwise ratios, above 1 ours is faster; {measured['machine']['cpu']},",
        f"`{measured['command']}`, where masks of other kinds are measured too):",
        "",
    ]
    rows = []
    own = {"fused", "fused with heatmap", "separate"}
    for result in measured["results"]:
        if any(word in result["case"] for word in ("random", "comb", "checkerboard", "diagonals", "dots")):
            continue
        ratios = {name: ratio["median"] for name, ratio in result["ratio"].items() if name not in own}
        peer = min(ratios, key=lambda name: ratios[name])
        rows.append([result["case"], peer, f"{ratios[peer]:.1f}"])
    return "\n".join(lines + table(("case", "beside", "speed-up"), rows, words=(0, 1)))


def gpu() -> str:
    """ResNet-50 on a GPU, and the kernels there beside CuPy's."""
    measured = read("kernels/pipeline_gpu.json")
    small = read("kernels/kernels_gpu.json")
    queued, waiting = (measured[part][0]["runs"] for part in ("throughput", "waiting"))
    first, graph = measured["latency"][1]["runs"], "Explainer, CUDA graph"
    many = next(part["runs"] for part in measured["peers"] if (part["batch"], part["dtype"]) == (64, "float32"))
    to_boxes, ours = "to boxes on the host", many["FastCAM"]["median_ms"]
    peers = ", ".join(f"{name} {many[name]['median_ms'] / ours:.1f}" for name in ("grad-cam", "torchcam", "captum"))
    ratios = {one["case"]: one["ratio"] for one in small["results"]}
    label = [ratio["cupyx.scipy.ndimage"]["median"] for case, ratio in ratios.items() if case.startswith("label")]
    lines = [
        f"ResNet-50 on one {measured['gpu']} (`{measured['command']}`, ONNX Runtime",
        f"{measured['versions']['onnxruntime']}; all of it in "
        "[pipeline_gpu.md](bench/results/kernels/pipeline_gpu.md)), as",
        "multiples of the plain forward pass of the same file in the same runtime:",
        "",
        "| batch, type | what | times plain |",
        "|---|---|---:|",
        f"| 64, float16, eight batches queued | exported file | {queued['exported for CUDA']['ratio']:.3f} |",
        f"| | and its boxes on the host | {queued[to_boxes]['ratio']:.3f} |",
        f"| 64, float16, one batch at a time | boxes on the host | {waiting[to_boxes]['ratio']:.3f} |",
        f"| 1, float32, from and to the host | `Explainer` | {first['Explainer']['ratio']:.2f} |",
        f"| | with a CUDA graph | {first[graph]['ratio']:.2f} |",
        "",
        f"Maps of 64 float32 images, peers' time over ours on the same GPU: {peers}. The kernels beside CuPy's",
        f"(`{small['command']}`): weigh to boxes of 64 maps",
        f"{ratios['64 x 2048x7x7 float32 to 224: weigh to boxes']['cupy']['median']:.0f} times as fast, 4K overlay",
        f"{ratios['overlay 4K']['cupy']['median']:.0f}, labels of masks {min(label):.1f} to {max(label):.1f}.",
    ]
    return "\n".join(lines)


FIVE = ("alexnet", "resnet50", "mobilenet_v2", "vit_b_16", "swin_t")


def cost() -> str:
    """The cost of one explanation, five networks, one picture at a time."""
    from fastcam_bench.speed.networks import report

    measured = read("speed/speed.json")
    rows = []
    for name in FIVE:
        entry = measured["networks"][name]
        plain, weights, _, *rest = _speeds(entry["network"]["batches"]["1"], report.TOP, list(report.PEERS))
        rows.append([entry["title"], plain, weights, *rest])
    titles = ["network", "plain ms", "exported file", "picture to box: FastCAM", *report.PEERS.values()]
    lines = [
        *table(titles, rows),
        "",
        "Multiples of the plain forward pass of the same file in the same runtime, one picture at a time",
        f"(`{measured['command']}`: {measured['threads']} threads, {measured['machine']['cpu']}).",
    ]
    return "\n".join(lines)


def missed() -> str:
    """The targets of speed and memory that were missed, each with its worst figure."""
    from fastcam_bench.speed.networks import report

    measured = read("speed/speed.json")
    rows = []
    for what, wanted, figures in report.targets(measured):
        worst = min(figures, key=lambda found: found.margin)
        if not worst.met:
            met = sum(found.met for found in figures)
            rows.append([what, wanted, f"{worst.measured:.2f}", worst.where, f"{met} of {len(figures)}"])
    return "\n".join(table(("what", "wanted", "worst figure", "where", "met"), rows, words=(0, 1, 3, 4)))


SECTIONS: dict[str, Callable[[], str]] = {
    "cost": cost,
    "speed": speed,
    "missed": missed,
    "kernels": kernels,
    "gpu": gpu,
}
