"""The trained networks, which are kept for the next call, and the same with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastcam_bench.paper.questions.grammar import ANSWERS, WORDS
from fastcam_bench.paper.questions.networks import HierarchicalCoAttention, LstmProduct
from fastcam_bench.paper.questions.pictures import draw
from fastcam_bench.paper.questions.training import BATCH, batches, train
from fastcam_bench.paper.trunk import start_from_bundled
from fastcam_bench.paths import CACHE

NETWORKS: dict[str, type[nn.Module]] = {"lstm": LstmProduct, "co-attention": HierarchicalCoAttention}
EPOCHS = {"lstm": 11, "co-attention": 9}
TRAINED, TRAINED_SEED = 10000, 41


def random(name: str) -> Any:
    """A network as it is before training."""
    torch.manual_seed(0)
    made: Any = NETWORKS[name]
    return made(len(WORDS), len(ANSWERS)).eval()


def trained(name: str, count: int = TRAINED, epochs: int | None = None) -> Any:
    """A network trained on ``count`` scenes; read from a file where it was trained before."""
    epochs = EPOCHS[name] if epochs is None else epochs
    file = CACHE / f"questions-{name}-{count}-{epochs}.pt"
    net = random(name)
    if not file.is_file():
        pictures = draw(count, TRAINED_SEED)
        start_from_bundled(net.trunk)
        train(net.train(), batches(pictures, epochs, 0), epochs * (count // BATCH))
        torch.save(net.state_dict(), file)
    net.load_state_dict(torch.load(file))
    return net.eval()
