"""A captioner without attention: the form of NeuralTalk2, the captioner that the Grad-CAM paper explains.

A CNN (:mod:`fastcam_bench.paper.trunk`) makes one vector of a picture. That is the first input of an LSTM, the words
follow. Nothing tells the LSTM where to look: maps of its words are Grad-CAM's alone.

Sources: Vinyals et al., "Show and Tell", CVPR 2015; Karpathy, NeuralTalk2, 2015.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn

from fastcam_bench.paper.captions.grammar import VOCABULARY
from fastcam_bench.paper.trunk import CELL, Trunk

SIZE = 96
EMBEDDED, HIDDEN, SQUEEZED, POOLED = 64, 128, 40, 4
OPSET = 17


class Encoder(nn.Module):
    """Pictures [N, 3, 96, 96], normalised, to vectors [N, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk(SIZE, SQUEEZED)
        self.pool = nn.AvgPool2d(SIZE // CELL // POOLED)
        self.project = nn.Linear(SQUEEZED * (1 + POOLED**2), EMBEDDED)

    def vector(self, cells: Tensor) -> Tensor:
        """The vector of each picture: of the trunk's maxima, which say what is there, and of means, which say where."""
        found: Tensor = self.project(torch.cat([cells.amax((2, 3)), self.pool(cells).flatten(1)], 1))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """The vector of each picture."""
        return self.vector(self.trunk(x))


class Decoder(nn.Module):
    """The LSTM: the picture's vector is its first input, then the words so far."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(VOCABULARY), EMBEDDED)
        self.lstm = nn.LSTM(EMBEDDED, HIDDEN, batch_first=True)
        self.score = nn.Linear(HIDDEN, len(VOCABULARY))

    def forward(self, features: Tensor, ids: Tensor) -> Tensor:
        """Scores of the next word behind each word so far: logits [N, L, V] of features [N, 64], ids int64 [N, L]."""
        x = torch.cat([features[:, None], self.embed(ids)], 1)
        found: Tensor = self.score(self.lstm(x)[0][:, 1:])
        return found


class Captioner(nn.Module):
    """Encoder and decoder in one: pictures and the words so far to scores of the next ones."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        """Logits [N, L, V]."""
        found: Tensor = self.decoder(self.encoder(image), ids)
        return found


class WithState(nn.Module):
    """The encoder as two files want it: the LSTM's state behind the picture's vector."""

    def __init__(self, net: Captioner) -> None:
        super().__init__()
        self.encoder, self.lstm = net.encoder, net.decoder.lstm

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """h and c, [1, N, 128] each."""
        _, (h, c) = self.lstm(self.encoder(image)[:, None])
        return h.transpose(0, 1), c.transpose(0, 1)


class Step(nn.Module):
    """The decoder one word at a time."""

    def __init__(self, net: Captioner) -> None:
        super().__init__()
        self.decoder = net.decoder

    def forward(self, token: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [N, V] of the next word and the state, [N, 1, 128] each; of a token [N, 1] and the one before."""
        state = h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous()
        y, (h, c) = self.decoder.lstm(self.decoder.embed(token), state)
        return self.decoder.score(y[:, 0]), h.transpose(0, 1), c.transpose(0, 1)


def one_file(net: Captioner) -> bytes:
    """Inputs ``image`` [N, 3, 96, 96] and ``ids`` int64 [N, L], output ``logits`` [N, L, V]."""
    example = torch.zeros(2, 3, SIZE, SIZE), torch.ones(2, 5, dtype=torch.int64)
    free = {"image": {0: "N"}, "ids": {0: "N", 1: "L"}, "logits": {0: "N", 1: "L"}}
    return _exported(net, example, ["image", "ids"], ["logits"], free)


def features_files(net: Captioner) -> tuple[bytes, bytes]:
    """Encoder and decoder: ``image`` to ``features`` [N, 64]; these and ``ids`` [N, L] to ``logits`` [N, L, V]."""
    free = {"image": {0: "N"}, "features": {0: "N"}}
    encoder = _exported(net.encoder, (torch.zeros(2, 3, SIZE, SIZE),), ["image"], ["features"], free)
    example = torch.zeros(2, EMBEDDED), torch.ones(2, 5, dtype=torch.int64)
    free = {"features": {0: "N"}, "ids": {0: "N", 1: "L"}, "logits": {0: "N", 1: "L"}}
    return encoder, _exported(net.decoder, example, ["features", "ids"], ["logits"], free)


def step_files(net: Captioner) -> tuple[bytes, bytes]:
    """Encoder and decoder: ``image`` to the state ``h``, ``c``; that and a ``token`` to ``logits`` and the next one."""
    free: dict[str, Any] = {"image": {0: "N"}, "h": {0: "N"}, "c": {0: "N"}}
    encoder = _exported(WithState(net), (torch.zeros(2, 3, SIZE, SIZE),), ["image"], ["h", "c"], free)
    example = torch.ones(2, 1, dtype=torch.int64), torch.zeros(2, 1, HIDDEN), torch.zeros(2, 1, HIDDEN)
    given, made = ["token", "h", "c"], ["logits", "h_out", "c_out"]
    free = {name: {0: "N"} for name in (*given, *made)}
    return encoder, _exported(Step(net), example, given, made, free)


def _exported(net: nn.Module, example: Any, given: list[str], made: list[str], free: Any) -> bytes:
    file = io.BytesIO()
    named: dict[str, Any] = {"input_names": given, "output_names": made, "dynamic_axes": free}
    torch.onnx.export(net.eval(), example, file, dynamo=False, opset_version=OPSET, **named)  # type: ignore[arg-type]
    return file.getvalue()
