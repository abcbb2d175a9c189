"""Errors and warnings about one picture of a call name its file, or its number in the call."""

import re

import cv2
import numpy as np
import pytest

from fastcam import Explainer, FastcamError
from fastcam_export import export_model
from support.models.many_outputs import network, node, value


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A picture in which class 0 is everywhere and one in which class 1 is, twice each: files."""
    folder, files = tmp_path_factory.mktemp("pictures"), []
    for i, bright in enumerate([0, 0, 255, 0]):
        files.append(folder / f"photo{i}.png")
        cv2.imwrite(str(files[-1]), np.full((8, 8, 3), bright, np.uint8))
    return files


@pytest.fixture(scope="module")
def segmenter():
    """Two classes, the second wherever it is bright."""
    ends = [
        node("Conv", "image two", "maps"), node("Conv", "feat faint", "more"), node("Add", "maps bias", "b"),
        node("Add", "b more", "z"),
    ]  # fmt: skip
    weights = {
        "two": np.array([[-1] * 3, [1] * 3], "f")[..., None, None],
        "bias": np.array([1, -1], "f")[:, None, None],
    }
    weights["faint"] = np.full((2, 6, 1, 1), 1e-3, "f")
    made = network(ends, [value("z", ["N", 2, 8, 8])], **weights)
    export = export_model(made, layer="feat", preprocess="unit", targets="cotangent", check=False)
    return export.model.SerializeToString()


@pytest.mark.parametrize("targets", ["region:0", [["region:0"]] * 4], ids=["of all", "of each"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_class_that_is_nowhere(pictures, segmenter, targets, batch):
    explainer = Explainer(segmenter, "cpu", batch_size=batch)
    with pytest.raises(FastcamError, match=rf"predicted nowhere in {re.escape(str(pictures[2]))} "):
        explainer(pictures, targets=targets)
    with pytest.raises(FastcamError, match="predicted nowhere in picture 3 "):
        explainer([cv2.imread(str(path)) for path in pictures], targets=targets)


def test_nothing_that_is_likely_is_found(pictures):
    faint = [
        node("Flatten", "mean", "flat"), node("Reshape", "flat rows", "table"), node("Mul", "table small", "boxes")
    ]  # fmt: skip
    made = network(faint, [value("boxes", ["N", 1, 6])], rows=np.array([0, 1, 6]), small=np.float32(1e-3))
    export = export_model(made, layer="feat", preprocess="unit", targets="cotangent", check=False)
    explainer = Explainer(export.model.SerializeToString(), "cpu", batch_size=2)
    with pytest.warns(UserWarning, match=r"or more in .*photo1\.png; its best box") as seen:
        explainer(pictures[1], targets="box:most=5,layout=v10")
    assert not [one for one in seen if "of its run" in str(one.message)]
