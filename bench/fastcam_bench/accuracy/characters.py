"""Where is a character of a text? ``python -m fastcam_bench.accuracy.characters`` counts whose map lies on it.

Lines of text are drawn at known columns, on plain ground and on photos, and read by PP-OCR's recogniser; each character
that it read is explained. Counted over the characters of all lines that are read as they were drawn:

    hit      the highest column of the map lies between the sides of the character, two pixels more to each side
    inside   the share of the heat between the sides, and
    chance   what a map without any place would have: the character's width over the width of the picture

Captchas whose file is called as they read say whether the text is right. Writes ``characters.json`` and
``characters.jpg`` (some of the maps) to ``--out``. Models and photos come from a folder that is no part of the project:
``--assets``, FASTCAM_ASSETS or ../shared/assets.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fastcam import Explainer, Explanation
from fastcam.schema import preset
from fastcam_bench.oracles.machine import versions
from fastcam_bench.paths import RESULTS, default_assets
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.accuracy.characters"
OUT = RESULTS / "pictures"
HEIGHT, WIDTH, MARGIN, CHARACTERS = 48, 320, 2, 4
WORDS = (
    "Hotel", "Garden 7", "RELEASE", "Platform 3", "museum", "Exit 12", "Bakery", "window", "Station", "No 4815",
    "quiet zone", "LIBRARY", "yellow", "Gate B6", "kitchen", "Harbour", "29 May", "Telephone", "PRESS", "bridge 5",
    "Orange", "market", "Total 93", "Vienna", "closed", "Radio 1", "WINTER", "paper", "Journey", "flight 702",
)  # fmt: skip
CAPTCHA = list("Y65WRD98SMBG3NJ21CP4K?7ZXH!TQL")
METHODS: dict[str, dict[str, Any]] = {
    "hirescam, the default": {},
    "layercam": {"method": "layercam"},
    "gradcam": {"method": "gradcam"},
}


@dataclass(frozen=True)
class Line:
    """A line of text as it was drawn: uint8 RGB [48, 320, 3], and the columns [left, right) of each character."""

    text: str
    image: npt.NDArray[np.uint8]
    columns: tuple[tuple[float, float], ...]


def lines(photos: Sequence[Path], seed: int = 0) -> list[Line]:
    """A line for each of WORDS: every second one on a photo, every third one light on dark."""
    rng = np.random.default_rng(seed)
    return [_line(word, n, photos[n % len(photos)], rng) for n, word in enumerate(WORDS)]


def _line(text: str, number: int, photo: Path, rng: np.random.Generator) -> Line:
    font = ImageFont.load_default(size=int(rng.integers(26, 37)))
    light = number % 3 == 0
    ground = Image.new("RGB", (WIDTH, HEIGHT), (40, 50, 70) if light else (205, 200, 190))
    if number % 2:
        with Image.open(photo) as opened:
            strip = opened.convert("RGB").resize((WIDTH, WIDTH)).crop((0, 120, WIDTH, 120 + HEIGHT))
        ground = Image.blend(ground, strip, 0.35)
    _, top, right, bottom = font.getbbox(text)
    x = float(rng.uniform(4, WIDTH - 4 - right))
    y = float(rng.uniform(2, max(3.0, HEIGHT - 2 - (bottom - top)))) - top
    draw, columns = ImageDraw.Draw(ground), []
    for character in text:
        draw.text((x, y), character, fill=(240, 240, 230) if light else (20, 15, 10), font=font)
        columns.append((x, x + font.getlength(character)))
        x += font.getlength(character)
    return Line(text, np.asarray(ground), tuple(columns))


def judge(heat: npt.NDArray[np.floating[Any]], left: float, right: float) -> tuple[bool, float]:
    """Whether the highest column of a map [h, w] is a character's, and the share of the heat between its sides."""
    of_columns = heat.max(axis=0)
    hit = left - MARGIN <= of_columns.argmax() + 0.5 <= right + MARGIN
    share = heat.sum(axis=0)
    whole = float(share.sum())
    return bool(hit), float(share[round(left) : round(right)].sum()) / whole if whole else 0.0


def measure(model: Path, drawn: Sequence[Line]) -> tuple[dict[str, Any], list[tuple[Line, Explanation]]]:
    """Each line's characters by each of METHODS, and the default's explanations."""
    shown: list[tuple[Line, Explanation]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rec.cam.onnx"
        how = preset("tf", color="BGR", size=(HEIGHT, WIDTH))
        export_model(model, path, targets="cotangent", preprocess=how, on_demand=True)
        explainer = Explainer(path)
        counts: dict[str, dict[str, Any]] = {name: {"hit": 0, "inside": []} for name in METHODS}
        read, rows = 0, []
        for line in drawn:
            found = explainer.predict(line.image)
            for name, options in METHODS.items():
                e = explainer.explain(found, cotangent="words", **options)
                said = [e.label(0, t).split(": ", 1)[1] for t in range(e.asked(0))]
                places = [t for t, one in enumerate(said) if one != "space"]
                right = [n for n, one in enumerate(line.text) if one != " "]
                if name == next(iter(METHODS)):
                    rows.append({"drawn": line.text, "read": "".join(said).replace("space", " ").strip()})
                    shown.append((line, e))
                if [said[t] for t in places] != [line.text[n] for n in right]:
                    break
                read += name == next(iter(METHODS))
                for t, n in zip(places, right):
                    hit, inside = judge(e.geometry[0].heatmap_to_original(e.heatmaps[0, t]), *line.columns[n])
                    counts[name]["hit"] += hit
                    counts[name]["inside"].append(inside)
    kept = [line for line, row in zip(drawn, rows) if row["read"].replace(" ", "") == line.text.replace(" ", "")]
    widths = [(b - a) / WIDTH for one in kept for (a, b), c in zip(one.columns, one.text) if c != " "]
    methods = {
        name: {"characters": len(one["inside"]), "hit": one["hit"], "inside": round(float(np.mean(one["inside"])), 3)}
        for name, one in counts.items()
    }
    report = {"lines": len(drawn), "read": read, "chance": round(float(np.mean(widths)), 3), "methods": methods}
    return report | {"texts": rows}, shown


def captchas(folder: Path) -> dict[str, int]:
    """How many captchas are read as their file is called."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "captcha.cam.onnx"
        export_model(folder / "sat_captcha.onnx", path, targets="cotangent", preprocess="raw", labels=CAPTCHA)
        files = sorted((folder / "sat_captcha_pictures").glob("*.png"))
        e = Explainer(path)([str(file) for file in files], cotangent="caption")
        right = sum(e.label(n) == f"text {file.stem}" for n, file in enumerate(files))
    return {"pictures": len(files), "right": right}


def sheet(shown: Sequence[tuple[Line, Explanation]]) -> npt.NDArray[np.uint8]:
    """A row for each line of text: the line, and the maps of its first characters."""
    rows = [[line.image, *(e.overlay(0, t, annotate=False) for t in range(CHARACTERS))] for line, e in shown]
    bordered = [[np.pad(tile, ((2, 2), (2, 2), (0, 0)), constant_values=255) for tile in row] for row in rows]
    return np.vstack([np.hstack(row) for row in bordered])


def main() -> None:
    """Measure, print the report, write the two files."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Where is a character of a text?")
    parser.add_argument("--assets", type=Path, default=default_assets(), help="folder with models/ and photos/")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the results")
    options = parser.parse_args()
    folder = options.assets / "models" / "deployed"
    if not (folder / "ppocr_rec.onnx").is_file():
        sys.exit(f"no recogniser in {folder}; set FASTCAM_ASSETS or give --assets DIR; nothing measured")
    report, shown = measure(folder / "ppocr_rec.onnx", lines(sorted((options.assets / "photos").glob("*.jpg"))))
    whole = {"command": COMMAND, "versions": versions("fastcam", "onnxruntime", "numpy"), **report}
    whole["captchas"] = captchas(folder)
    text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
    (options.out / "characters.json").write_text(text, encoding="utf-8")
    picture = np.ascontiguousarray(sheet([one for one in shown if one[1].asked(0) >= CHARACTERS][:10])[..., ::-1])
    cv2.imwrite(str(options.out / "characters.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 80])
    print(text)


if __name__ == "__main__":
    main()
