"""What the table says of a picture, and its columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fastcam.batch.sources.parquet import arrow
from fastcam.labels import short_label
from fastcam.results.concentration import entropy, heat_inside
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


def rows_of(number: int, name: str, explanation: Explanation, targets: Sequence[Any], maps: bool) -> list[Row]:
    """A row for each target of one picture.

    Args:
        targets: as they were asked for; where the picture has another number of them, the first names all.
        maps: whether the maps are kept.
    """
    height, width = explanation.geometry[0].original
    predicted = None
    if not explanation.metadata.cotangents and np.isfinite(explanation.scores[0]).any():
        predicted = int(np.nanargmax(explanation.scores[0]))
    count = explanation.asked(0)
    named = targets if len(targets) == count else [targets[0]] * count
    rows = []
    for t in range(count):
        index = None if explanation.metadata.cotangents else int(explanation.classes[0, t])
        box = explanation.boxes[0, t]
        row: Row = {
            "picture": number, "name": text(name), "width": width, "height": height, "target": text(str(named[t])),
            "class": index, "label": text(_label(explanation, t, index)), "predicted": predicted,
            "score": _finite(explanation.score(0, t)), "status": explanation.status[0][t],
            "box": box.tolist() if box.any() else None,
            "boxes": np.asarray(explanation.components[0][t], np.float32).reshape(-1, 5).tolist(),
            "heat_inside": heat_inside(explanation, 0, t), "entropy": entropy(explanation, 0, t),
        }  # fmt: skip
        if maps and explanation.status[0][t] == OK:
            row |= _map(explanation.maps[0, t])
        rows.append(row)
    return rows


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


def _label(explanation: Explanation, target: int, index: int | None) -> str:
    labels = explanation.labels
    if index is not None and labels is not None and 0 <= index < len(labels):
        return short_label(labels[index])
    return explanation.label(0, target)


def _map(values: Any) -> Row:
    maximum = float(values.max())
    scaled = (np.maximum(values, 0) / maximum).astype(np.float16) if maximum > 0 else np.zeros(values.shape, np.float16)
    return {"map": scaled.ravel(), "map_shape": list(values.shape), "map_max": maximum}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
