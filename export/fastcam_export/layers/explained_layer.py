"""A layer that an export explains: its value, its layout, and the names of its outputs."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from fastcam.schema import TargetLayer, of_layer
from fastcam_export.layers.layout import Layout


@dataclass(frozen=True)
class ExplainedLayer:
    """One target layer.

    Attributes:
        value: the graph's value.
        layout: how its positions lie.
        about: what the metadata say of it.
        number: the number that its outputs carry, see :attr:`fastcam.schema.Metadata.layers`; None of the default
            layer, whose outputs carry none.
    """

    value: ir.Value
    layout: Layout
    about: TargetLayer
    number: int | None = None

    def output(self, name: str) -> str:
        """Its output that is called ``name`` for the default layer."""
        return of_layer(name, self.number)
