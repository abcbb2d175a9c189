"""Training the segmentation network, and what it finds in pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fastcam.image.resampling import opencv
from fastcam_bench.paper.sec import losses
from fastcam_bench.paper.sec.crf import kernel, marginals
from fastcam_bench.paper.sec.networks import GRID, Segmenter

LOSSES = ("seed", "expand", "constrain")
BATCH, RATE = 15, 4e-3


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the segmentation network is given of pictures.

    Attributes:
        fine, coarse: maps of two layers, see :func:`fastcam_bench.paper.sec.networks.features`.
        pairs: the CRF's kernels [n, 576, 576].
        present: bool [n, C - 1], the labels; used in training alone.
    """

    fine: Tensor
    coarse: Tensor
    pairs: Tensor
    present: Tensor


def train(data: Inputs, seeds: npt.NDArray[np.uint8], used: tuple[str, ...], epochs: int) -> Segmenter:
    """Train on seeds uint8 [n, 24, 24] and labels by some of :data:`LOSSES`, which are added as in the paper."""
    torch.manual_seed(0)
    net = Segmenter(data.present.shape[1] + 1)
    cues = torch.from_numpy(seeds.astype(np.int64))
    steps = len(cues) // BATCH
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * steps)
    order = np.random.default_rng(0)
    for _ in range(epochs):
        for part in np.array_split(order.permutation(len(cues))[: steps * BATCH], steps):
            found = net(data.fine[part], data.coarse[part])
            parts = {
                "seed": lambda p=found, i=part: losses.seeding(p, cues[i]),
                "expand": lambda p=found, i=part: losses.expansion(p, data.present[i]),
                "constrain": lambda p=found, i=part: losses.boundary(p, marginals(p, [data.pairs[k] for k in i])),
            }
            loss = torch.stack([parts[name]() for name in used]).sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def segment(net: Segmenter, data: Inputs, size: int, crf: bool) -> npt.NDArray[np.uint8]:
    """The class of each pixel, uint8 [n, size, size], of the network, which is not told the labels; behind the CRF."""
    made = []
    for start in range(0, len(data.pairs), BATCH):
        part = slice(start, start + BATCH)
        found = net(data.fine[part], data.coarse[part])
        if crf:
            found = marginals(found, data.pairs[part])
        found = nn.functional.interpolate(found, size=(size, size), mode="bilinear")
        made.append(found.argmax(1).to(torch.uint8).numpy())
    return np.concatenate(made)


def kernels(images: npt.NDArray[np.uint8]) -> Tensor:
    """The CRF's kernels [n, 576, 576] of pictures uint8 [n, H, W, 3], made smaller to 24 x 24 by means over areas."""
    area = opencv().INTER_AREA
    small = np.stack([opencv().resize(image, (GRID, GRID), interpolation=area) for image in images])
    made = torch.empty(len(images), GRID**2, GRID**2)
    for i, one in enumerate(torch.from_numpy(small)):
        made[i] = kernel(one[None])[0]
    return made
