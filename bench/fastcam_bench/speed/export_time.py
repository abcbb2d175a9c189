"""How long an export takes, and how it grows with the number of nodes.

    python -m fastcam_bench.speed.export_time [--out FILE]

ResNet-50 and ViT-B/16 of torchvision (random weights) and a chain of 1,000 nodes, with and without the check that ends
an export; then chains of 250 to 4,000 nodes, explained at their first layer, so that all nodes are differentiated. The
exponent is the slope of log time over log nodes: 1 is linear. Medians; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

OUTPUT = RESULTS / "speed" / "export_time.json"
SIZES = (250, 500, 1000, 2000, 4000)
CHANNELS = 4
Row = dict[str, Any]


def chain(nodes: int) -> onnx.ModelProto:
    """A network of ``nodes`` nodes: residual blocks Conv, Mul, Sigmoid, Add, Relu, then a mean and one matrix."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array((rng.standard_normal((CHANNELS, CHANNELS, 3, 3)) / 6).astype(np.float32), "w")
    gain = numpy_helper.from_array(np.full((1, CHANNELS, 1, 1), 0.5, np.float32), "gain")
    head = numpy_helper.from_array(rng.standard_normal((CHANNELS, 5)).astype(np.float32), "head")
    made = [helper.make_node("Conv", ["image", "w"], ["x0"], pads=[1] * 4)]
    x, block = "x0", 0
    while len(made) + 5 + 3 <= nodes:
        block += 1
        c, g, s, a, y = (f"{letter}{block}" for letter in ("conv", "gained", "gate", "sum", "x"))
        made += [
            helper.make_node("Conv", [x, "w"], [c], pads=[1] * 4),
            helper.make_node("Mul", [c, "gain"], [g]),
            helper.make_node("Sigmoid", [g], [s]),
            helper.make_node("Add", [x, s], [a]),
            helper.make_node("Relu", [a], [y]),
        ]
        x = y
    while len(made) + 3 < nodes:
        made.append(helper.make_node("Sigmoid", [x], [f"more{len(made)}"]))
        x = made[-1].output[0]
    made += [
        helper.make_node("GlobalAveragePool", [x], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", CHANNELS, 8, 8])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])]
    graph = helper.make_graph(made, "chain", inputs, outputs, [weight, gain, head])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def seconds(proto: onnx.ModelProto, check: bool, layer: str = "auto", repeats: int = 3) -> float:
    """Median time of an export to memory, the first one, which imports and allocates, not counted."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        export_model(proto, layer=layer, check=check)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def model(name: str, proto: onnx.ModelProto, layer: str = "auto") -> Row:
    """One model, without the check and with it."""
    times = {"seconds": seconds(proto, False, layer), "seconds_with_check": seconds(proto, True, layer)}
    return {"model": name, "nodes": len(proto.graph.node), **times}


def growth(sizes: tuple[int, ...] = SIZES) -> Row:
    """Chains of all sizes, and the exponent of time over nodes."""
    rows = []
    for size in sizes:
        taken = seconds(chain(size), False, "x0")
        rows.append({"nodes": size, "seconds": taken, "microseconds_per_node": taken / size * 1e6})
        print(rows[-1], flush=True)
    logs = np.log([[row["nodes"], row["seconds"]] for row in rows])
    return {"chains": rows, "exponent": float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])}


def table(report: Row) -> str:
    """Markdown."""
    lines = [
        "# Export time",
        "",
        f"`{report['command']}`, {report['machine']['cpu']}, {report['machine']['cores']} cores.",
        "",
        "| model | nodes | export s | with its check s |",
        "|---|---:|---:|---:|",
    ]
    for row in report["models"]:
        lines.append(f"| {row['model']} | {row['nodes']} | {row['seconds']:.2f} | {row['seconds_with_check']:.2f} |")
    lines += [
        "",
        f"Growth: time ~ nodes^{report['growth']['exponent']:.2f}.",
        "",
        "| nodes of a chain | export s | µs per node |",
        "|---:|---:|---:|",
    ]
    for row in report["growth"]["chains"]:
        lines.append(f"| {row['nodes']} | {row['seconds']:.2f} | {row['microseconds_per_node']:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Time of an export.")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    options = parser.parse_args()
    rows = []
    for name in ("resnet50", "vit_b_16"):
        rows.append(model(name, oracle.to_onnx(oracle.build(name), dynamo=False)))
        print(rows[-1], flush=True)
    rows.append(model("chain of 1,000 nodes, at its first layer", chain(1000), "x0"))
    report = {
        "command": "python -m fastcam_bench.speed.export_time",
        "versions": versions("fastcam", "onnx", "onnx-ir", "onnxruntime", "torch"),
        "machine": machine(),
        "models": rows,
        "growth": growth(),
    }
    write_report(report, options.out, table)


if __name__ == "__main__":
    main()
