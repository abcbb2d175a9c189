"""How often the networks are right, and whether their maps lie on the objects that a question asks about."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import fastcam
from fastcam.evaluation.faithfulness.rank_correlation import spearman
from fastcam.evaluation.protocols.attention import attention_correlation, on_grid
from fastcam.evaluation.statistics import Ratios, Weights, weights_of
from fastcam.image.resampling import opencv
from fastcam_bench.paper.questions.exported import QUESTION, by_autograd, words_of
from fastcam_bench.paper.questions.grammar import ANSWERS, KINDS, Question
from fastcam_bench.paper.questions.pictures import SIZE, Pictures
from fastcam_bench.paper.trunk import normalised

BATCH = 64
ANSWERING = ("network", "another picture", "majority answer")
"""Whose accuracy is measured: the network's on the question's picture and on another one, and the usual answer's."""
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Figures = dict[str, Any]


@dataclass(frozen=True, eq=False)
class QuestionSet:
    """Questions about pictures.

    Attributes:
        pictures: which they are about.
        of: int64 [m], the picture of each question.
        questions: m of them.
    """

    pictures: Pictures
    of: npt.NDArray[np.int64]
    questions: Sequence[Question]

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def words(self) -> npt.NDArray[np.int64]:
        """int64 [m, L]."""
        return words_of([one.text for one in self.questions])

    @property
    def answers(self) -> npt.NDArray[np.int64]:
        """int64 [m], the true ones."""
        return np.array([one.answer for one in self.questions])

    @property
    def images(self) -> npt.NDArray[np.uint8]:
        """uint8 [m, 64, 64, 3]."""
        return self.pictures.images[self.of]

    def mask(self, k: int) -> Bools:
        """The pixels of the objects that question ``k`` asks about, [64, 64]."""
        return np.asarray(self.pictures.masks[self.of[k], list(self.questions[k].objects)].any(0))

    def others(self, k: int) -> Bools:
        """The pixels of the picture's other objects, [64, 64]."""
        rest = [i for i in range(self.pictures.masks.shape[1]) if i not in self.questions[k].objects]
        return np.asarray(self.pictures.masks[self.of[k], rest].any(0))

    def weights(self, k: int) -> Weights:
        """The bootstrap's weights: questions about one picture count together."""
        return weights_of(f"picture {self.of[k]}")

    def with_objects(self) -> QuestionSet:
        """The questions that ask about objects which are there."""
        kept = [k for k, one in enumerate(self.questions) if one.objects]
        return QuestionSet(self.pictures, self.of[kept], [self.questions[k] for k in kept])


def question_set(pictures: Pictures, found: Sequence[Sequence[Question]]) -> QuestionSet:
    """Questions of each picture as one list."""
    rows = [(i, one) for i, some in enumerate(found) for one in some]
    return QuestionSet(pictures, np.array([i for i, _ in rows]), [one for _, one in rows])


# ---- answers


def logits(net: Any, asked: QuestionSet, images: npt.NDArray[np.uint8] | None = None) -> Floats:
    """What a network answers, float32 [m, answers]; ``images``: in place of the questions' own."""
    images, words = asked.images if images is None else images, asked.words
    with torch.no_grad():
        parts = [
            net(normalised(images[at : at + 256]), torch.from_numpy(words[at : at + 256]))
            for at in range(0, len(words), 256)
        ]
    return torch.cat(parts).numpy()


def majority(training: QuestionSet) -> dict[str, int]:
    """The most frequent answer of each kind of question."""
    found = {}
    for kind in KINDS:
        counts = Counter(one.answer for one in training.questions if one.kind == kind)
        found[kind] = counts.most_common(1)[0][0]
    return found


def accuracy(net: Any, asked: QuestionSet, usual: Mapping[str, int]) -> Figures:
    """By kind and of all: the network's, with another question's picture, and of the majority's answer."""
    ratios = Ratios()
    own = logits(net, asked).argmax(1)
    other = logits(net, asked, np.roll(asked.images, len(asked) // 2, axis=0)).argmax(1)
    for k, one in enumerate(asked.questions):
        weights = asked.weights(k)
        for who, answer in zip(ANSWERING, (own[k], other[k], usual[one.kind]), strict=True):
            for group in (one.kind, "all"):
                ratios.add(f"{group}: {who}", answer == one.answer, weights)
    return {name: figure.to_dict() for name, figure in ratios.figures().items()}


# ---- maps


def explained(
    explainer: fastcam.Explainer, asked: QuestionSet, targets: Any = -1, method: str = "gradcam"
) -> Iterator[tuple[int, Any]]:
    """(number of the first question, explanation) of the predicted answers, some questions at a time."""
    images, words = asked.images, asked.words
    for at in range(0, len(asked), BATCH):
        part = slice(at, at + BATCH)
        yield at, explainer(list(images[part]), targets, inputs={QUESTION: words[part]}, method=method)


def heatmaps(
    explainer: fastcam.Explainer, asked: QuestionSet, method: str = "gradcam"
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Maps of the predicted answers [m, 64, 64], and which answers these are [m]."""
    found = [(one.heatmaps[:, 0], one.classes[:, 0]) for _, one in explained(explainer, asked, method=method)]
    return np.concatenate([maps for maps, _ in found]), np.concatenate([answers for _, answers in found])


def share(heat: Floats, mask: Bools) -> float:
    """How much of the heat lies in a mask; 0 of a map without heat."""
    total = float(heat.sum(dtype=np.float64))
    return float(heat[mask].sum(dtype=np.float64)) / total if total > 0 else 0.0


def meaning(heat: Floats, asked: QuestionSet, right: Bools | None = None) -> Figures:
    """What maps [m, 64, 64] have to do with the objects that the questions ask about, beside chance.

    Shares of the heat, and Spearman's rank correlation with the objects' mask on a grid of 14 x 14. Chance is the mask
    of another question, about another picture; and the share that a map has which is the same everywhere.
    """
    ratios = Ratios()
    masks = np.stack([asked.mask(k) for k in range(len(asked))])
    chance = np.roll(masks, len(asked) // 2, axis=0)
    for k, one in enumerate(asked.questions):
        weights, own = asked.weights(k), share(heat[k], masks[k])
        ratios.add("heat on the objects asked about", own, weights)
        ratios.add("even map on them", masks[k].mean(), weights)
        ratios.add("heat on another question's objects", share(heat[k], chance[k]), weights)
        ratios.add("times an even map's", own, weights, masks[k].mean())
        others = asked.others(k)
        if others.any():
            ratios.add(
                "heat on the picture's other objects, times an even map's",
                share(heat[k], others),
                weights,
                others.mean(),
            )
        for name, mask in (("rank correlation", masks[k]), ("rank correlation, another question's", chance[k])):
            found = attention_correlation(heat[k], mask)
            ratios.add(name, found if np.isfinite(found) else 0.0, weights)
        ratios.add(f"{one.kind}: times an even map's", own, weights, masks[k].mean())
        if right is not None:
            which = "right" if right[k] else "wrong"
            ratios.add(f"answer {which}: times an even map's", own, weights, masks[k].mean())
        ratios.add("maps with heat", heat[k].max() > 0, weights)
    return {name: figure.to_dict() for name, figure in ratios.figures().items()}


def attention(net: Any, asked: QuestionSet) -> Floats:
    """Where the co-attention of words, phrases and whole looks, [m, 3, 64, 64], enlarged as maps are."""
    found = []
    for at in range(0, len(asked), BATCH):
        part = slice(at, at + BATCH)
        with torch.no_grad():
            features = net.features(normalised(asked.images[part]))
            found.append(net.attended(features, torch.from_numpy(asked.words[part]))[1].numpy())
    cells = np.concatenate(found).reshape(-1, 3, 8, 8)
    resize = opencv().resize
    rows = [[resize(level, (SIZE, SIZE), interpolation=opencv().INTER_LINEAR) for level in one] for one in cells]
    return np.asarray(rows, np.float32)


EXACT = 1e-4
"""Of the largest value: what float32 keeps of a map, where nothing saturates."""


def beside_autograd(net: Any, explainer: fastcam.Explainer, asked: QuestionSet, answers: int = len(ANSWERS)) -> Figures:
    """The largest difference to PyTorch's maps in float64: of answers, and of one against another.

    It is a share of the largest value before the ReLU: of maps that are negative but for a trace, the rest is rounding.
    Beside it stand PyTorch's own maps in float32, and for both how many maps are further than :data:`EXACT`.
    """
    exact = copy.deepcopy(net).double()
    report: Figures = {"questions": len(asked)}
    for at, found in explained(explainer, asked, [-1, "-1 - -2"]):
        part = slice(at, at + len(found))
        order = np.argsort(-found.scores, axis=1)[:, :2]
        single, second = (np.eye(answers, dtype=np.float32)[order[:, n]] for n in (0, 1))
        for t, (name, weights) in enumerate(
            (("predicted answer", single), ("its difference to the second", single - second))
        ):
            given = asked.images[part], asked.words[part], weights
            want = by_autograd(exact, *given, dtype=torch.float64)
            scale = np.abs(want).max((1, 2))
            for who, maps in (("", found.maps[:, t]), (", PyTorch in float32", by_autograd(net, *given))):
                apart = np.abs(np.maximum(maps, 0) - np.maximum(want, 0)).max((1, 2)) / scale
                key = f"{name}{who}"
                report[key] = max(report.get(key, 0.0), float(f"{apart.max():.2g}"))
                key += f", maps further than {EXACT}"
                report[key] = report.get(key, 0) + int((apart > EXACT).sum())
    return report


# ---- layers

LAYERS = ("trunk.relu", *(f"trunk.stages.{n}.relu2" for n in range(4)), "trunk.last_relu")
"""The stem, the stages and the last layer of the co-attention network; the first two stages halve the map's sides."""
COARSEST = 8


def between_layers(explainer: fastcam.Explainer, asked: QuestionSet) -> Figures:
    """How much maps of adjacent layers differ: 1 - Spearman's rank correlation, on the coarsest layer's 8 x 8."""
    ratios = Ratios()
    images, words = asked.images, asked.words
    for at in range(0, len(asked), BATCH):
        part = slice(at, at + BATCH)
        found = explainer(list(images[part]), -1, inputs={QUESTION: words[part]}, layers="all")
        for i in range(len(found)):
            maps = [on_grid(one.heatmaps[i, 0], COARSEST) for one in found.layers]
            sizes = [one.maps.shape[2] for one in found.layers]
            weights = asked.weights(at + i)
            for n in range(len(maps) - 1):
                ranks = spearman(maps[n], maps[n + 1])
                if not np.isfinite(ranks):
                    continue
                changed = sizes[n] != sizes[n + 1]
                ratios.add(f"{LAYERS[n]} to {LAYERS[n + 1]}, {sizes[n]} to {sizes[n + 1]}", 1 - ranks, weights)
                ratios.add("where the size is reduced" if changed else "where the size stays", 1 - ranks, weights)
    return {name: figure.to_dict() for name, figure in ratios.figures().items()}
