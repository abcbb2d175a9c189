"""A captioner without attention: the form of NeuralTalk2, the captioner that the Grad-CAM paper explains.

A CNN (the trunk of FastCAM's bundled network) makes one vector of a picture. That is the first input of an LSTM, the
words follow. Nothing tells the LSTM where to look: maps of its words are Grad-CAM's alone. The trunk keeps its weights.
It was trained to tell classes whatever their colour, so the layer behind it also sees an early stage and the picture
itself, made smaller: the words for colours and textures come from there.

Sources: Vinyals et al., "Show and Tell", CVPR 2015; Karpathy, NeuralTalk2, 2015.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fastcam
from fastcam_bench.models import bundled_net
from fastcam_bench.paper.captions.grammar import VOCABULARY

SIZE = 96
EMBEDDED, HIDDEN, SQUEEZED, POOLED = 64, 128, 40, 4
GRID = SIZE // 8
"""Cells of the explained layer's maps, a side."""
SEEN = bundled_net.STAGES[1][1] + bundled_net.STAGES[3][1] + 3
"""Channels that this layer sees: of the second stage, of the last, and of the picture."""
WEIGHTS = Path(fastcam.__file__).parent / "data" / "scenes.onnx"
OPSET = 17


class Block(nn.Module):
    """A stage of the bundled network: two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after, bundled_net.BN_EPSILON)
        self.conv2 = nn.Conv2d(after, after, kernel, 1, kernel // 2, bias=False)
        self.bn2 = nn.BatchNorm2d(after, bundled_net.BN_EPSILON)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)
        self.shortcut_bn = nn.BatchNorm2d(after, bundled_net.BN_EPSILON)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, after, h / stride, w / stride] of [N, before, h, w]."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        found: Tensor = self.relu2(y + self.shortcut_bn(self.shortcut(x)))
        return found


class Encoder(nn.Module):
    """Pictures [N, 3, 96, 96], normalised, to vectors [N, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, bundled_net.STEM, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(bundled_net.STEM, bundled_net.BN_EPSILON)
        self.relu = nn.ReLU()
        stages, before = [], bundled_net.STEM
        for _, channels, stride, kernel in bundled_net.STAGES:
            stages.append(Block(before, channels, stride, kernel))
            before = channels
        self.stages = nn.Sequential(*stages)
        self.small = nn.AvgPool2d(SIZE // GRID)
        self.squeeze = nn.Conv2d(SEEN, SQUEEZED, 1)
        self.pool = nn.AvgPool2d(GRID // POOLED)
        self.project = nn.Linear(SQUEEZED * POOLED**2, EMBEDDED)

    def seen(self, x: Tensor) -> Tensor:
        """What the trunk, which is not trained, makes of pictures: [N, 163, 12, 12]."""
        early = self.stages[1](self.stages[0](self.relu(self.bn(self.conv(x)))))
        late = self.stages[3](self.stages[2](early))
        return torch.cat([early, late, self.small(x)], 1)

    def vector(self, seen: Tensor) -> Tensor:
        """The vector of each picture, by what the trunk made of it."""
        found: Tensor = self.project(self.pool(torch.relu(self.squeeze(seen))).flatten(1))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """The vector of each picture."""
        return self.vector(self.seen(x))


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


def start_from_bundled(net: Captioner) -> None:
    """The trunk's weights are those of the bundled network, which tells classes of objects."""
    import onnx

    known = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(str(WEIGHTS)).graph.initializer}
    parts: list[tuple[nn.Module, str]] = [(net.encoder.conv, "stem/conv"), (net.encoder.bn, "stem/bn")]
    for stage, (name, *_) in zip(net.encoder.stages, bundled_net.STAGES, strict=True):
        for part in ("conv1", "bn1", "conv2", "bn2", "shortcut", "shortcut_bn"):
            parts.append((getattr(stage, part), f"{name}/{part}"))
    renamed = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    for module, name in parts:
        wanted = {"weight": "weight"} if isinstance(module, nn.Conv2d) else renamed
        values = {into: torch.tensor(known[f"{name}.{part}"]) for part, into in wanted.items()}
        module.load_state_dict(values, strict=False)


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
