"""What differentiation refuses."""

from __future__ import annotations

from fastcam.schema import FastcamError


class UnsupportedOperator(FastcamError):
    """An operator that is to be differentiated has no gradient rule. Never a silent zero: that is a wrong heatmap.

    A rule raises it with the bare reason; the driver says for which node, and what can be done.
    """
