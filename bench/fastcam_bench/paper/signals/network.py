"""The fully convolutional network of signals, and its training.

Source: Wang, Yan and Oates, "Time series classification from scratch with deep neural networks: a strong baseline",
IJCNN 2017: three blocks of convolution, batch normalisation and ReLU, the mean over time, one matrix.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcam_bench.paper.signals.archive import Signals
from fastcam_export import export_model

BLOCKS = ((64, 7), (128, 5), (64, 3))
"""Filters of each block, half of the paper's, and samples that one sees: 7 in place of 8, whose middle is no sample."""
RATE, BATCH, EPOCHS = 1e-3, 16, 150


class Fcn(nn.Module):
    """Signals [N, 1, L] to logits [N, 2]."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        channels = 1
        for filters, width in BLOCKS:
            layers += [nn.Conv1d(channels, filters, width, padding=width // 2), nn.BatchNorm1d(filters), nn.ReLU()]
            channels = filters
        self.trunk, self.head = nn.Sequential(*layers), nn.Linear(channels, 2)

    def forward(self, signal: Tensor) -> Tensor:
        pooled: Tensor = self.trunk(signal).mean(2)
        logits: Tensor = self.head(pooled)
        return logits


def train(data: Signals, seed: int, epochs: int = EPOCHS) -> Fcn:
    """Train from a seed, by Adam, as the paper does."""
    torch.set_num_threads(1)
    net, rng, began = Fcn(seed), np.random.default_rng(seed), time.perf_counter()
    steps = -(-len(data.labels) // BATCH)
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * steps)
    for _ in range(epochs):
        for part in np.array_split(rng.permutation(len(data.labels)), steps):
            values, labels = torch.from_numpy(data.values[part]), torch.from_numpy(data.labels[part])
            loss = nn.functional.cross_entropy(net(values), labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    print(f"seed {seed}: loss {float(loss.detach()):.4f}, {time.perf_counter() - began:.0f} s", flush=True)
    return net.eval()


def random_weights(data: Signals, seed: int) -> Fcn:
    """The network before training; its normalisations know the mean and deviation of the training set."""
    net = Fcn(seed)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = None  # the mean of all batches, here of one
    with torch.no_grad():
        net(torch.from_numpy(data.values))
    return net.eval()


def exported(net: Fcn, length: int, labels: Sequence[str]) -> bytes:
    """The network as an exported file."""
    file = io.BytesIO()
    named: dict[str, Any] = {"input_names": ["signal"], "output_names": ["logits"]}
    named["dynamic_axes"] = {"signal": {0: "N"}, "logits": {0: "N"}}
    example = (torch.zeros(1, 1, length),)
    torch.onnx.export(net, example, file, dynamo=False, opset_version=17, **named)  # type: ignore[arg-type]
    made = export_model(file.getvalue(), labels=list(labels), emit="gradients")
    return bytes(made.model.SerializeToString())
