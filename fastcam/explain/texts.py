"""Texts: ids [N, L] in, and a map [N, T, l], a heatmap [N, T, L] and segments of words of each out.

For the kernels and the methods a text is a signal. Segments are half open, x0, x1, and count the text's own words: what
fills it up has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastcam.errors import FastcamError
from fastcam.explain.signal import SignalView
from fastcam.methods import Method


class TextView(SignalView):
    """A file of a model of texts at one of its layers."""

    def _method(self, name: str, options: Mapping[str, Any] | None) -> Method:
        method = super()._method(name, options)
        if method.runs in ("images", "gradients"):
            raise FastcamError(
                f"{self.network.name} takes words, and {method.title} changes its input a little; use a method of one "
                "run, or one that changes the layer"
            )
        return method
