"""Training networks that answer questions, and how often they are right."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcam_bench.paper.questions.grammar import KINDS, Question, ask, ids
from fastcam_bench.paper.questions.pictures import COLOURS, SHAPES, Pictures
from fastcam_bench.paper.trunk import keep_statistics, normalised

BATCH, PER_PICTURE, RATE, PAIRS = 32, 10, 3e-3, 72.0
TRUNK = 0.5
"""Learning rate of what the bundled network has learned, as a share of that of what is new."""
WARM = 0.1
"""The share of the steps in which the learning rate rises; then it falls."""
Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]
"""Pictures [n, 3, 64, 64]; of each question its picture, words [m, L] and answer; the pairs that pictures show."""


def pairs(pictures: Pictures) -> Tensor:
    """Which pairs of shape and colour pictures show: float32 [n, shapes * colours] of 0 and 1."""
    shown = np.zeros((len(pictures), len(SHAPES), len(COLOURS)), np.float32)
    which, place = np.nonzero(pictures.shapes >= 0)
    shown[which, pictures.shapes[which, place], pictures.colours[which, place]] = 1
    return torch.from_numpy(shown.reshape(len(pictures), -1))


def questions(pictures: Pictures, each: int, rng: Random) -> list[list[Question]]:
    """Up to ``each`` questions about each picture, of all kinds in turn; no two with the same words."""
    found = []
    for i in range(len(pictures)):
        made: dict[str, Question] = {}
        for n in range(each):
            one = ask(pictures, i, KINDS[n % len(KINDS)], rng)
            if one is not None:
                made.setdefault(one.text, one)
        found.append(list(made.values()))
    return found


def batches(pictures: Pictures, epochs: int, seed: int) -> Iterator[Batch]:
    """Pictures in random order and turned at random, and new questions every time, half of them without their mark."""
    rng, order = Random(seed), list(range(len(pictures)))
    for _ in range(epochs):
        rng.shuffle(order)
        for part in np.array_split(order[: len(order) // BATCH * BATCH], len(order) // BATCH):
            chosen = Pictures(*(getattr(pictures, name)[part] for name in vars(pictures))).turned(rng.randrange(8))
            asked = questions(chosen, PER_PICTURE, rng)
            rows = [
                (i, ids(one.text[: -1 if rng.random() < 0.5 else None]), one.answer)
                for i, some in enumerate(asked)
                for one in some
            ]
            of, words, answers = (torch.tensor(column) for column in zip(*rows, strict=True))
            yield normalised(chosen.images), of, words, answers, pairs(chosen)


class Tells(nn.Module):
    """Which pairs of shape and colour are there, by the best cell of maps, and by the picture's vector."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        count = len(SHAPES) * len(COLOURS)
        self.of_maps, self.of_vector = nn.Conv2d(channels, count, 1), nn.Linear(width, count)

    def forward(self, features: Tensor, vector: Tensor, shown: Tensor) -> Tensor:
        """The mean cross-entropy of both."""
        logits = torch.stack([self.of_maps(features).amax((2, 3)), self.of_vector(vector)])
        return nn.functional.binary_cross_entropy_with_logits(logits, shown.expand_as(logits))


def train(net: nn.Module, data: Iterator[Batch], steps: int, told: Callable[[str], None] = print) -> nn.Module:
    """Train by AdamW on one thread; the trunk runs once for all questions of a picture.

    Where it is known what pictures show, the network learns that too (:class:`Tells`, which is thrown away afterwards):
    questions alone hardly teach it to see. The paper's networks learned to classify pictures first.
    """
    torch.set_num_threads(1)
    keep_statistics(net)
    first = next(data)
    found: Any = net
    with torch.no_grad():
        some = found.features(first[0][:2])
        tells = Tells(some.shape[1], found.seen(some).shape[1])
    known = [p for part in found.trunk.of_bundled() for p in part.parameters()]
    new = [p for p in [*net.parameters(), *tells.parameters()] if all(p is not other for other in known)]
    optimiser = torch.optim.AdamW([{"params": new}, {"params": known}], RATE, weight_decay=1e-2)
    rates = [RATE, TRUNK * RATE]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=WARM)
    began, means = time.perf_counter(), np.zeros(2)
    for step, (pictures, of, words, answers, shown) in enumerate(itertools.chain([first], data), 1):
        features = found.features(pictures)
        loss = nn.functional.cross_entropy(found.answer(features[of], words), answers)
        losses = [loss.item(), 0.0]
        if shown is not None:
            pairs_loss = tells(features, found.seen(features), shown)
            loss, losses[1] = loss + PAIRS * pairs_loss, pairs_loss.item()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 5)
        optimiser.step()
        schedule.step()
        means += (np.array(losses) - means) / min(step, 100)
        if step % 100 == 0 or step == steps:
            seconds = time.perf_counter() - began
            told(f"step {step} of {steps}, {seconds:.0f} s: answers {means[0]:.3f}, pairs {means[1]:.3f}")
    return net.eval()
