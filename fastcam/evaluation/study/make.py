"""A study as two files: a page that asks without a server, and the key that alone knows what was shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastcam.atomic_files import json_bytes, staged, write
from fastcam.errors import FastcamError, shown
from fastcam.evaluation.samples import Dataset, LeftOut, Sample
from fastcam.evaluation.study import design, page, stimuli
from fastcam.evaluation.study.stimuli import Model as Model
from fastcam.schema import __version__

Question = Literal["class", "trust"]
PAGE, KEY = "study.html", "key.json"


@dataclass(frozen=True)
class Study:
    """What was written.

    Attributes:
        page, key: the files.
        pictures: how many each question is asked about.
        trials: how many each rater has.
        left_out: pictures that could not be read or explained, and what the data set could not use.
    """

    page: Path
    key: Path
    pictures: dict[Question, int]
    trials: int
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass
class _Shown:
    """One way of showing a picture: the images, in order, the choices, and what the key says of it."""

    images: list[str]
    choices: list[str]
    key: dict[str, Any]


@dataclass
class _Parts:
    """All pictures of a question: for each of them its conditions."""

    pictures: list[list[_Shown]] = field(default_factory=list)


def make_study(
    models: Sequence[Model],
    data: Dataset,
    methods: Sequence[str],
    output: str | Path,
    raters: int = 8,
    pictures: int = 24,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> Study:
    """Write the page of a study and its key into a folder.

    Which of two classes is depicted is asked of the first model. Of two models it is also asked which is the more
    trustworthy, about other pictures, in which both predict the same marked class.

    Args:
        models: one or two.
        data: the pictures, of which the first suitable ones are taken.
        methods: names from :data:`fastcam.methods.METHODS`.
        output: the folder, for ``study.html`` and ``key.json``.
        raters: how many people will answer; each has a number from 1 on.
        pictures: of each question, at most.
        seed: of all that is drawn.
        progress: called behind each picture that is looked at.

    Raises:
        FastcamError: no suitable pictures, a method that a file cannot serve, or the folder cannot be written.
    """
    for what, value, least, most in (
        ("number of raters", raters, 1, 10_000),
        ("number of pictures", pictures, 1, 10_000),
        ("seed", seed, 0, 2**53),
    ):
        if not least <= value <= most:
            raise FastcamError(f"the study's {what} is {value}; give {least} to {most}")
    if not 1 <= len(models) <= 2:
        raise FastcamError(f"a study is of one model or of two, not of {len(models)}")
    stimuli.checked(models, methods)
    rng = np.random.default_rng(seed)
    questions: dict[Question, _Parts] = {"class": _Parts()}
    if len(models) == 2:
        questions["trust"] = _Parts()
    failed = LeftOut()
    with staged(output) as stage:
        for sample in stimuli.usable(data.samples(), pictures):
            missing = [name for name, parts in questions.items() if len(parts.pictures) < pictures]
            if not missing:
                break
            try:
                _ask(questions, sorted(missing, key=lambda one: len(questions[one].pictures)), models, sample, methods)
            except FastcamError as error:
                failed.add("could not be explained", f"{sample.name}: {error}")
            progress()
        failed.merge(data.left_out)
        _refuse_none(questions, data, failed)
        content, key = _written(questions, raters, rng)
        key |= {
            "fastcam": __version__,
            "data": data.name,
            "models": [model.name for model in models],
            "methods": list(methods),
            "seed": seed,
        }
        write(stage / PAGE, page.study_page(content).encode("utf-8"))
        write(stage / KEY, json_bytes(key))
    folder = Path(output)
    counts = {name: len(parts.pictures) for name, parts in questions.items()}
    return Study(folder / PAGE, folder / KEY, counts, sum(counts.values()), failed)


def _ask(
    questions: dict[Question, _Parts],
    names: Sequence[Question],
    models: Sequence[Model],
    sample: Sample,
    methods: Sequence[str],
) -> None:
    """A picture to the first of some questions that can be asked of it; each picture in one question."""
    for name in names:
        made = (_two_classes if name == "class" else _two_models)(models, sample, methods)
        if made is not None:
            questions[name].pictures.append(made)
            return


def _refuse_none(questions: dict[Question, _Parts], data: Dataset, failed: LeftOut) -> None:
    where, lost = f"no picture of {shown(data.name)}", f"; {failed}" if failed else ""
    if not questions["class"].pictures:
        raise FastcamError(f"{where} has two classes that the model knows, both with a map; give other pictures{lost}")
    if "trust" in questions and not questions["trust"].pictures:
        raise FastcamError(f"{where} is predicted alike, and right, by both models; give others, or one model{lost}")


def _two_classes(models: Sequence[Model], sample: Sample, methods: Sequence[str]) -> list[_Shown] | None:
    """A picture with two classes: by each method, of each class, with the choices in either order."""
    model = models[0]
    two = model.candidates(sample, 2)
    if len(two) < 2 or two[0].label == two[1].label:
        return None
    made = []
    for method in methods:
        uris = model.stimuli(sample, [each.target for each in two], method)
        if uris is None:
            return None
        for depicted in (0, 1):
            for order in ((0, 1), (1, 0)):
                choices = [two[i].label for i in order]
                said = {"depicted": two[depicted].label, "other": two[1 - depicted].label}
                key = {"method": method, **said, "answer": order.index(depicted)}
                made.append(_Shown([uris[depicted]], choices, {"kind": "class", "picture": sample.name} | key))
    return made


def _two_models(models: Sequence[Model], sample: Sample, methods: Sequence[str]) -> list[_Shown] | None:
    """A picture that both models predict alike: by each method, with the models on either side."""
    classes = [model.agrees(sample) for model in models]
    first, second = classes
    if first is None or second is None or first.label != second.label:
        return None
    made = []
    for method in methods:
        uris = [model.stimuli(sample, [each.target], method) for model, each in zip(models, (first, second))]
        if uris[0] is None or uris[1] is None:
            return None
        for left in (0, 1):
            key = {"method": method, "class": first.label, "left": left}
            images = [*(uris[left] or ()), *(uris[1 - left] or ())]
            made.append(_Shown(images, [first.label], {"kind": "trust", "picture": sample.name} | key))
    return made


def _written(
    questions: dict[Question, _Parts], raters: int, rng: np.random.Generator
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page holds, under names that say nothing and in an order that says nothing, and the key to it."""
    plan: list[list[str]] = [[] for _ in range(raters)]
    used: dict[str, _Shown] = {}
    for parts in questions.values():
        count = len(parts.pictures[0])
        given = design.conditions(raters, len(parts.pictures), count, rng)
        names = design.tokens(len(parts.pictures) * count, rng)
        order = design.orders(raters, len(parts.pictures), rng)
        for rater in range(raters):
            for picture in order[rater].tolist():
                condition = int(given[rater, picture])
                name = names[picture * count + condition]
                used[name] = parts.pictures[picture][condition]
                plan[rater].append(name)
    uris = sorted({uri for one in used.values() for uri in one.images})
    image_names = dict(zip(uris, design.tokens(len(uris), rng)))
    trials = {
        name: {"kind": one.key["kind"], "images": [image_names[uri] for uri in one.images], "choices": one.choices}
        for name, one in sorted(used.items())
    }
    study = design.tokens(1, rng)[0]
    images = dict(sorted((name, uri) for uri, name in image_names.items()))
    content = {"study": study, "plan": plan, "trials": trials, "images": images}
    return content, {"study": study, "plan": plan, "trials": {name: one.key for name, one in sorted(used.items())}}
