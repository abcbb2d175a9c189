"""Runs of the model itself, before anything is added: on pictures that it finds something in, or one line why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fastcam.errors import listed
from fastcam.schema import Cotangent, FastcamError, FurtherInput
from fastcam_export.graph.broken_weights import broken_weights
from fastcam_export.verify import pictures, stop_gradient
from fastcam_export.verify.sample import Sample, sizes, that_runs
from fastcam_export.verify.session import quiet_session, said

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SourceRun:
    """The source on the check's images.

    Attributes:
        sample: what it was given.
        outputs: by name.
    """

    sample: Sample
    outputs: Mapping[str, Array]

    @property
    def missing(self) -> list[str]:
        """Explained outputs that are empty: a detector found nothing."""
        return [about.output for about in self.sample.cotangents if not self.outputs[about.output].size]


class Source:
    """The source model in one session at a time.

    Args:
        proto: the model as it was given.
        model: as it was loaded.
        image: its image input.
        cotangents: the outputs whose cotangents the export takes.
        further: what the metadata say of further inputs.
        size: (height, width) of the images, where it is known.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        model: ir.Model,
        image: ir.Value,
        cotangents: Sequence[Cotangent],
        further: Sequence[FurtherInput] = (),
        size: Sequence[int] | None = None,
    ) -> None:
        self._proto, self._model, self._image, self._cotangents, self._further = (
            proto,
            model,
            image,
            cotangents,
            further,
        )
        self._size = size
        own = [value.name for value in proto.graph.output]
        self._set_aside = [one.output for one in cotangents if one.output not in own]
        self._names = [*own, *self._set_aside]
        self._drawn = stop_gradient.drawn(model.graph)
        self._session: Any = None
        self._open()

    def _open(self) -> Any:
        if self._session is None:
            try:
                self._session = quiet_session(stop_gradient.with_inputs(self._proto, self._drawn, self._set_aside))
            except Exception as error:  # onnxruntime's exceptions have no common base but Exception
                raise self._refusal(error, "") from error
        return self._session

    def close(self) -> None:
        """Let the weights go, which another session may need the room of; the next run reads them again."""
        self._session = None

    def first(self) -> SourceRun:
        """The first run on usual images; of a detector that finds nothing in noise on others, of the last if in none.

        Raises:
            FastcamError: the runtime refuses the model.
        """
        runs: list[SourceRun] = []
        graph = self._model.graph
        try:
            sample = that_runs(
                graph, self._image, self._cotangents, lambda one: runs.append(self.run(one)), self._further, self._size
            )
        except FastcamError:
            raise
        except Exception as error:  # as above
            raise self._refusal(error, self._tried(getattr(error, "sizes_tried", 1))) from error
        names = [one.output for one in self._cotangents]
        for kind in range(1, len(pictures.KINDS)):
            if not runs[-1].missing and (len(runs) == 1 or not _broken(runs[-1], names)):
                return runs[-1]
            runs.append(self.run(sample.of_kind(kind, graph, self._image)))
        return runs[-1] if not runs[-1].missing and not _broken(runs[-1], names) else runs[0]

    def of_numbers(self, run: SourceRun, names: Sequence[str]) -> SourceRun:
        """A run in which outputs are numbers: this one, else one on other pictures.

        Raises:
            FastcamError: on every picture some of them are NaN.
        """
        there = [name for name in names if name in run.outputs]
        if not _broken(run, there):
            return run
        broken = broken_weights(self._model.graph)
        weights = f" (weights with NaN or infinity: {broken})" if broken else ""
        for other in [run, *self.others(run)]:
            nan = _broken(other, there, np.isnan)
            if not nan and not weights:
                return other
        raise FastcamError(
            f"output {_broken(run, there)!r} of the model is NaN or infinite on every picture that the check tried, so "
            f"that it has no gradient{weights}; repair the model, or export with --no-check"
        )

    def others(self, run: SourceRun) -> list[SourceRun]:
        """The same on other pictures of the same size."""
        samples = [run.sample.of_kind(kind, self._model.graph, self._image) for kind in range(1, len(pictures.KINDS))]
        return [self.run(sample) for sample in samples]

    def run(self, sample: Sample) -> SourceRun:
        """One run."""
        drawn = dict(zip(self._drawn, stop_gradient.values(self._model, self._drawn, sample.feeds)))
        sample = replace(sample, drawn=drawn)
        outputs = self._open().run(self._names, dict(sample.with_drawn))
        return SourceRun(sample, dict(zip(self._names, outputs)))

    def _tried(self, number: int) -> str:
        """What it was run on, for people: the first of a number of sizes."""
        tried = [self._size] if self._size is not None else sizes(self._model.graph, self._image)
        try:
            feeds = Sample.of(self._model.graph, self._image, self._cotangents, self._further, tried[0]).feeds
        except MemoryError:
            return ""
        first = listed(f"{name} {list(array.shape)}" for name, array in feeds.items())
        return f" on {first}" + (f", nor on {number - 1} other sizes" if number > 1 else "")

    def _refusal(self, error: Exception, tried: str) -> FastcamError:
        free = len(sizes(self._model.graph, self._image)) > 1
        advice = (
            "say the size that it takes (--size HEIGHTxWIDTH), or export with --no-check"
            if free
            else "repair the model, or export with --no-check"
        )
        return FastcamError(f"ONNX Runtime cannot run the model itself{tried} ({said(error)}); {advice}")


def _broken(run: SourceRun, names: Sequence[str], how: Callable[[Array], Array] = lambda y: ~np.isfinite(y)) -> str:
    """The first of some outputs that holds what is no number, or infinite; "" where none does."""
    for name in names:
        if run.outputs[name].dtype.kind == "f" and how(run.outputs[name]).any():
            return name
    return ""
