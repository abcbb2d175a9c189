"""A small vision transformer for the gallery's pictures of methods that need one.

Its patches are cut from the maps of the bundled model's third stage, whose weights stay as they are. Three layers of
attention, a class token and a head are trained on generated scenes, by labels alone. Some minutes on two cores; needs
torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import compose, utils
from torch import nn
from torch.nn import functional as F

from fastcam.evaluation.scenes import CLASSES
from fastcam_bench.models.train_bundled import TRAIN_SIZES, dataset, normalise

STAGE, CHANNELS, SIDE, PATCH = "stage3/relu2", 64, 16, 2
WIDTH, LAYERS, HEADS = 64, 3, 4
SCENES, EPOCHS, BATCH, RATE = 4000, 12, 64, 1e-3
SEED = 11


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.project, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, _ = x.shape
        q, k, v = self.project(self.norm1(x)).reshape(n, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(n, length, WIDTH))
        moved: torch.Tensor = x + self.mlp(self.norm2(x))
        return moved


class Transformer(nn.Module):
    """Maps [N, 64, 16, 16] -> probabilities [N, classes]: tokens, a class token in front, attention, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(CHANNELS, WIDTH, PATCH, stride=PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position = nn.Parameter(torch.randn(1, (SIDE // PATCH) ** 2 + 1, WIDTH) / 8)
        self.layers, self.norm = nn.Sequential(*(Block() for _ in range(LAYERS))), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(CLASSES))

    def logits(self, maps: torch.Tensor) -> torch.Tensor:
        x = self.patches(maps).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        scores: torch.Tensor = self.head(self.norm(self.layers(x))[:, 0])
        return scores

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.logits(maps).sigmoid()


def trained(stage: Path, scenes: int = SCENES, epochs: int = EPOCHS) -> Transformer:
    """The transformer, trained on the maps that the file ``stage`` makes of generated scenes."""
    import onnxruntime

    torch.manual_seed(SEED)
    images, present = dataset(scenes, SEED, TRAIN_SIZES, 1)
    session = onnxruntime.InferenceSession(str(stage))
    parts = [session.run(None, {"image": normalise(images[i : i + BATCH])})[0] for i in range(0, scenes, BATCH)]
    maps, truth = torch.from_numpy(np.concatenate(parts)), torch.from_numpy(present.astype(np.float32))
    model = Transformer().train()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    steps = epochs * -(-scenes // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.split(torch.randperm(scenes), BATCH):
            loss: Any = F.binary_cross_entropy_with_logits(model.logits(maps[rows]), truth[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"transformer: epoch {epoch + 1} of {epochs}, loss {total / scenes:.4f}", flush=True)
    return model.eval()


def write(bundled: Path, folder: Path, **how: Any) -> Path:
    """The bundled model's stages and the trained transformer as one file in ``folder``."""
    stage = folder / "stage.onnx"
    utils.extract_model(str(bundled), str(stage), ["image"], [STAGE])
    example = (torch.zeros(2, CHANNELS, SIDE, SIDE),)
    program: Any = torch.onnx.export(
        trained(stage, **how),
        example,
        input_names=["maps"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("N")},),
        opset_version=18,
        dynamo=True,
    )
    first, second = onnx.load(stage), compose.add_prefix(program.model_proto, "transformer/")
    second.ir_version = first.ir_version
    merged = compose.merge_models(first, second, [(STAGE, "transformer/maps")])
    onnx.save(merged, folder / "transformer.onnx")
    return folder / "transformer.onnx"
