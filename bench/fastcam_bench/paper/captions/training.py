"""Scenes with captions, and training the captioner on them, in parts that go on where the last one stopped."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fastcam.evaluation.scenes import CLASSES, COLORS, Object, scene, scene_seeds
from fastcam_bench.paper.captions import grammar
from fastcam_bench.paper.captions.grammar import END, LONGEST, PAD, START, Thing
from fastcam_bench.paper.captions.network import EMBEDDED, SIZE, SQUEEZED, Captioner
from fastcam_bench.paper.trunk import keep_statistics, normalised, start_from_bundled

TRAIN_SEED, TEST_SEED = 31, 32
OBJECTS = (1, 2, 2)
BATCH, CAPTIONS, RATE, WARM, CHUNK, KEPT = 32, 4, 3e-3, 40, 250, 50
TRUNK = 0.5
"""Learning rate of the trunk, as a share of that of what is new."""


@dataclass(frozen=True, eq=False)
class Scenes:
    """Pictures uint8 [n, 96, 96, 3] and what is in them."""

    images: npt.NDArray[np.uint8]
    objects: tuple[tuple[Object, ...], ...]

    def __len__(self) -> int:
        return len(self.images)

    def things(self, i: int) -> list[Thing]:
        """What a caption may say of a picture."""
        return [Thing.of(item, SIZE) for item in self.objects[i]]


def draw(n: int, seed: int, cache: Path | None = None) -> Scenes:
    """Scenes of one or two objects; those that ``cache`` holds from an earlier call are not drawn again."""
    seeds, images, objects = scene_seeds(n, seed), [], []
    for first in range(0, n, CHUNK):
        file = None if cache is None else cache / f"scenes-{seed}-{first}-{min(first + CHUNK, n)}.pickle"
        if file is not None and file.is_file():
            part = pickle.loads(file.read_bytes())
        else:
            found = [scene(seeds[i], SIZE, OBJECTS[i % len(OBJECTS)]) for i in range(first, min(first + CHUNK, n))]
            part = np.stack([one.image for one in found]), [one.objects for one in found]
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(pickle.dumps(part))
        images.append(part[0])
        objects += part[1]
    return Scenes(np.concatenate(images), tuple(objects))


def padded(texts: Sequence[str]) -> Tensor:
    """int64 [n, LONGEST + 1]: start, the words, the end, padding."""
    rows = np.full((len(texts), LONGEST + 1), PAD, np.int64)
    for row, text in zip(rows, texts, strict=True):
        said = [START, *grammar.tokens(text), END]
        row[: len(said)] = said
    return torch.from_numpy(rows)


def pairs(data: Scenes, picked: npt.NDArray[np.int64]) -> Tensor:
    """Which pairs of class and colour pictures show: float32 [n, classes * colours] of 0 and 1."""
    shown = np.zeros((len(picked), len(CLASSES), len(COLORS)), np.float32)
    for row, i in zip(shown, picked, strict=True):
        for item in data.objects[i]:
            row[item.class_index, COLORS.index(item.color)] = 1
    return torch.from_numpy(shown.reshape(len(picked), -1))


def batch(data: Scenes, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, mirrored and turned at random, captions of what each then shows, and the pairs that it shows."""
    picked = rng.integers(len(data), size=BATCH)
    across, down, swap = (bool(bit) for bit in rng.integers(2, size=3))
    images = data.images[picked]
    images = images.transpose(0, 2, 1, 3) if swap else images
    images = images[:, :: -1 if down else 1, :: -1 if across else 1]
    things = [[one.turned(across, down, swap) for one in data.things(i)] for i in picked]
    texts = [grammar.draw(each, rng) for each in things for _ in range(CAPTIONS)]
    return normalised(images), padded(texts), pairs(data, picked)


class Tells(nn.Module):
    """The second task: which pairs of class and colour are there, by the best cell of maps, and by the vector."""

    def __init__(self) -> None:
        super().__init__()
        count = len(CLASSES) * len(COLORS)
        self.of_cells, self.of_vector = nn.Conv2d(SQUEEZED, count, 1), nn.Linear(EMBEDDED, count)
        for part in (self.of_cells, self.of_vector):
            nn.init.constant_(part.bias, -4.0)  # type: ignore[arg-type]

    def forward(self, cells: Tensor, vector: Tensor, shown: Tensor) -> Tensor:
        """The cross-entropy of both, summed over the pairs."""
        logits = torch.stack([self.of_cells(cells).amax((2, 3)), self.of_vector(vector)])
        both = shown.expand_as(logits)
        return nn.functional.binary_cross_entropy_with_logits(logits, both, reduction="sum") / len(cells)


def train(
    data: Scenes,
    steps: int,
    say: Callable[[str], None] = print,
    seed: int = 0,
    kept: Path | None = None,
    seconds: float = math.inf,
) -> tuple[Captioner, bool]:
    """AdamW on the words' cross-entropy, and on what pictures show; the learning rate falls to zero over the steps.

    The trunk begins as the bundled network, which tells classes whatever their colour. That it learns colours, and
    which belongs to what, takes a second task: which pairs of class and colour a picture shows, by the best cell of a
    map for each pair. The maps are thrown away afterwards. (The paper's networks learned to classify pictures first.)

    Args:
        kept: a file that holds the training so far; it goes on there, and stops after ``seconds``.

    Returns:
        The network, and whether all steps are done.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    net = Captioner()
    trunk = net.encoder.trunk
    start_from_bundled(trunk)
    keep_statistics(net.train())
    tells = Tells()
    new = [trunk.last, net.encoder.project, net.decoder, tells]
    groups = [{"params": [p for part in parts for p in part.parameters()]} for parts in (new, trunk.of_bundled())]
    optimiser = torch.optim.AdamW(groups, RATE, weight_decay=1e-2)
    everything = [p for group in groups for p in group["params"]]
    first, begun, losses = 0, time.perf_counter(), []
    if kept is not None and kept.is_file():
        state = torch.load(kept)
        net.load_state_dict(state["net"])
        tells.load_state_dict(state["tells"])
        optimiser.load_state_dict(state["optimiser"])
        first, losses = state["step"], state["losses"]
    for step in range(first, steps):
        rate = RATE * min(1, (step + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group, share in zip(optimiser.param_groups, (1, TRUNK), strict=True):
            group["lr"] = rate * share
        images, ids, shown = batch(data, np.random.default_rng([seed, step]))
        cells = trunk(images)
        logits = net.decoder(net.encoder.vector(cells).repeat_interleave(CAPTIONS, 0), ids[:, :-1])
        words = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD)
        told = tells(cells, net.encoder.vector(cells), shown)
        optimiser.zero_grad()
        (words + told).backward()
        nn.utils.clip_grad_norm_(everything, 5.0)
        optimiser.step()
        losses.append((float(words.detach()), float(told.detach())))
        done, late = step + 1, time.perf_counter() - begun > seconds
        if done % KEPT == 0 or late or done == steps:
            mean = np.mean(losses[-KEPT:], axis=0)
            say(f"step {done}: words {mean[0]:.3f}, pairs {mean[1]:.3f}, {time.perf_counter() - begun:.0f} s")
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                parts = {"net": net.state_dict(), "tells": tells.state_dict(), "optimiser": optimiser.state_dict()}
                torch.save(parts | {"step": done, "losses": losses}, kept)
        if late and done < steps:
            return net.eval(), False
    return net.eval(), True
