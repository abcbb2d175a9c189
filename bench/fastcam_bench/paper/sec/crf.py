"""A dense conditional random field by mean field, with exact sums over all pairs of a small picture's positions.

Source: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011:
an appearance kernel of place and colour, a smoothness kernel of place, the Potts model. Kernels are normalised
symmetrically, as in the authors' code; a position sends no message to itself, as in their paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST = 1e-6
_NOTHING = 1e-12  # of the normalised kernel: less is 0, as denormal numbers are slow and change nothing


@dataclass(frozen=True)
class Field:
    """The parameters.

    Attributes:
        appearance, smoothness: weights of the two kernels.
        near, color: standard deviations of the appearance kernel, in positions and in grey values of 0..255.
        smooth: standard deviation of the smoothness kernel, in positions.
    """

    appearance: float = 10.0
    smoothness: float = 3.0
    near: float = 4.0
    color: float = 13.0
    smooth: float = 1.0


def kernel(images: Tensor, field: Field | None = None) -> Tensor:
    """The weighted sum of both normalised kernels, float32 [N, h w, h w], of pictures [N, h, w, 3] of 0..255."""
    field, (height, width) = field or Field(), images.shape[1:3]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([rows, columns], -1).reshape(1, -1, 2).float()
    look = torch.cat([place.expand(len(images), -1, -1) / field.near, images.flatten(1, 2).float() / field.color], -1)
    return _kernel(look).mul_(field.appearance).add_(field.smoothness * _kernel(place / field.smooth))


def _kernel(features: Tensor) -> Tensor:
    """exp(-|f_i - f_j|^2 / 2), 0 on the diagonal, divided by the square roots of its row's and column's sums."""
    half = features.square().sum(-1) / 2
    made = torch.baddbmm(-half[:, :, None] - half[:, None, :], features, features.transpose(1, 2)).clamp_max_(0).exp_()
    made.diagonal(dim1=1, dim2=2).zero_()
    root = made.sum(-1).clamp_min(1e-20).rsqrt()
    made.mul_(root[:, :, None]).mul_(root[:, None, :])
    return made.masked_fill_(made < _NOTHING, 0.0)


@torch.no_grad()
def marginals(probabilities: Tensor, pairs: Sequence[Tensor] | Tensor, steps: int = 5) -> Tensor:
    """What mean field makes of probabilities [N, C, h, w] and a :func:`kernel` of each picture: [N, C, h, w].

    One picture after the other, so that its kernel stays in the processor's cache for all steps.
    """
    unary = probabilities.flatten(2).clamp_min(_LEAST).log()
    found = probabilities.flatten(2).clone()
    for i, each in enumerate(pairs):
        for _ in range(steps):
            found[i] = (unary[i] + found[i] @ each).softmax(0)
    return found.reshape(probabilities.shape)
