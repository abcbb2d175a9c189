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

from fastcam.evaluation.scenes import Object, scene, scene_seeds
from fastcam.schema import PRESETS
from fastcam_bench.paper.captions import grammar
from fastcam_bench.paper.captions.grammar import END, LONGEST, PAD, START, Thing
from fastcam_bench.paper.captions.network import SIZE, Captioner, start_from_bundled

TRAIN_SEED, TEST_SEED = 31, 32
OBJECTS = (1, 2, 2)
BATCH, RATE, WARM, CHUNK, KEPT = 64, 4e-3, 40, 250, 50


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


def normalised(images: npt.NDArray[np.uint8]) -> Tensor:
    """The preset "imagenet": float32 [n, 3, 96, 96]."""
    mean, std = (np.asarray(PRESETS["imagenet"][key], np.float32) for key in ("mean", "std"))
    return torch.from_numpy(np.ascontiguousarray(((images / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)))


def padded(texts: Sequence[str]) -> Tensor:
    """int64 [n, LONGEST + 1]: start, the words, the end, padding."""
    rows = np.full((len(texts), LONGEST + 1), PAD, np.int64)
    for row, text in zip(rows, texts, strict=True):
        said = [START, *grammar.tokens(text), END]
        row[: len(said)] = said
    return torch.from_numpy(rows)


@torch.no_grad()
def seen(net: Captioner, images: npt.NDArray[np.uint8]) -> Tensor:
    """What the trunk makes of pictures, float16 [n, 163, 12, 12]: it is the same in each step, so it runs once."""
    parts = [net.encoder.seen(normalised(images[i : i + 50])).half() for i in range(0, len(images), 50)]
    return torch.cat(parts)


def batch(data: Scenes, known: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Maps of the trunk, half of them mirrored and turned at random, and a caption of what each then shows."""
    picked = rng.integers(len(data), size=BATCH)
    across, down, swap = (bool(bit) for bit in rng.integers(2, size=3) * rng.integers(2))
    maps = known[picked].float()
    maps = maps.transpose(2, 3) if swap else maps
    maps = maps.flip([axis for axis, turn in ((2, down), (3, across)) if turn])
    texts = [grammar.draw([one.turned(across, down, swap) for one in data.things(i)], rng) for i in picked]
    return maps, padded(texts)


def train(
    data: Scenes,
    steps: int,
    say: Callable[[str], None] = print,
    seed: int = 0,
    kept: Path | None = None,
    seconds: float = math.inf,
) -> tuple[Captioner, bool]:
    """AdamW on the words' cross-entropy, behind the trunk; the learning rate falls to zero over the steps.

    Args:
        kept: a file that holds the training so far; it goes on there, and stops after ``seconds``.

    Returns:
        The network, and whether all steps are done.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    net = Captioner()
    start_from_bundled(net)
    net.encoder.requires_grad_(False).eval()
    maps = seen(net, data.images)
    learned = [net.encoder.squeeze, net.encoder.project, net.decoder]
    parameters = [p for part in learned for p in part.requires_grad_().parameters()]
    optimiser = torch.optim.AdamW(parameters, RATE, weight_decay=1e-2)
    first, begun, losses = 0, time.perf_counter(), []
    if kept is not None and kept.is_file():
        state = torch.load(kept)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        first, losses = state["step"], state["losses"]
    for step in range(first, steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * step / steps))
        given, ids = batch(data, maps, np.random.default_rng([seed, step]))
        logits = net.decoder(net.encoder.vector(given), ids[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        done, late = step + 1, time.perf_counter() - begun > seconds
        if done % KEPT == 0 or late or done == steps:
            say(f"step {done}: loss {np.mean(losses[-KEPT:]):.3f}, {time.perf_counter() - begun:.0f} s")
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                state = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": done, "losses": losses}
                torch.save(state, kept)
        if late and done < steps:
            return net.eval(), False
    return net.eval(), True
