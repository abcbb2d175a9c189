"""The pictures of README and docs: the bundled scene, where the bundled model saw its classes, and every method.

python -m fastcam_bench.report.pictures          # all of them; some minutes, in which a small transformer is trained
python -m fastcam_bench.report.pictures rise     # of some methods alone
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from fastcam import Explainer, Explanation
from fastcam.image.preprocess import Uint8
from fastcam.methods import METHODS
from fastcam.render.drawing import contact_sheet, draw_box
from fastcam.results.method_sheet import methods_sheet
from fastcam.schema import MAPS
from fastcam_bench.paths import ROOT
from fastcam_export import export_model

IMAGES = ROOT / "docs" / "images"
DATA = Path(str(files("fastcam"))) / "data"
SHEET = ("gradcam", "layercam", "guided-gradcam", "occlusion")
CLASSES = ("spiral", "star", "triangle", "square", "flower")
TWO = ("spiral", "square")
SIDE = 200
TRANSFORMERS = ("rollout", "rollout-max", "rollout-min", "legrad", "vit-reciprocam")
"""Methods of vision transformers, shown of :mod:`fastcam_bench.report.transformer`."""


def explainer(model: Path = DATA / "scenes.onnx", **how: Any) -> Explainer:
    """The bundled model, or another of its classes, exported in memory."""
    labels = DATA / "scenes.labels.txt"
    made = export_model(model, preprocess="imagenet", labels=labels, check=False, **how)
    head = made.head.SerializeToString() if made.head is not None else None
    return Explainer(made.model.SerializeToString(), head=head)


def overviews() -> None:
    """demo.jpg: the picture and five classes; sheet.jpg: two classes by several methods."""
    ours = explainer(emit="gradients", input_gradient="guided")
    e = ours(DATA / "scene.jpg", targets=list(CLASSES))
    tiles = [(e.images[0], "picture")]
    for t, name in enumerate(CLASSES):
        tiles.append((draw_box(e.overlay(0, t, annotate=False), e.boxes[0, t]), f"{name} {e.score(0, t):.3f}"))
    _write(IMAGES / "demo.jpg", contact_sheet(tiles, columns=3), 88)
    asked = [ours(DATA / "scene.jpg", targets=list(TWO), method=method) for method in SHEET]
    _write(IMAGES / "sheet.jpg", methods_sheet(asked, tile=220), 88)


def gallery(names: Sequence[str], model: Path = DATA / "scenes.onnx") -> None:
    """One picture per method: the spiral and the square."""
    explainers: dict[str | None, Explainer] = {}
    for name in names:
        mode = METHODS[name].mode
        if mode not in explainers:
            how: dict[str, Any] = {"input_gradient": mode} if mode else {"head": True}
            explainers[mode] = explainer(model, emit="gradients", **how)
        e = explainers[mode](DATA / "scene.jpg", targets=list(TWO), method=name)
        _write(IMAGES / "methods" / f"{name}.jpg", np.hstack([_tile(e, t) for t in range(len(TWO))]), 80)


def _tile(e: Explanation, target: int) -> Uint8:
    """What a method shows of one class: its pixels where it explains pixels, else the heatmap and its box."""
    if e.attributions is not None and METHODS[e.method].mode not in MAPS:
        picture = e.attribution_image(0, target)
    else:
        picture = draw_box(e.overlay(0, target, annotate=False), e.boxes[0, target])
    return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _write(path: Path, picture: Uint8, quality: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])


def main() -> None:
    """The command; see the module's docstring."""
    wanted = sys.argv[1:]
    if not wanted:
        overviews()
    names = wanted or list(METHODS)
    gallery([name for name in names if name not in TRANSFORMERS])
    of_tokens = [name for name in names if name in TRANSFORMERS]
    if of_tokens:
        from fastcam_bench.report.transformer import write as write_transformer

        with TemporaryDirectory() as folder:
            gallery(of_tokens, write_transformer(DATA / "scenes.onnx", Path(folder)))


if __name__ == "__main__":
    main()
