"""The README's picture: the bundled scene, and for each of its classes where the bundled model saw it.

python -m fastcam_bench.picture
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import cv2

from fastcam import Explainer
from fastcam.render import contact_sheet, draw_box
from fastcam_export import export_model

OUTPUT = Path(__file__).parent.parent / "results" / "demo.jpg"
CLASSES = ("spiral", "star", "triangle", "square", "flower")


def main() -> None:
    """Write OUTPUT."""
    data = Path(str(files("fastcam"))) / "data"
    exported = export_model(data / "scenes.onnx", preprocess="imagenet", labels=data / "scenes.labels.txt", check=False)
    e = Explainer(exported.model.SerializeToString())(data / "scene.jpg", targets=list(CLASSES))
    tiles = [(e.images[0], "picture")]
    for t, name in enumerate(CLASSES):
        tiles.append((draw_box(e.overlay(0, t, annotate=False), e.boxes[0, t]), f"{name} {e.score(0, t):.3f}"))
    sheet = contact_sheet(tiles, columns=3)
    cv2.imwrite(str(OUTPUT), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
