"""Writes bench/results/methods/methods.md: every method and mode, what serves it, its cost, who else has it, and its
proof.

    python -m fastcam_bench.report.methods_table

Methods and modes come from the package (``fastcam.methods.METHODS``, ``fastcam.schema.MODES``), peers and tests from
:mod:`fastcam_bench.accuracy.method_evidence`.
"""

from __future__ import annotations

from typing import Any

from fastcam.methods import METHODS, perturbation
from fastcam.schema import MODES
from fastcam_bench.accuracy.method_evidence import ROWS
from fastcam_bench.paths import RESULTS

COMMAND = "python -m fastcam_bench.report.methods_table"
OUTPUT = RESULTS / "methods" / "methods.md"


def served_by(name: str) -> str:
    """The export that a method or mode needs."""
    one: Any = METHODS.get(name)
    if one is None:
        return f"`--input-gradient {name}`" if name in MODES else f"any: `fastcam.perturbation.{ROWS[name].function}`"
    emits = {
        "weights": "any",
        "activations": "`--emit weights` (default), `gradients`",
        "gradients": "`--emit gradients`",
    }
    if name == "cam":
        return "any, of a head that is a mean and one matrix"
    parts = [f"`--input-gradient {one.mode}`"] if getattr(one, "mode", None) else []
    parts += ["`--head`"] if getattr(one, "runs", None) == "layer" else []
    parts += [emits[one.needs]] if one.needs in emits and not (parts and one.needs == "weights") else []
    return ", ".join(parts) or "any"


def cost(name: str) -> str:
    """Forward passes: what the method itself says, else the row."""
    return str(getattr(METHODS.get(name), "cost", None) or ROWS[name].cost)


def names() -> dict[str, list[str]]:
    """What the table lists: the methods, the modes that are none, and the functions that are neither."""
    others = [name for name, row in ROWS.items() if name not in METHODS and hasattr(perturbation, row.function or "-")]
    return {
        "Methods: `--method`": list(METHODS),
        "Backward modes: `--input-gradient`": [name for name in MODES if name not in METHODS],
        "Functions of any score: `fastcam.perturbation`": others,
    }


def table() -> str:
    """The page as Markdown."""
    lines = [
        "# Methods",
        "",
        f"Made by `{COMMAND}`. Served by: what `fastcam export` is given. Cost: forward passes of the model for one "
        "picture, with any number of targets where it is one (what a backward pass costs is in [speed.md](speed.md)). "
        "Peers: tools that have it too; [parity.md](parity.md) compares them on the same weights. Proof: the tests "
        "that hold it to an oracle that is not ours (the paper's sums, PyTorch's autograd, differences, Captum).",
        "",
    ]
    for title, listed in names().items():
        if listed:
            lines += [
                f"## {title}",
                "",
                "| name | served by | cost | peers | source | proof |",
                "|---|---|---|---|---|---|",
            ]
            lines += [_line(name) for name in listed]
            lines.append("")
    return "\n".join(lines)


def _line(name: str) -> str:
    row, one = ROWS[name], METHODS.get(name)
    tests = ", ".join(
        f"[{test.split('::')[1].removeprefix('test_')}](../../../tests/{test.split('::')[0]})" for test in row.tests
    )
    source = one.source if one else row.source
    return f"| `{name}` | {served_by(name)} | {cost(name)} | {', '.join(row.peers) or 'none'} | {source} | {tests} |"


def short() -> str:
    """The README's form: a line per way of being served."""
    groups: dict[tuple[str, str], list[str]] = {}
    for listed in names().values():
        for name in listed:
            served = served_by(name)
            served = "`--input-gradient` and its name" if served == f"`--input-gradient {name}`" else served
            served = "any: `fastcam.perturbation`" if served.startswith("any: `fastcam.pert") else served
            groups.setdefault((served, cost(name)), []).append(name)
    lines = ["| methods and modes | export | cost in forward passes |", "|---|---|---|"]
    lines += [f"| {', '.join(listed)} | {served} | {passes} |" for (served, passes), listed in groups.items()]
    return "\n".join(lines)


def main() -> None:
    """The command; see the module's docstring."""
    OUTPUT.write_text(table(), encoding="utf-8")
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main()
