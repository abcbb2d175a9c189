"""``fastcam_export.vjp`` on ONNX's own conformance cases, against central differences of other evaluators.

    python -m fastcam_bench.accuracy.conformance [--out FILE] [--only TEXT] [--again]

Every case of onnx.backend.test (node, pytorch-converted, pytorch-operator) that has float tensors on both ends: all
of its float outputs are differentiated by all of its float inputs and weights. The result runs on ONNX Runtime, and
each gradient g is held against (f(x + hv) - f(x - hv)) / 2h along a random direction v, computed by an evaluator that
reproduces the outputs that the case states: ONNX's reference evaluator in float64, or else ONNX Runtime. Data are first
moved by up to 2 % off the whole numbers (ties) that many cases consist of. Writes conformance.json (case by case,
resumable: cases that passed are not run again unless ``--again``) and conformance.md (operator by operator).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from fastcam.schema import FastcamError
from fastcam_bench.accuracy.conformance import oracle
from fastcam_bench.accuracy.conformance.case import (
    Array,
    LeftOut,
    Problem,
    operator,
    positive,
    problem,
    problems,
    retyped,
    with_constants,
    with_weights_as_inputs,
)
from fastcam_bench.oracles.isolated import Row, each
from fastcam_bench.oracles.machine import versions
from fastcam_bench.paths import RESULTS
from fastcam_export import vjp

OUTPUT = RESULTS / "gradients" / "conformance.json"
COMMAND = "python -m fastcam_bench.accuracy.conformance"
LIMIT = 120
"""Seconds that a case may take."""
HALF = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
GENERATORS = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


def measure(name: str) -> Row:
    """One case: status "passed", "zero" (a derivative that is zero, confirmed), "left out", "refused" or "failed"."""
    found = problem(name)
    row = {"case": name, "operator": found.operator}
    if isinstance(found, LeftOut):
        return {**row, "status": "left out", "reason": found.reason}
    try:
        if random(found):
            return {**row, "status": "left out", "reason": "its outputs are random numbers"}
        return {**row, **compare(found)}
    except FastcamError as error:
        training = "is in training mode" in str(error)
        reason = "in training mode, which an inference graph never is" if training else str(error)
        return {**row, "status": "left out" if training else "refused", "reason": reason}


def random(found: Problem) -> bool:
    """Whether an operator of the case draws random numbers."""
    return any(node.op_type in GENERATORS for node in found.model.graph.node)


def compare(found: Problem) -> Row:
    """The gradients of one case against the first oracle that has it."""
    judges = list(oracle.oracles(found))
    if not judges:
        return {"status": "left out", "reason": "no evaluator here reproduces the outputs that the case states"}
    _, feeds = with_weights_as_inputs(found)
    values = judges[0].run(feeds)
    if any(np.isnan(values[name]).sum() > np.isnan(y).sum() for name, y in found.stated[1].items() if name in found.of):
        found = positive(found)
        _, feeds = with_weights_as_inputs(found)
        values = judges[0].run(feeds)
    gradients, runner = differentiate(found, values)
    rows: list[Row] = []
    for judge in judges:
        seeds = oracle.cotangents(found, values)
        made = gradients(seeds)
        errors = {name: oracle.slope_error(judge, feeds, seeds, name, made[f"grad.{name}"]) for name in found.wrt}
        worst = max(errors.values())
        row = {"oracle": judge.name, "runner": runner, "error": float(f"{worst:.1e}"), "wrt": len(errors)}
        if worst <= max(judge.tolerance, 2e-2 if "half" in runner else 0):
            flat = all(not np.any(made[f"grad.{name}"]) for name in found.wrt)
            reason = {"reason": "its derivative is zero almost everywhere (confirmed)"} if flat else {}
            return {"status": "zero" if flat else "passed", **reason, **row}
        rows.append(row)
    best = min(rows, key=lambda row: float(row["error"]))
    return {"status": "failed", "reason": f"error {best['error']}", **best}


def differentiate(found: Problem, values: Mapping[str, Array]) -> tuple[Any, str]:
    """(cotangents -> gradients by name, what runs them)."""
    last: Exception | None = None
    for model, note, run in forms(found):
        try:
            forward = run(vjp(model, list(found.wrt), list(found.of)))
            forward(
                case_inputs(found, {name: np.zeros(values[name].shape) for name in found.of})
            )  # a kernel may refuse only now
        except FastcamError as error:
            last = error if last is None or isinstance(last, FastcamError) else last
            if "run time" not in str(error):
                raise
        except Exception as error:  # no kernel for the operator in this type, or an opset that it does not know
            last = error
        else:
            return (lambda seeds, forward=forward: forward(case_inputs(found, seeds))), note
    assert last is not None
    raise last


def forms(found: Problem) -> Iterator[tuple[onnx.ModelProto, str, Callable[[onnx.ModelProto], oracle.Forward]]]:
    """The case in the forms in which something can run its gradient: model, note, runner."""
    fixed = with_constants(found)
    half = " half precision" if {v.type.tensor_type.elem_type for v in found.model.graph.input} & HALF else ""
    yield found.model, f"runtime{half}", oracle.on_runtime
    yield fixed, f"runtime{half}, integer inputs as constants", oracle.on_runtime
    yield retyped(found.model), "runtime, as float32", oracle.on_runtime
    yield retyped(fixed), "runtime, as float32, integer inputs as constants", oracle.on_runtime
    yield retyped(fixed, TensorProto.DOUBLE), "reference, as float64", oracle.on_reference


def case_inputs(found: Problem, seeds: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs of the differentiated case."""
    return {**found.feeds, **{f"cotangent.{name}": seed for name, seed in seeds.items()}}


def sweep(names: list[str], rows: dict[str, Row], out: Path) -> None:
    """Measure cases; write the report every now and then."""
    for count, (name, row) in enumerate(each(measure, names, LIMIT), 1):
        rows[name] = {"case": name, "operator": operator(name), **row}
        if count % 100 == 0:
            write(rows, out)
            print(len(names) - count, "left", Counter(row["status"] for row in rows.values()), flush=True)
    write(rows, out)


def write(rows: dict[str, Row], out: Path) -> None:
    """The report, and the table beside it."""
    ordered = [rows[name] for name in problems() if name in rows]
    report = {
        "command": COMMAND,
        "versions": versions("fastcam", "onnx", "onnxruntime", "numpy"),
        "cases": ordered,
    }
    lines = ",\n".join(json.dumps(row) for row in ordered)
    head = json.dumps({**report, "cases": []}, indent=1)
    out.write_text(head.replace('"cases": []', f'"cases": [\n{lines}\n]') + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(table(report), encoding="utf-8")


def totals(report: Row) -> Counter[str]:
    """Cases by status."""
    return Counter(row["status"] for row in report["cases"])


def table(report: Row) -> str:
    """Markdown: operator by operator, cases passed of cases with a derivative, and why others are left out."""
    by_operator: dict[str, list[Row]] = defaultdict(list)
    for row in report["cases"]:
        by_operator[row["operator"] or "?"].append(row)
    count = totals(report)
    judged = sum(count[status] for status in ("passed", "failed", "refused"))
    lines = [
        "# ONNX's conformance cases",
        "",
        f"`{report['command']}`, onnx {report['versions']['onnx']}, ONNX Runtime {report['versions']['onnxruntime']}.",
        f"Of {len(report['cases'])} cases {judged} have a derivative; `vjp` equals central differences in "
        f"{count['passed']} of them. Another {count['zero']} have a",
        f"derivative that is zero almost everywhere, confirmed the same way; {count['left out']} have none.",
        "",
        "| operator | passed | of | zero | left out | reasons |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name in sorted(by_operator, key=str.lower):
        rows = by_operator[name]
        status = Counter(row["status"] for row in rows)
        of = len(rows) - status["zero"] - status["left out"]
        lines.append(
            f"| {name} | {status['passed'] or ''} | {of or ''} | {status['zero'] or ''} | {status['left out'] or ''} | "
            f"{reasons(rows)} |"
        )
    return "\n".join(lines) + "\n"


def reasons(rows: list[Row]) -> str:
    """The distinct reasons of the cases that did not pass, with counts."""
    found = Counter(
        row["reason"].split("; ")[0].replace("|", "/") for row in rows if row["status"] not in ("passed", "zero")
    )
    return "; ".join(f"{reason} ({count})" for reason, count in found.items())


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Gradients of ONNX's conformance cases.")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--again", action="store_true", help="also those that passed before")
    options = parser.parse_args()
    rows: dict[str, Row] = {}
    if options.out.is_file():
        rows = {row["case"]: row for row in json.loads(options.out.read_text(encoding="utf-8"))["cases"]}
    done = {name for name, row in rows.items() if row["status"] in ("passed", "zero", "left out")}
    names = [name for name in problems() if options.only in name and (options.again or name not in done)]
    sweep(names, rows, options.out)
