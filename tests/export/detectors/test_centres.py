"""CenterNet's form: heatmaps of the classes' centres, sizes, and mostly offsets in a cell. Boxes have a place."""

import numpy as np
import pytest

from fastcam import Explainer
from fastcam_export import export_model, inspect_model
from support.models.many_outputs import SIZE, network, node, run, value

FORMS = {
    "official": {"names": ("hm", "wh", "reg")},
    "without offsets": {"names": ("hm", "wh", "")},
    "logits": {"names": ("hm", "wh", "reg"), "logits": True},
    "names that say nothing": {"names": ("508", "511", "514")},
    "two classes": {"names": ("heatmap", "size", "offset"), "classes": 2},
    "one class, batch 1": {"names": ("hm", "wh", "reg"), "classes": 1, "batch": 1},
}
CELLS, STRIDE = 4, SIZE // 4


def detector(names, classes=3, logits=False, batch="N"):
    rng = np.random.default_rng(2)
    heat, sizes, offsets = names
    weights = {
        "kh": rng.standard_normal((classes, 6, 1, 1)), "ks": 0.2 * rng.standard_normal((2, 6, 1, 1)),
        "ko": 0.2 * rng.standard_normal((2, 6, 1, 1)), "zero": 0, "one": 1,
    }  # fmt: skip
    nodes = [
        node("MaxPool", "feat", "small", kernel_shape=[2, 2], strides=[2, 2]), node("Conv", "small kh", "h"),
        node("Identity" if logits else "Sigmoid", "h", heat), node("Conv", "small ks", "s"),
        node("Softplus", "s", sizes),
    ]  # fmt: skip
    outputs = [value(heat, [batch, classes, CELLS, CELLS]), value(sizes, [batch, 2, CELLS, CELLS])]
    if offsets:
        nodes += [node("Conv", "small ko", "o"), node("Clip", "o zero one", offsets)]
        outputs.append(value(offsets, [batch, 2, CELLS, CELLS]))
    weights = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    return network(nodes, outputs, batch=batch, **weights)


@pytest.mark.parametrize("form", FORMS)
def test_boxes_lie_around_their_centres(form):
    made, names = detector(**FORMS[form]), FORMS[form]["names"]
    assert inspect_model(made).taken_for.startswith("a detector")
    export = export_model(made, layer="feat", emit="gradients", preprocess="unit")
    assert export.check["gradient_error"] < 1e-4
    picture = np.random.default_rng(1).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    found = run(made, {"image": picture.transpose(2, 0, 1)[None].astype("f") / 255})
    best = int(found[names[0]][0].max(0).argmax())
    y, x = divmod(best, CELLS)
    dx, dy = found[names[2]][0, :, y, x] if names[2] else (0.5, 0.5)
    width, height = found[names[1]][0, :, y, x]
    box = np.array([x + dx - width / 2, y + dy - height / 2, x + dx + width / 2, y + dy + height / 2]) * STRIDE
    e = Explainer(export.model.SerializeToString())(picture, targets=["box:box=-1", "box:box=-1,x0,y1"])
    assert f"box {best}" in e.targets[0][0].name
    np.testing.assert_allclose(e.targets[0][0].box, box, rtol=1e-4)
    np.testing.assert_allclose(e.scores[0], [found[names[0]].max(), box[0], box[3]], rtol=1e-4)


def test_sizes_in_pixels_leave_the_score_alone():
    made = detector(("hm", "wh", "reg"))
    made.graph.node.append(node("Mul", "wh far", "pixels"))
    made.graph.initializer.append(made.graph.initializer[0].__class__(name="far", data_type=1, float_data=[100]))
    made.graph.output[1].name = "pixels"
    export = export_model(made, layer="feat", emit="gradients", preprocess="unit", check=False)
    picture = np.random.default_rng(1).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    e = Explainer(export.model.SerializeToString())(picture, targets="box:box=-1")
    assert e.targets[0][0].box is None and e.status[0][0] == "ok"
