"""Pictures of what the networks look at: question by question, and layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastcam.image.resampling import opencv
from fastcam.render import drawing
from fastcam.results.layer_sheet import strip
from fastcam_bench.paper.questions.exported import QUESTION
from fastcam_bench.paper.questions.grammar import ANSWERS, KINDS
from fastcam_bench.paper.questions.measure import QuestionSet

Heat = npt.NDArray[np.float32]
Sheet = npt.NDArray[np.uint8]
TILE, LAYER = 192, 128
SHOWN = (*KINDS, "colour", "beside")
"""Kinds of the questions that are shown, a line each."""


def of_questions(about: QuestionSet, columns: dict[str, Heat]) -> Sheet:
    """Some questions: the picture with question and answer, the objects asked about, and each column's heat."""
    tiles = []
    for line, kind in enumerate(SHOWN):
        same = [i for i, one in enumerate(about.questions) if one.kind == kind]
        k = same[(10 * line + 3) % len(same)]
        one, image = about.questions[k], about.images[k]
        answer = f"{one.text} {ANSWERS[one.answer]}"
        marked = np.where(about.mask(k)[..., None], image, image // 4)
        tiles += [(drawing.scaled(image, TILE), answer), (drawing.scaled(marked, TILE), "asked about")]
        tiles += [(_under(image, heat[k]), name) for name, heat in columns.items()]
    return drawing.contact_sheet(tiles, 2 + len(columns), TILE)


def _under(image: Sheet, heat: Heat) -> Sheet:
    """A picture half under the colours of its heat."""
    most = max(float(heat.max()), 1e-12)
    big = opencv().resize(heat / most, (TILE, TILE), interpolation=opencv().INTER_LINEAR)
    colours = drawing.colormap()[np.clip(np.rint(big * 255), 0, 255).astype(np.int64)]
    return np.asarray((drawing.scaled(image, TILE).astype(np.uint16) + colours) // 2, np.uint8)


def of_layers(explainer: Any, held: QuestionSet) -> Sheet:
    """Maps of two questions about one picture, layer by layer."""
    k = next(i for i, one in enumerate(held.questions) if one.kind == "colour")
    rows = []
    for i in range(k, k + 2):
        found = explainer([held.images[i]], -1, inputs={QUESTION: held.words[i : i + 1]}, layers="all")
        rows.append(strip(found, 0, LAYER))
    return np.concatenate(rows)
