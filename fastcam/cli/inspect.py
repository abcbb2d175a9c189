"""``fastcam inspect``: what can be explained."""

from __future__ import annotations

import typer

from fastcam.cli.console import print_table, say
from fastcam.cli.export import exporter
from fastcam.cli.shared_options import ForEngine, InputName, OnnxFile, OutputName, ScoreKind

EXAMPLES = ("fastcam inspect resnet50.onnx", "fastcam inspect resnet50.cam.onnx")


def inspect(
    model: OnnxFile,
    output_name: OutputName = None,
    score: ScoreKind = "logit",
    for_engine: ForEngine = "onnxruntime",
    input_name: InputName = None,
) -> None:
    """Show the layers that can be explained, the one chosen and why, and operators without a gradient rule.

    Of an exported file: what it explains, and of which pair it is a part.
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
    rows = []
    for layer in found.layers:
        shape = " x ".join(str(side) for side in layer.shape)
        mark = "*" if layer.chosen else "+" if layer.in_all else ""
        rows.append((mark, layer.name, layer.op_type, shape, layer.layout, layer.scope, layer.note))
    print_table(("", "layer", "operator", "shape", "layout", "scope", "note"), rows)
    say(f"* chosen: {found.reason}")
    if sum(layer.in_all for layer in found.layers) > 1:
        say("+ taken beside it by --layer all, for one file that explains at each of them")
    classes = "" if found.score.classes is None else f", {found.score.classes} classes"
    typer.echo(f"explained score: {found.score.kind} of output {found.score.output}{classes}")
    missing = ", ".join(f"{op_type} ({count})" for op_type, count in found.missing)
    typer.echo(f"operators without a gradient rule: {missing or 'none'}")
    everything = [] if for_engine != "tensorrt" else [f"{for_engine} reads every operator of the model"]
    for line in found.engine or everything:
        say(line)
