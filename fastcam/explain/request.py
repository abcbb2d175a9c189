"""Request: what one call asks, resolved and checked once, before anything runs, and passed down unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from types import NoneType
from typing import Any, NamedTuple, TypeAlias

from fastcam.errors import FastcamError, typed
from fastcam.methods import METHODS, Method
from fastcam.methods.context import Meter, Progress
from fastcam.methods.registry import EIGEN
from fastcam.render import peer_styles
from fastcam.runtime.session import warn_once
from fastcam.schema import Metadata
from fastcam.targets import grammar
from fastcam.targets.classes import ClassTargets, Targets
from fastcam.targets.resolved import CotangentSource, CotangentTargets
from fastcam.targets.spec_kinds import CotangentLike

Layers: TypeAlias = "str | int | Sequence[str | int] | None"
"""The layers that a caller may ask for: "all", names or numbers; None is the default layer alone."""
ResolvedTargets: TypeAlias = "ClassTargets | CotangentTargets"
PLAIN = frozenset({int, float, str, NoneType})
"""Types of what is asked that never changes."""


class ExplainOptions(NamedTuple):
    """The parameters of :meth:`fastcam.Explainer.__call__`, ``explain`` and ``stream``, as the caller gave them.

    :meth:`fastcam.Explainer.__call__` says what each is.
    """

    targets: Any = -1
    threshold: float = 0.15
    connectivity: int = 8
    cotangent: CotangentLike | None = None
    method: str | None = None
    layers: Layers = None
    fuse: str | None = None
    style: str = "fastcam"
    options: Mapping[str, Any] | None = None
    progress: Progress | None = None

    def check(self) -> None:
        """Refuse what no file answers.

        Raises:
            FastcamError: a threshold or a method of another kind.
        """
        typed("threshold", self.threshold, Real, "a number")
        typed("method", self.method, str | NoneType, "the name of a method (fastcam methods)")
        if not 0 < self.threshold <= 1:
            raise FastcamError(f"the threshold is a fraction of the heatmap's maximum, in (0, 1], got {self.threshold}")

    @property
    def key(self) -> tuple[object, ...] | None:
        """The same of calls that ask the same; None where more than numbers and names is asked."""
        types = tuple(map(type, self))  # True is no 1
        plain = self.cotangent is None and self.layers is None and self.options is None and self.progress is None
        return (self, types) if plain and PLAIN.issuperset(types) else None


def resolved(
    targets: Any,
    cotangent: CotangentLike | None,
    count: int,
    metadata: Metadata,
    file: str,
    classes: Targets,
    bind: Callable[[CotangentLike], CotangentSource],
    constant: str | None,
) -> ResolvedTargets:
    """What a call wants explained: words as cotangents or classes, as the file has them.

    Args:
        targets, cotangent: as the caller gave them; the first is -1 where nobody did.
        count: of the images.
        metadata, file: of the file, and its name.
        classes: its classes.
        bind: makes words ready, see :meth:`fastcam.Explainer.question`.
        constant: the providers on which the file explains the predicted class alone; None where it takes targets.

    Raises:
        FastcamError: both were given, or what the file does not answer.
    """
    asked = not (isinstance(targets, int) and targets == -1)
    if asked and cotangent is not None:
        raise FastcamError("targets and cotangent were both given; give one of the two")
    about = metadata.cotangents
    if about:
        return CotangentTargets(
            about, bind(grammar.in_words(targets, metadata, file) if cotangent is None else cotangent), count
        )
    if cotangent is not None and not grammar.are_words(cotangent):
        raise FastcamError(
            f"{file} explains classes, by targets (-t); for cotangents export the model again with --targets cotangent"
        )
    found = classes.resolve(
        grammar.as_classes(targets if cotangent is None else cotangent, metadata, file, classes.knows), count
    )
    if constant is not None and not (found.classes == -1).all():
        raise FastcamError(
            f"{file} has constant targets on {constant}; export it again with --targets default, or required for "
            "TensorRT and OpenVINO"
        )
    return found


def with_defaults(
    asks: ExplainOptions, targets: ResolvedTargets, metadata: Metadata, file: str, one_layer: bool
) -> ExplainOptions:
    """The method, and what is fused, where the caller leaves them to the file.

    A target with a place keeps it: HiResCAM at the maps in front of the heads, where the file has them. Grad-CAM of
    such maps, asked for by name, is fused as well, since one layer of several may say nothing of a box.

    Args:
        file: its name, for a warning.
        one_layer: whether the caller explains at a layer that was chosen before (:meth:`fastcam.Explainer.at`).
    """
    place = targets.place if isinstance(targets, CotangentTargets) else False
    method = asks.method
    if method is None:
        keeps = metadata.emit == "gradients" and metadata.method == "hirescam" and place is not False
        method = "hirescam" if keeps else "gradcam"
        if place and not keeps:
            way = "ask for --method hirescam" if metadata.emit == "gradients" else "export with --emit gradients"
            warn_once(
                f"{file} is explained by Grad-CAM at {metadata.layer.value}: it forgets where a box or region is, and "
                f"shows what resembles it everywhere; {way}"
            )
    of_layers = METHODS.get(method.partition(EIGEN)[0])
    fused = of_layers is not None and of_layers.per_image is None and of_layers.of_class
    alone = one_layer or asks.layers is not None or peer_styles.signed(asks.style) or place is False
    fuse = metadata.fuse if asks.fuse is None and fused and not alone else asks.fuse
    return asks._replace(method=method, fuse=fuse)


@dataclass(frozen=True, eq=False)
class Request:
    """What calls ask of a file that can answer it, whatever their images are.

    Attributes:
        targets: classes and ranks or cotangents, a row for each image or one for all.
        method: with its options set.
        layers: numbers of the layers asked for, from 1, in the order in which an image passes them; none where it is
            the default layer alone.
        fuse: a name of :data:`fastcam.methods.layer_fusion.FUSIONS`, or None.
        by_default: whether the file chose this, and nobody asked for layers: the explanation then has none.
        style: a name of :data:`fastcam.render.peer_styles.STYLES`.
        threshold, connectivity: how boxes are made.
        progress: counts what methods run again.
    """

    targets: ResolvedTargets
    method: Method
    layers: tuple[int, ...]
    fuse: str | None
    by_default: bool
    style: str
    threshold: float
    connectivity: int
    progress: Meter

    def of(self, rows: slice) -> Request:
        """The request of some of the images, those of one run."""
        return self if len(self.targets) == 1 else replace(self, targets=self.targets[rows])
