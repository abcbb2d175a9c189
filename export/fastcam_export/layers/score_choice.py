"""Which of a model's outputs holds the class scores that are explained, why, and which were passed over."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from fastcam.errors import listed
from fastcam.schema import FastcamError
from fastcam_export.autodiff.core.straight_through import unquantised
from fastcam_export.graph.reading.set_aside import FEEDS
from fastcam_export.layers.output_evidence import ACTIVATIONS, ELEMENTS
from fastcam_export.layers.output_meaning import Meaning


@dataclass(frozen=True)
class Choice:
    """An output, and why it was taken.

    Attributes:
        meaning: what it is.
        reason: a clause for people; "" where there was nothing to choose and nothing to say.
    """

    meaning: Meaning
    reason: str = ""


def named_output(meanings: Sequence[Meaning], name: str) -> Meaning:
    """The output called ``name``.

    Raises:
        FastcamError: there is none.
    """
    names = [one.output for one in meanings]
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, 0)
        nearest = f"; the nearest is {near[0]!r}" if near else ""
        raise FastcamError(f"the model has no output {name!r}{nearest} (outputs: {listed(names)})")
    return meanings[names.index(name)]


def choose_scores(meanings: Sequence[Meaning]) -> Choice | None:
    """The output that reads as class scores, wherever it stands; None where none does.

    One behind a softmax goes first, then the only one behind a sigmoid, then the only one whose name speaks of classes.

    Raises:
        FastcamError: several read alike; the message is a question with the choices.
    """
    groups: dict[ir.Value, list[Meaning]] = {}
    for one in meanings:
        if one.kind in ("scores", "one score"):
            groups.setdefault(_before(one.value), []).append(one)
    if not groups:
        return None
    firsts = [sorted(group, key=lambda one: bool(one.decided))[0] for group in groups.values()]
    winner, why = (firsts[0], firsts[0].reason) if len(firsts) == 1 else _best(firsts)
    feeds = winner.value.meta.get(FEEDS)
    why += f", in front of {feeds}" if feeds else ""
    others = [
        one for one in meanings if one.output != winner.output and _before(one.value) is not _before(winner.value)
    ]
    if not others and not winner.decided and not feeds:
        return Choice(winner)
    passed = f"; passed over: {listed(map(_short, others))} (--output-name takes another)" if others else ""
    return Choice(winner, why + passed)


def _best(candidates: Sequence[Meaning]) -> tuple[Meaning, str]:
    """One of several outputs that differ in what they hold."""
    soft = [one for one in candidates if one.activation in ("Softmax", "LogSoftmax")]
    if len(soft) == 1:
        return soft[0], soft[0].reason
    sigmoid = [one for one in candidates if one.activation == "Sigmoid"]
    rivals = soft or sigmoid or list(candidates)
    named = [one for one in candidates if one.named == "scores"]
    if not soft and len(sigmoid) == 1 and (not named or sigmoid[0] in named):
        return sigmoid[0], sigmoid[0].reason
    if not soft and len(named) == 1 and (not sigmoid or named[0] in sigmoid):
        return named[0], f"the name {named[0].output!r} alone speaks of classes"
    raise FastcamError(
        f"several outputs may be the class scores: {listed(map(_short, rivals if soft else candidates))}; "
        "say which to explain with --output-name"
    )


def _before(value: ir.Value) -> ir.Value:
    """The value that ``value`` is a view or the activation of: two outputs of one are the same scores."""
    value = unquantised(value)
    while (node := value.producer()) is not None and (node.op_type in ELEMENTS or node.op_type in ACTIVATIONS):
        if not node.inputs or node.inputs[0] is None:
            break
        value = unquantised(node.inputs[0])
    return value


def _short(one: Meaning) -> str:
    return f"{one.output} [{', '.join(map(str, one.shape))}]"
