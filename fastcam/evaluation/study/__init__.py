"""The two human studies of the Grad-CAM paper: a page that asks, and what the answers say.

Source: Selvaraju et al., "Grad-CAM", ICCV 2017, sections 5.1 (which of two classes is depicted) and 5.2 (which of two
models is the more trustworthy).
"""

from fastcam.evaluation.study.make import Model, Study, make_study
from fastcam.evaluation.study.score import Scores, answer_files, score_study

__all__ = ["Model", "Scores", "Study", "answer_files", "make_study", "score_study"]
