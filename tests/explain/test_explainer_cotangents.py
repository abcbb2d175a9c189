"""Explainer with cotangents: outputs of any kind, and the boxes of one image."""

import numpy as np
import pytest

from fastcam import Explainer, FastcamError
from fastcam.targets import cotangents
from fastcam_export import export_model
from support.models.heads_model import (
    MASK,
    F,
    _with,
    autograd,
    detector,
    heads,
    images,
    run,
)

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")


def test_the_explainer_takes_outputs_of_any_kind():
    """A segmentation map of several images, and the boxes and scores of one."""
    made = export_model(heads(), layer="layer", targets="cotangent", output_name="map", check=False)
    explainer = Explainer(made.model.SerializeToString(), batch_size=2)
    e = explainer(images(3), cotangent=lambda y: cotangents.region(y["map"], [0, 1], MASK), method="gradcam")
    layer = torch.from_numpy(run(_with(heads(), "layer"), {"image": images(3)})["layer"])
    gradient = autograd(layer.numpy(), lambda o: [o["map"][:, c, MASK].sum(1) for c in (0, 1)])
    expected = np.maximum(np.einsum("ntk,nkhw->nthw", gradient.mean((3, 4)), layer), 0)
    np.testing.assert_allclose(e.maps, expected, atol=1e-5 * expected.max())
    np.testing.assert_allclose(e.scores, e.outputs["map"][:, :2, MASK].sum(2), rtol=1e-4)
    prediction = explainer.predict(images(3))
    assert (prediction.scores.shape, prediction.classes.tolist()) == ((3, 0), [-1, -1, -1])


@pytest.mark.parametrize("on_demand", [False, True])
def test_the_explainer_takes_the_boxes_of_one_image(on_demand):
    model, arrays = detector()
    made = export_model(
        model, layer="layer", targets="cotangent", output_name=["boxes", "scores"], on_demand=on_demand, check=True
    )
    explanation = made.explanation.SerializeToString() if on_demand else None
    explainer = Explainer(made.model.SerializeToString(), explanation=explanation)

    def best(outputs):
        box = cotangents.best_box(outputs["scores"])
        side = cotangents.coordinate(outputs["boxes"], box, "x0")
        return {"boxes": side, "scores": np.zeros((1, 1, *outputs["scores"].shape), np.float32)}

    if not on_demand:  # how many boxes there are has to be known before
        with pytest.raises(FastcamError, match=r"only a run tells the size of output boxes.*--on-demand"):
            explainer.predict(images(2))
        outputs = run(model, {"image": images(1)})
        assert explainer(images(1), cotangent=best(outputs)).status == (("ok",),)
        return
    e = explainer(images(2), cotangent=best, method="gradcam")
    for i in range(2):
        plain = run(_with(model, "layer"), {"image": images(2)[i : i + 1]})
        layer = torch.from_numpy(plain["layer"]).requires_grad_()
        rows = F.conv2d(layer, torch.from_numpy(arrays["w2"])).reshape(5, -1).T
        side = rows[rows[:, 4].argmax(), 0]
        (gradient,) = torch.autograd.grad(side, layer)
        expected = (gradient.mean((2, 3), keepdim=True) * layer).sum(1).relu()[0].detach().numpy()
        np.testing.assert_allclose(e.maps[i, 0], expected, atol=1e-5 * max(expected.max(), 1e-6))
        assert e.score(i) == pytest.approx(side.item(), rel=1e-4)
