"""Texts that the check makes up: equal words make equal numbers, of which the largest has no derivative."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import nn

from fastcam_export import export_model

WORDS = 24


class Bag(nn.Module):
    """Filters of one word each, and the largest value of each: a word that is there twice is a tie."""

    def __init__(self, width):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.window = nn.Embedding(WORDS, 8), nn.Conv1d(8, 6, width, padding=width // 2)
        self.head = nn.Linear(6, 2)

    def forward(self, ids):
        maps = torch.relu(self.window(self.table(ids).transpose(1, 2)))
        return self.head(nn.functional.adaptive_max_pool1d(maps, 1).flatten(1))


def file_of(length, width=1):
    file = io.BytesIO()
    axes = {"ids": {0: "N"} if length else {0: "N", 1: "L"}}
    example = (torch.zeros(1, length or 9, dtype=torch.int64),)
    torch.onnx.export(
        Bag(width).eval(), example, file, dynamo=False, opset_version=17, input_names=["ids"], dynamic_axes=axes
    )
    return file.getvalue()


@pytest.mark.parametrize("length", [None, WORDS])
def test_a_network_whose_filters_see_one_word_passes_the_check(length):
    made = export_model(file_of(length))
    assert made.check["gradient_error"] < 1e-3


def test_no_word_is_there_again_before_all_others_were():
    from fastcam_export.graph.load import load
    from fastcam_export.layers.image_input import find_image
    from fastcam_export.verify.sample import random_inputs

    graph = load(file_of(2 * WORDS + 5)).model.graph
    [ids] = random_inputs(graph, find_image(graph)).values()
    for text in ids:
        for first in (0, WORDS):
            np.testing.assert_array_equal(np.sort(text[first : first + WORDS]), np.arange(WORDS))
    assert (ids[0] != ids[1]).any()
