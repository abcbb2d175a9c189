"""What is read of a table: the figures of its rows, and the mean map of each class."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.batch.sources.parquet import arrow
from fastcam.batch.table import ABOUT, files_of
from fastcam.errors import FastcamError, shown
from fastcam.input_files import read_text

VALUES = {"score": "score", "heat_inside": "heat inside the box", "entropy": "entropy of the map"}
"""Columns of numbers, and what they are called."""
GRID = 7
"""Rows and columns of a mean map."""
NO_MAP = "not explained"
"""Status of a row that is an error."""
_AT_ONCE = 4096


@dataclass
class MeanMap:
    """The sum of a class's maps, each one's heat being 1; those with an even number and the others apart."""

    heat: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, GRID, GRID)))
    counts: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, cells: NDArray[np.float64]) -> None:
        """One more map, [GRID, GRID]."""
        half = sum(self.counts) % 2
        self.heat[half] += cells
        self.counts[half] += 1

    @property
    def count(self) -> int:
        """How many maps."""
        return sum(self.counts)

    @property
    def mean(self) -> NDArray[np.float64]:
        """[GRID, GRID], of sum 1."""
        mean: NDArray[np.float64] = self.heat.sum(0) / max(1, self.count)
        return mean

    def half(self, number: int) -> NDArray[np.float64]:
        """The mean of every second map."""
        mean: NDArray[np.float64] = self.heat[number] / max(1, self.counts[number])
        return mean


@dataclass
class Figures:
    """A table's.

    Attributes:
        place: of the table.
        values: float32 of each row that has one, by column.
        status: of the maps, and of rows without one.
        predicted: of each picture its class.
        maps: by class, or by the label of what is none.
        labels: of the classes that were asked for.
        pictures: how many.
        about: what the table was made of, see :meth:`fastcam.batch.job.Job.settings`; empty where nobody says.
    """

    place: Path
    values: dict[str, NDArray[np.float32]]
    status: Counter[str]
    predicted: Counter[int]
    maps: dict[int | str, MeanMap]
    labels: dict[int, str]
    pictures: int
    about: dict[str, Any]

    @property
    def shared_labels(self) -> set[str]:
        """Labels of several classes, as ImageNet's two cranes."""
        return {label for label, count in Counter(self.labels.values()).items() if count > 1}

    def name(self, key: int | str, shared: Container[str] = ()) -> str:
        """What a class is called: its label, with its number where the label is ``shared``."""
        if isinstance(key, str):
            return key
        label = self.labels.get(key, "")
        return f"{label} (class {key})" if label in shared else label or f"class {key}"


def read(place: Path, target: str | None = None) -> Figures:
    """The figures of a table.

    Args:
        target: the rows of which target count; None: all.

    Raises:
        FastcamError: there is no table, a file of it is damaged, or no row is of that target.
    """
    values: dict[str, list[NDArray[np.float32]]] = {name: [] for name in VALUES}
    found = Figures(place, {}, Counter(), Counter(), {}, {}, 0, _read_about(place))
    last = -1
    for batch in _batches(place):
        rows = {name: batch.column(name) for name in batch.schema.names}
        pictures = rows["picture"].to_numpy(zero_copy_only=False)
        new = np.diff(pictures, prepend=last) != 0
        last = int(pictures[-1])
        found.pictures += int(new.sum())
        classes, labels = rows["class"].to_pylist(), rows["label"].to_pylist()
        pairs = [*zip(classes, labels, strict=True)]
        found.labels |= {number: label for number, label in pairs if number is not None and label}
        predicted = rows["predicted"].to_pylist()
        found.predicted.update(one for one, first in zip(predicted, new, strict=True) if first and one is not None)
        asked = rows["target"].to_pylist()
        kept = np.array([target is None or one in (target, None) for one in asked], bool)
        status = rows["status"].to_pylist()
        found.status.update(one or NO_MAP for one, good in zip(status, kept, strict=True) if good)
        for name, parts in values.items():
            numbers = rows[name].to_numpy(zero_copy_only=False).astype(np.float32)
            parts.append(numbers[kept & np.isfinite(numbers)])
        if "map" in rows:
            keys = [label if number is None else number for number, label in pairs]
            _add_maps(found.maps, rows, keys, kept)
    if target is not None and not any(len(part) for parts in values.values() for part in parts):
        raise FastcamError(
            f"{shown(place)}: no row of the target {shown(repr(target))} with a map; give one of the table's"
        )
    found.values = {name: np.concatenate(parts) if parts else np.zeros(0, np.float32) for name, parts in values.items()}
    return found


def _batches(place: Path) -> Iterator[Any]:
    """The rows of a table, some thousand at once."""
    pa, parquet = arrow()
    for path in files_of(place):
        try:
            with parquet.ParquetFile(path) as file:
                columns = ["picture", "class", "label", "predicted", "target", "status", *VALUES]
                missing = [name for name in columns if name not in file.schema_arrow.names]
                if missing:
                    raise FastcamError(f"{shown(path)}: no column {missing[0]!r}; give tables of fastcam batch")
                columns += [name for name in ("map", "map_shape") if name in file.schema_arrow.names]
                yield from (batch for batch in file.iter_batches(_AT_ONCE, columns=columns) if len(batch))
        except FastcamError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            raise FastcamError(f"{shown(path)}: cannot be read ({said}); make the table again") from error


def _add_maps(
    maps: dict[int | str, MeanMap], rows: Any, keys: Sequence[int | str | None], kept: NDArray[np.bool_]
) -> None:
    shapes = rows["map_shape"].to_pylist()
    for i, (shape, key) in enumerate(zip(shapes, keys, strict=True)):
        if not kept[i] or key is None or shape is None or len(shape) != 2:
            continue
        heat = np.asarray(rows["map"][i].values.to_numpy(zero_copy_only=False), np.float64).reshape(shape)
        total = float(heat.sum())
        if total > 0:
            maps.setdefault(key, MeanMap()).add(in_cells(heat / total))


def in_cells(heat: NDArray[np.float64]) -> NDArray[np.float64]:
    """The heat [rows, columns] in each cell of a grid; what lies across two cells goes to both by its area."""
    rows, columns = heat.shape
    found: NDArray[np.float64] = _overlap(rows) @ heat @ _overlap(columns).T
    return found


def _overlap(count: int) -> NDArray[np.float64]:
    """[GRID, count]: which share of each of ``count`` equal lengths lies in each cell of the same whole."""
    cells, own = np.arange(GRID + 1) / GRID, np.arange(count + 1) / count
    low = np.maximum(cells[:-1, None], own[None, :-1])
    high = np.minimum(cells[1:, None], own[None, 1:])
    share: NDArray[np.float64] = np.maximum(high - low, 0) * count
    return share


def _read_about(place: Path) -> dict[str, Any]:
    try:
        about = json.loads(read_text(place / ABOUT, "give a table of fastcam batch"))
    except (FastcamError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}
