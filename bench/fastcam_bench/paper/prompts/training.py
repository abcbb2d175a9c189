"""Training the dual encoder on scenes and prompts, by SigLIP's loss, and its files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fastcam.evaluation.scenes import Scene, scenes
from fastcam.language.tokenizer import Tokenizer
from fastcam.language.word_level import word_level
from fastcam_bench.paper.prompts.grammar import LENGTH, VOCABULARY, attributes, prompt_of, true_of
from fastcam_bench.paper.prompts.networks import DualEncoder

SIZE, MOST = 64, 5
"""Pixels of a side, and objects of a scene at most."""
BATCH, RATE = 48, 3e-3
"""Pictures of a step, and the highest rate of learning."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Scenes in memory: uint8 [n, 64, 64, 3], and int64 [n, 5, 4] of their objects, see :func:`attributes`."""

    images: npt.NDArray[np.uint8]
    objects: npt.NDArray[np.int64]


def objects_of(scene: Scene) -> npt.NDArray[np.int64]:
    """int64 [5, 4], -2 where there are fewer."""
    rows = np.full((MOST, 4), -2, np.int64)
    for i, one in enumerate(scene.objects[:MOST]):
        rows[i] = attributes(one, SIZE)
    return rows


def draw(count: int, seed: int) -> Pictures:
    """Scenes of one to five objects."""
    found = list(scenes(count, seed, SIZE))
    return Pictures(np.stack([one.image for one in found]), np.stack(list(map(objects_of, found))))


def tokenizer() -> Tokenizer:
    """The words of the prompts."""
    return Tokenizer(word_level(VOCABULARY, length=LENGTH))


def prepared(images: npt.NDArray[np.uint8]) -> Tensor:
    """Pictures as the network takes them, in 0 to 1."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def train(data: Pictures, epochs: int, seconds: float) -> DualEncoder:
    """Train, for ``epochs`` or as long as ``seconds`` last; the schedule is that of all epochs."""
    torch.set_num_threads(1)
    net, words, rng = DualEncoder(), tokenizer(), np.random.default_rng(0)
    steps = len(data.images) // BATCH
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * steps)
    began = time.perf_counter()
    for epoch in range(epochs):
        losses = []
        for part in np.array_split(rng.permutation(len(data.images))[: steps * BATCH], steps):
            prompts = [prompt for i in part for prompt in _prompts(data.objects[i], rng)]
            encoded = words.encode([one.text for one in prompts], LENGTH)
            logits = net(prepared(data.images[part]), *map(torch.from_numpy, (encoded.ids, encoded.mask)))
            truth = true_of(np.array([one.row for one in prompts]), data.objects[part])
            signs = torch.from_numpy(np.where(truth, 1.0, -1.0).astype(np.float32))
            loss = -nn.functional.logsigmoid(signs * logits).sum() / len(part)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        spent = time.perf_counter() - began
        print(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.3f}, {spent:.0f} s", flush=True)
        if spent > seconds:
            break
    return net.eval()


def _prompts(objects: npt.NDArray[np.int64], rng: np.random.Generator) -> list[Any]:
    """A prompt of one of the objects, and the same of an object that has another value of one attribute."""
    there = objects[objects[:, 0] >= 0]
    row = there[rng.integers(len(there))]
    other, place = row.copy(), rng.integers(3)
    other[place] = rng.integers((10, 8, 5)[place])
    return [prompt_of(row, rng), prompt_of(other, rng)]


def write(net: DualEncoder, folder: Path) -> None:
    """``picture.onnx``, ``text.onnx`` and ``tokenizer.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    named: dict[str, Any] = {"dynamo": False, "opset_version": 17}
    torch.onnx.export(
        net.picture, (torch.zeros(1, 3, SIZE, SIZE),), str(folder / "picture.onnx"), input_names=["image"],
        output_names=["image_embeds"], dynamic_axes={"image": {0: "N"}, "image_embeds": {0: "N"}}, **named,
    )  # fmt: skip
    ids = torch.ones(1, LENGTH, dtype=torch.int64)
    names = ["input_ids", "attention_mask", "text_embeds"]
    torch.onnx.export(
        net.text, (ids, ids), str(folder / "text.onnx"), input_names=names[:2], output_names=names[2:],
        dynamic_axes={name: {0: "T"} for name in names}, **named,
    )  # fmt: skip
    (folder / "tokenizer.json").write_text(tokenizer().content, encoding="utf-8")
