"""Files of other people, as a stranger meets them: ``python -m fastcam_bench.accuracy.deployed``.

Every trained file of the assets goes through ``fastcam inspect``, ``fastcam export`` with its defaults (and the
preprocessing, which no file tells) and ``fastcam explain``. Then the number that says whether the map means something:
how often the map's maximum lies on what was asked for, and the share of the heat there beside the share of the picture
that it covers. What was asked for is an object whose place somebody drew, letters that were written for it, or, of
detectors, their own best boxes. Writes ``deployed.json`` to ``--out``. Models, photos
and annotations come from a folder that is no part of the project: ``--assets``, FASTCAM_ASSETS or ../shared/assets.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fastcam import Explainer, Explanation, FastcamError
from fastcam.image.preprocess import decode
from fastcam_bench.accuracy import characters
from fastcam_bench.accuracy.photos import Box, Uint8, measure, read_photos
from fastcam_bench.oracles.machine import versions, write_report
from fastcam_bench.paths import RESULTS, default_assets
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.accuracy.deployed"
OUTPUT = RESULTS / "pictures" / "deployed.json"
IMAGENET = ("--preprocess", "imagenet")
TF = ("--preprocess", "tf128")
PADDLE = ("--scale", "1/255", "--mean", "0.5", "--std", "0.5", "--color", "BGR")
CIFAR = ("airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The classes of CIFAR-10 by COCO's names, where COCO has them."""
SURE = 0.5
"""The least score of a detector's box that counts."""
OFFICE = ("controller", "keyboard", "laptop", "monitor", "mouse")

Row = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A picture, what is asked about it, and where the right answer lies: a box for each target.

    Boxes are x0, y0, x1, y1 in pixels of the picture; None: those that the model itself found.
    """

    picture: Uint8
    target: Any
    boxes: Sequence[Box] | None


@dataclass(frozen=True)
class Subject:
    """A file, how pictures become its input, and what to ask it."""

    file: str
    kind: str
    asked: str
    questions: Callable[[Path, Explainer], Iterator[Question]]
    options: Sequence[str] = field(default=())


# ---- what is asked


def _photos(offset: int) -> Callable[[Path, Explainer], Iterator[Question]]:
    """The class that somebody saw in a photo, whether the model names it or not."""

    def ask(assets: Path, explainer: Explainer) -> Iterator[Question]:
        for photo in read_photos(assets / "photos"):
            if photo.box is not None and photo.class_index is not None:
                yield Question(decode(photo.path), photo.class_index + offset, [photo.box])

    return ask


def _coco(assets: Path) -> Iterator[tuple[Uint8, str, Box]]:
    """(picture, name, box) of every object of COCO's photos that is no crowd."""
    told = json.loads((assets / "coco" / "instances.json").read_text(encoding="utf-8"))
    names = {one["id"]: one["name"] for one in told["categories"]}
    for image in told["images"]:
        picture = decode(assets / "coco" / "images" / image["file_name"])
        for one in told["annotations"]:
            if one["image_id"] == image["id"] and not one["iscrowd"]:
                x, y, width, height = one["bbox"]
                yield picture, names[one["category_id"]], (x, y, x + width, y + height)


def _cut_out(picture: Uint8, box: Box, times: float = 2) -> tuple[Uint8, Box]:
    """A square cut-out of some times the object's side, as far off its middle as the picture allows; its box there."""
    height, width = picture.shape[:2]
    side = int(min(times * max(box[2] - box[0], box[3] - box[1]), height, width))
    x = int(np.clip(box[0] - 0.1 * side, 0, width - side))
    y = int(np.clip(box[1] - 0.1 * side, 0, height - side))
    return picture[y : y + side, x : x + side], (box[0] - x, box[1] - y, box[2] - x, box[3] - y)


def _objects(names: Sequence[str], smallest: float) -> Callable[[Path, Explainer], Iterator[Question]]:
    """Cut-outs with an object in their upper left part, where the model sees the object's class before all others."""

    def ask(assets: Path, explainer: Explainer) -> Iterator[Question]:
        for picture, name, box in _coco(assets):
            if name in names and min(box[2] - box[0], box[3] - box[1]) >= smallest:
                part, inside = _cut_out(picture, box)
                if int(explainer.predict(part).classes[0]) == names.index(name):
                    yield Question(part, names.index(name), [inside])

    return ask


def _digits(assets: Path, explainer: Explainer) -> Iterator[Question]:
    """Digits as OpenCV writes them, in the middle of a black picture, as far as the model reads them."""
    for digit in range(10):
        picture = np.zeros((56, 56, 3), np.uint8)
        cv2.putText(picture, str(digit), (12, 46), cv2.FONT_HERSHEY_SIMPLEX, 1.6, (255, 255, 255), 5)
        if int(explainer.predict(picture).classes[0]) == digit:
            yield Question(picture, digit, [_ink(picture > 0)])


def _ink(mask: Any) -> Box:
    ys, xs = np.nonzero(mask[..., 0])
    return float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)


def _lines(assets: Path, explainer: Explainer) -> Iterator[Question]:
    """Words at one end of a line that is otherwise empty, upright and upside down, where the model tells which."""
    for word in ("Harbour", "north 42", "Exit", "Grad-CAM", "coffee"):
        for turned in (0, 1):
            picture = np.full((48, 192, 3), 235, np.uint8)
            cv2.putText(picture, word, (4, 34), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (20, 20, 20), 2, cv2.LINE_AA)
            picture = np.ascontiguousarray(picture[::-1, ::-1]) if turned else picture
            if int(explainer.predict(picture).classes[0]) == turned:
                yield Question(picture, turned, [_ink(picture < 128)])


def _signs(assets: Path, explainer: Explainer) -> Iterator[Question]:
    """A word somewhere on an empty wall."""
    rng = np.random.default_rng(0)
    for word in ("Harbour", "north 42", "Exit", "Grad-CAM", "coffee", "Gate B6", "closed", "Station"):
        picture = np.full((320, 480, 3), 200, np.uint8)
        place = (int(rng.integers(10, 250)), int(rng.integers(60, 300)))
        cv2.putText(picture, word, place, cv2.FONT_HERSHEY_SIMPLEX, 1.2, (30, 40, 60), 3, cv2.LINE_AA)
        yield Question(picture, -1, [_ink(picture < 120)])


def _own_boxes(assets: Path, explainer: Explainer) -> Iterator[Question]:
    """COCO's photos; the best boxes are the model's own."""
    for path in sorted((assets / "coco" / "images").glob("*.jpg")):
        yield Question(decode(path), -1, None)


def _characters(assets: Path, explainer: Explainer) -> Iterator[Question]:
    """Drawn lines of text, as far as they are read right: a target for each character."""
    for line in characters.lines(sorted((assets / "photos").glob("*.jpg"))):
        places = [(a, 0.0, b, 48.0) for (a, b), c in zip(line.columns, line.text) if c != " "]
        yield Question(line.image, -1, places)


def _captchas(assets: Path, explainer: Explainer) -> Iterator[Question]:
    """Captchas, whose characters nobody drew a box around: whether they are read and have maps is what is counted."""
    for path in sorted((assets / "models" / "deployed" / "sat_captcha_pictures").glob("*.png")):
        yield Question(decode(path), -1, [])


def _detected_boxes(explanation: Explanation) -> list[Box]:
    """The boxes that a detector found in its one picture, in its pixels, without what lies outside of it."""
    height, width = explanation.images[0].shape[:2]
    own = [one.box for one in explanation.targets[0]]
    sides = np.clip(explanation.geometry[0].to_original(own), 0, [width, height, width, height])
    return [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in sides]


def _faces(assets: Path, explainer: Explainer) -> Iterator[Question]:
    """Faces in COCO's photos, as another model finds them: cut-outs a quarter larger, with the face in the upper left.

    Rows and columns are exchanged, as this network wants them.
    """
    with tempfile.TemporaryDirectory() as folder:
        finder = Path(folder) / "faces.cam.onnx"
        source = assets / "models" / "deployed" / "ultraface_rfb320.onnx"
        export_model(source, finder, preprocess={"preset": "raw", "mean": 127, "std": 128}, check=False)
        faces = Explainer(finder)
        for question in _own_boxes(assets, faces):
            found = _explained(faces, question)
            for t, box in enumerate([] if found is None else _detected_boxes(found)):
                if found is not None and found.scores[0, t] > 0.9 and box[2] - box[0] >= 24:
                    part, (x0, y0, x1, y1) = _cut_out(question.picture, box, 1.25)
                    turned = np.ascontiguousarray(part.transpose(1, 0, 2))
                    if int(explainer.predict(turned).classes[0]) == 1:
                        yield Question(turned, 1, [(y0, x0, y1, x1)])


SUBJECTS = (
    Subject("squeezenet1.1.onnx", "classifier", "the class of a photo", _photos(0), IMAGENET),
    Subject("squeezenet1.1_fp16.onnx", "classifier, half precision", "the class of a photo", _photos(0), IMAGENET),
    Subject("mobilenet_v2_1.0_224_quant.float.onnx", "classifier", "the class of a photo", _photos(1), TF),
    Subject("mobilenet_v2_1.0_224_quant.qdq.onnx", "classifier, uint8 QDQ", "the class of a photo", _photos(1), TF),
    Subject("mobilenet_v1_0.25_128_quant.float.onnx", "classifier", "the class of a photo", _photos(1), TF),
    Subject("mobilenet_v1_0.25_128_quant.qdq.onnx", "classifier, uint8 QDQ", "the class of a photo", _photos(1), TF),
    Subject("resnet20_cifar10.onnx", "classifier, 32 pixels", "an object beside others", _objects(CIFAR, 24), IMAGENET),
    Subject("mnist.onnx", "classifier, grey", "a digit", _digits, ("--preprocess", "raw")),
    Subject(
        "deployed/customvision_computer.onnx",
        "classifier, ZipMap",
        "an object beside others",
        _objects(OFFICE, 24),
        ("--preprocess", "caffe", "--mean", "0"),
    ),
    Subject("deployed/ppocr_cls.onnx", "turned text or not", "which way up", _lines, PADDLE),
    Subject(
        "deployed/mtcnn_onet.onnx",
        "face or not, three outputs, channels last",
        "a face",
        _faces,
        ("--mean", "127.5", "--std", "128"),
    ),
    Subject(
        "deployed/fastestdet.onnx",
        "detector, one dense map",
        "its best boxes, score .5 or more",
        _own_boxes,
        ("--scale", "1/255", "--color", "BGR"),
    ),
    Subject(
        "deployed/ultraface_rfb320.onnx",
        "face detector, boxes and scores",
        "its best boxes, score .5 or more",
        _own_boxes,
        ("--mean", "127", "--std", "128"),
    ),
    Subject(
        "deployed/yunet_n.onnx",
        "face detector, twelve outputs",
        "its best boxes, score .5 or more",
        _own_boxes,
        ("--preprocess", "raw", "--color", "BGR"),
    ),
    Subject(
        "deployed/ppocr_det.onnx", "text segmenter", "the largest region", _signs, (*IMAGENET, "--size", "320x480")
    ),
    Subject(
        "deployed/ppocr_rec.onnx",
        "text recogniser",
        "each character",
        _characters,
        (*PADDLE, "--size", "48x320"),
    ),
    Subject(
        "deployed/sat_captcha.onnx", "captcha reader, CNN + LSTM", "each character", _captchas, ("--preprocess", "raw")
    ),
)


# ---- the three verbs, and the number


def verb(*arguments: str) -> tuple[int, str]:
    """(exit code, what it prints) of a call of the command line."""
    done = subprocess.run(
        [sys.executable, "-m", "fastcam", *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def _explained(explainer: Explainer, question: Question) -> Explanation | None:
    """None where the model finds nothing in the picture."""
    try:
        return explainer(question.picture, targets=question.target)
    except FastcamError:
        return None


def judged(explainer: Explainer, question: Question) -> list[Row]:
    """How the map of each target lies on what was asked for, on the picture itself."""
    found = _explained(explainer, question)
    if found is None:
        return []
    count = found.asked(0)
    if question.boxes is None:
        return [_row(found, t, box) for t, box in enumerate(_detected_boxes(found)) if found.scores[0, t] >= SURE]
    places = question.boxes
    if len(places) > 1:  # a text: of what is not read as drawn nobody knows the place
        said = [t for t in range(count) if "space" not in found.label(0, t)]
        if len(said) != len(places):
            return []
        return [_row(found, t, box) for t, box in zip(said, places)]
    if not places:
        return [{"status": found.status[0][t]} for t in range(count)]
    return [_row(found, t, box) for t, box in enumerate(places[:count])]


def _row(found: Explanation, target: int, box: Box) -> Row:
    heat = found.geometry[0].heatmap_to_original(found.heatmaps[0, target])
    return {"status": found.status[0][target], **measure(heat, box)}


def table_row(subject: Subject, assets: Path, folder: Path) -> Row:
    """What the three verbs say of a file, and how its maps lie on what was asked for."""
    source, file = assets / "models" / subject.file, folder / f"{Path(subject.file).stem}.cam.onnx"
    inspected, _ = verb("inspect", str(source))
    exported, said = verb("export", str(source), "-o", str(file), *subject.options)
    row: Row = {"file": Path(subject.file).name, "kind": subject.kind, "asked": subject.asked}
    row |= {"inspect": inspected, "export": exported}
    if exported:
        return {**row, "said": said.splitlines()[-1]}
    explainer = Explainer(file)
    questions = list(subject.questions(assets, explainer))
    rows = [judged(explainer, one) for one in questions]
    if not any(rows):
        return {**row, "said": "it answers none of the pictures"}
    picture = folder / "picture.png"
    answered = next((n for n, one in enumerate(rows) if one), 0)
    cv2.imwrite(str(picture), cv2.cvtColor(questions[answered].picture, cv2.COLOR_RGB2BGR))
    explained, said = verb("explain", str(file), str(picture), "-o", str(folder / "out"))
    row["explain"] = explained
    if explained:
        return {**row, "said": said.splitlines()[-1]}
    return {**row, "method": explainer(questions[answered].picture).method, **summary(rows)}


def summary(pictures: Sequence[Sequence[Row]]) -> Row:
    """Means over targets whose map says something."""
    rows = [row for picture in pictures for row in picture]
    good = [row for row in rows if row["status"] == "ok"]
    counts = {"pictures": sum(map(bool, pictures)), "targets": len(rows), "without_map": len(rows) - len(good)}
    keys = [key for key in ("pointing_hit", "energy_inside", "box_area") if good and key in good[0]]
    return {**counts, **{key: round(float(np.mean([row[key] for row in good])), 3) for key in keys}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=default_assets())
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--only", nargs="*", help="parts of file names")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for subject in SUBJECTS:
            if not options.only or any(part in subject.file for part in options.only):
                rows.append(table_row(subject, options.assets, Path(folder)))
                print(json.dumps(rows[-1]), flush=True)
    write_report({"command": COMMAND, **versions(), "files": rows}, options.out)


if __name__ == "__main__":
    main()
