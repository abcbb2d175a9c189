"""Kim's network: windows of several widths over word vectors, the largest value of each filter, one matrix.

Source: Kim, "Convolutional neural networks for sentence classification", EMNLP 2014; vectors are learnt (CNN-rand).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

VECTOR, FILTERS, WIDTHS = 100, 64, (1, 3, 5)
"""Numbers of a word's vector, filters of each width, and widths in words: odd ones, whose middle is a word."""
SPREAD = 0.25
"""The largest number of a vector before training, as Kim's."""


class TextCnn(nn.Module):
    """Ids [N, L] of words to logits [N, 2]. Word 0 fills up; its vector is 0."""

    def __init__(self, words: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding(words, VECTOR, padding_idx=0)
        self.windows = nn.ModuleList(nn.Conv1d(VECTOR, FILTERS, width, padding=width // 2) for width in WIDTHS)
        nn.init.uniform_(self.words.weight[1:], -SPREAD, SPREAD)
        self.thinned, self.dropout = nn.Dropout(0.3), nn.Dropout(0.5)
        self.head = nn.Linear(FILTERS * len(WIDTHS), 2)

    def maps(self, ids: Tensor) -> Tensor:
        """What each filter finds at each word, [N, filters, L]; all widths meet in one map."""
        vectors = self.thinned(self.words(ids)).transpose(1, 2)
        return torch.relu(torch.cat([window(vectors) for window in self.windows], 1))

    def classify(self, maps: Tensor) -> Tensor:
        """Logits [N, 2] of maps."""
        logits: Tensor = self.head(self.dropout(maps.amax(2)))
        return logits

    def forward(self, ids: Tensor) -> Tensor:
        return self.classify(self.maps(ids))
