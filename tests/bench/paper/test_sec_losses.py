"""SEC's losses and the dense CRF, beside loops that follow the papers' sums."""

from __future__ import annotations

import numpy as np
import torch

from fastcam_bench.paper.sec import losses
from fastcam_bench.paper.sec.crf import Field, kernel, marginals


def _probabilities(shape, seed):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=shape))
    return logits.softmax(1)


def test_seeding_is_the_mean_over_a_pictures_seeds():
    p = _probabilities((3, 4, 3, 5), 0)
    values = p.numpy()
    seeds = np.random.default_rng(1).choice([0, 1, 3, 255], size=(3, 3, 5))
    seeds[2] = 255
    wanted = []
    for n in range(3):
        cells = [-np.log(values[n, seeds[n, y, x], y, x]) for y in range(3) for x in range(5) if seeds[n, y, x] != 255]
        wanted.append(np.mean(cells) if cells else 0)
    found = losses.seeding(p, torch.from_numpy(seeds))
    np.testing.assert_allclose(found.item(), np.mean(wanted), rtol=1e-12)


def test_rank_pooling_is_between_maximum_and_mean():
    values = torch.tensor([[0.1, 0.7, 0.4]], dtype=torch.float64)
    assert losses.weighted_rank_pooling(values, 0.0).item() == 0.7
    np.testing.assert_allclose(losses.weighted_rank_pooling(values, 1.0), [0.4], rtol=1e-12)
    np.testing.assert_allclose(losses.weighted_rank_pooling(values, 0.5), [(0.7 + 0.2 + 0.025) / 1.75], rtol=1e-12)


def test_decay_keeps_the_share_of_the_weight():
    # in the paper half of the weight lies on a tenth of 41 x 41 positions
    for positions in (41 * 41, 24 * 24):
        by = losses.decay(0.996, positions)
        tenth = (1 - by ** (positions / 10)) / (1 - by**positions)
        assert abs(tenth - 0.49) < 0.01


def test_expansion_follows_the_sum_of_the_paper():
    p, present = _probabilities((2, 4, 4, 4), 2), torch.tensor([[True, False, True], [False, True, False]])
    total = 0.0
    for n in range(2):

        def pooled(c, by, n=n):
            ranked = sorted(p[n, c].flatten().tolist(), reverse=True)
            weights = [by**k for k in range(len(ranked))]
            return sum(w * v for w, v in zip(weights, ranked, strict=True)) / sum(weights)

        own = [c for c in (1, 2, 3) if present[n, c - 1]]
        others = [c for c in (1, 2, 3) if not present[n, c - 1]]
        total -= np.mean([np.log(pooled(c, 0.996 ** (1681 / 16))) for c in own])
        total -= np.mean([np.log(1 - p[n, c].max().item()) for c in others])
        total -= np.log(pooled(0, 0.999 ** (1681 / 16)))
    np.testing.assert_allclose(losses.expansion(p, present).item(), total / 2, rtol=1e-10)


def test_boundary_is_a_divergence_and_its_target_a_constant():
    p, q = _probabilities((2, 3, 2, 2), 3), _probabilities((2, 3, 2, 2), 4)
    wanted = np.mean((q * (q.log() - p.log())).sum(1).numpy())
    np.testing.assert_allclose(losses.boundary(p, q).item(), wanted, rtol=1e-12)
    assert losses.boundary(p, p).item() == 0
    q.requires_grad_()
    assert not losses.boundary(p, q).requires_grad


def test_gradients_equal_central_differences():
    logits = torch.from_numpy(np.random.default_rng(5).normal(size=(2, 4, 3, 3))).requires_grad_()
    seeds = torch.from_numpy(np.random.default_rng(6).choice([0, 2, 255], size=(2, 3, 3)))
    present, smooth = torch.tensor([[True, False, True], [False, True, False]]), _probabilities((2, 4, 3, 3), 7)

    def total(x):
        p = x.softmax(1)
        return losses.seeding(p, seeds) + losses.expansion(p, present) + losses.boundary(p, smooth)

    assert torch.autograd.gradcheck(total, (logits,), eps=1e-6, atol=1e-6)


def test_mean_field_equals_loops_over_all_pairs():
    rng, field = np.random.default_rng(8), Field(near=2.0, color=40.0)
    images, p = rng.uniform(0, 255, (2, 3, 4, 3)), _probabilities((2, 3, 3, 4), 9).float()
    found = marginals(p, kernel(torch.from_numpy(images), field), 3).numpy()
    places = [(y, x) for y in range(3) for x in range(4)]
    for n in range(2):
        kernels = [np.zeros((12, 12)), np.zeros((12, 12))]
        for i, (y, x) in enumerate(places):
            for j, (v, u) in enumerate(places):
                apart, unlike = (y - v) ** 2 + (x - u) ** 2, ((images[n, y, x] - images[n, v, u]) ** 2).sum()
                if i != j:
                    kernels[0][i, j] = np.exp(-apart / (2 * 2.0**2) - unlike / (2 * 40.0**2))
                    kernels[1][i, j] = np.exp(-apart / 2)
        pairs = sum(
            weight * k / np.sqrt(np.outer(k.sum(1), k.sum(1))) for weight, k in zip((10, 3), kernels, strict=True)
        )
        first = p[n].reshape(3, 12).double().numpy()
        q = first
        for _ in range(3):
            raw = np.zeros((3, 12))
            for c in range(3):
                for i in range(12):
                    raw[c, i] = first[c, i] * np.exp(sum(pairs[i, j] * q[c, j] for j in range(12)))
            q = raw / raw.sum(0)
        np.testing.assert_allclose(found[n].reshape(3, 12), q, atol=2e-5)


def test_the_crf_follows_the_picture():
    image = np.zeros((1, 8, 8, 3))
    image[:, :, 4:] = 200
    p = torch.full((1, 2, 8, 8), 0.5)
    p[0, :, :, :4] = torch.tensor([0.6, 0.4])[:, None, None]
    p[0, :, 2:4, 5:7] = torch.tensor([0.2, 0.8])[:, None, None]
    made = marginals(p, kernel(torch.from_numpy(image))).argmax(1)[0]
    assert (made[:, :4] == 0).all() and (made[:, 4:] == 1).all()
