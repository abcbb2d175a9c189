"""The result of one call: scores, classes, heatmaps, boxes, and what a user does with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcam import kernels
from fastcam.atomic_files import slug, staged, write
from fastcam.atomic_files import unique_stems as unique_stems
from fastcam.atomic_files import write_json as write_json
from fastcam.errors import FastcamError, checked
from fastcam.image.preprocess import Float, Uint8, restore
from fastcam.methods import attribution_maps
from fastcam.methods.registry import METHODS
from fastcam.render import drawing, overlays, samples
from fastcam.results import html, report, texts, volumes
from fastcam.results.explanation_data import OK as OK
from fastcam.results.explanation_data import ExplanationData
from fastcam.runtime.thread_limit import limited

AROUND_GREY = {"gradient": "gradient", "guided": "guided backpropagation", "deconvolution": "deconvolution"}
"""Modes that are shown in the colours of the picture around grey, and their titles."""


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(ExplanationData):
    """What a model said about N images, and where it looked for T targets each.

    ``len(e)`` is N; ``e[i]`` and ``e[a:b]`` are explanations of one image and of some.

    Attributes:
        scores: float32 [N, classes]: the explained output as the model gives it (after its softmax or sigmoid where
            it ends with one).
        classes: int64 [N, T]: the class behind each target; of a combination the one with the largest coefficient, -1
            where an image has fewer targets than another, of a cotangent the column of ``scores``.
        labels: class names by index, or None.
        maps: float32 [N, T, h, w]: ReLU(sum_k alpha_k A^k) at the target layer's resolution, not normalised. Of signals
            [N, T, l], of volumes [N, T, d, h, w]; their heatmaps, boxes (x0, x1; x0, y0, z0, x1, y1, z1) and components
            alike.
        heatmaps: float32 [N, T, H, W] in [0, 1]: each map divided by its maximum and bilinearly upsampled to the
            network's input; zeros where status is not "ok". In another tool's style, what that tool shows: Captum's
            are signed and not normalised, torch-cam's overshoot 0 and 1 a little.
        boxes: float32 [N, T, 4]: x0, y0, x1, y1 (half open, original pixels) around the component with most pixels;
            zeros where status is not "ok", or where all heat lies on a letterbox's bars.
        components: per image and target a float32 [count, 5]: each component's box in original pixels and its number
            of mask pixels at the network's resolution, in raster order of their first pixel.
        status: [N, T] of "ok", "all_negative" (nothing speaks for the class), "zero_gradient" (the score does not
            depend on the layer), "non_finite" (NaN or infinity in the model), and, only for files of the emit level
            "cam", "no_positive" (one of these two; the file holds the map after its ReLU); "constant" (the map is the
            same everywhere, so that it says nothing about where); "not_asked" where an image has fewer targets than
            another.
        outputs: the model's own outputs by name.
        geometry: per image, how it became the network's input.
        files: per image its path, or None.
        images: per image what was given: the picture, uint8 RGB [height, width, 3], or its part of a float32 tensor.
        metadata: what the exported file says about itself.
        threshold, connectivity: what the boxes were made with.
        method: how maps were made, a name from :data:`fastcam.methods.METHODS`; of some at the image's resolution.
        options: what was set of the method's options.
        style: whose heatmaps these are, a name from :data:`fastcam.render.peer_styles.STYLES`.
        targets: per image what each of its targets was, where they are combinations, cotangents (whose ``scores`` are
            [N, T], their values), or of different number; empty where each is one class.
        providers: ONNX Runtime's providers that ran, in order of preference.
        input_gradients: float32 [N, T, C, H, W], what the mode of the file (``metadata.input_gradient``) brought back
            to the network's input, in the input's own order of channels; None where the file has none.
        relevance: float32 [N, T, h, w], what it brought to the target layer, summed over channels; or None.
        inputs: float32 [N, C, H, W], the network's input, beside ``input_gradients``.
        layers: where several layers were asked for, the explanation at each, in the order in which an image passes them
            (``metadata.layer`` names each one's); otherwise empty.
        fuse: how their maps became the one here, a name from :data:`fastcam.methods.layer_fusion.FUSIONS`; or None.
        fused: the layers whose maps these were.
        attributions: float32 [N, T, C, H, W], what a method that explains the image itself gives each element of the
            network's input; None of others.
        threads: the Explainer's, which OpenCV keeps to while pictures are drawn.
    """

    layers: tuple[Explanation, ...] = ()

    def __repr__(self) -> str:
        said = ", ".join(sorted({status for row in self.status for status in row}))
        sides = " x ".join(map(str, self.maps.shape[2:]))
        return f"Explanation(images={len(self)}, targets={self.classes.shape[1]}, {self.method} of {sides}, {said})"

    @limited
    def _repr_html_(self) -> str:
        """For notebooks: the first overlays with name, score and status; see :mod:`fastcam.results.html`."""
        return html.notebook(self, repr(self), not self._sampled)

    @checked
    def image(self, i: int = 0) -> Uint8:
        """The picture that was explained, uint8 RGB; a tensor is turned back into one."""
        image = self.images[i]
        if self._sampled:
            return self._drawn(i, None)
        return image if image.dtype == np.uint8 else restore(image, self.metadata.preprocessing)

    @checked
    @limited
    def heatmap_image(self, i: int = 0, target: int = 0, colors: str = "jet") -> Uint8:
        """The heatmap alone in colours, uint8 RGB at the picture's size."""
        return overlays.coloured(self._heat(i, target), self.style, colors)

    @checked
    @limited
    def overlay(
        self,
        i: int = 0,
        target: int | None = None,
        alpha: float = 0.5,
        colors: str = "jet",
        min_side: int = 0,
        annotate: bool = True,
    ) -> Uint8:
        """The picture under the heatmap, with its box (that of a detector green), name, score and legend: uint8 RGB.

        Args:
            target: which of the T targets; None is the first.
            alpha: weight of the heatmap, 0 (only the picture) to 1.
            colors: a name from :data:`fastcam.render.drawing.COLORMAPS`; signed heatmaps (Captum's) run from blue to
                red.
            min_side: a picture whose shorter side is smaller is magnified by a whole factor before it is drawn on.
            annotate: False leaves away box and letters.

        Raises:
            FastcamError: no such target, colour map or alpha.
        """
        t = target or 0
        if not -self.asked(i) <= t < self.asked(i):
            raise FastcamError(f"no target {t}: {self.asked(i)} were explained")
        if self._sampled:
            factor, mixed = 0, self._drawn(i, t, colors, alpha)
        else:
            picture, factor = drawing.enlarge(self.image(i), min_side)
            mixed = kernels.get().overlay(picture, self._heat(i, t, factor), overlays.table(self.style, colors), alpha)
        if not annotate:
            return mixed
        status = "" if self.status[i][t] == OK else f" ({self.status[i][t]})"
        text = f"{self.label(i, t)} {self.score(i, t):.3g}{status}"
        box = self.boxes[i, t] * factor if factor and self.boxes[i, t].any() else None
        mixed = drawing.draw_predicted(mixed, self.predicted_box(i, t), factor)
        return drawing.caption(mixed, text, box, self.legend(colors))

    @checked
    def word_heat(self, i: int = 0, target: int = 0) -> list[tuple[str, float]]:
        """Of a text its words, each with its heat, 0..1; what fills the text up is left out.

        Raises:
            FastcamError: this is of something else than texts.
        """
        if self.metadata.kind != "text":
            raise FastcamError(f"a {self.metadata.kind} has no words; take heatmaps, or overlay")
        return list(zip(texts.said(self.images[i])["words"], map(float, self._own(i, target)), strict=True))

    @checked
    def word_colours(self, i: int = 0, target: int = 0, colors: str = "jet") -> Uint8:
        """The colour behind each of these words, uint8 [n, 3]: white where there is no heat."""
        return texts.background_colours(self._own(i, target), self.style, colors)

    def _drawn(self, i: int, t: int | None, colors: str = "jet", alpha: float = 0.5) -> Uint8:
        """A signal, volume or text, with the heat of a target."""
        if self.metadata.kind == "text":
            return texts.picture(self.images[i], None if t is None else self._own(i, t), self.style, colors)
        table = overlays.table(self.style, colors)
        heat = None if t is None else overlays.shown(self.style, self.heatmaps[i, t])
        box = None if t is None or not self.boxes[i, t].any() else self.boxes[i, t]
        return samples.picture(self.metadata.kind, self.images[i], heat, box, table, alpha)

    @checked
    def legend(self, colors: str = "jet") -> drawing.Legend:
        """What the colours of overlays and heatmaps mean."""
        return overlays.legend(self.style, colors)

    def _heat(self, i: int, target: int, factor: int = 1) -> Float:
        """The heatmap at ``factor`` times the picture's size, as places in a colour map, 0..1."""
        return overlays.places(self.style, self.heatmaps[i, target], self.geometry[i].magnified(factor))

    @checked
    @limited
    def gradient_image(
        self, i: int = 0, target: int = 0, cam: bool = False, min_side: int = 0, colors: str = "jet"
    ) -> Uint8:
        """What the mode of the file brought back, as a picture of the original's size, uint8 RGB.

        Gradients are shown around grey in the colours of the picture; relevance as its sum over the channels, from blue
        (against the class) over white to red; relevance at the target layer as a heatmap of what speaks for the class
        (of some modes from their minimum on: :mod:`fastcam.methods.attribution_maps`).

        Args:
            cam: times the heatmap: Guided Grad-CAM.
            min_side, colors: as for :meth:`overlay`.

        Raises:
            FastcamError: the file has nothing of the kind.
        """
        samples.refuse(self.metadata.kind)
        picture, factor = drawing.enlarge(self.image(i), min_side)
        geometry, mode = self.geometry[i].magnified(factor), self.metadata.input_gradient or ""
        if self.relevance is not None and not cam:
            shown = attribution_maps.shown(mode, self.relevance[i, target])
            return overlays.layer_map(picture, shown, geometry, colors)
        if self.input_gradients is None:
            raise FastcamError(
                "the file brings nothing back to the image; export the model with --input-gradient guided"
            )
        values = (self.guided_gradcam if cam else self.input_gradients)[i, target]
        adds_up = mode not in AROUND_GREY
        return overlays.pixels(values if adds_up else self._newest(values), geometry, adds_up, self._order)

    @checked
    @limited
    def attribution_image(self, i: int = 0, target: int = 0, min_side: int = 0) -> Uint8:
        """``attributions`` as a picture, uint8 RGB, as :meth:`gradient_image` shows gradients and relevance.

        Raises:
            FastcamError: the method gives none.
        """
        samples.refuse(self.metadata.kind)
        if self.attributions is None:
            raise FastcamError(f"{self.method} explains a layer, not pixels; see overlay, or the methods of the image")
        _, factor = drawing.enlarge(self.image(i), min_side)
        geometry, adds_up = self.geometry[i].magnified(factor), METHODS[self.method].adds_up
        values = self.attributions[i, target]
        return overlays.pixels(values if adds_up else self._newest(values), geometry, adds_up, self._order)

    def _newest(self, values: Float) -> Float:
        """Of a stack of frames, [C, H, W], the channels of the newest, which is the picture that is shown."""
        how = self.metadata.preprocessing
        return values if how is None else values[-(len(values) // how.stack) :]

    @property
    def _order(self) -> str:
        """The input's order of channels, as far as it is known."""
        return self.metadata.preprocessing.color if self.metadata.preprocessing is not None else "RGB"

    @checked
    def gradient_legend(self, cam: bool = False, colors: str = "jet") -> tuple[str, drawing.Legend]:
        """Title and colours of :meth:`gradient_image`."""
        mode = self.metadata.input_gradient or ""
        if cam:
            return f"Guided {METHODS[self.method].title if self.method in METHODS else self.method}", drawing.GREY
        if mode in AROUND_GREY:
            return AROUND_GREY[mode], drawing.GREY
        layer = self.input_gradients is None
        return mode, drawing.Legend(drawing.colormap(colors)) if layer else overlays.signed_legend()

    def attribution_legend(self) -> tuple[str, drawing.Legend]:
        """Title and colours of :meth:`attribution_image`."""
        known = METHODS[self.method]
        return known.title, overlays.signed_legend() if known.adds_up else drawing.GREY

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, ready for :func:`json.dumps`; what is not finite becomes None."""
        several: dict[str, Any] = {"layers": [one.to_dict() for one in self.layers]} if self.layers else {}
        if self.layers or self.fuse is not None:
            several["fuse"] = self.fuse
        if self.fused and not self.layers:
            several["fused"] = list(self.fused)
        return several | {
            "fastcam": self.metadata.version,
            "model": self.metadata.source.get("file"),
            "method": self.method,
            "style": self.style,
            **({"options": dict(self.options)} if self.options else {}),
            "layer": self.metadata.layer.value,
            "score": {"output": self.metadata.score.output, "kind": self.metadata.score.kind},
            "threshold": self.threshold,
            "connectivity": self.connectivity,
            "providers": list(self.providers),
            "images": [self._image_dict(i) for i in range(len(self))],
        }

    def _image_dict(self, i: int) -> dict[str, Any]:
        if self.metadata.kind == "text":
            size: dict[str, Any] = texts.said(self.images[i])
        else:
            size = dict(report.size(self.metadata.kind, self.images[i].shape, self.geometry[i]))
        return {"file": self.files[i]} | size | {"targets": [self._target_dict(i, t) for t in range(self.asked(i))]}

    def _target_dict(self, i: int, t: int) -> dict[str, Any]:
        index: int | None = None if self.metadata.cotangents else int(self.classes[i, t])
        score = self.score(i, t)
        return {
            "class": index,
            "label": self.labels[index] if self.labels and index is not None and index < len(self.labels) else None,
            **(report.combination(self.targets[i][t], not self.metadata.cotangents) if self.targets else {}),
            "score": score if math.isfinite(score) else None,
            "status": self.status[i][t],
            "box": report.box(self.boxes[i, t]),
            "peak": report.point(self.peak(i, t)),
            "components": report.components(self.components[i][t]),
            **({"heat": texts.rounded(self._own(i, t))} if self.metadata.kind in ("text", "signal") else {}),
        } | report.own(self.predicted_box(i, t))

    @checked
    @limited
    def save(self, folder: str | Path, colors: str = "jet") -> list[Path]:
        """Write one overlay per image and target, and ``explanation.json``; the paths, in this order.

        All of it or nothing: files get their names only when the last one is complete.

        Args:
            folder: made where it is not there.
            colors: a name from :data:`fastcam.render.drawing.COLORMAPS`.

        Raises:
            FastcamError: the folder cannot be written, or no such colour map.
        """
        with staged(folder) as stage:
            names = self.write_overlays(stage, unique_stems(self.files), colors)
            write_json(stage, self.to_dict())
        return [Path(folder) / name for name in (*names, "explanation.json")]

    @checked
    @limited
    def write_overlays(self, folder: Path, stems: Sequence[str], colors: str = "jet") -> list[str]:
        """Write the overlays as ``STEM-1-tabby.png`` (1 is the first target) into ``folder``; their names.

        Small pictures are magnified, so that box and caption can be read. Beside signals and volumes lie their heatmaps
        as arrays, beside a NIfTI volume as NIfTI.
        """
        folder, names = Path(folder), []
        for i, stem in enumerate(stems):
            for t in range(self.asked(i)):
                names.append(f"{stem}-{t + 1}-{slug(self.label(i, t))}.png")
                write(folder / names[-1], drawing.encode_png(self.overlay(i, t, colors=colors, min_side=192)))
                plain = names[-1].removesuffix(".png")
                if self.metadata.kind == "text":
                    title = f"{self.label(i, t)} {self.score(i, t):.3g}"
                    names += texts.save(self.images[i], self._own(i, t), self.style, colors, title, folder / plain)
                elif self._sampled:
                    names += volumes.save(self.heatmaps[i, t], self.files[i], folder / plain)
                else:
                    names += self._write_gradients(folder, i, t, plain, colors)
        return names

    def _write_gradients(self, folder: Path, i: int, t: int, stem: str, colors: str) -> list[str]:
        """Write what the mode brought back, with guided backpropagation Guided Grad-CAM, and the method's attributions
        beside an overlay."""
        mode, pictures = self.metadata.input_gradient, {}
        if self.input_gradients is not None or self.relevance is not None:
            for cam in (False, True) if mode == "guided" else (False,):
                picture = self.gradient_image(i, t, cam=cam, min_side=192, colors=colors)
                shown = (picture, *self.gradient_legend(cam, colors))
                pictures[f"{stem}-{'guided-gradcam' if cam else mode}.png"] = shown
        if self.attributions is not None and f"{stem}-{self.method}.png" not in pictures:
            picture = self.attribution_image(i, t, min_side=192)
            pictures[f"{stem}-{self.method}.png"] = (picture, *self.attribution_legend())
        for name, (picture, title, legend) in pictures.items():
            picture = drawing.caption(picture, f"{self.label(i, t)}: {title}", legend=legend)
            write(folder / name, drawing.encode_png(picture))
        return list(pictures)
