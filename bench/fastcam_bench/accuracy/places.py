"""Whether the map of a detector's box lies in that box: ``python -m fastcam_bench.accuracy.places``.

Trained detectors of other people, on COCO's photos: faces (UltraFace, YuNet) and COCO's objects (FastestDet). Each is
exported as ``fastcam export FILE`` does it. The best boxes of each photo, at most five, are explained by several
methods, at the layers and by the fusions that such a file has. Of each map in the picture's pixels:

    maximum   it lies in the box that the detector predicts
    share     of the heat, in that box; beside it what the boxes cover of the picture, which is chance

Writes ``places.json`` to ``--out``, and with ``--sheet`` some of the pictures. Models and photos come from a folder
that is no part of the project: ``--assets``, FASTCAM_ASSETS or ../shared/assets.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fastcam import Explainer, Explanation
from fastcam.render import drawing
from fastcam_bench.oracles.machine import versions, write_report
from fastcam_bench.paths import RESULTS, default_assets
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.accuracy.places"
OUT = RESULTS / "pictures" / "places.json"
FOUND = 0.25
"""The score from which on a box counts as found."""
TARGET = "box:most=5"

Array = npt.NDArray[Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A detector: its name, file, preprocessing, and the score from which on its boxes are objects."""

    name: str
    file: str
    preprocess: Mapping[str, Any]
    found: float = FOUND


SUBJECTS = (
    Subject(
        "UltraFace", "ultraface_rfb320.onnx", {"mean": [127 / 255] * 3, "std": [128 / 255] * 3, "preset": "unit"}, 0.7
    ),
    Subject("YuNet", "yunet_n.onnx", {"preset": "raw", "color": "BGR"}, 0.6),
    Subject("FastestDet", "fastestdet.onnx", {"preset": "unit", "color": "BGR"}, 0.5),
)


@dataclass(frozen=True)
class Way:
    """A method at some layers of a file, as a call asks for it; ``where`` in words."""

    name: str
    where: str
    asks: Mapping[str, Any] = field(default_factory=dict)


def ways(layers: int) -> Iterator[Way]:
    """What is compared, of a file with so many layers, the default first."""
    yield Way("default", "as the export chose", {})
    for method in ("hirescam", "layercam", "gradcam"):
        yield Way(method, "the box's level", {"method": method, "fuse": "last", "layers": "all"})
        yield Way(method, "the box's level, sharpened", {"method": method, "fuse": "place", "layers": "all"})
        if layers > 1:
            yield Way(method, "all levels", {"method": method, "fuse": "max", "layers": "all"})
        yield Way(method, "the map that all heads share", {"method": method, "layers": [1]})


def judge(heat: Array, box: Sequence[float]) -> tuple[bool, float, float]:
    """Whether the maximum of a map [height, width] lies in a box, the share of heat there, and of the picture."""
    inside = np.zeros(heat.shape, bool)
    x0, y0, x1, y1 = (round(side) for side in box)
    inside[max(0, y0) : max(y1, y0 + 1), max(0, x0) : max(x1, x0 + 1)] = True
    total = float(heat.sum(dtype=np.float64))
    highest = bool(inside[np.unravel_index(int(heat.argmax()), heat.shape)]) and total > 0
    return highest, float(heat[inside].sum(dtype=np.float64)) / total if total > 0 else 0.0, float(inside.mean())


def explained(explainer: Explainer, photo: Path, way: Way) -> Explanation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing found
        found = explainer(str(photo), targets=TARGET, **way.asks)
    assert isinstance(found, Explanation)
    return found


def measure(subject: Subject, assets: Path, photos: Sequence[Path]) -> tuple[Row, list[Explanation]]:
    """All boxes of all photos, by all ways; and the explanations by default."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.cam.onnx"
        made = export_model(assets / "models" / "deployed" / subject.file, path)
        explainer = Explainer(path, "cpu", preprocess=dict(subject.preprocess))
        layers = max(1, len(made.metadata.layers))
        found: dict[tuple[str, str], list[tuple[bool, float, float]]] = {}
        shown = []
        for photo in photos:
            for way in ways(layers):
                e = explained(explainer, photo, way)
                if way.name == "default":
                    shown.append(e)
                for t in range(e.asked(0)):
                    box = e.predicted_box(0, t)
                    if box is not None and e.score(0, t) >= subject.found:
                        heat = e.geometry[0].heatmap_to_original(e.heatmaps[0, t])
                        found.setdefault((way.name, way.where), []).append(judge(heat, box))
    rows = [
        {
            "method": method,
            "where": where,
            "maximum inside": sum(one[0] for one in each),
            "share inside": float(f"{np.mean([one[1] for one in each]):.3f}"),
        }
        for (method, where), each in found.items()
    ]
    every = next(iter(found.values()))
    chance = float(f"{np.mean([one[2] for one in every]):.3f}")
    layer_names = [one.value for one in made.metadata.layers or (made.metadata.layer,)]
    return {
        "name": subject.name,
        "from score": subject.found,
        "boxes": len(every),
        "of the picture": chance,
        "layers": layer_names,
        "ways": rows,
    }, shown


def sheet(shown: Sequence[Explanation], most: int = 24) -> Array:
    """Some of the explanations by default."""
    tiles = [(e.overlay(0, t), e.label(0, t)) for e in shown for t in range(min(2, e.asked(0)))]
    return np.ascontiguousarray(drawing.contact_sheet(tiles[:most], columns=6, tile=260)[..., ::-1])


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Whether the map of a box lies in the box.")
    parser.add_argument("--assets", type=Path, default=default_assets(), help="folder with models/ and coco/")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", default="", help="a part of a detector's name")
    parser.add_argument("--photos", type=int, default=None, help="only the first so many")
    parser.add_argument("--sheet", type=Path, help="write a sheet of pictures, NAME.jpg for each detector, there")
    options = parser.parse_args()
    photos = sorted((options.assets / "coco" / "images").glob("*.jpg"))[: options.photos]
    if not photos:
        sys.exit(f"no photos in {options.assets}; set FASTCAM_ASSETS or give --assets DIR; nothing measured")
    detectors = []
    for subject in SUBJECTS:
        if options.only.lower() in subject.name.lower():
            row, shown = measure(subject, options.assets, photos)
            detectors.append(row)
            print(row["name"], row["boxes"], "boxes, of the picture", row["of the picture"])
            for one in row["ways"]:
                print(f"  {one['method']:10} {one['where']:30} {one['maximum inside']:4} {one['share inside']:.3f}")
            if options.sheet:
                cv2.imwrite(str(options.sheet / f"{subject.name}.jpg"), sheet(shown))
    packages = versions("fastcam", "onnxruntime", "numpy")
    report = {"command": COMMAND, "versions": packages, "photos": len(photos), "asked": TARGET, "detectors": detectors}
    write_report(report, options.out)


if __name__ == "__main__":
    main()
