"""The size of an input that leaves height and width free: what the user or the file says, or what a run tells."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from fastcam.schema import FastcamError, FurtherInput
from fastcam_export.graph.load import Loaded
from fastcam_export.graph.query import known_dims
from fastcam_export.layers.image_order import image_order
from fastcam_export.layers.layout import side_text
from fastcam_export.verify.sample import SIDES, Sample, sizes, that_runs
from fastcam_export.verify.session import quiet_session

STEPS = (1, 2, 4, 8, 16, 32, 64, 128)
SAID = re.compile(r"^\[?\s*(\d+)\s*[,x ]\s*(\d+)\s*\]?$")


@dataclass(frozen=True)
class InputSize:
    """The size of the explained input.

    Attributes:
        sides: of each free or fixed spatial axis, in the input's order; None where nobody asks.
        note: where it is from, for people; "" where the model fixes it.
        step: of which free sides are multiples, as far as runs tell.
        any: whether the model takes other sizes too, and nobody says one.
    """

    sides: tuple[int, ...] | None = None
    note: str = ""
    step: int = 1
    any: bool = False

    @property
    def of_each(self) -> str:
        """The note where pictures keep their own size."""
        step = f", to multiples of {self.step}" if self.step > 1 else ""
        at = side_text(self.sides or ())
        return f"that of each picture{step}; checked at {at}; --size sets one for all"


def spatial(image: ir.Value) -> list[int | None]:
    """The sides of the spatial axes of an input, None where one is free."""
    dims = known_dims(image) or []
    return [dim for dim, axis in zip(dims, image_order(image)) if axis in SIDES]


def find(
    loaded: Loaded,
    image: ir.Value,
    wanted: Sequence[int] | None,
    further: Sequence[FurtherInput],
    try_out: bool,
) -> InputSize:
    """The size of the input ``image``.

    Args:
        loaded: the model.
        wanted: what the user says.
        further: what the metadata say of the other inputs.
        try_out: whether sizes may be tried by running the model, where nothing says them.

    Raises:
        FastcamError: the user's size does not fit the model.
    """
    sides = spatial(image)
    if wanted is not None:
        _refuse(image, sides, wanted)
        return InputSize(tuple(wanted), "" if None not in sides else f"{side_text(wanted)}, as given")
    if None not in sides:
        return InputSize(tuple(side for side in sides if side is not None))
    said = _said(loaded, sides)
    if said is not None:
        return said
    return _tried(loaded, image, further) if try_out else InputSize()


def _refuse(image: ir.Value, sides: Sequence[int | None], wanted: Sequence[int]) -> None:
    fits = len(wanted) == len(sides) and all(want > 0 and side in (None, want) for side, want in zip(sides, wanted))
    if not fits:
        raise FastcamError(
            f"size {side_text(wanted)} does not fit input {image.name!r}, whose own is {side_text(sides)}; give one "
            "that does (--size HEIGHTxWIDTH)"
        )


def _said(loaded: Loaded, sides: Sequence[int | None]) -> InputSize | None:
    """What the file's own metadata say: Ultralytics writes ``imgsz`` as "[640, 640]"."""
    entries: Mapping[str, Any] = {entry.key: entry.value for entry in loaded.proto.metadata_props}
    found = SAID.match(entries.get("imgsz", ""))
    if found is None or len(sides) != 2:
        return None
    said = int(found[1]), int(found[2])
    if min(said) < 1 or not all(side in (None, own) for side, own in zip(sides, said)):
        return None
    return InputSize(said, f"{side_text(said)}, as the file's metadata say (imgsz); --size says another")


def _tried(loaded: Loaded, image: ir.Value, further: Sequence[FurtherInput]) -> InputSize:
    """The first size that the model runs at."""
    try:
        session = quiet_session(loaded.proto)
    except Exception:  # onnxruntime's exceptions have no common base; the check says what is wrong with the model
        return InputSize()
    outputs = [value.name for value in session.get_outputs()]
    graph = loaded.model.graph
    try:
        sample = that_runs(graph, image, (), lambda one: session.run(outputs, dict(one.feeds)), further)
    except Exception:  # of every size
        return InputSize()
    shape = sample.feeds[sample.image].shape
    found = tuple(side for side, axis in zip(shape, image_order(image)) if axis in SIDES)
    step, free = 0, [side is None for side in spatial(image)]
    if len(found) == 2:
        step = _step(
            found, free, lambda size: session.run(outputs, dict(Sample.of(graph, image, (), further, size).feeds))
        )
    every = "any size" if found == sizes(graph, image)[0] else "some sizes"
    every = every if step < 2 else f"multiples of {step}"
    note = f"{side_text(found)}: the model takes {every} and says none; --size says another"
    return InputSize(found, note, max(step, 1), step > 0 and all(free))


def _feeds(graph: ir.Graph, image: ir.Value, further: Sequence[FurtherInput], size: tuple[int, ...]) -> dict[str, Any]:
    return dict(Sample.of(graph, image, (), further, size).of_one_image().feeds)


def _step(found: Sequence[int], free: Sequence[bool], run: Callable[[tuple[int, ...]], object]) -> int:
    """The smallest of the usual steps by which sides may grow; 0 where the model takes no other size at all.

    A level that rounds its sides down takes some sizes between; so several are tried.
    """
    for step in STEPS:
        try:
            for times in (1, 3, 5, 9):
                run(tuple(side + times * step * grows for side, grows in zip(found, free)))
        except Exception:  # the runtime's exceptions have no common base
            continue
        return step
    return 0
