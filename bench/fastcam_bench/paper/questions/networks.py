"""Two networks that answer questions about pictures, in PyTorch: picture and numbers of words -> logits of answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastcam_bench.paper.questions.pictures import SIZE
from fastcam_bench.paper.trunk import Trunk


class LstmProduct(nn.Module):
    """A CNN and an LSTM, joined by a product of each element.

    The picture [N, 3, 64, 64] becomes a map of 8 x 8; a matrix makes a vector of its maxima, which say what is there,
    and of its means in 4 x 4 parts, which say where. The words [N, L] become a vector by the last state of an LSTM. The
    product of both goes through two more matrices.

    Source: Lu et al., "Deeper LSTM and normalized CNN Visual Question Answering model", 2015, as in Grad-CAM's paper.
    """

    def __init__(self, words: int, answers: int, channels: int = 48, joint: int = 256, state: int = 96) -> None:
        super().__init__()
        self.trunk = Trunk(SIZE, channels)
        self.words = nn.Embedding(words, 24)
        self.lstm = nn.LSTM(24, state, batch_first=True)
        self.pool = nn.AvgPool2d(2)
        self.of_picture = nn.Linear(channels * 17, joint)
        self.of_question = nn.Linear(state, joint)
        self.joint, self.head = nn.Linear(joint, joint), nn.Linear(joint, answers)

    def features(self, picture: Tensor) -> Tensor:
        """The trunk's map [N, C, 8, 8]."""
        return self.trunk(picture)  # type: ignore[no-any-return]

    def seen(self, features: Tensor) -> Tensor:
        """The picture's vector [N, joint], of the trunk's maps."""
        what, where = features.amax((2, 3)), self.pool(features).flatten(1)
        return self.of_picture(torch.cat([what, where], 1))  # type: ignore[no-any-return]

    def answer(self, features: Tensor, question: Tensor) -> Tensor:
        """Logits [N, answers] of the trunk's maps and words [N, L]."""
        asked = torch.tanh(self.of_question(self.lstm(self.words(question))[0][:, -1]))
        return self.head(torch.relu(self.joint(self.seen(features) * asked)))  # type: ignore[no-any-return]

    def forward(self, picture: Tensor, question: Tensor) -> Tensor:
        return self.answer(self.features(picture), question)


class CoAttention(nn.Module):
    """Question [N, L, D] and picture [N, P, D] attend to each other, "in parallel".

    Source: Lu et al., "Hierarchical Question-Image Co-Attention for Visual Question Answering", 2016, equations 3 to 5.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.affinity = nn.Linear(width, width, bias=False)
        self.of_picture, self.of_question = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.at_picture, self.at_question = (nn.Linear(hidden, 1, bias=False) for _ in range(2))

    def forward(self, picture: Tensor, question: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attended picture and question [N, D], and the attention at each position of the picture [N, P].

        Args:
            real: 0 for words, and a large negative number for padding, [N, L].
        """
        together = torch.tanh(torch.bmm(self.affinity(question), picture.transpose(1, 2)))  # [N, L, P]
        seen, asked = self.of_picture(picture), self.of_question(question)
        at_picture = self.at_picture(torch.tanh(seen + torch.bmm(together.transpose(1, 2), asked)))[..., 0]
        at_question = self.at_question(torch.tanh(asked + torch.bmm(together, seen)))[..., 0]
        positions, words = torch.softmax(at_picture, 1), torch.softmax(at_question + real, 1)
        return (positions[:, None] @ picture)[:, 0], (words[:, None] @ question)[:, 0], positions


class HierarchicalCoAttention(nn.Module):
    """A residual network, and a question read as words, phrases and a whole, each of which attends to the picture.

    Phrases are the maximum of convolutions over one, two and three words; the whole is an LSTM's states over phrases.
    The trunk is a residual network: its stages have maps of 32 x 32, 16 x 16, and three times 8 x 8.

    Source: Lu et al. 2016, see :class:`CoAttention`, on a ResNet as in Grad-CAM's paper, section 8.2.
    """

    def __init__(self, words: int, answers: int, width: int = 64, hidden: int = 64) -> None:
        super().__init__()
        self.trunk = Trunk(SIZE, width)
        self.words = nn.Embedding(words, width)
        self.phrases = nn.ModuleList(nn.Conv1d(width, width, n) for n in (1, 2, 3))
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.attend = nn.ModuleList(CoAttention(width, hidden) for _ in range(3))
        self.of_words, self.of_phrases = nn.Linear(width, hidden), nn.Linear(width + hidden, hidden)
        self.of_whole, self.head = nn.Linear(width + hidden, 2 * hidden), nn.Linear(2 * hidden, answers)

    def seen(self, features: Tensor) -> Tensor:
        """The picture's vector [N, D], of the trunk's maps: their mean. Answers do not use it."""
        return features.mean((2, 3))

    def features(self, picture: Tensor) -> Tensor:
        """The trunk's map [N, D, 8, 8]."""
        return self.trunk(picture)  # type: ignore[no-any-return]

    def levels(self, question: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Words, phrases and the whole [N, L, D] of words [N, L]."""
        words = self.words(question)
        rows = words.transpose(1, 2)
        pads: tuple[Any, ...] = ((0, 0), (0, 1), (1, 1))
        each = [one(nn.functional.pad(rows, pad)) for one, pad in zip(self.phrases, pads, strict=True)]
        phrases = torch.tanh(torch.maximum(torch.maximum(each[0], each[1]), each[2])).transpose(1, 2)
        return words, phrases, self.lstm(phrases)[0]

    def attended(self, features: Tensor, question: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, answers], and the attention of words, phrases and whole at each position [N, 3, 64]."""
        picture = features.flatten(2).transpose(1, 2)
        real = -1e4 * (question == 0).to(picture.dtype)
        levels = self.levels(question)
        found = [one(picture, level, real) for one, level in zip(self.attend, levels, strict=True)]
        by_words, by_phrases, by_whole = (seen + asked for seen, asked, _ in found)
        joint = torch.tanh(self.of_words(by_words))
        joint = torch.tanh(self.of_phrases(torch.cat([by_phrases, joint], 1)))
        joint = torch.tanh(self.of_whole(torch.cat([by_whole, joint], 1)))
        return self.head(joint), torch.stack([positions for _, _, positions in found], 1)

    def answer(self, features: Tensor, question: Tensor) -> Tensor:
        """Logits [N, answers] of the trunk's maps and words [N, L]."""
        return self.attended(features, question)[0]

    def forward(self, picture: Tensor, question: Tensor) -> Tensor:
        return self.answer(self.features(picture), question)
