"""Tuning: candidates beside the default in turns, checked against the reference, within a time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastcam import cache
from fastcam.atomic_files import write_files
from fastcam.errors import FastcamError, shown
from fastcam.explainer import Explainer
from fastcam.image.preprocess import decode
from fastcam.runtime.engines.openvino import native_precisions
from fastcam.runtime.inputs.base import Preprocess
from fastcam.runtime.profile import VERSION, Choice, Goal, cores, packages, profile_path, this_machine
from fastcam.runtime.providers import OPENVINO_RUNTIME
from fastcam.runtime.session import available_providers
from fastcam.runtime.timing import Samples, interleaved, summary
from fastcam.tuning import candidates
from fastcam.tuning.agreement import Reference, Tolerance
from fastcam.tuning.contestant import Contestant
from fastcam.tuning.measured import Row, best

PICTURES = Path(__file__).parents[1] / "data"
PAUSE = 0.02
"""Seconds before each turn: threads of the one before spin for less."""
ROUNDS = 3
"""Of the final, where they fit into the time."""
QUICK = 1 / 20
"""Of a goal's time, a candidate's first rounds; at most a second."""
FAR = 1.6
"""Of the fastest engine's time for a picture: one that surely takes more is not tried for many pictures."""
FINALISTS = 2
"""Candidates that take turns with the default at the end; with it and the one that is tried all are open at once."""
SHARE = {"latency": 0.5, "throughput": 1.0}
"""Of the time that is left, what a goal may take."""
UNTIL = {"engines": 0.4, "layouts": 0.55, "batches": 0.7}
"""Of a goal's time, when no further candidate is opened; the rest is the final's."""
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
        path = profile_path(self.model) if path is None else path
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

    Each candidate takes a few turns with the default, on arrays in memory: for latency one picture a call, for
    throughput a stream. Then the best take turns with it and each other. Engines that compile, as TensorRT, may take
    longer than ``seconds``.

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
    """The file, and what both goals share."""

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
        self._model, self._preprocess, self._tolerance, self.told = model, preprocess, tolerance, told
        self.cores = cores()
        self.explainer = explainer = self.opened(Choice("cpu", self.cores, 1))
        how = explainer.metadata.preprocessing
        if explainer.metadata.kind != "picture" or explainer.metadata.cotangents or (how is not None and how.stack > 1):
            raise FastcamError(f"{shown(model)}: only files that explain classes of single pictures are tuned")
        self._sha256 = cache.digest(model, cache.root())[0]
        pictures = pictures or [PICTURES / "scene.jpg", PICTURES / "two_objects.jpg"]
        self.pictures = [decode(one) for one in pictures]
        self.reference = Reference(explainer, self.pictures)
        self.fixed = explainer.fixed_batch
        self.refused: dict[Choice, str] = {}
        self.known: dict[Choice, float] = {}

    def tuned(self) -> Tuned:
        """All that is measured, and the choices."""
        rows: list[Row] = []
        chosen: dict[Goal, Row] = {}
        goals: tuple[Goal, ...] = ("latency", "throughput")
        for goal in goals:
            seconds = SHARE[goal] * (self._until - time.monotonic())
            own, chosen[goal] = _Race(self, goal, seconds).run()
            rows += own
            if goal == "latency":
                del self.explainer  # one open file less for the next goal
                self._learn(own, chosen[goal].ratio)
        return Tuned(self._model, self._sha256, tuple(rows), chosen, self._tolerance)

    def _learn(self, rows: Sequence[Row], least: float) -> None:
        """Leave out for throughput what is slow for one picture, in any layout; of the rest the best is tried first."""
        lowest: dict[Choice, float] = {}
        for row in rows:
            if row.seconds is not None:
                engine = _engine(row.choice)
                self.known[engine] = min(row.ratio, self.known.get(engine, row.ratio))
                lowest[engine] = min(row.interval[0], lowest.get(engine, row.interval[0]))
        for engine, ratio in lowest.items():
            if ratio > FAR * least:
                self.refused.setdefault(engine, "slow for one picture")

    def engines(self, base: Choice) -> list[Choice]:
        """``base`` on other engines, the most promising first."""
        available = available_providers()
        native = native_precisions() if OPENVINO_RUNTIME in available else ()
        found = candidates.engines(base, available, native)
        return sorted(found, key=lambda one: self.known.get(_engine(one), math.inf))

    def opened(self, choice: Choice) -> Explainer:
        """The file, in one way."""
        how: Any = {"batch_size": choice.batch, "settings": choice.settings(), "preprocess": self._preprocess}
        return Explainer(self._model, choice.providers, choice.threads, **how)

    def checked(self, row: Row, explainer: Explainer) -> Row:
        """A row with its agreement, left out where that is too far from the reference."""
        agreement = self.reference.agreement(explainer)
        return replace(row, agreement=agreement, left_out=agreement.refusal(self._tolerance))


class _Race:
    """A goal: each candidate beside the default for a moment, and then the best in turns. Names are titles."""

    def __init__(self, tuner: _Tuner, goal: Goal, seconds: float) -> None:
        self._tuner, self._goal, self._began, self._seconds = tuner, goal, time.monotonic(), seconds
        self._choice = candidates.default(goal, tuner.cores, tuner.fixed)
        self._base = self._choice.title
        explainer = tuner.explainer if goal == "latency" else tuner.opened(self._choice)
        default = Contestant(explainer, tuner.pictures[0], goal)
        default()
        self._open = {self._base: default}
        self._rows = {self._base: tuner.checked(Row(goal, self._choice), explainer)}
        self._first: dict[str, Samples] = {}  # of each candidate that is open, beside the default

    def run(self) -> tuple[list[Row], Row]:
        """Rows of all candidates, the default first, and the chosen one."""
        tuner = self._tuner
        self._try(tuner.engines(self._choice), UNTIL["engines"])
        self._try(candidates.layouts(self._best(), self._goal, tuner.cores), UNTIL["layouts"])
        if self._goal == "throughput":
            self._try(candidates.batches(self._best(), tuner.fixed), UNTIL["batches"])
        self._final()
        return list(self._rows.values()), best([self._rows[name] for name in self._open])

    def _best(self) -> Choice:
        return min((self._rows[name] for name in self._open), key=lambda row: row.ratio).choice

    def _left(self, share: float) -> float:
        return self._began + share * self._seconds - time.monotonic()

    def _try(self, choices: Sequence[Choice], until: float) -> None:
        """Open, check and time candidates, one in any case; the best stay open."""
        for choice in choices:
            if choice.title not in self._rows:
                late = len(self._rows) > 1 and self._left(until) <= 0
                self._rows[choice.title] = self._row(choice, late)
                self._tuner.told(self._rows[choice.title])
                order = sorted(self._open, key=lambda name: self._rows[name].ratio)
                for name in [one for one in order if one != self._base][FINALISTS:]:
                    del self._open[name]

    def _row(self, choice: Choice, late: bool) -> Row:
        tuner, engine = self._tuner, _engine(choice)
        row = Row(self._goal, choice, left_out=tuner.refused.get(engine, "no time left" if late else ""))
        if row.left_out:
            return row
        try:
            explainer = tuner.opened(choice)
            row = tuner.checked(row, explainer)
            if row.left_out:
                tuner.refused[engine] = row.left_out
                return row
            default = self._open[self._base]
            made = Contestant(explainer, tuner.pictures[0], self._goal, default.pictures)
            made()
            pair = {self._base: default, choice.title: made}
            self._first[choice.title] = self._turns(pair, min(1, QUICK * self._seconds), 1)
            row = _timed(row, self._first[choice.title], self._base)
        except FastcamError as error:
            tuner.refused[engine] = str(error)
            return replace(row, left_out=str(error))
        self._open[choice.title] = made
        return row

    def _final(self) -> None:
        """The best and the default; after half of the time only those of them that may still be the fastest."""
        others = [name for name in self._open if name != self._base]
        if others and self._left(1) < ROUNDS * self._round(others):
            self._short(min(others, key=lambda name: self._rows[name].ratio))
            return
        first = self._turns(self._open, self._left(1) / 2 if others else 0, ROUNDS if self._left(1) > 0 else 1)
        self._note(first)
        fastest = min(first, key=lambda name: self._rows[name].ratio)
        beside = summary(first, fastest)
        still = [name for name in self._open if name == self._base or beside[name]["ratio_95"][0] <= 1]
        if others and self._left(1) > 0:
            more = self._turns({name: self._open[name] for name in still}, self._left(1), 1)
            self._note({name: first[name] + more[name] for name in still})

    def _short(self, name: str) -> None:
        """Where the time is over: one round of the best and the default, beside those that they have made."""
        self._open = {one: self._open[one] for one in (self._base, name)}
        once = self._turns(self._open, 0, 1)
        self._note({one: self._first[name][one] + once[one] for one in once})

    def _round(self, others: Sequence[str]) -> float:
        """About how many seconds a round of these and the default takes."""
        each = {self._base: self._first[others[0]][self._base]} | {name: self._first[name][name] for name in others}
        return float(sum(np.median(taken) * self._open[name].pictures for name, taken in each.items()))

    def _note(self, samples: Samples) -> None:
        for name in samples:
            self._rows[name] = _timed(self._rows[name], samples, self._base)

    def _turns(self, contestants: Mapping[str, Contestant], seconds: float, least: int) -> Samples:
        """Seconds of a picture. A call is one of several after each other; a stream is long enough as it is."""
        uncounted: Any = "turn" if self._goal == "latency" else "none"
        samples = interleaved(contestants, seconds, least, PAUSE, uncounted=uncounted)
        return {name: [one / contestants[name].pictures for one in taken] for name, taken in samples.items()}


def _timed(row: Row, samples: Samples, base: str) -> Row:
    """A row with its times, beside the default's."""
    taken = samples[row.choice.title]
    found = summary({base: samples[base], row.choice.title: taken}, base)[row.choice.title]
    low, high = found["ratio_95"]
    return replace(row, seconds=float(np.median(taken)), ratio=found["ratio"], interval=(low, high))


def _engine(choice: Choice) -> Choice:
    """What is the same for all layouts of an engine."""
    return replace(choice, threads=1, sessions=1, batch=1, spinning=True)
