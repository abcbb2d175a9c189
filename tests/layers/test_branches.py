"""Networks whose branches meet behind their maps: scores laid one on the other, and branches without a common map.

Autograd on the same weights is the oracle.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from fastcam_export import export_model, inspect_model

torch = pytest.importorskip("torch")
torch_oracle = pytest.importorskip("fastcam_bench.oracles.torch_oracle")
nn = torch.nn
CLASSES = 5


def joined(how, scores):
    """Scores [N, classes] of several heads as one."""
    if how == "stacked in front":
        return torch.stack(scores, 0).mean(0)
    if how == "stacked in front, summed":
        return torch.stack(scores, 0).sum(0)
    if how == "side by side in the batch":
        both = torch.cat(scores, 0)
        return both.reshape(len(scores), -1, CLASSES).mean(0)
    if how == "the first of those in front":
        return torch.stack(scores, 0)[0]
    return torch.stack(scores, 1).mean(1)  # behind the images


class Heads(nn.Module):
    """Several heads on one map, or a head on each of several maps of their own scale."""

    def __init__(self, how, branches=False):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.branches = how, branches
        self.coarse, self.fine = nn.Conv2d(3, 6, 4, stride=4), nn.Conv2d(3, 4, 3, padding=1)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.heads = nn.ModuleList([nn.Linear(6, CLASSES), nn.Linear(4 if branches else 6, CLASSES)])

    def forward(self, image):
        maps = [torch.tanh(self.again(torch.tanh(self.coarse(image))))]
        maps.append(torch.sigmoid(self.fine(image)) if self.branches else maps[0] * maps[0])
        return joined(self.how, [head(x.mean((2, 3))) for head, x in zip(self.heads, maps)])


def explained(module, images, layer="auto", emit="gradients", targets=None):
    proto = torch_oracle.to_onnx(module, images.shape[-1], dynamo=False)
    made = export_model(proto, layer=layer, emit=emit)
    names = ["fastcam.activations", f"fastcam.{emit}", "fastcam.classes"]
    feeds = {made.model.graph.input[0].name: images}
    if targets is not None:
        feeds["fastcam.targets"] = targets
    run = onnxruntime.InferenceSession(made.model.SerializeToString())
    return made, run.run(names, feeds)


HOW = [
    "stacked in front",
    "stacked in front, summed",
    "side by side in the batch",
    "the first of those in front",
    "behind",
]


@pytest.mark.parametrize(("how", "number"), [*((how, 2) for how in HOW), ("stacked in front", 5)])
def test_scores_laid_one_on_the_other(how, number):
    """As many images as heads: what belongs to which must not be confused."""
    module, images = Heads(how).eval(), torch_oracle.pictures(number, 16)
    targets = np.tile(np.array([[-1, 0, 3]]), (number, 1))
    for emit in ("gradients", "weights"):
        _, (maps, found, classes) = explained(module, images, "auto", emit, targets)
        want = torch_oracle.gradients_at(module, images, maps, classes)
        want = want if emit == "gradients" else want.mean((3, 4))
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-7)


def test_a_network_of_two_branches_is_explained_at_the_last_map_of_one():
    module, images = Heads("stacked in front", branches=True).eval(), torch_oracle.pictures(2, 16)
    made, (maps, found, classes) = explained(module, images)
    assert made.check["gradient_error"] < 1e-4
    np.testing.assert_allclose(found, torch_oracle.gradients_at(module, images, maps, classes), rtol=1e-4, atol=1e-7)
    assert maps.shape[1:] == (4, 16, 16)
    assert "branches" in made.metadata.layer.reason
    ends = [layer.name for layer in inspect_model(torch_oracle.to_onnx(module, 16, dynamo=False)).layers]
    assert len(ends) == 2 and all(name in made.metadata.layer.reason for name in ends)
    _, (coarse, found, classes) = explained(module, images, ends[0])
    assert coarse.shape[1:] == (6, 4, 4)
    np.testing.assert_allclose(found, torch_oracle.gradients_at(module, images, coarse, classes), rtol=1e-4, atol=1e-7)


def test_an_image_that_is_only_prepared_is_no_map_of_its_network():
    """Its normalisation lies on every path, but nobody wants to see it explained."""

    class Prepared(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Heads("behind", branches=True)

        def forward(self, image):
            return self.net((image - 0.4) / 0.2)

    made, (maps, _, _) = explained(Prepared().eval(), torch_oracle.pictures(2, 16))
    assert maps.shape[1:] == (4, 16, 16) and "branches" in made.metadata.layer.reason


def test_a_filter_without_weights_has_no_branches():
    """Where nothing is learned the prepared image stays what is explained."""
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[N, 3, 8, 8] image) => (float[N, 3] y) {
        half = Constant <value = float {0.5}> () x = Mul (image, half) r = Relu (x)
        axes = Constant <value_ints = [2, 3]> () y = ReduceMean <keepdims = 0> (r, axes) }"""
    made = export_model(onnx.parser.parse_model(text))
    assert made.metadata.layer.value == "r"
