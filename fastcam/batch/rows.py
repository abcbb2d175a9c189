"""What the table says of a picture, and its columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fastcam.batch.sources.parquet import arrow
from fastcam.image.preprocess import Float
from fastcam.labels import short_label
from fastcam.results.concentration import map_entropies, shares_inside
from fastcam.results.explanation import OK, Explanation

GROUP = 256
"""Pictures of a row group."""

Row = dict[str, Any]


def schema(maps: bool) -> Any:
    """The columns, as pyarrow describes them.

    ==============  ===============  ===============================================================================
    picture         int64            its number in the source, from 0
    name            string           its name in the source
    width, height   int32            pixels
    target          string           what was asked: a class, a rank, words
    class           int32            the class behind it; null of what is no class
    label           string           its short name
    predicted       int32            the class with the highest score; null of models without classes
    score           float32          the explained output's value for the target
    status          string           of the map, see :class:`fastcam.results.explanation.Explanation`
    box             list<float32>    x0, y0, x1, y1 in pixels of the picture; null without a map
    boxes           list<list>       of each component x0, y0, x1, y1 and its pixels at the network's resolution
    heat_inside     float32          :func:`fastcam.results.concentration.heat_inside`
    entropy         float32          :func:`fastcam.results.concentration.entropy`
    map             list<float16>    where asked for: the map over its maximum, row by row
    map_shape       list<int32>      its rows and columns
    map_max         float32          its maximum
    error           string           why there is nothing else; null of what was explained
    ==============  ===============  ===============================================================================
    """
    pa, _ = arrow()
    columns = [
        ("picture", pa.int64()), ("name", pa.string()), ("width", pa.int32()), ("height", pa.int32()),
        ("target", pa.string()), ("class", pa.int32()), ("label", pa.string()), ("predicted", pa.int32()),
        ("score", pa.float32()), ("status", pa.string()), ("box", pa.list_(pa.float32())),
        ("boxes", pa.list_(pa.list_(pa.float32()))), ("heat_inside", pa.float32()), ("entropy", pa.float32()),
    ]  # fmt: skip
    if maps:
        columns += [("map", pa.list_(pa.float16())), ("map_shape", pa.list_(pa.int32())), ("map_max", pa.float32())]
    return pa.schema([*columns, ("error", pa.string())])


def rows_of(explanation: Explanation, targets: Sequence[Any], maps: bool) -> list[list[Row]]:
    """The rows of the pictures that ran together: of each a row for each of its targets, without number and name.

    Args:
        targets: as they were asked for; where a picture has another number of them, the first names all.
        maps: whether the maps are kept.
    """
    cotangents, boxes = bool(explanation.metadata.cotangents), explanation.boxes.tolist()
    predicted = [None] * len(explanation) if cotangents else _predicted(explanation.scores)
    inside = shares_inside(explanation.heatmaps, explanation.geometry, explanation.boxes).tolist()
    entropies, classes = map_entropies(explanation.maps).tolist(), explanation.classes.tolist()
    said = [text(str(target)) for target in targets]
    pictures = []
    for i, (status, geometry) in enumerate(zip(explanation.status, explanation.geometry, strict=True)):
        height, width = geometry.original
        count = explanation.asked(i)
        named = said if len(said) == count else [said[0]] * count
        rows = []
        for t in range(count):
            index = None if cotangents else classes[i][t]
            box, good = boxes[i][t] if any(boxes[i][t]) else None, status[t] == OK
            row: Row = {
                "width": width, "height": height, "target": named[t], "class": index,
                "label": text(_label(explanation, i, t, index)), "predicted": predicted[i],
                "score": _finite(explanation.score(i, t)), "status": status[t], "box": box,
                "boxes": np.asarray(explanation.components[i][t], np.float32).reshape(-1, 5).tolist(),
                "heat_inside": _finite(inside[i][t]) if good and box else None,
                "entropy": _finite(entropies[i][t]) if good else None,
            }  # fmt: skip
            if maps and good:
                row |= _map(explanation.maps[i, t])
            rows.append(row)
        pictures.append(rows)
    return pictures


def named_rows(number: int, name: str, rows: list[Row]) -> list[Row]:
    """The rows of a picture with its number and its name in the source."""
    about = {"picture": number, "name": text(name)}
    return [about | row for row in rows]


def failed_row(number: int, name: str, error: str, target: Any = None) -> Row:
    """The row of a picture, or of one of its targets, that could not be explained."""
    asked = None if target is None else text(str(target))
    return {"picture": number, "name": text(name), "target": asked, "error": text(error)}


def batches(rows: Iterable[list[Row]], maps: bool) -> Iterator[Any]:
    """The rows of pictures as pyarrow's record batches, :data:`GROUP` pictures in each."""
    pa, _ = arrow()
    columns, held, count = schema(maps), [], 0
    for one in rows:
        held += one
        count += 1
        if count == GROUP:
            yield pa.RecordBatch.from_pylist(held, columns)
            held, count = [], 0
    if held:
        yield pa.RecordBatch.from_pylist(held, columns)


def text(said: str) -> str:
    """What is no UTF-8 in a file's name, as an escape."""
    return said.encode(errors="backslashreplace").decode()


def _label(explanation: Explanation, i: int, target: int, index: int | None) -> str:
    labels = explanation.labels
    if index is not None and labels is not None and 0 <= index < len(labels):
        return short_label(labels[index])
    return explanation.label(i, target)


def _predicted(scores: Float) -> list[int | None]:
    """The class with the highest score of each picture, scores [N, classes]; None where none is finite."""
    if not scores.shape[1]:
        return [None] * len(scores)
    best = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    known: Any = np.isfinite(scores).any(axis=1)
    return [int(index) if good else None for index, good in zip(best, known, strict=True)]


def _map(values: Any) -> Row:
    maximum = float(values.max())
    scaled = (np.maximum(values, 0) / maximum).astype(np.float16) if maximum > 0 else np.zeros(values.shape, np.float16)
    return {"map": scaled.ravel(), "map_shape": list(values.shape), "map_max": maximum}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
