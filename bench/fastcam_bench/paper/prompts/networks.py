"""The dual encoder: a CNN and a bag of words, whose cosine says how well a prompt fits a picture, as CLIP's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastcam_bench.paper.prompts.grammar import VOCABULARY

WIDTH = 64
"""Numbers of an embedding."""
SCALE, BIAS = 10.0, -6.0
"""Where scale and bias of the logits begin, as SigLIP trains them."""


class PictureEncoder(nn.Module):
    """Pictures [N, 3, 64, 64] to embeddings [N, 64]: five convolutions, a mean over positions, one matrix."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 24, 2), (24, 48, 2), (48, 64, 1), (64, 96, 2), (96, 96, 1))
        layers = [[nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU()] for a, b, stride in sizes]
        self.trunk = nn.Sequential(*(layer for stage in layers for layer in stage))
        self.head = nn.Linear(96, WIDTH)

    def forward(self, image: Tensor) -> Tensor:
        pooled: Tensor = self.trunk(image).mean((2, 3))
        embedding: Tensor = self.head(pooled)
        return embedding


class TextEncoder(nn.Module):
    """Ids [T, L] of words to embeddings [T, 64]: the mean of the words' vectors, two matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY), 96)
        self.head = nn.Sequential(nn.Linear(96, 128), nn.ReLU(), nn.Linear(128, WIDTH))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        kept = attention_mask[..., None].float()
        mean = (self.words(input_ids) * kept).sum(1) / kept.sum(1)
        embedding: Tensor = self.head(mean)
        return embedding


class DualEncoder(nn.Module):
    """Both, with the scale and bias of their cosine."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.picture, self.text = PictureEncoder(), TextEncoder()
        self.scale, self.bias = nn.Parameter(torch.tensor(SCALE)), nn.Parameter(torch.tensor(BIAS))

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [N, T]."""
        pictures = nn.functional.normalize(self.picture(image), dim=-1)
        texts = nn.functional.normalize(self.text(input_ids, attention_mask), dim=-1)
        logits: Tensor = self.scale * pictures @ texts.T + self.bias
        return logits
