"""Key points by maps and by rows along both sides: the score, its gradient, and the place that is drawn."""

import io

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

import torch

from fastcam import Explainer, FastcamError
from fastcam_export import export_model
from support.models import detector_files as files

POINTS, HEIGHT, WIDTH = 3, 24, 32


class Pose(torch.nn.Module):
    """Picture [N, 3, 24, 32] -> features -> a map of each point; then the map, or its sums along both sides, twice as
    fine."""

    def __init__(self, rows, points=POINTS, size=(HEIGHT, WIDTH)):
        super().__init__()
        torch.manual_seed(3)
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 4, 4), torch.nn.Tanh())
        self.head = torch.nn.Conv2d(6, points, 1)
        self.rows, self.size = rows, size

    def forward(self, x):
        self.features = self.stem(x)
        maps = self.head(self.features)
        if not self.rows:
            return maps
        height, width = self.size
        wide = torch.nn.functional.interpolate(maps, (2 * height, 2 * width), mode="bilinear") ** 2
        return wide.sum(2), wide.sum(3)


def file(rows, names, **options):
    """The exported network, with what it was made of."""
    network, out = Pose(rows, **options).eval(), io.BytesIO()
    picture = (torch.zeros(1, 3, *network.size),)
    free = {name: {0: "N"} for name in ("image", *names)}
    torch.onnx.export(
        network, picture, out, dynamo=False, input_names=["image"], output_names=list(names), dynamic_axes=free
    )
    return network, out.getvalue()


def images(n=2):
    return np.random.default_rng(4).standard_normal((n, 3, HEIGHT, WIDTH)).astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "names"), [(False, ["heatmaps"]), (True, ["simcc_x", "simcc_y"]), (True, ["out_0", "out_1"])]
)
def test_the_map_of_a_point_equals_autograd(rows, names):
    network, source = file(rows, names)
    made = export_model(source, layer="auto", check=False)
    assert [(one.output, one.answer) for one in made.metadata.cotangents] == [(name, "point") for name in names]
    e = Explainer(made.model.SerializeToString(), "cpu")(images(), targets=["point:2", 0])
    outputs = network(torch.from_numpy(images()))
    scores = outputs if isinstance(outputs, tuple) else (outputs.flatten(2),)
    for t, k in enumerate((2, 0)):
        score = sum(y[:, k].amax(1) for y in scores)
        gradient = torch.autograd.grad(score.sum(), network.features, retain_graph=True)[0]
        expected = (gradient * network.features).sum(1).relu().detach().numpy()
        assert made.metadata.layer.value.endswith("Tanh_output_0") and expected.max() > 0
        np.testing.assert_allclose(e.maps[:, t], expected, atol=1e-5 * expected.max())
        np.testing.assert_allclose(e.scores[:, t], score.detach().numpy(), rtol=1e-5)
    assert e.label(0, 0) == "point 2"


@pytest.mark.parametrize(("rows", "names"), [(False, ["heatmaps"]), (True, ["simcc_x", "simcc_y"])])
def test_the_square_of_a_point_lies_where_its_score_is_highest(rows, names):
    _, source = file(rows, names)
    e = Explainer(export_model(source, check=False).model.SerializeToString(), "cpu")(images(1), targets="point")
    outputs = [e.outputs[name][0] for name in names]
    best = int(np.argmax(sum(y.reshape(POINTS, -1).max(1) for y in outputs)))
    if rows:
        x, y = (int(each[best].argmax()) + 0.5 for each in outputs)
        middle = x / 2, y / 2
    else:
        i, j = np.unravel_index(outputs[0][best].argmax(), outputs[0].shape[1:])
        middle = (j + 0.5) * 4, (i + 0.5) * 4
    x0, y0, x1, y1 = e.predicted_box()
    assert (x0 + x1) / 2 == pytest.approx(middle[0]) and (y0 + y1) / 2 == pytest.approx(middle[1])


def test_17_points_have_the_names_of_coco_and_the_file_may_name_them_otherwise():
    _, source = file(False, ["heatmaps"], points=17)
    made = export_model(source, check=False).model.SerializeToString()
    e = Explainer(made, "cpu")(images(1), targets=["nose", "point:left wrist"])
    assert [e.label(0, 0), e.label(0, 1)] == ["nose", "left wrist"]
    other = export_model(source, labels=[f"joint {k}" for k in range(17)], check=False).model.SerializeToString()
    assert Explainer(other, "cpu")(images(1), targets="joint 9").label() == "joint 9"
    with pytest.raises(FastcamError, match="did you mean 'joint 1"):
        Explainer(other, "cpu")(images(1), targets="point:joint 1x")


def test_what_has_no_points_says_so():
    _, source = file(True, ["simcc_x", "simcc_y"])
    explainer = Explainer(export_model(source, check=False).model.SerializeToString(), "cpu")
    with pytest.raises(FastcamError, match="'point:3': class 3 is out of range"):
        explainer(images(1), targets="point:3")
    with pytest.raises(FastcamError, match="axis says where the points of a map lie"):
        explainer(images(1), targets="point:1,axis=last")
    one = export_model(source, targets="cotangent", output_name="simcc_x", check=False).model.SerializeToString()
    with pytest.raises(FastcamError, match="--output-name for both"):
        Explainer(one, "cpu")(images(1), targets="point:1")


def test_maps_with_a_neighbour_or_another_name_are_no_points():
    """A segmenter stays one, and so does a detector of maxima, which has maps of sizes beside them."""
    assert export_model(files.segmenter(), check=False).metadata.cotangents[0].answer == "region"
    _, source = file(False, ["masks"])
    assert export_model(source, check=False).metadata.cotangents[0].answer == "region"
