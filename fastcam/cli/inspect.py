"""``fastcam inspect``: what a file takes and gives, what can be explained, and the next command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from fastcam.cli.export import exporter
from fastcam.cli.shared.console import print_table, say
from fastcam.cli.shared.options import ForEngine, InputName, OnnxFile, OutputName, ScoreKind
from fastcam.errors import MOST

EXAMPLES = ("fastcam inspect resnet50.onnx", "fastcam inspect resnet50.cam.onnx")


def inspect(
    model: OnnxFile,
    output_name: OutputName = None,
    score: ScoreKind = "logit",
    for_engine: ForEngine = "onnxruntime",
    input_name: InputName = None,
) -> None:
    """Show what a model takes and gives, the layers that can be explained, what blocks that, and the command to type.

    It answers for every ONNX file. Of an exported file: what it explains, and of which pair it is a part.
    """
    exported = exporter().exported(model)
    if exported is not None:
        for line in exported:
            say(line)
        return
    found = exporter().inspect_model(
        model, output_name=output_name, score=score, for_engine=for_engine, input_name=input_name
    )
    for text in found.repairs:
        say(f"read: {text}")
    _say_values("input ", found.inputs, "explained")
    for note in found.notes:
        say(note)
    _say_values("output", found.outputs, "explained")
    if found.layers:
        _say_layers(found)
    if found.score is not None:
        classes = "" if found.score.classes is None else f", {found.score.classes} classes"
        line = f"explained score: {found.score.kind} of output {found.score.output}{classes}"
        typer.echo(f"taken for {found.taken_for}" if found.taken_for else line)
        missing = ", ".join(f"{op_type} ({count})" for op_type, count in found.missing)
        typer.echo(f"operators without a gradient rule: {missing or 'none'}")
    everything = [] if for_engine != "tensorrt" else [f"{for_engine} reads every operator of the model"]
    for line in found.engine or everything:
        say(line)
    for why in found.blocks:
        say(f"{'plainly: ' if found.command else 'blocked: '}{why}")
    if found.command:
        say("tried   all of the next command but its check of the gradient, which may still refuse it")
    say(f"next: {found.command}" if found.command else "next: none; no export of this file works")


def _say_values(what: str, values: Sequence[Any], mark: str) -> None:
    """A line for each input or output."""
    for value in values[:MOST]:
        shape = " x ".join(map(str, value.shape)) or "shape unknown"
        about = "; ".join(filter(None, (value.taken_for, mark if value.explained else "")))
        say(f"{what}  {value.name}: {value.dtype or 'type unknown'} {shape}{': ' if about else ''}{about}")
    if len(values) > MOST:
        say(f"{what}  and {len(values) - MOST} more")


def _say_layers(found: Any) -> None:
    """The table of layers, and what its marks mean."""
    rows = []
    for layer in found.layers:
        shape = " x ".join(str(side) for side in layer.shape)
        mark = "*" if layer.chosen else "+" if layer.in_all else ""
        rows.append((mark, layer.name, layer.op_type, shape, layer.layout, layer.scope, layer.note))
    print_table(("", "layer", "operator", "shape", "layout", "scope", "note"), rows)
    if found.reason:
        say(f"* chosen: {found.reason}")
    if found.taken_for and any(layer.in_all for layer in found.layers):
        say("+ taken beside it, and fused")
    elif sum(layer.in_all for layer in found.layers) > 1:
        say("+ taken beside it by --layer all, for one file that explains at each of them")
