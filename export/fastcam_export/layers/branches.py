"""Where the image's positions end, if no map lies on every path: a network of several branches, joined behind them.

CrossViT looks at two scales of the picture, SlowFast at two rates of the clip; class tokens or pooled features of both
make the score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from fastcam_export.graph.query import reads


def ends(
    nodes: Sequence[ir.Node],
    candidates: Sequence[ir.Value],
    spatial: Callable[[ir.Value], bool],
    form: Callable[[ir.Value], object],
) -> list[ir.Value]:
    """The last map of each branch: positions lead from it to no other one.

    Args:
        nodes: between image and score, in the graph's order.
        candidates: maps that may be explained.
        spatial: whether positions of the image lie in a value.
        form: what maps of one branch have in common: grid and channels.

    Returns:
        In the graph's order; of one branch and form the last: blocks that give some tokens to another branch go on.
    """
    wanted = set(candidates)
    onward: set[ir.Value] = set()
    branch: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        given = [value for value in reads(node) if value in branch and spatial(value)]
        for output in node.outputs:
            branch[output] = output
            for value in given if spatial(output) else ():
                branch[_root(branch, value)] = output
    for node in reversed(nodes):
        if any(spatial(output) and (output in wanted or output in onward) for output in node.outputs):
            onward.update(value for value in reads(node) if spatial(value))
    last = {(_root(branch, value), form(value)): value for value in candidates if value not in onward}
    return [value for value in candidates if value in last.values()]


def _root(branch: dict[ir.Value, ir.Value], value: ir.Value) -> ir.Value:
    """The value that stands for all that are joined with ``value``."""
    while branch[value] is not value:
        branch[value] = branch[branch[value]]
        value = branch[value]
    return value
