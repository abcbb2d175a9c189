"""Annotated pictures on disk: their pictures, texts and XML, the marks of ILSVRC in three forms, and what data says."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SYNSETS = ("n01440764 tench, Tinca tinca", "n01443537 goldfish", "n02123045 tabby, tabby cat")


def picture(path: Path, height: int = 12, width: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def xml(*objects: tuple, head: str = "") -> str:
    marks = "".join(
        f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}"
        f"</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox><part><bndbox><xmin>1</xmin></bndbox></part></object>"
        for label, box, difficult in objects
    )
    return f"{head}<annotation><filename>a</filename>{marks}</annotation>"


def said(data) -> dict:
    return {s.name: [(a.label, a.box) for a in s.annotations] for s in data.samples()}


MARKS = {
    "ILSVRC2012_val_00000001": ("n02123045", [(2, 3, 9, 8), (0, 1, 5, 5)]),
    "ILSVRC2012_val_00000002": ("n01440764", [(1, 1, 16, 12)]),
}
EXPECTED = {
    "ILSVRC2012_val_00000001.JPEG": [(SYNSETS[2], (1, 2, 9, 8)), (SYNSETS[2], (0, 0, 5, 5))],
    "ILSVRC2012_val_00000002.JPEG": [(SYNSETS[0], (0, 0, 16, 12))],
}


def in_xml(folder: Path) -> None:
    for name, (synset, boxes) in MARKS.items():
        write(folder / f"{name}.xml", xml(*((synset, box, 0) for box in boxes)))


def in_csv(file: Path) -> None:
    rows = [f"{n},{' '.join(f'{s} {a} {b} {c} {d}' for a, b, c, d in boxes)} " for n, (s, boxes) in MARKS.items()]
    write(file, "\n".join(["ImageId,PredictionString", *rows]))


def in_metadata(folder: Path) -> None:
    ids = [line[:9] for line in SYNSETS]
    write(folder / "image_ids.txt", "".join(f"val/{name}.JPEG\n" for name in MARKS))
    write(folder / "class_labels.txt", "".join(f"val/{n}.JPEG,{ids.index(s)}\n" for n, (s, _) in MARKS.items()))
    rows = [f"val/{n}.JPEG,{','.join(map(str, box))}\n" for n, (_, boxes) in MARKS.items() for box in boxes]
    write(folder / "localization.txt", "".join(rows))
