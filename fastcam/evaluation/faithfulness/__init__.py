"""Faithfulness: does the map follow the model? Formulas over any function of scores, without a model or a file.

Everything here is about one picture x, float32 [C, H, W] as the network takes it, and one class. ``score`` gives the
class's score of a batch of such inputs, [M, C, H, W] -> [M]; ``heat`` is the map in question, [H, W]. The protocols in
:mod:`fastcam.evaluation.protocols.faithfulness` apply them to the pictures of a data set.
"""

from fastcam.evaluation.faithfulness.average_drop import average_drop
from fastcam.evaluation.faithfulness.curves import area, deletion, insertion
from fastcam.evaluation.faithfulness.imputation import imputed
from fastcam.evaluation.faithfulness.infidelity import Infidelity, infidelity, noisy, squares
from fastcam.evaluation.faithfulness.masking import BASELINES, Score, baseline, descending
from fastcam.evaluation.faithfulness.max_sensitivity import max_sensitivity, neighbours
from fastcam.evaluation.faithfulness.occlusion import occlusion_correlation
from fastcam.evaluation.faithfulness.pixel_flipping import aopc, pixel_flipping
from fastcam.evaluation.faithfulness.rank_correlation import pearson, ranks, spearman
from fastcam.evaluation.faithfulness.road import PERCENTAGES, removed
from fastcam.evaluation.faithfulness.sensitivity_n import random_subsets, sensitivity_n
from fastcam.evaluation.faithfulness.similarity import ssim

__all__ = [
    "BASELINES",
    "PERCENTAGES",
    "Infidelity",
    "Score",
    "aopc",
    "area",
    "average_drop",
    "baseline",
    "deletion",
    "descending",
    "imputed",
    "infidelity",
    "insertion",
    "max_sensitivity",
    "neighbours",
    "noisy",
    "occlusion_correlation",
    "pearson",
    "pixel_flipping",
    "random_subsets",
    "ranks",
    "removed",
    "sensitivity_n",
    "spearman",
    "squares",
    "ssim",
]
