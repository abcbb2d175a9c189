"""What the answers of a study say: accuracy, relative reliability and agreement, by method."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcam.errors import FastcamError, shown
from fastcam.evaluation.statistics import Figure, Ratio, weights_of, wilson
from fastcam.evaluation.study.agreement import alpha
from fastcam.input_files import read_text
from fastcam.typed_fields import parse_json

KEY = "the key.json of fastcam study make"
LARGEST = 64 << 20
SCALE = 2
"""Reliability goes from -2 (the second model is clearly the more trustworthy) to 2 (the first one is)."""


@dataclass(frozen=True)
class Row:
    """A question by a method.

    Attributes:
        kind: "class" or "trust".
        method: its name; "all" of all together.
        value: the share of right answers; or the mean reliability of the first model, -2 to 2. With its bootstrap over
            pictures.
        wilson: the interval of the share over answers; None of reliability.
        alpha: Krippendorff's, nominal of classes and interval of reliability: 0 of raters who guess. NaN where nobody
            saw the same twice.
    """

    kind: str
    method: str
    value: Figure
    wilson: tuple[float, float] | None
    alpha: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        name = "accuracy" if self.kind == "class" else "reliability"
        agreement = None if self.alpha != self.alpha else self.alpha
        found = {"question": self.kind, "method": self.method, name: self.value.to_dict(), "alpha": agreement}
        return found | ({"wilson": list(self.wilson)} if self.wilson else {})


@dataclass(frozen=True)
class Scores:
    """All of it.

    Attributes:
        rows: a question and method each, and all methods of a question together.
        raters: how many have answered.
        missing: trials that they were to answer and have not.
        models: names of the study's models.
    """

    rows: tuple[Row, ...]
    raters: int
    missing: int
    models: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "models": list(self.models),
            "raters": self.raters,
            "missing": self.missing,
            "rows": [row.to_dict() for row in self.rows],
        }


@dataclass(frozen=True)
class _Answer:
    """An answer.

    Attributes:
        kind, method, picture: of what was asked.
        unit: what others may have been asked too.
        value: 1 where it is right; or the first model's reliability.
        said: what raters agree in: which of the picture's two classes, 0 or 1 in alphabetical order; or the value. By
            the classes' names raters who guess would seem to agree, as they have the same two to choose from.
    """

    kind: str
    method: str
    picture: str
    unit: str
    value: float
    said: float


def score_study(key: str | Path, answers: Sequence[str | Path]) -> Scores:
    """Score the answers of a study.

    Args:
        key: the ``key.json`` of the study.
        answers: the files that its page has saved, one a rater.

    Raises:
        FastcamError: a file that cannot be read, or is of another study; two files of one rater; an answer to what the
            rater was not asked.
    """
    known = _read_key(Path(key))
    if not answers:
        raise FastcamError("no answers; give the files that the study's page has saved")
    seen: dict[int, Path] = {}
    found: list[_Answer] = []
    for path in map(Path, answers):
        found += _of_rater(path, known, seen)
    asked = sum(len(known["plan"][rater - 1]) for rater in seen)
    if not found:
        raise FastcamError(
            f"none of {asked} questions is answered; give files that the page saved behind the questions"
        )
    rows = []
    for kind in ("class", "trust"):
        of_kind = [one for one in found if one.kind == kind]
        by_method = [(name, [one for one in of_kind if one.method == name]) for name in known["methods"]]
        parts = [part for part in by_method if part[1]]
        rows += [_row(kind, name, part) for name, part in (*parts, *([("all", of_kind)] if len(parts) > 1 else []))]
    return Scores(tuple(rows), len(seen), asked - len(found), tuple(known["models"]))


def answer_files(paths: Sequence[Path]) -> list[Path]:
    """Files, and those of folders by name, where keys and scores of a study may lie among the answers."""
    return [
        file
        for path in paths
        for file in ([one for one in sorted(path.glob("*.json")) if not _of_fastcam(one)] if path.is_dir() else [path])
    ]


def _of_fastcam(path: Path) -> bool:
    """Whether a file is a key, or scores."""
    try:
        found = parse_json(read_text(path, "", LARGEST))
    except (ValueError, RecursionError):  # it is refused when its turn comes
        return False
    ours = ({"study", "plan", "trials"}, {"models", "raters", "rows"})
    return isinstance(found, dict) and "answers" not in found and any(keys <= found.keys() for keys in ours)


def _of_rater(path: Path, known: Mapping[str, Any], seen: dict[int, Path]) -> Iterator[_Answer]:
    """The answers of a file, checked."""
    raw = _read(path, ("study", "rater", "answers"), "a file that the study's page has saved")
    if raw["study"] != known["study"]:
        raise FastcamError(f"{shown(path)}: answers of another study; give those of the key's")
    rater, plan = raw["rater"], known["plan"]
    if isinstance(rater, bool) or not isinstance(rater, int) or not 1 <= rater <= len(plan):
        raise FastcamError(f"{shown(path)}: rater {shown(repr(rater))}; the study has raters 1 to {len(plan)}")
    if rater in seen:
        raise FastcamError(f"{shown(path)}: rater {rater} has answered in {shown(seen[rater])} too; give one of them")
    seen[rater] = path
    asked = set(plan[rater - 1])
    if not isinstance(raw["answers"], list):
        raise FastcamError(f"{shown(path)}: its answers are no list; save them again")
    for entry in raw["answers"]:
        trial, choice = (entry.get("trial"), entry.get("choice")) if isinstance(entry, dict) else (None, None)
        if not isinstance(trial, str) or trial not in asked:
            raise FastcamError(f"{shown(path)}: an answer to what rater {rater} was not asked, or a second one")
        asked.remove(trial)
        yield _answer(known["trials"][trial], choice, path)


def _answer(trial: Mapping[str, Any], choice: Any, path: Path) -> _Answer:
    trust = trial["kind"] == "trust"
    allowed = range(-SCALE, SCALE + 1) if trust else range(2)
    if isinstance(choice, bool) or not isinstance(choice, int) or choice not in allowed:
        raise FastcamError(f"{shown(path)}: a choice {shown(repr(choice))}; there are {allowed[0]} to {allowed[-1]}")
    if trust:
        value = choice if trial["left"] == 1 else -choice  # the page counts towards the right one
        unit, said = "\0".join((trial["method"], trial["picture"])), float(value)
    else:
        value = int(choice == trial["answer"])
        unit = "\0".join((trial["method"], trial["depicted"], trial["picture"]))
        two = trial["depicted"], trial["other"]
        said = float((two[0] if value else two[1]) == max(two))
    return _Answer(trial["kind"], trial["method"], trial["picture"], unit, value, said)


def _row(kind: str, method: str, answers: Sequence[_Answer]) -> Row:
    ratio = Ratio(share=kind == "class")
    units: dict[str, Counter[float]] = defaultdict(Counter)
    weights = {picture: weights_of(picture) for picture in {one.picture for one in answers}}
    for one in sorted(answers, key=lambda one: one.picture):
        ratio.add(one.value, weights[one.picture])
        units[one.unit][one.said] += 1
    hits = sum(one.value > 0 for one in answers)
    share = wilson(hits / len(answers), len(answers)) if kind == "class" else None
    agreement = alpha(list(units.values()), "nominal" if kind == "class" else "interval")
    return Row(kind, method, ratio.figure(), share, agreement)


def _read_key(path: Path) -> dict[str, Any]:
    """The key, with all that is read of it of the types that it is written with."""
    found = _read(path, ("study", "plan", "trials", "methods", "models"), KEY)
    trials, plan = found["trials"], found["plan"]
    try:
        good = all(isinstance(found[name], list) and found[name] for name in ("plan", "methods", "models"))
        good &= all(isinstance(name, str) for name in [*found["methods"], *found["models"]])
        good &= all(isinstance(trials[trial], dict) for rater in plan for trial in rater)
        good &= all(_good_trial(trial, found["methods"]) for trial in trials.values())
    except (AttributeError, KeyError, TypeError):
        good = False
    if not good:
        raise FastcamError(f"{shown(path)}: the key is damaged; give {KEY}, as it was written")
    return found


def _good_trial(trial: Mapping[str, Any], methods: Sequence[str]) -> bool:
    words = {"class": ("depicted", "other"), "trust": ("class",)}[trial["kind"]]
    side = trial["answer" if trial["kind"] == "class" else "left"]
    texts = all(isinstance(trial[name], str) for name in ("picture", *words))
    return texts and trial["method"] in methods and type(side) is int and side in (0, 1)


def _read(path: Path, keys: Sequence[str], what: str) -> dict[str, Any]:
    text = read_text(path, f"give {what}", LARGEST)
    try:
        found = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise FastcamError(f"{shown(path)}: no JSON ({error}); give {what}") from error
    if not isinstance(found, dict) or any(name not in found for name in keys):
        raise FastcamError(f"{shown(path)}: not {what}; it lacks {', '.join(keys)}")
    return found
