"""Seed masks on disk, in PASCAL VOC's form, one after the other; a run that was stopped goes on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np

from fastcam.atomic_files import json_bytes, refused, write_files
from fastcam.errors import FastcamError, shown
from fastcam.evaluation.data.index_masks import encode_indices
from fastcam.evaluation.data.listed import Listed, inside
from fastcam.evaluation.protocols.base import Case, Row
from fastcam.evaluation.protocols.seeds import NO_GRADIENT, SeedQuality
from fastcam.evaluation.runner import Contestant, Measured, Told, evaluate
from fastcam.evaluation.samples import Dataset
from fastcam.evaluation.seeds import BACKGROUND, MOST, NO_CUE
from fastcam.image.decode import is_picture

MASKS, NAMES, REPORT = "SegmentationClass", "class_names.txt", "seeds.json"


def write_seeds(
    contestant: Contestant,
    data: Dataset,
    out: str | Path,
    *,
    foreground: float = 0.2,
    background: float = 0.1,
    saliency: str | None = None,
    limit: int | None = None,
    restart: bool = False,
    told: Told | None = None,
) -> Measured:
    """Write the seed mask of every picture that shows a class that the model knows, and measure those with masks.

    ``SegmentationClass/NAME.png`` are palette PNGs of the picture's size: a class's number is its place among the data
    set's labels, from 1; 0 is the background, 255 no cue. ``class_names.txt`` has a name a line, from 0 on, and
    ``seeds.json`` the settings and figures. Called again with the same folder it goes on behind the last picture.

    Args:
        contestant: model, classes and method.
        data: of :func:`fastcam.evaluation.data.open_data`.
        out: the folder.
        foreground, background, saliency: see :class:`fastcam.evaluation.protocols.seeds.SeedQuality`.
        limit, restart, told: see :func:`fastcam.evaluation.runner.evaluate`.

    Raises:
        FastcamError: more than 254 labels, a file that cannot be explained or written, or no pictures.
    """
    if len(data.labels) > MOST:
        raise FastcamError(
            f"{data.name} has {len(data.labels)} classes, and a seed mask has numbers for {MOST}; give data with fewer"
        )
    if saliency == "gradient" and contestant.explainer.metadata.input_gradient != "gradient":
        raise FastcamError(NO_GRADIENT)
    folder = Path(out)
    files = _SeedFiles(folder / MASKS, data, foreground, background, saliency)
    names = "".join(f"{name}\n" for name in ("_background_", *data.labels))
    made = evaluate(contestant, data, [files], folder, limit=limit, restart=restart, told=told)
    report = {"foreground": foreground, "background": background, "saliency": saliency, "data": data.name}
    numbers = {"_background_": BACKGROUND} | {label: number for number, label in enumerate(data.labels, 1)}
    classes = {label: sorted(found) for label, found in contestant.classes.by_label.items()}
    content = report | {"numbers": numbers, "no cue": NO_CUE, "model's classes": classes} | made.to_dict()
    write_files({folder / NAMES: names.encode(), folder / REPORT: json_bytes(content)})
    return made


class _SeedFiles(SeedQuality):
    """Writes the seed mask of each picture before it is measured, so that the journal names no picture without one."""

    def __init__(self, folder: Path, data: Dataset, threshold: float, background: float, saliency: str | None) -> None:
        super().__init__(threshold, background, saliency)
        self._folder = folder
        self._numbers = {label: number for number, label in enumerate(data.labels, 1)}
        stems = Counter(map(_stem, data.names)) if isinstance(data, Listed) else Counter()
        self._shared = {stem for stem, count in stems.items() if count > 1}

    def __repr__(self) -> str:
        """The settings without the folder, which may be moved."""
        return f"{self.name}({self.threshold!r}, {self.background!r}, {self.saliency!r})"

    def measure(self, case: Case) -> Row | None:
        """See :class:`SeedQuality`."""
        mask = self.seeds(case, self._numbers)
        path = self._path(case.sample.name)
        with refused(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: encode_indices(mask)})
        places = np.arange(256, dtype=np.uint8)
        places[1:NO_CUE] = NO_CUE
        for place, each in enumerate(case.present, 1):
            places[self._numbers[each.label]] = place
        return self.row(case, places[mask])

    def _path(self, name: str) -> Path:
        """The picture's name with .png in place of its ending, or behind it where two pictures differ in that alone."""
        stem = _stem(name)
        path = inside(self._folder, (name if stem in self._shared else stem) + ".png")
        if path is None:
            raise FastcamError(f"{shown(name)}: this name leads out of the folder of seeds")
        return path


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if is_picture(Path(path.name)) else name
