"""What a client asks: lists in texts, with commas between or in JSON."""

from __future__ import annotations

import pytest

from fastcam import FastcamError
from fastcam.serving.limits import Limits
from fastcam.serving.parameters import parse_parameters


@pytest.mark.parametrize(
    ("said", "targets"),
    [
        ("star,-1, ring", ("star", -1, "ring")),
        ('["tabby, tabby cat", 3, "-1"]', ("tabby, tabby cat", 3, -1)),
        (["tabby, tabby cat"], ("tabby, tabby cat",)),
        ("[unk],[mask]", ("[unk]", "[mask]")),
        (' ["[unk]"]', ("[unk]",)),
    ],
)
def test_targets_with_commas_between_or_as_json(said, targets):
    assert parse_parameters({"targets": said}, Limits()).targets == targets


@pytest.mark.parametrize("said", ["[]", "[true]", "[1.5]", '[["a"]]', "[null]", ""])
def test_a_list_that_asks_nothing(said):
    with pytest.raises(FastcamError, match="targets"):
        parse_parameters({"targets": said}, Limits())


def test_so_many_targets_as_are_taken_also_in_json():
    with pytest.raises(FastcamError, match="3 targets; at most 2"):
        parse_parameters({"targets": "[1, 2, 3]"}, Limits(targets=2))
