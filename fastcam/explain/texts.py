"""Texts: ids [N, L] in, and a map [N, T, l], a heatmap [N, T, L] and segments of words of each out.

For the kernels and the methods a text is a signal. Segments are half open, x0, x1, and count the text's own words: what
fills it up has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.explain.postprocess import LayerMaps, TargetOutputs
from fastcam.explain.request import Request
from fastcam.explain.signal import SignalView
from fastcam.methods import Method
from fastcam.runtime.run import Run


class TextView(SignalView):
    """A file of a model of texts at one of its layers."""

    def _method(self, name: str, options: Mapping[str, Any] | None) -> Method:
        method = super()._method(name, options)
        if method.hides:
            return self._hiding(method)
        if method.runs in ("images", "gradients"):
            raise FastcamError(
                f"{self.network.name} takes words, and {method.title} changes its input a little; use occlusion, which "
                "hides words, a method of one run, or one that changes the layer"
            )
        return method

    def _hiding(self, method: Method) -> Method:
        """A method that puts one word in place of others: by default of one, and the word for such as are not there."""
        asked = dict(method.options)
        asked |= {name: asked.get(name) or (1, 1) for name in ("window", "stride")}
        if "value" not in asked:
            known = self._hiding_word()
            if known is None:
                raise FastcamError(
                    f"nothing tells which word of {self.network.name} stands for a hidden one; give its id, "
                    "options={'value': ID} (--option value=ID)"
                )
            asked["value"] = float(known)
        words = self.metadata.words
        if asked["value"] != int(asked["value"]) or not 0 <= asked["value"] < (words or 2**31):
            known_ids = f"0 to {words - 1}" if words else "from 0"
            raise FastcamError(f"value is the id of a word of {self.network.name}, {known_ids}; got {asked['value']:g}")
        return replace(method, options=asked)

    def _hiding_word(self) -> int | None:
        """The id that the tokenizer has for it, where there is a tokenizer."""
        try:
            return self.inputs.texts.tokenizer.hiding
        except FastcamError:
            return None

    def maps(self, run: Run, outputs: TargetOutputs, request: Request) -> LayerMaps:
        """The maps of the texts; where words were hidden, what only fills a text up has none."""
        found = super().maps(run, outputs, request)
        if not request.method.hides:
            return found
        maps = np.array(found.activations)
        for row, geometry in zip(maps, run.batch.geometry, strict=True):
            first, _, past, _ = geometry.target
            row[..., :first], row[..., past:] = 0, 0
        return replace(found, activations=maps)
