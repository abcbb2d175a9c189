"""Training the text CNN, and its file with its tokenizer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fastcam.language.tokenizer import Tokenizer
from fastcam.language.word_level import word_level
from fastcam_bench.paper.texts.archive import CLASSES, Snippet
from fastcam_bench.paper.texts.network import TextCnn
from fastcam_export import export_model

SPECIAL = ("<pad>", "<unk>")
UNKNOWN = 1
LEAST, BATCH, RATE, EPOCHS = 2, 64, 3e-3, 5
"""How often a word must be there to be known, texts of a step, the largest step, and passes over all texts."""
UNSEEN = 0.05
"""The share of the words that a pass hides, so that the network learns what a hidden word means: nothing."""


def tokenizer_of(snippets: Sequence[Snippet]) -> Tokenizer:
    """The words that are in the texts more than once, in small letters, the most frequent first."""
    splitter = Tokenizer(word_level(SPECIAL))
    counts = Counter(piece for one in snippets for piece in map(str.lower, pieces_of(splitter, one.text)))
    known = sorted((word for word, count in counts.items() if count >= LEAST), key=lambda word: (-counts[word], word))
    return Tokenizer(word_level([*SPECIAL, *known]))


def pieces_of(splitter: Tokenizer, text: str) -> list[str]:
    """The words of a text as they stand in it."""
    return [text[first:past] for _, (first, past) in splitter.pieces(text)]


def train(snippets: Sequence[Snippet], tokenizer: Tokenizer, epochs: int = EPOCHS) -> TextCnn:
    """Train, from seed 0: texts of about one length go together, the shorter ones filled up at the end."""
    torch.set_num_threads(1)
    net, rng, began = TextCnn(tokenizer.size), np.random.default_rng(0), time.perf_counter()
    rows = [tokenizer.encode([one.text]).ids[0] for one in snippets]
    labels = np.array([one.label for one in snippets])
    steps = -(-len(rows) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * steps)
    net.train()
    for epoch in range(epochs):
        order = np.argsort([len(row) for row in rows] + rng.uniform(0, 4, len(rows)))
        losses = []
        for step in rng.permutation(steps):
            part = order[step * BATCH : (step + 1) * BATCH]
            ids = np.zeros((len(part), max(len(rows[k]) for k in part)), np.int64)
            for place, k in zip(ids, part, strict=True):
                place[: len(rows[k])] = rows[k]
            ids[(rng.random(ids.shape) < UNSEEN) & (ids > 0)] = UNKNOWN
            loss = nn.functional.cross_entropy(net(torch.from_numpy(ids)), torch.from_numpy(labels[part]))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        spent = time.perf_counter() - began
        print(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.3f}, {spent:.0f} s", flush=True)
    return net.eval()


def write(net: TextCnn, tokenizer: Tokenizer, folder: Path) -> Path:
    """``snippets.onnx`` with ``tokenizer.json``, exported as ``snippets.cam.onnx``, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.content, encoding="utf-8")
    torch.onnx.export(
        net, (torch.ones(1, 9, dtype=torch.int64),), str(folder / "snippets.onnx"), input_names=["ids"],
        output_names=["logits"], dynamic_axes={"ids": {0: "N", 1: "L"}, "logits": {0: "N"}}, dynamo=False,
        opset_version=17,
    )  # fmt: skip
    path = folder / "snippets.cam.onnx"
    export_model(
        folder / "snippets.onnx", path, tokenizer=folder / "tokenizer.json", labels=list(CLASSES), emit="gradients"
    )
    return path
