"""``fastcam methods``: what makes heatmaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastcam.cli.shared.console import print_table, say

if TYPE_CHECKING:
    from fastcam.methods import Method

EXAMPLES = (
    "fastcam methods",
    "fastcam explain resnet50.cam.onnx photo.jpg --method layercam",
    "fastcam explain resnet50.cam.onnx photo.jpg --method rise --option masks=1000",
)


def methods() -> None:
    """List the methods, what a file must hold for each, what each costs in forward passes, and its options."""
    from fastcam.methods import METHODS
    from fastcam.methods.options import described

    rows = [
        (one.name, one.title, _needed_options(one), one.cost, described(one), one.formula, one.source)
        for one in METHODS.values()
    ]
    titles = (
        "method",
        "title",
        "export with",
        "passes",
        "options",
        "map M or weights w_k of the activations A",
        "source",
    )
    print_table(titles, rows)
    say("For one map that points and outlines: guided-gradcam, of a file exported with --input-gradient guided.")
    say("Of boxes and regions: hirescam, their default. gradcam is the paper's, and serves every file.")
    say("y is the score, x the network's input, g = dy/dA; K channels of h w positions. Of changed images y is the")
    say("output as the model gives it, behind its softmax; otherwise it is what the file explains, before that.")
    say("Behind a method of weights w_k, +eigen takes the first principal component of w_k A_k in place of their sum.")
    say("Deep feature factorisation, which explains pictures together and no class, is the verb fastcam concepts.")


def _needed_options(one: Method) -> str:
    """The options of the export that serve a method."""
    emit = {"weights": "any", "nothing": "any", "gradients": "--emit gradients"}.get(
        one.needs, "--emit weights, gradients"
    )
    parts = [] if emit == "any" else [emit]
    parts += [f"--input-gradient {one.mode}"] if one.mode else []
    parts += ["--head"] if one.runs == "layer" else []
    return " ".join(parts) or "any"
