"""Training networks that answer questions, and how often they are right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fastcam_bench.paper.questions.grammar import KINDS, Question, ask, ids
from fastcam_bench.paper.questions.pictures import Pictures

BATCH, PER_PICTURE, RATE = 32, 10, 3e-3
Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Pictures [n, 3, 64, 64]; and of each question its picture, words [m, L] and answer."""


def as_input(images: npt.NDArray[np.uint8]) -> Tensor:
    """What the networks take, preset ``tf``: float32 [n, 3, H, W] in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1


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
            yield as_input(chosen.images), of, words, answers


def train(net: nn.Module, data: Iterator[Batch], steps: int, told: Callable[[str], None] = print) -> nn.Module:
    """Train by Adam on one thread; the trunk runs once for all questions of a picture."""
    torch.set_num_threads(1)
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    began, mean = time.perf_counter(), 0.0
    for step, (pictures, of, words, answers) in enumerate(data, 1):
        found: Any = net
        loss = nn.functional.cross_entropy(found.answer(found.features(pictures)[of], words), answers)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 5)
        optimiser.step()
        schedule.step()
        mean += (loss.item() - mean) / min(step, 100)
        if step % 100 == 0 or step == steps:
            told(f"step {step} of {steps}, {time.perf_counter() - began:.0f} s: loss {mean:.3f}")
    return net.eval()
