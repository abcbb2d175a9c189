"""The README's pictures: the bundled scene, where the bundled model saw its classes, and several methods on one sheet.

python -m fastcam_bench.picture
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2

from fastcam import Explainer
from fastcam.image import Uint8
from fastcam.render import contact_sheet, draw_box
from fastcam.sheet import methods_sheet
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

METHODS = ("gradcam", "layercam", "guided-gradcam", "occlusion")
CLASSES = ("spiral", "star", "triangle", "square", "flower")


def main() -> None:
    """Write demo.jpg and sheet.jpg."""
    data = Path(str(files("fastcam"))) / "data"
    how: dict[str, Any] = {"preprocess": "imagenet", "labels": data / "scenes.labels.txt", "check": False}
    exported = export_model(data / "scenes.onnx", emit="gradients", input_gradient="guided", **how)
    explainer = Explainer(exported.model.SerializeToString())
    e = explainer(data / "scene.jpg", targets=list(CLASSES))
    tiles = [(e.images[0], "picture")]
    for t, name in enumerate(CLASSES):
        tiles.append((draw_box(e.overlay(0, t, annotate=False), e.boxes[0, t]), f"{name} {e.score(0, t):.3f}"))
    _write("demo.jpg", contact_sheet(tiles, columns=3))
    asked = [explainer(data / "scene.jpg", targets=["spiral", "flower"], method=method) for method in METHODS]
    _write("sheet.jpg", methods_sheet(asked, tile=220))


def _write(name: str, picture: Uint8) -> None:
    cv2.imwrite(str(RESULTS / name), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
