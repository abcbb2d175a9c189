"""A model that is served: pictures and tensors of many clients, in the same runs."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, shown
from fastcam.explain.request import ExplainOptions
from fastcam.explainer import Explainer
from fastcam.results.explanation import Explanation
from fastcam.results.prediction import Prediction
from fastcam.runtime.thread_pipeline import Budget
from fastcam.schema import PREFIX, TARGETS
from fastcam.serving.batching import Batcher
from fastcam.serving.caller import CALLER
from fastcam.serving.errors import Gone, NotInTime
from fastcam.serving.lanes import Lane, Observe, Work, explaining, predicting
from fastcam.serving.limits import Limits
from fastcam.serving.parameters import Parameters
from fastcam.serving.watching.statistics import Statistics
from fastcam.serving.watching.tracing import Spans

A = TypeVar("A")
LANES = 8
"""Ways of explaining that are kept ready, those that were asked for last; each has a thread."""
HELD = 512 << 20
"""Bytes of decoded pictures that are on their way at once, about."""

NO_SPANS = Spans()


class ServedModel:
    """An exported file behind an endpoint. Safe to share between threads.

    Args:
        name, version: by which clients ask for it.
        explainer: of the file.
        limits: of requests.
        size: pictures of a run at most; a file with a fixed batch has its own.
        delay: seconds that a run which is not full waits for pictures that are being decoded.
        observe: is told how long steps take.
        spans: record the steps of each request.
        saw: is told of each picture's explanation, behind the answer where somebody waits for that.
        crowd: the same file, opened for runs of one thread, ``crowd.sessions`` of them at the same time: for many
            pictures, see :class:`fastcam.serving.lanes.Lane`.
    """

    def __init__(
        self,
        name: str,
        version: str,
        explainer: Explainer,
        limits: Limits,
        size: int = 8,
        delay: float = 0.002,
        observe: Observe = lambda what, value: None,
        spans: Spans = NO_SPANS,
        saw: Callable[[Explanation], None] = lambda explanation: None,
        crowd: Explainer | None = None,
    ) -> None:
        self._spans, self._saw, self.crowd = spans, saw, crowd
        self.name, self.version, self.explainer, self.limits = name, version, explainer, limits
        self.size = explainer.fixed_batch or size
        self.delay, self._observe = delay, observe
        self.statistics = Statistics()
        self._lanes: OrderedDict[str, Lane[Explanation]] = OrderedDict()
        self._lock = threading.Lock()
        self._budget = Budget(HELD)
        self._closed = False
        self._predictions: Lane[Prediction] | None = None
        self._later: Batcher[tuple[Prediction, Parameters], Explanation] | None = None
        self._raw: Batcher[tuple[dict[str, NDArray[Any]], tuple[str, ...]], dict[str, NDArray[Any]]] | None = None

    @property
    def closed(self) -> bool:
        """Whether it is no longer served."""
        return self._closed

    # ---- pictures

    def explain(self, sources: Sequence[Any], parameters: Parameters, until: float) -> list[Explanation]:
        """The explanations of pictures: encoded (bytes), or dicts of all inputs with one row each; never paths.

        Raises:
            FastcamError: a picture or parameter that cannot be used.
            NotInTime: the time was over first.
        """
        return [self._seen(one) for one in self._explained(sources, parameters, until)]

    def _explained(self, sources: Sequence[Any], parameters: Parameters, until: float) -> list[Explanation]:
        self._check(sources)
        lane = self._lane(parameters)
        return _together([partial(self._answered, lane, source, parameters.targets, until) for source in sources])

    def _seen(self, explanation: Explanation) -> Explanation:
        CALLER.get().after_answer(partial(self._saw, explanation))
        return explanation

    def predict(self, sources: Sequence[Any], until: float) -> list[Prediction]:
        """The prediction of each picture, which may be explained later; an export on demand runs the plain model.

        Raises:
            FastcamError: a picture that cannot be used.
            NotInTime: the time was over first.
        """
        self._check(sources)
        with self._lock:
            self._refuse_closed()
            if self._predictions is None:
                self._predictions = self._new_lane(lambda explainer: predicting(explainer.prediction_steps()))
        lane = self._predictions
        return _together([partial(self._answered, lane, source, (), until) for source in sources])

    def explain_later(self, prediction: Prediction, parameters: Parameters, until: float) -> Explanation:
        """The explanation of a prediction of this model, one after the other.

        Raises:
            FastcamError: a parameter that cannot be used.
            NotInTime: the time was over first.
        """
        with self._lock:
            self._refuse_closed()
            if self._later is None:
                self._later = Batcher(self._run_later, 1, 0.0, self._ran)
        return self._seen(self._later.ask((prediction, parameters), None, until, self._waited))

    def warm(self) -> None:
        """Explain a black picture, so that the first client does not wait for what is made at the first call."""
        from fastcam.image.resampling import opencv

        picture = opencv().imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
        with suppress(FastcamError):  # a model of more than a picture, or of other pictures
            self._explained([picture], Parameters(), time.monotonic() + self.limits.seconds)

    def _run_later(self, items: Sequence[tuple[Prediction, Parameters]]) -> list[Explanation]:
        return [
            self.explainer.explain(prediction, [*parameters.targets], **parameters.arguments)
            for prediction, parameters in items
        ]

    def _check(self, sources: Sequence[Any]) -> None:
        if not 1 <= len(sources) <= self.limits.pictures:
            raise FastcamError(f"{len(sources)} pictures; send 1 to {self.limits.pictures}")
        for source in sources:
            values = source.values() if isinstance(source, Mapping) else [source]
            if any(not isinstance(value, bytes | np.ndarray) for value in values):
                raise FastcamError("a picture is no bytes; send its bytes")  # a text would be read as a path

    def _answered(self, lane: Lane[A], source: Any, targets: Sequence[Any], until: float) -> A:
        with self._room(lane.work.weight(source)):
            _in_time(until)
            return lane.answer(source, targets, until, self.observe, self._spans, self._waited)

    @contextmanager
    def _room(self, weight: int) -> Any:
        """Decoded pictures take memory: those that find no room wait."""
        self._budget.admit(weight)
        try:
            yield
        finally:
            self._budget.leave(weight)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Gone(f"this version of {self.name} is no longer served; ask again")

    def _lane(self, parameters: Parameters) -> Lane[Explanation]:
        """The lane of a way of explaining; the one that was not used for the longest time makes room."""
        dropped = None
        with self._lock:
            self._refuse_closed()
            lane = self._lanes.get(parameters.key)
            if lane is None:
                asks = ExplainOptions(_own, **parameters.arguments)
                lane = self._lanes[parameters.key] = self._new_lane(lambda explainer: explaining(explainer.steps(asks)))
                if len(self._lanes) > LANES:
                    dropped = self._lanes.popitem(last=False)[1]
            self._lanes.move_to_end(parameters.key)
        if dropped is not None:
            threading.Thread(target=dropped.close, daemon=True).start()  # what waits there is still answered
        return lane

    def _new_lane(self, work: Callable[[Explainer], Work[A]]) -> Lane[A]:
        crowd = None if self.crowd is None else (work(self.crowd), self.crowd.sessions)
        return Lane(work(self.explainer), self.explainer.sessions, self.size, self.delay, self._ran, crowd)

    # ---- tensors

    def infer(self, feed: Mapping[str, NDArray[Any]], names: Sequence[str], until: float) -> dict[str, NDArray[Any]]:
        """Outputs of the file for its inputs as they are, ``fastcam.*`` among them.

        Raises:
            FastcamError: values that the file does not take.
            NotInTime: the time was over first.
        """
        _in_time(until)
        self._check_rows(feed)
        if not self.rows_alike(names):
            begun = time.time_ns()
            found = self._run(feed, names)
            self._waited(begun, begun, time.time_ns())
            return found
        with self._lock:
            self._refuse_closed()
            if self._raw is None:
                self._raw = Batcher(self._run_raw, self.size, 0.0, self._observed)
        rows = self._filled(feed)
        shapes = tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(rows.items()))
        return self._raw.ask((rows, tuple(names)), (shapes, tuple(names)), until, self._waited)

    def _check_rows(self, feed: Mapping[str, NDArray[Any]]) -> None:
        """The limits of pictures and targets are those of tensors too: each target is a backward pass."""
        image = np.shape(feed.get(self.explainer.metadata.input, ()))
        if image and image[0] > self.limits.pictures:
            raise FastcamError(f"{image[0]} images; send 1 to {self.limits.pictures}")
        targets = max(
            (value.shape[1] for name, value in feed.items() if name.startswith(PREFIX) and value.ndim > 1), default=0
        )
        if targets > self.limits.targets:
            raise FastcamError(f"{targets} targets; at most {self.limits.targets} of a picture are explained")

    def rows_alike(self, names: Sequence[str]) -> bool:
        """Whether every input and wanted output has a row for each image of a run."""
        inputs, outputs = self.explainer.signature
        values = [*inputs, *(value for value in outputs if value.name in names)]
        first = next(value.shape for value in inputs if value.name == self.explainer.metadata.input)
        own = [value for value in values if value.name != TARGETS]
        return bool(first) and all(value.shape and value.shape[0] == first[0] for value in own)

    def _filled(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """With a row of targets for each image, so that requests of different targets are one run.

        Raises:
            FastcamError: an input has not a row for each image.
        """
        image = feed.get(self.explainer.metadata.input)
        if image is None or not image.ndim:
            raise FastcamError(f"the input {self.explainer.metadata.input} is missing; send it")
        rows = dict(feed)
        if TARGETS in rows or any(
            value.name == TARGETS for value in self.explainer.signature[0]
        ):  # it may have a default
            targets = np.asarray(rows.get(TARGETS, [[-1]]))
            if targets.ndim != 2 or len(targets) not in (1, len(image)):
                raise FastcamError(f"{TARGETS} has shape {targets.shape}; give [1, T], or a row for each image")
            rows[TARGETS] = np.repeat(targets, len(image), 0) if len(targets) == 1 else targets
        other = next((name for name, value in rows.items() if value.ndim == 0 or len(value) != len(image)), None)
        if other is not None:  # rows would shift, and come to another client
            raise FastcamError(
                f"input {shown(repr(other))} has not a row for each of {len(image)} images; give as many"
            )
        if not len(image):
            raise FastcamError("the inputs have no rows; give one for each image")
        return rows

    def _run_raw(
        self, items: Sequence[tuple[dict[str, NDArray[Any]], tuple[str, ...]]]
    ) -> list[dict[str, NDArray[Any]]]:
        feeds, names = [feed for feed, _ in items], items[0][1]
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]} if feeds[1:] else feeds[0]
        found = self._run_rows(joined, names)
        ends = np.cumsum([len(feed[self.explainer.metadata.input]) for feed in feeds])[:-1]
        split = {name: np.split(value, ends) for name, value in found.items()}
        return [{name: parts[i] for name, parts in split.items()} for i in range(len(feeds))]

    def _run_rows(self, feed: dict[str, NDArray[Any]], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Rows through the file; those of a fixed batch in several runs, the last of which is filled up."""
        size, rows = self.explainer.fixed_batch, len(feed[self.explainer.metadata.input])
        if size is None or rows == size:
            return self._run(feed, names)
        found = []
        for start in range(0, rows, size):
            part = {name: value[start : start + size] for name, value in feed.items()}
            missing = size - min(size, rows - start)
            full = {name: np.concatenate([value, np.repeat(value[-1:], missing, 0)]) for name, value in part.items()}
            found.append({name: value[: size - missing] for name, value in self._run(full, names).items()})
        return {name: np.concatenate([one[name] for one in found]) for name in names}

    def _run(self, feed: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        begun = time.perf_counter()
        found = self.explainer.run(feed, names)
        image = feed[self.explainer.metadata.input]
        self.statistics.ran(len(image) if image.ndim else 1, time.perf_counter() - begun)
        return found

    # ---- what is told of it

    def observe(self, what: str, value: float) -> None:
        """See :data:`Observe`."""
        self._observe(what, value)
        if what == "prepare":
            self.statistics.add("compute_input", int(1e9 * value))

    def _observed(self, count: int, seconds: float) -> None:
        self.observe("run", seconds)
        self.observe("images", count)

    def _ran(self, count: int, seconds: float) -> None:
        self._observed(count, seconds)
        self.statistics.ran(count, seconds)

    def _waited(self, asked: int, begun: int, ended: int) -> None:
        self._spans.record("queue", asked, begun)
        self._spans.record("run", begun, ended)
        self.statistics.waited(asked, begun, ended)

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        with self._lock:
            self._closed = True
            lanes, self._lanes = list(self._lanes.values()), OrderedDict()
        for one in (*lanes, self._predictions, self._later, self._raw):
            if one is not None:
                one.close()


def _own(index: int, source: Any) -> Any:
    """A lane's pictures have targets of their own, which come with them."""
    raise AssertionError("targets come with the picture")


def _in_time(until: float) -> None:
    CALLER.get().check()
    if time.monotonic() > until:
        raise NotInTime("the answer was not there in time; ask again later, or give it more time")


def _together(calls: Sequence[Callable[[], A]]) -> list[A]:
    """Calls at once, each in a thread, so that their pictures meet in one run; the first error is raised."""
    if len(calls) == 1:
        return [calls[0]()]
    answers: list[Any] = [None] * len(calls)

    def call(i: int) -> None:
        try:
            answers[i] = calls[i]()
        except BaseException as error:
            answers[i] = error

    threads = [threading.Thread(target=copy_context().run, args=(call, i)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers
