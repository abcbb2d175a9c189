"""What an export explains: class scores, or linear functionals of outputs whose cotangents are given at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from fastcam.schema import Cotangent, FastcamError, Score
from fastcam_export.autodiff.core.straight_through import unquantised
from fastcam_export.layers import target_layer
from fastcam_export.layers.layout import Layout
from fastcam_export.layers.score import OutputLayout, Want, find_score
from fastcam_export.outputs import cotangent_targets
from fastcam_export.outputs.target_kinds import with_target_kinds

Measured = Callable[[list[target_layer.Layer]], list[target_layer.Layer]]


@dataclass(frozen=True)
class Target:
    """What is explained.

    Attributes:
        score: what the metadata say of it; of several outputs with cotangents the first one's.
        value: the class scores, or the first output.
        functional: the outputs whose cotangents are given; None of class scores.
    """

    score: Score
    value: ir.Value
    functional: cotangent_targets.Functional | None = None

    @property
    def values(self) -> list[ir.Value]:
        """The explained outputs."""
        return list(self.functional.values) if self.functional is not None else [self.value]

    @property
    def differentiated(self) -> list[ir.Value]:
        """The explained outputs before a quantisation of their own."""
        return [unquantised(value) for value in self.values]

    @property
    def cotangents(self) -> tuple[Cotangent, ...]:
        """What the contract says of each output that takes cotangents; empty of class scores."""
        return self.functional.about if self.functional is not None else ()

    @property
    def words(self) -> int | None:
        """Of a text output the number of its words or characters, as far as the file says it."""
        texts = [one.shape[-1] for one in self.cotangents if one.axes in ("LC", "LNC")]
        return texts[0] if texts and isinstance(texts[0], int) else None

    @property
    def map_classes(self) -> int | None:
        """Of a map of classes their number, as far as the file says it."""
        maps = [one for one in self.cotangents if one.answer == "region" and len(one.shape) == 3]
        counts = {one.shape[-1 if one.axes == "HWC" else 0] for one in maps}
        return next(iter(counts)) if len(counts) == 1 and isinstance(next(iter(counts)), int) else None  # type: ignore[return-value]

    @property
    def needs_a_run(self) -> bool:
        """Whether only a run tells the size of an output, so that its cotangents have to wait for one."""
        return any(not all(isinstance(d, int) for d in one.shape) for one in self.cotangents)

    @property
    def has_places(self) -> bool:
        """Whether what is explained has a place in the picture, see :class:`cotangent_targets.Functional`."""
        return self.functional is not None and self.functional.has_places

    def layers(self, maps: target_layer.Maps) -> list[target_layer.Layer]:
        """All layers at which it can be explained, in the graph's order."""
        if self.functional is None:
            return target_layer.find_layers(maps, self.score.classes)
        return cotangent_targets.learned_layers(maps.graph, maps.image, self.functional)

    def default_layer(self, maps: target_layer.Maps, run: Measured) -> tuple[ir.Value, str, Layout | None]:
        """The layer that "auto" takes, why, and its layout; ``run`` tells which layers have one position only."""
        layers = self.layers(maps)
        if self.functional is not None and not layers:
            raise cotangent_targets.no_layer(self.functional)
        chosen, reason = target_layer.choose(run(layers))
        return chosen.value, reason, chosen.layout

    def among(self, values: Mapping[str | None, ir.Value]) -> Target:
        """The same target in a copy of the graph, whose values are given by name."""
        functional = self.functional
        if functional is not None:
            functional = replace(functional, values=tuple(values[value.name] for value in functional.values))
        return replace(self, value=values[self.value.name], functional=functional)


def find_target(
    graph: ir.Graph,
    image: ir.Value,
    cotangents: bool,
    want: Want,
    output_name: str | Sequence[str] | None,
    names: int | None = None,
    layout: OutputLayout | None = None,
) -> Target:
    """The target that the options name.

    Args:
        graph: a loaded model's.
        image: its image input.
        cotangents: whether targets are cotangents, not classes.
        want: which number of a class is explained, see :func:`fastcam_export.layers.score.find_score`.
        output_name: the output or outputs; None takes the default.
        names, layout: see :func:`fastcam_export.layers.score.find_score`.

    Raises:
        FastcamError: no such output, or several of class scores.
    """
    if cotangents:
        functional = cotangent_targets.find(graph, image, output_name, layout)
        functional = with_target_kinds(functional, graph, image, names)
        return Target(functional.score, functional.values[0], functional)
    return Target(*find_score(graph, image, _one_name(output_name), want, names=names, layout=layout))


def _one_name(names: str | Sequence[str] | None) -> str | None:
    """The output of class scores."""
    if names is None or isinstance(names, str):
        return names
    if len(names) == 1:
        return names[0]
    raise FastcamError("several outputs at once are explained by cotangents only; export with targets cotangent")
