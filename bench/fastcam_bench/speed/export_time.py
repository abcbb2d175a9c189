"""How long an export takes, how it grows with the number of nodes, and what memory a file of more than 2 GB needs.

    python -m fastcam_bench.speed.export_time [--out FILE] [--repeats 3]

ResNet-50, ViT-B/16 and ViT-L/16 of torchvision (random weights) and a chain of 1,000 nodes, with and without the check
that ends an export; then chains of 250 to 4,000 nodes, explained at their first layer, so that all nodes are
differentiated. The exponent is the slope of log time over log nodes: 1 is linear. Medians; run it on an idle machine.
The seconds of the processors, all threads together, hold on a busy one too.

The large file is a network of matrices with external data, exported by the command in a process of its own, whose peak
memory the system tells.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
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


def seconds(proto: onnx.ModelProto, check: bool, layer: str = "auto", repeats: int = 3) -> tuple[float, float]:
    """Median time of an export to memory, and of the processors, the first one, which imports, not counted."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter(), time.process_time()
        export_model(proto, layer=layer, check=check)
        taken.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    passed, used = zip(*taken[1:])
    return statistics.median(passed), statistics.median(used)


def model(name: str, proto: onnx.ModelProto, layer: str = "auto", repeats: int = 3) -> Row:
    """One model, without the check and with it."""
    row: Row = {"model": name, "nodes": len(proto.graph.node)}
    for key, check in (("", False), ("_with_check", True)):
        row[f"seconds{key}"], row[f"processor_seconds{key}"] = seconds(proto, check, layer, repeats)
    return row


def large(folder: Path, gigabytes: float = 2.4) -> Row:
    """A file with external data in ``folder``, exported by the command: its bytes, and the peak of memory."""
    path = folder / "large.onnx"
    _write_large(path, gigabytes)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PEAK, "export", str(path)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    size = path.stat().st_size + path.with_suffix(".data").stat().st_size
    peak = int(done.stdout.splitlines()[-1])
    return {"bytes": size, "peak_bytes": peak, "ratio": peak / size, "seconds": time.perf_counter() - start}


PEAK = """
import resource, sys
from fastcam.cli import app
try:
    app()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""
WIDTH, INNER = 1280, 5120


def _write_large(path: Path, gigabytes: float) -> None:
    """Patches, blocks of a norm and two matrices with a residual, a mean and classes; the weights beside the file."""
    rng = np.random.default_rng(0)
    tensors: list[TensorProto] = []
    with open(path.with_suffix(".data"), "wb") as file:

        def weight(name: str, *shape: int) -> str:
            file.write(bytes(-file.tell() % 4096))
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            said = {"location": path.with_suffix(".data").name, "offset": file.tell(), "length": 4 * math.prod(shape)}
            for key, value in said.items():
                tensor.external_data.add(key=key, value=str(value))
            array = rng.standard_normal(shape, np.float32) / np.float32(math.sqrt(shape[0]))
            file.write(array.tobytes())
            tensors.append(tensor)
            return name

        made = [
            helper.make_node("Conv", ["image", weight("patches", WIDTH, 3, 32, 32)], ["p"], strides=[32, 32]),
            helper.make_node("Reshape", ["p", "rows"], ["r"]),
            helper.make_node("Transpose", ["r"], ["x0"], perm=[0, 2, 1]),
        ]
        count = int(gigabytes * 1e9 / (8 * WIDTH * INNER))
        for i in range(count):
            made += [
                helper.make_node("LayerNormalization", [f"x{i}", "gain"], [f"n{i}"]),
                helper.make_node("MatMul", [f"n{i}", weight(f"up{i}", WIDTH, INNER)], [f"h{i}"]),
                helper.make_node("Tanh", [f"h{i}"], [f"t{i}"]),
                helper.make_node("MatMul", [f"t{i}", weight(f"down{i}", INNER, WIDTH)], [f"y{i}"]),
                helper.make_node("Add", [f"x{i}", f"y{i}"], [f"x{i + 1}"]),
            ]
        made += [
            helper.make_node("LayerNormalization", [f"x{count}", "gain"], ["last"]),
            helper.make_node("ReduceMean", ["last", "positions"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", weight("head", WIDTH, 1000)], ["logits"]),
        ]
    small = {"rows": np.array([0, WIDTH, 49]), "gain": np.ones(WIDTH, np.float32), "positions": np.array([1])}
    tensors += [numpy_helper.from_array(array, name) for name, array in small.items()]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])]
    graph = helper.make_graph(made, "large", inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def growth(sizes: tuple[int, ...] = SIZES, repeats: int = 3) -> Row:
    """Chains of all sizes, and the exponent of time over nodes."""
    rows = []
    for size in sizes:
        taken = seconds(chain(size), False, "x0", repeats)[1]
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
        "| model | nodes | export s | with its check s | of all processors s | with its check s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    keys = ("seconds", "seconds_with_check", "processor_seconds", "processor_seconds_with_check")
    for row in report["models"]:
        lines.append(f"| {row['model']} | {row['nodes']} | " + " | ".join(f"{row[key]:.2f}" for key in keys) + " |")
    big = report["large"]
    size, peak = (f"{big[key] / 1e9:.2f} GB" for key in ("bytes", "peak_bytes"))
    lines += [
        "",
        f"A file of {size} with external data, exported with its check: the peak of memory is {peak}, "
        f"{big['ratio']:.2f} times the file.",
        "",
        f"Growth: time of the processors ~ nodes^{report['growth']['exponent']:.2f}.",
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
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        big = large(Path(folder))
    print(big, flush=True)
    rows = []
    for name in ("resnet50", "vit_b_16", "vit_l_16"):
        rows.append(model(name, oracle.to_onnx(oracle.build(name), dynamo=False), repeats=options.repeats))
        print(rows[-1], flush=True)
    rows.append(model("chain of 1,000 nodes, at its first layer", chain(1000), "x0", options.repeats))
    report = {
        "command": "python -m fastcam_bench.speed.export_time",
        "versions": versions("fastcam", "onnx", "onnx-ir", "onnxruntime", "torch"),
        "machine": machine(),
        "models": rows,
        "large": big,
        "growth": growth(repeats=options.repeats),
    }
    write_report(report, options.out, table)


if __name__ == "__main__":
    main()
