"""What the protocols of faithfulness share: a map and the model that it is to follow, and means over maps."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.evaluation.faithfulness import BASELINES, baseline
from fastcam.evaluation.faithfulness.masking import Floats, Score
from fastcam.evaluation.protocols.base import Case, Present, Protocol, Row
from fastcam.evaluation.protocols.options import check
from fastcam.evaluation.statistics import Figure, Ratios, Tally, Weights
from fastcam.explainer import Explainer
from fastcam.image.preprocess import Float

Of = Literal["predicted", "marked"]
"""Whose maps are measured: the predicted class's, or those of all classes that are marked in the picture."""
NO_MAP = "share without a map"


@dataclass(frozen=True, eq=False)
class Subject:
    """One map of one picture, and the model that it is to follow.

    Attributes:
        case: the picture.
        column: which of the explanation's targets.
    """

    case: Case
    column: int

    @property
    def x(self) -> Float:
        """The network's input, float32 [C, H, W]."""
        return self.case.probe.x

    @property
    def heat(self) -> Float:
        """The map, float32 [H, W] of the network's input, in 0..1."""
        heat: Float = self.case.explanation.heatmaps[0, self.column]
        return heat

    @property
    def index(self) -> int:
        """The class."""
        return int(self.case.explanation.classes[0, self.column])

    @property
    def batch_size(self) -> int:
        """Pictures of one run."""
        return self.case.explainer.batch_size

    def score(self, pictures: Float) -> Float:
        """What the model gives for the class in [M, C, H, W] pictures: float32 [M]."""
        return self.case.probe.scores(pictures)[:, self.column]

    def probability(self, pictures: Float) -> Floats:
        """The probability of the class in [M, C, H, W] pictures: float64 [M].

        Raises:
            FastcamError: the file explains what has no probability.
        """
        score, index = self.case.explanation.metadata.score, self.index
        outputs = self.case.probe.class_scores(pictures).astype(np.float64)
        if not outputs.shape[1]:
            raise FastcamError(f"{self.case.sample.name}: the model gives no classes, whose probability is measured")
        if score.single == "logit":
            return 1 / (1 + np.exp(-outputs[:, index]))
        if score.single or score.kind in ("logit", "probability"):  # the output is what the softmax gives
            return outputs[:, index]
        if score.kind == "log-probability":
            return np.exp(outputs[:, index])
        powers = np.exp(outputs - outputs.max(1, keepdims=True))
        return np.asarray(powers[:, index] / powers.sum(1), np.float64)

    @property
    def activations(self) -> Float:
        """The layer, float32 [K, h, w].

        Raises:
            FastcamError: the file cannot run what lies behind it by itself.
        """
        if self.case.explanation.metadata.head is None:
            raise FastcamError(
                "the file is the whole model, and changes at the layer run what lies behind it by itself; export it "
                "again with --head"
            )
        return self.case.probe.activations

    @property
    def layer_heat(self) -> Float:
        """The map at the layer's resolution, float32 [h, w].

        Raises:
            FastcamError: the method's maps have another.
        """
        layer = self.activations.shape[1:]
        heat: Float = self.case.explanation.maps[0, self.column]
        if heat.shape != layer:
            raise FastcamError(
                f"{self.case.method} makes maps of {heat.shape[0]} x {heat.shape[1]}, and the layer has {layer[0]} x "
                f"{layer[1]} positions; measure it at the picture"
            )
        return heat

    @cached_property
    def layer_probability(self) -> Score:
        """The probability of the class if the layer were [M, K, h, w] activations, by the head alone: float64 [M].

        Of what may lie between the head's scores and probabilities it is that which gives the model's own.
        """
        own, index = float(self.probability(self.x[None])[0]), self.index

        def softmax(rows: Floats) -> Floats:
            powers = np.exp(rows - rows.max(1, keepdims=True))
            return np.asarray(powers[:, index] / powers.sum(1), np.float64)

        ends: tuple[Callable[[Floats], Floats], ...] = (
            softmax,
            lambda rows: 1 / (1 + np.exp(-rows[:, index])),
            lambda rows: rows[:, index],
            lambda rows: np.exp(rows[:, index]),
        )
        first = self.case.probe.layer_class_scores(self.activations[None]).astype(np.float64)
        with np.errstate(over="ignore"):
            end = min(ends, key=lambda one: abs(float(one(first)[0]) - own))
        return lambda layers: end(self.case.probe.layer_class_scores(layers).astype(np.float64))

    def is_first(self, pictures: Float) -> NDArray[np.bool_]:
        """Whether the class has the highest output of all in [M, C, H, W] pictures: bool [M]."""
        return np.asarray(self.case.probe.class_scores(pictures).argmax(1) == self.index)

    def heats(self, pictures: Float, explainer: Explainer | None = None) -> Float:
        """The class's maps of [M, C, H, W] pictures, made as this one was: float32 [M, H, W].

        Args:
            explainer: another than the case's.
        """
        case, tensor = self.case, self.case.probe.tensor(pictures)
        made = (explainer or case.explainer)(tensor, self.index, method=case.method, options=case.options)
        return np.ascontiguousarray(made.heatmaps[:, 0])

    def baseline(self, kind: str) -> Float:
        """What stands for pixels that are taken away: a name of :data:`fastcam.evaluation.faithfulness.BASELINES`."""
        return baseline(self.x, kind, self.case.explanation.metadata.preprocessing)

    def random(self, protocol: str) -> np.random.Generator:
        """Random numbers that follow from the picture's name and class alone, so that threads and resuming change
        nothing."""
        key = f"{protocol}\0{self.index}\0{self.case.sample.name}".encode("utf-8", "surrogatepass")
        return np.random.default_rng(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little"))


@dataclass(frozen=True)
class Faithfulness(Protocol):
    """A protocol that asks the model again.

    A map that says nothing (its status is not "ok") is left out of the means, and counted.

    Attributes:
        of: whose maps.
        hits: how the names of figures begin that are shares of hits.
    """

    hits: ClassVar[tuple[str, ...]] = (NO_MAP,)

    of: Of = "predicted"

    def __post_init__(self) -> None:
        check(self)
        kind = getattr(self, "baseline", "zero")
        if kind not in BASELINES:
            raise FastcamError(f"{self.name}.baseline is {kind!r}; give one of: {', '.join(BASELINES)}")

    def targets(self, present: Sequence[Present]) -> list[int]:
        """The predicted class, or the marked ones."""
        return [-1] if self.of == "predicted" else [each.target for each in present]

    def measure(self, case: Case) -> Row | None:
        """What :meth:`values` gives of each map; None for one that says nothing."""
        if case.explanation.metadata.frames:
            raise FastcamError(
                f"the file takes whole numbers as pixels, and {self.name} changes pictures by less; export it without "
                "--frames"
            )
        rows = [
            self.values(Subject(case, case.columns[target])) if case.ok(target) else None
            for target in self.targets(case.present)
        ]
        return {"maps": [None if row is None else _plain(row) for row in rows]} if rows else None

    def values(self, subject: Subject) -> Mapping[str, float]:
        """What is measured of a map, by the names of the figures; NaN where the formula has no value."""
        raise NotImplementedError

    def tally(self) -> Tally:
        """Means over maps."""
        return Means(self.hits)


def _plain(row: Mapping[str, float]) -> dict[str, float | None]:
    """As JSON holds it."""
    return {name: float(value) if math.isfinite(value) else None for name, value in row.items()}


class Means:
    """The mean of each value over all maps that have it, and the share of targets without a map.

    Args:
        hits: how the names of values begin that are shares of hits.
    """

    def __init__(self, hits: tuple[str, ...]) -> None:
        self.ratios, self.hits = Ratios(), hits

    def add(self, row: Mapping[str, Any], weights: Weights) -> None:
        """One more picture."""
        for values in row["maps"]:
            for name, value in (values or {}).items():
                if value is not None:
                    self.ratios.add(name, value, weights, share=name.startswith(self.hits))
            self.ratios.add(NO_MAP, float(values is None), weights, share=True)

    def figures(self) -> dict[str, Figure]:
        """The means, by name."""
        return self.ratios.figures()
