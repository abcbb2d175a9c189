"""A small vision transformer that keeps its attention matrices and tokens, for tests."""

import torch
from torch import nn
from torch.nn import functional as F

from fastcam_bench.oracles import torch_oracle

WIDTH, HEADS, GRID, CLASSES = 8, 2, 3, 5
SIZE = 4 * GRID


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). ``fused``: torch's attention, which exports as one operator."""

    def __init__(self, fused=False):
        super().__init__()
        self.fused = fused
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.project, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 12), nn.GELU(), nn.Linear(12, WIDTH))

    def forward(self, x):
        n, length, _ = x.shape
        q, k, v = self.project(self.norm1(x)).reshape(n, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            self.weights = (q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5).softmax(-1)
            mixed = self.weights @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(n, length, WIDTH))
        self.tokens = x + self.mlp(self.norm2(x))
        return self.tokens


class Vit(nn.Module):
    """``prefix`` tokens in front; its head reads the first ("class"), two ("two") or all positions ("mean")."""

    def __init__(self, prefix=1, pool="class", depth=3, fused=False):
        super().__init__()
        self.prefix, self.pool = prefix, pool
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.added = nn.Parameter(torch.randn(1, prefix, WIDTH))
        self.places = nn.Parameter(0.3 * torch.randn(1, prefix + GRID * GRID, WIDTH))
        self.blocks = nn.ModuleList(Block(fused) for _ in range(depth))
        self.norm, self.fc = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def head(self, x):
        """Class scores of tokens."""
        x = self.norm(x)
        if self.pool == "mean":
            return self.fc(x[:, self.prefix :].mean(1))
        return self.fc(x[:, 0]) if self.pool == "class" else self.fc(x[:, 0]) + self.fc(x[:, 1])

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.added.expand(tokens.shape[0], -1, -1), tokens], 1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def plain(module):
    """The same network, in float64, with attention written out."""
    twin = Vit(module.prefix, module.pool, len(module.blocks)).double().eval()
    twin.load_state_dict(module.state_dict())
    return twin


def build(seed=0, **options):
    """A network whose attention is not flat and whose norms are not the identity."""
    torch.manual_seed(seed)
    module = Vit(**options).eval()
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


def to_onnx(module):
    """Its ONNX file; a fused one in the opset that has the operator Attention."""
    if not any(block.fused for block in module.blocks):
        return torch_oracle.to_onnx(module, SIZE, dynamo=False)
    shapes = ({0: torch.export.Dim("N", min=1)},)
    image = torch.randn(2, 3, SIZE, SIZE)
    return torch.onnx.export(
        module, (image,), dynamo=True, dynamic_shapes=shapes, opset_version=23, verbose=False
    ).model_proto
