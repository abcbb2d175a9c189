"""``fastcam methods``: the CAM family."""

from __future__ import annotations

from fastcam.verbs.console import print_table, say

EXAMPLES = ("fastcam methods", "fastcam explain resnet50.cam.onnx photo.jpg --method layercam")


def methods() -> None:
    """List the methods that turn activations and gradients into heatmaps, and what a file must emit for each."""
    from fastcam.methods import METHODS

    rows = []
    for one in METHODS.values():
        emit = {"weights": "any", "activations": "weights, gradients"}.get(one.needs, "gradients")
        rows.append((one.name, one.title, emit, one.formula, one.source))
    print_table(("method", "title", "--emit", "map M or weights w_k of the activations A", "source"), rows)
    say("Behind a method of weights w_k, +eigen takes the first principal component of w_k A_k in place of their sum.")
    say("Deep feature factorisation, which explains pictures together and no class, is the verb fastcam concepts.")
