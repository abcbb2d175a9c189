"""easy-VQA: questions about one shape in a picture of 64 x 64, from outside of this project.

Of its test set 862 pictures with 968 questions are here. They are split by picture: every fourth is held out. So the
network learns from some 700 questions, where the data set's own training set has 38,575.

Source: victorzhou.com/blog/easy-vqa, MIT licence; the files of FASTCAM_ASSETS/vqa.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fastcam.evaluation.statistics import Ratios, weights_of
from fastcam.image.decode import decode
from fastcam_bench.paper.questions.grammar import ids
from fastcam_bench.paper.questions.networks import LstmProduct
from fastcam_bench.paper.questions.training import Batch, train
from fastcam_bench.paper.trunk import normalised, start_from_bundled

EVERY, BATCH, STEPS, LENGTH = 4, 64, 350, 10
COLOURS = ("green", "gray", "red", "blue", "black", "yellow", "brown", "teal")


@dataclass(frozen=True, eq=False)
class EasyVqa:
    """m questions: pictures uint8 [m, 64, 64, 3], words int64 [m, L], answers int64 [m], kinds, numbers of pictures."""

    images: npt.NDArray[np.uint8]
    words: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]
    kinds: tuple[str, ...]
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.kinds)


def vocabulary(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Words with their ids from 1, 0 fills up; and the answers."""
    kept: dict[str, Any] = json.loads((folder / "vocab.json").read_text())
    return kept["word_index"], kept["answers"]


def load(folder: Path) -> tuple[EasyVqa, EasyVqa]:
    """The questions to train on and those held out."""
    words, answers = vocabulary(folder)
    rows: list[tuple[str, str, int]] = json.loads((folder / "test_questions_subset.json").read_text())
    places = {number: place for place, number in enumerate(sorted({number for _, _, number in rows}))}
    found = []
    for held in (False, True):
        own = [row for row in rows if (places[row[2]] % EVERY == 0) == held]
        pictures = {number: decode(folder / "images" / f"{number}.png") for _, _, number in own}
        texts = np.array([ids(text.replace("?", ""), words, LENGTH) for text, _, _ in own])
        kinds = tuple("yes or no" if a in ("yes", "no") else "colour" if a in COLOURS else "shape" for _, a, _ in own)
        numbers = tuple(number for _, _, number in own)
        images = np.stack([pictures[number] for number in numbers])
        found.append(EasyVqa(images, texts, np.array([answers.index(a) for _, a, _ in own]), kinds, numbers))
    return found[0], found[1]


def batches(data: EasyVqa, steps: int, seed: int) -> Iterator[Batch]:
    """Questions at random, their pictures mirrored and turned: the answers stay."""
    rng = Random(seed)
    for _ in range(steps):
        part = rng.choices(range(len(data)), k=BATCH)
        images = data.images[part]
        images = images[:, :: rng.choice((1, -1)), :: rng.choice((1, -1))]
        images = images.swapaxes(1, 2) if rng.random() < 0.5 else images
        words, answers = torch.from_numpy(data.words[part]), torch.from_numpy(data.answers[part])
        yield normalised(images), torch.arange(BATCH), words, answers, None


def trained(data: EasyVqa, folder: Path, trunk: nn.Module | None = None, steps: int = STEPS) -> nn.Module:
    """A CNN and an LSTM trained on it, from the bundled network's trunk or from another network's."""
    words, answers = vocabulary(folder)
    torch.manual_seed(0)
    net = LstmProduct(len(words) + 1, len(answers))
    if trunk is None:
        start_from_bundled(net.trunk)
    else:
        net.trunk.load_state_dict(trunk.state_dict())
    return train(net.train(), batches(data, steps, 0), steps)


def accuracy(net: nn.Module, data: EasyVqa, training: EasyVqa) -> dict[str, Any]:
    """By kind and of all, beside the answer that is most frequent among the training questions of the kind."""
    ratios = Ratios()
    with torch.no_grad():
        found = net(normalised(data.images), torch.from_numpy(data.words)).argmax(1).numpy()
    usual = {}
    for kind in set(data.kinds):
        own = [answer for answer, other in zip(training.answers.tolist(), training.kinds, strict=True) if other == kind]
        usual[kind] = Counter(own).most_common(1)[0][0]
    for k, kind in enumerate(data.kinds):
        weights = weights_of(f"picture {data.numbers[k]}")
        for group in (kind, "all"):
            ratios.add(f"{group}: network", found[k] == data.answers[k], weights)
            ratios.add(f"{group}: majority answer", usual[kind] == data.answers[k], weights)
    return {name: figure.to_dict() for name, figure in ratios.figures().items()}
