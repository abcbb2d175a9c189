"""What is measured: a model explained by a method, on a data set whose labels it knows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastcam.atomic_files import slug
from fastcam.errors import FastcamError
from fastcam.evaluation.class_map import ClassMap
from fastcam.explain.streaming import Frame
from fastcam.explainer import Explainer
from fastcam.results.explanation import Explanation


@dataclass(frozen=True, eq=False)
class Contestant:
    """A model explained by a method.

    Attributes:
        name: of the model, for tables and file names.
        explainer: of the exported file.
        classes: from the data set's labels to the model's classes.
        method: a name of ``fastcam methods``; None is Grad-CAM, the default where classes are explained.
        options: of the method.
    """

    name: str
    explainer: Explainer
    classes: ClassMap
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def called(self) -> str:
        """The method's name."""
        return self.method or "gradcam"

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name}, {self.called}"

    @property
    def stem(self) -> str:
        """Of the journal's name; "gradcam" and "gradcam++" have two."""
        parts = self.name, self.called
        same = all(slug(part) == part for part in parts)
        digest = "" if same else "-" + hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return "-".join(map(slug, parts)) + digest

    def check(self) -> None:
        """Raise what the explainer refuses of the method and its options, before anything is measured."""
        what = {"video": "clips", "text": "texts"}.get(self.explainer.metadata.kind)
        if what is not None:
            raise FastcamError(f"{self.name} explains {what}, and the data set has pictures; give a model of pictures")
        self.stream(())

    def stream(self, pictures: Iterable[Any], targets: Any = -1, threshold: float = 0.15) -> Iterator[Frame]:
        """Explain pictures by the method, see :meth:`fastcam.Explainer.stream`."""
        return self.explainer.stream(pictures, targets, threshold, **self._how)

    def explain(self, picture: Any, targets: Any, threshold: float = 0.15) -> Explanation:
        """Explain one picture by the method, see :meth:`fastcam.Explainer.__call__`."""
        return self.explainer(picture, targets, threshold, **self._how)

    @property
    def _how(self) -> dict[str, Any]:
        return {"method": self.called, "options": self.options or None}
