"""An explanation in words: the names of the channels that speak most for a class, and most against it.

Source: Selvaraju et al., "Grad-CAM", section 7: a channel's importance is alpha, the mean over positions of the score's
gradient, and the names of the five channels with the largest and the five with the smallest alpha explain in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcam import kernels
from fastcam.errors import FastcamError
from fastcam.evaluation.dissection.neuron_names import Name
from fastcam.explainer import Explainer
from fastcam.image.preprocess import Float, Uint8
from fastcam.render import drawing
from fastcam.results.explanation import Explanation
from fastcam.runtime.inputs.further_inputs import Values
from fastcam.schema import GRADIENTS, WEIGHTS

MOST = 5
"""Channels for a class, and against it."""
_GAP, _GROUND = 4, 24


@dataclass(frozen=True)
class Channel:
    """A channel that speaks for a class or against it.

    Attributes:
        index: its number, from 0 on.
        alpha: its importance for the class.
        name: what it answers to; None where the table does not have it.
    """

    index: int
    alpha: float
    name: Name | None

    @property
    def title(self) -> str:
        """For people; units count from 1, as in tables."""
        return self.name.label if self.name is not None else f"unit {self.index + 1}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        named = {} if self.name is None else {"concept": self.name.label, "iou": self.name.score}
        return {"unit": self.index + 1, "importance": self.alpha} | named


@dataclass(frozen=True)
class Words:
    """Why a class, in words.

    Attributes:
        target: the class's name.
        above: the channels of largest importance, all of them positive, the largest first.
        below: those of smallest importance, all of them negative, the smallest first.
    """

    target: str
    above: tuple[Channel, ...]
    below: tuple[Channel, ...]

    def __str__(self) -> str:
        """As a sentence."""
        said = [
            f"{_listed(channels)} {'speaks' if len(set(_titles(channels))) == 1 else 'speak'} {way} it"
            for channels, way in ((self.above, "for"), (self.below, "against"))
            if channels
        ]
        return f"{self.target}: {'; '.join(said) or 'no channel speaks for it or against it'}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sentence": str(self),
            "for": [each.to_dict() for each in self.above],
            "against": [each.to_dict() for each in self.below],
        }


def _titles(channels: Sequence[Channel]) -> list[str]:
    return [each.title for each in channels]


def _listed(channels: Sequence[Channel]) -> str:
    """Names, each once, with how many channels have it: "heart (2 channels), ring and star"."""
    titles = _titles(channels)
    said = [f"{one} ({titles.count(one)} channels)" if titles.count(one) > 1 else one for one in dict.fromkeys(titles)]
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def check(explainer: Explainer) -> None:
    """Refuse a file that tells no importance, before pictures are explained.

    Raises:
        FastcamError: it holds maps alone, or explains what is no class.
    """
    metadata, name = explainer.metadata, explainer.name
    if metadata.emit == "cam" or metadata.cotangents or metadata.kind != "picture":
        raise FastcamError(
            f"{name} tells no importance of channels; --words needs a file of --emit weights or gradients"
        )


def words_of(
    explainer: Explainer,
    picture: Any,
    targets: Sequence[Any],
    names: Mapping[int, Name],
    most: int = MOST,
    inputs: Values | None = None,
    text: str | None = None,
) -> tuple[list[Words], Explanation, Float]:
    """Words for each target of a picture, its explanation, and the layer's activations, float32 [K, h, w].

    Args:
        explainer: ``explainer.at(layer)`` for another of its layers.
        picture, targets, inputs, text: see :meth:`fastcam.Explainer.__call__`, of one picture.
        names: of :func:`fastcam.evaluation.dissection.neuron_names.read_names`.
        most: channels for a class, and against it.

    Raises:
        FastcamError: the table has units that the layer has not.
    """
    explanation = explainer(picture, targets=list(targets), inputs=inputs, text=text)
    probe = explainer.probes([picture], list(targets), inputs, text)[0]
    channels = len(probe.activations)
    if max(names) >= channels:
        raise FastcamError(
            f"the table names unit {max(names) + 1}, but layer {explainer.metadata.layer.value} has {channels} "
            "channels; give the table of this layer"
        )
    if WEIGHTS in probe.outputs:
        alphas = np.asarray(probe.outputs[WEIGHTS], np.float64)
    else:
        alphas = np.asarray(probe.outputs[GRADIENTS], np.float64).mean((2, 3))
    spoken = []
    for target, alpha in enumerate(alphas.reshape(len(targets), channels)):
        order = [int(k) for k in np.argsort(-alpha, kind="stable")]
        above = tuple(Channel(k, float(alpha[k]), names.get(k)) for k in order[:most] if alpha[k] > 0)
        below = tuple(Channel(k, float(alpha[k]), names.get(k)) for k in order[: -most - 1 : -1] if alpha[k] < 0)
        spoken.append(Words(explanation.label(0, target), above, below))
    return spoken, explanation, probe.activations


def sheet(
    explanation: Explanation, spoken: Sequence[Words], activations: Float, tile: int = 160, colors: str = "jet"
) -> Uint8:
    """The channels' maps in one picture, uint8 RGB: for each target the picture, then a row for it and one against it.

    Each map is shown as a heatmap of its own maximum.
    """
    k = kernels.get()
    image, geometry = explanation.image(0), explanation.geometry[0]
    rows = []
    for words in spoken:
        for channels, way in ((words.above, "for"), (words.below, "against")):
            if not channels:
                continue
            cells = [drawing.caption(drawing.scaled(image, tile), f"{way} {words.target}")]
            picked = np.ascontiguousarray(activations[[each.index for each in channels]], np.float32)
            heat = k.upsample(k.normalize(k.relu(picked)), geometry.network)
            for each, one in zip(channels, heat, strict=True):
                placed = np.ascontiguousarray(np.clip(geometry.heatmap_to_original(one), 0, 1))
                mixed = k.overlay(image, placed, drawing.colormap(colors), 0.5)
                named = each.title if each.name is None else f"{each.title} ({each.index + 1})"
                cells.append(drawing.caption(drawing.scaled(mixed, tile), f"{named} {each.alpha:+.2g}"))
            rows.append(_row(cells, MOST + 1))
    blank = np.full((tile, tile, 3), _GROUND, np.uint8)
    return np.concatenate(rows) if rows else blank


def _row(cells: Sequence[Uint8], columns: int) -> Uint8:
    """Cells side by side, filled up to a number of columns, with gaps."""
    ground = np.full_like(cells[0], _GROUND)
    gap = np.full((len(ground), _GAP, 3), _GROUND, np.uint8)
    filled = [*cells, *[ground] * (columns - len(cells))]
    row = np.concatenate([part for cell in filled for part in (gap, cell)] + [gap], axis=1)
    return np.concatenate([row, np.full((_GAP, row.shape[1], 3), _GROUND, np.uint8)])
