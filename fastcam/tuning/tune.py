"""Tuning: candidates beside the default in turns, checked against the reference, within a time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fastcam import cache
from fastcam.atomic_files import write_files
from fastcam.errors import FastcamError, shown
from fastcam.explainer import Explainer
from fastcam.image.preprocess import decode
from fastcam.runtime.inputs.base import Preprocess
from fastcam.runtime.profile import VERSION, Choice, Goal, cores, packages, path_beside, this_machine
from fastcam.runtime.session import available_providers
from fastcam.runtime.timing import interleaved, summary
from fastcam.tuning import candidates
from fastcam.tuning.agreement import Reference, Tolerance
from fastcam.tuning.measured import Row, best

PICTURES = Path(__file__).parents[1] / "data"
PAUSE = 0.01
"""Seconds before each call, for threads of the one before that still spin."""
BRIEF = 0.5
"""Seconds; a stream that takes about as long is twice as long."""
ROUNDS = 3
"""That a candidate is measured in any case."""
FAR = 1.3
"""Of the fastest engine's time for a picture: one that takes more is not tried for many pictures."""
SHARE = {"latency": 0.5, "throughput": 1.0}
"""Of the time that is left, what a goal may take."""
Told = Callable[[Row], None]


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        model: the file.
        sha256: its digest.
        rows: all candidates, the default of each goal first.
        chosen: for each goal.
        tolerance: that maps had to keep.
    """

    model: Path
    sha256: str
    rows: tuple[Row, ...]
    chosen: dict[Goal, Row]
    tolerance: Tolerance

    def default(self, goal: Goal) -> Row:
        """What runs without a profile."""
        return next(row for row in self.rows if row.goal == goal)

    def to_dict(self) -> dict[str, Any]:
        """The profile's file: what :class:`fastcam.runtime.profile.Profile` reads, and what it was made of."""
        return {
            "fastcam_profile": VERSION,
            "model": self.sha256,
            "machine": asdict(this_machine()),
            "packages": packages(),
            **{goal: asdict(row.choice) for goal, row in self.chosen.items()},
            "reference": "ONNX Runtime, CPU, float32",
            "tolerance": asdict(self.tolerance),
            "candidates": [row.to_dict() for row in self.rows],
        }

    def write(self, path: Path | None = None) -> Path:
        """Write the profile, by default beside the model; it is there as a whole or not at all.

        Raises:
            FastcamError: it cannot be written.
        """
        path = path_beside(self.model) if path is None else path
        write_files({path: (json.dumps(self.to_dict(), indent=1) + "\n").encode()})
        return path


def tune(
    model: str | Path,
    pictures: Sequence[str | Path] = (),
    seconds: float = 60.0,
    tolerance: Tolerance | None = None,
    preprocess: Preprocess = None,
    told: Told = lambda row: None,
) -> Tuned:
    """Measure what is installed on an exported file, from picture to boxes.

    Each candidate takes turns with the default, on arrays in memory: for latency one picture a call, for throughput a
    stream. Engines that compile, as TensorRT, may take longer than ``seconds``.

    Args:
        model: a file that ``fastcam export`` wrote.
        pictures: that maps are compared on and that are timed; by default the two bundled ones.
        seconds: about how long it takes.
        tolerance: what an engine may change in maps.
        preprocess: see :class:`fastcam.Explainer`.
        told: is told each row when it is measured.

    Raises:
        FastcamError: a file that is not of single pictures, or a picture that cannot be explained.
    """
    if not 0 < seconds < math.inf:
        raise FastcamError(f"seconds is {seconds:g}; give a number above 0")
    return _Tuner(Path(model), pictures, seconds, tolerance or Tolerance(), preprocess, told).tuned()


class _Tuner:
    def __init__(
        self,
        model: Path,
        pictures: Sequence[str | Path],
        seconds: float,
        tolerance: Tolerance,
        preprocess: Preprocess,
        told: Told,
    ) -> None:
        self._until = time.monotonic() + seconds
        self._model, self._preprocess, self._tolerance, self._told = model, preprocess, tolerance, told
        self._cores = cores()
        explainer = Explainer(model, "cpu", preprocess=preprocess)
        how = explainer.metadata.preprocessing
        if explainer.metadata.kind != "picture" or explainer.metadata.cotangents or (how is not None and how.stack > 1):
            raise FastcamError(f"{shown(model)}: only files that explain classes of single pictures are tuned")
        self._sha256 = cache.digest(model, cache.root())[0]
        self._pictures = [decode(one) for one in pictures or [PICTURES / "scene.jpg", PICTURES / "two_objects.jpg"]]
        self._reference = Reference(explainer, self._pictures)
        self._fixed = explainer.fixed_batch
        self._refused: dict[Choice, str] = {}

    def tuned(self) -> Tuned:
        """All that is measured, and the choices."""
        rows: list[Row] = []
        chosen: dict[Goal, Row] = {}
        goals: tuple[Goal, ...] = ("latency", "throughput")
        for goal in goals:
            left = self._until - time.monotonic()
            own = self._goal(goal, time.monotonic() + SHARE[goal] * left)
            chosen[goal] = best(own)
            rows += own
            if goal == "latency":
                self._refuse_slow(own, chosen[goal].ratio)
        return Tuned(self._model, self._sha256, tuple(rows), chosen, self._tolerance)

    def _goal(self, goal: Goal, until: float) -> list[Row]:
        """Rows of a goal: engines, then what else may be varied of the best of them."""
        base = candidates.default(goal, self._cores, self._fixed)
        default, rows = self._opened(base), list[Row]()

        def measured(some: list[Choice], after: int) -> None:
            for i, choice in enumerate(some):
                left = until - time.monotonic()
                rows.append(self._row(goal, choice, default, left / (len(some) - i + after)))
                self._told(rows[-1])

        first = candidates.engines(base, available_providers())
        measured(first, len(first))
        measured(candidates.layouts(best(rows).choice, goal, self._cores), len(candidates.BATCHES))
        if goal == "throughput":
            measured(candidates.batches(best(rows).choice, self._fixed), 0)
        return rows

    def _refuse_slow(self, rows: Sequence[Row], least: float) -> None:
        """Leave out for throughput what is slow for one picture, in any layout; never the default engine."""
        ratios: dict[Choice, float] = {}
        for row in rows:
            engine = _engine(row.choice)
            if row.seconds is not None:
                ratios[engine] = min(row.ratio, ratios.get(engine, row.ratio))
        for engine, ratio in ratios.items():
            if ratio > FAR * least and engine != _engine(rows[0].choice):
                self._refused.setdefault(engine, "slow for one picture")

    def _row(self, goal: Goal, choice: Choice, default: _Contestant, seconds: float) -> Row:
        """A candidate, opened, checked and measured in ``seconds``."""
        engine = _engine(choice)
        row = Row(goal, choice, left_out=self._refused.get(engine, ""))
        if row.left_out:
            return row
        if seconds <= 0:
            return replace(row, left_out="no time left")
        try:
            began = time.monotonic()
            opened = self._opened(choice)
            agreement = self._reference.agreement(opened.explainer)
            row = replace(row, agreement=agreement, left_out=agreement.refusal(self._tolerance))
            if row.left_out:
                self._refused[engine] = row.left_out
                return row
            runs = {"default": default.call(goal), "candidate": opened.call(goal)}
            spent = time.monotonic() - began
            samples = interleaved(runs, max(0.0, seconds - spent), ROUNDS, PAUSE)
        except FastcamError as error:
            self._refused[engine] = str(error)
            return replace(row, left_out=str(error))
        each = {name: [one / runs[name].pictures for one in taken] for name, taken in samples.items()}
        found = summary(each, "default")["candidate"]
        low, high = found["ratio_95"]
        taken = sorted(each["candidate"])
        return replace(row, seconds=taken[len(taken) // 2], ratio=found["ratio"], interval=(low, high))

    def _opened(self, choice: Choice) -> _Contestant:
        how: Any = {"batch_size": choice.batch, "settings": choice.settings(), "preprocess": self._preprocess}
        return _Contestant(Explainer(self._model, choice.providers, choice.threads, **how), self._pictures)


def _engine(choice: Choice) -> Choice:
    """What is the same for all layouts of an engine."""
    return replace(choice, threads=1, sessions=1, batch=1, spinning=True)


class _Call:
    """A call that is timed, and of how many pictures."""

    def __init__(self, call: Callable[[], Any], pictures: int) -> None:
        self._call, self.pictures = call, pictures

    def __call__(self) -> Any:
        return self._call()


class _Contestant:
    """An opened file, and what is timed of it."""

    def __init__(self, explainer: Explainer, pictures: Sequence[Any]) -> None:
        self.explainer, self._pictures = explainer, pictures

    def call(self, goal: Goal) -> _Call:
        """One picture, or a stream: of slow networks a batch for each run that goes on at the same time, else two."""
        explainer, picture = self.explainer, self._pictures[0]
        if goal == "latency":
            return _Call(lambda: explainer(picture).boxes, 1)
        many = [picture] * (explainer.batch_size * explainer.sessions)
        began = time.perf_counter()
        explainer(picture)
        many *= 2 if (time.perf_counter() - began) * len(many) < BRIEF else 1
        return _Call(lambda: [frame.explanation for frame in explainer.stream(many)], len(many))
