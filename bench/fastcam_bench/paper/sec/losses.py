"""The three losses of "Seed, Expand and Constrain" (Kolesnikov and Lampert, ECCV 2016), section 3.

Probabilities are float [N, C, h, w], the softmax over C; class 0 is the background.
"""

from __future__ import annotations

import torch
from torch import Tensor

FOREGROUND_DECAY, BACKGROUND_DECAY = 0.996, 0.999
"""Of global weighted rank pooling, in the paper's grid of 41 x 41 positions."""
_PAPER_GRID = 41 * 41
_LEAST = 1e-6


def decay(of_paper: float, positions: int) -> float:
    """The decay that gives the same share of a grid of so many positions the same share of the weight."""
    return float(of_paper ** (_PAPER_GRID / positions))


def seeding(probabilities: Tensor, seeds: Tensor) -> Tensor:
    """Mean, over a picture's seeds, of minus the logarithm of the seed's class; mean over pictures.

    Args:
        probabilities: [N, C, h, w].
        seeds: int64 [N, h, w], a class or 255 where there is no cue. A picture without cues adds 0.
    """
    known = seeds != 255
    picked = probabilities.gather(1, seeds.where(known, torch.zeros_like(seeds))[:, None])[:, 0]
    lost = -picked.clamp_min(_LEAST).log() * known
    return (lost.sum((1, 2)) / known.sum((1, 2)).clamp_min(1)).mean()


def weighted_rank_pooling(values: Tensor, by: float) -> Tensor:
    """Mean of values [..., n], the k-th largest with the weight ``by ** (k - 1)``: 1 is the mean, 0 the maximum."""
    if by == 0:
        return values.amax(-1)
    weights = torch.as_tensor(by, dtype=values.dtype) ** torch.arange(values.shape[-1], dtype=values.dtype)
    return (values.sort(dim=-1, descending=True).values * weights).sum(-1) / weights.sum()


def expansion(probabilities: Tensor, present: Tensor) -> Tensor:
    """Classes that the picture shows are to fill some of it, the others none, the background much; mean over pictures.

    Args:
        probabilities: [N, C, h, w].
        present: bool [N, C - 1], which classes the picture shows, the background not among them.
    """
    rows = probabilities.flatten(2)
    own, absent, behind = (
        weighted_rank_pooling(part, by)
        for part, by in (
            (rows[:, 1:], decay(FOREGROUND_DECAY, rows.shape[2])),
            (rows[:, 1:], 0.0),
            (rows[:, 0], decay(BACKGROUND_DECAY, rows.shape[2])),
        )
    )
    shown = -(own.clamp_min(_LEAST).log() * present).sum(1) / present.sum(1).clamp_min(1)
    others = -((1 - absent).clamp_min(_LEAST).log() * ~present).sum(1) / (~present).sum(1).clamp_min(1)
    return (shown + others - behind.clamp_min(_LEAST).log()).mean()


def boundary(probabilities: Tensor, smooth: Tensor) -> Tensor:
    """Mean over positions and pictures of the Kullback-Leibler divergence of the network's from the CRF's marginals.

    The marginals are a target: no gradient goes through the CRF.

    Args:
        probabilities: [N, C, h, w].
        smooth: [N, C, h, w], the CRF's marginals of these.
    """
    target = smooth.detach().clamp_min(_LEAST)
    return (target * (target.log() - probabilities.clamp_min(_LEAST).log())).sum(1).mean()
