"""Running what a request asks: images through the network, run by run, and the explanation of each run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from fastcam.explain import multilayer
from fastcam.explain.postprocess import View
from fastcam.explain.prediction_steps import PredictionSteps
from fastcam.explain.prompts import as_classes
from fastcam.explain.request import Request, ResolvedTargets
from fastcam.explain.streaming import Steps
from fastcam.methods.context import Probe
from fastcam.results.explanation import Explanation
from fastcam.results.joining import join
from fastcam.results.prediction import Prediction, joined
from fastcam.runtime.inputs.base import Sources
from fastcam.runtime.inputs.batch import Batch, Empty, empty
from fastcam.runtime.inputs.clips import Clip
from fastcam.runtime.inputs.further_inputs import Values
from fastcam.runtime.run import Run
from fastcam.runtime.thread_pipeline import Workers
from fastcam.targets.classes import ClassTargets


@dataclass(frozen=True, eq=False)
class Runner:
    """An opened file that explains.

    Attributes:
        whole: the file at its default layer.
        layers: the file at each of its layers, by number.
        workers: for several runs at the same time.
    """

    whole: View
    layers: Mapping[int, View]
    workers: Workers | None = None

    def explain(self, request: Request, images: Sources | Prediction, view: View) -> Explanation:
        """The explanation of images, or of a prediction, whose runs are there, run by run, at the layer of ``view``."""
        parts, start = [], 0
        for run in images.runs if isinstance(images, Prediction) else self.runs(images, request.targets):
            parts.append(self.explain_run(run, request.of(slice(start, start + len(run))), view))
            start += len(run)
        return as_classes(join(parts), view)

    def probes(self, request: Request, images: Sources, view: View) -> Iterator[Probe]:
        """A probe of each image, at the layer of ``view``."""
        start = 0
        for run in self.runs(images, request.targets):
            yield from view.probes(run, request.of(slice(start, start + len(run))))
            start += len(run)

    def explain_run(self, run: Run, request: Request, view: View) -> Explanation:
        """The explanation of one run, at each of the layers if some are asked for."""
        if not request.layers:
            return view.explain(run, request)
        each = [self.layers[number].explain(run, request) for number in request.layers]
        return multilayer.together(run, each, view, request)

    def steps(
        self,
        request: Callable[[list[Any] | None], Request],
        view: View,
        inputs: Values | None,
        targets: Callable[[int, Any], Any] | None,
        check: Callable[[list[Any]], object],
    ) -> Steps:
        """What is done to the frames of a stream.

        Args:
            request, targets, check: see :class:`fastcam.explain.streaming.Steps`.
            inputs: values of further inputs.
        """

        def prepare(source: Any, empty: Empty = empty) -> Batch:
            given = source if isinstance(source, Mapping) else [source.frames if isinstance(source, Clip) else source]
            return view.inputs.batch(replace(view.inputs.sources(given, inputs), empty=empty))

        def pairs(own: list[Any] | None) -> int:
            return self._pairs(request(own if own is None else [own]).targets) if self._pairs_count else 1

        def one(explanation: Explanation, number: int, count: int) -> Explanation:
            if count == 1:
                return as_classes(explanation, view)
            rows = len(explanation) // count  # of a clip one of each frame
            return as_classes(explanation[number * rows : (number + 1) * rows], view)

        return Steps(
            prepare=prepare,
            targets=targets,
            check=check,
            request=request,
            pairs=pairs,
            run=lambda batch, request: self.run(batch, request.targets),
            received=self.received,
            finish=lambda run, request: self.explain_run(run, request, view),
            weight=view.inputs.weight,
            one=one,
        )

    def prediction_steps(self, targets: ResolvedTargets | None, inputs: Values | None) -> PredictionSteps:
        """What is done to pictures that are explained later.

        Args:
            targets: what an export in one file explains by the way.
            inputs: values of further inputs.
        """
        whole = self.whole

        def predict(batch: Batch) -> list[Prediction]:
            run = self.run(batch, targets)
            each = [run[i : i + 1] for i in range(len(run))]
            return [joined([one.moved(whole.network.alone(one.forward))], whole.metadata) for one in each]

        def prepare(source: Any) -> Batch:
            given = source if isinstance(source, Mapping) else [source]
            return whole.inputs.batch(whole.inputs.sources(given, inputs))

        return PredictionSteps(prepare=prepare, run=predict, weight=whole.inputs.weight)

    def runs(self, sources: Sources, targets: ResolvedTargets | None) -> Iterator[Run]:
        """Run the images; an export in one file explains ``targets`` by the way."""

        def asked() -> Iterator[tuple[Batch, ResolvedTargets | None]]:
            start = 0
            for batch in self.whole.inputs.batches(sources, self._images_of_a_run(targets)):
                rows = slice(start, start + len(batch.files))
                start = rows.stop
                yield batch, targets if targets is None or len(targets) == 1 else targets[rows]

        each = asked()
        if self.workers is None:
            for one in each:
                yield self.run(*one)
            return
        while some := list(islice(each, self.workers.count)):
            yield from self.workers.map(lambda one: self.run(*one), some)

    def received(self, batch: Batch, outputs: Mapping[str, Any], request: Request) -> Run:
        """A batch that ran elsewhere, by the outputs that it gave there; its targets are classes, by number."""
        assert isinstance(request.targets, ClassTargets)
        forward = self.whole.network.received(batch.tensor, outputs, request.targets.classes)
        return Run(batch, forward, self.whole.scores(forward.outputs, len(batch.files)))

    def _images_of_a_run(self, targets: ResolvedTargets | None) -> int:
        """The batch size; where pairs of image and target count, as many pairs."""
        size = self.whole.batch_size
        return max(1, size // self._pairs(targets)) if self._pairs_count else size

    @property
    def _pairs_count(self) -> bool:
        """Whether each pair of image and target counts as an image of a run: where gradients are read at the image.

        Such a gradient keeps every layer's for each pair, which is gigabytes at the batch size.
        """
        return self.whole.metadata.input_gradient_at == "image" and not self.whole.network.fixed_batch

    def _pairs(self, targets: ResolvedTargets | None) -> int:
        """How many images one counts as in a run."""
        return targets.classes.shape[1] if self._pairs_count and isinstance(targets, ClassTargets) else 1

    def run(self, batch: Batch, targets: ResolvedTargets | None) -> Run:
        """Run one batch."""
        by_the_way: Any = None
        if isinstance(targets, ClassTargets):
            by_the_way = targets.classes
        elif targets is not None and targets.known:  # cotangents that follow from the outputs have to wait for them
            by_the_way = targets.arrays(len(batch.files))
        forward = self.whole.network.forward(batch.tensor, by_the_way, batch.further)
        return Run(batch, forward, self.whole.scores(forward.outputs, len(batch.files)))
