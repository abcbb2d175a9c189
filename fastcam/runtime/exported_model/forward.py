"""What one run of an exported file gave: the model's outputs, and what it explained by the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.runtime import io_binding
from fastcam.runtime.exported_model.rows import class_rows, image_rows
from fastcam.runtime.inputs.further_inputs import NONE, FurtherValues

TargetArrays: TypeAlias = "NDArray[np.int64] | Mapping[str, NDArray[Any]] | None"
"""What a file is to explain: classes or ranks, int64 [1, T] or [images, T]; of a file whose target is a cotangent the
arrays by name of the input; None for nothing."""


@dataclass(frozen=True, eq=False)
class Forward:
    """What the images of one run gave.

    Attributes:
        tensor: the images, as they go into the network.
        outputs: the model's own outputs by name, a row per image where they have that.
        explained: the added outputs by name, of what the run has explained already; an export in two files explains
            nothing here.
        targets: what that was, a row of classes and ranks for all images or one for each; none of cotangents.
        carried: what the explanation part takes, by name: of all images that ran together, and those that filled up a
            fixed batch, because not every value has a row per image.
        rows, ran: of the ``ran`` images that ran together, those that are meant.
        further: the values of the model's further inputs, for these images.
    """

    tensor: NDArray[Any] | io_binding.DeviceTensor
    outputs: dict[str, Any]
    explained: dict[str, Any]
    targets: tuple[tuple[int, ...], ...]
    carried: dict[str, Any] = field(repr=False)
    rows: slice
    ran: int
    further: FurtherValues = NONE

    def __len__(self) -> int:
        return len(self.tensor)

    def explains(self, targets: TargetArrays) -> bool:
        """Whether ``explained`` is the explanation of ``targets``. Of cotangents it is that of those it ran with."""
        if isinstance(targets, np.ndarray):
            return bool(self.explained) and self.targets == class_rows(targets)
        return bool(self.explained)

    def __getitem__(self, rows: slice) -> Forward:
        """The images from ``rows.start`` to ``rows.stop``."""
        return replace(
            self,
            tensor=self.tensor[rows],
            outputs={name: image_rows(value, rows, len(self)) for name, value in self.outputs.items()},
            targets=self.targets if len(self.targets) == 1 else self.targets[rows],
            explained={name: image_rows(value, rows, len(self)) for name, value in self.explained.items()},
            rows=slice(self.rows.start + rows.start, self.rows.start + rows.stop),
            further=self.further[rows],
        )
