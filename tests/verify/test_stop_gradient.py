"""``stop_gradient``: what PyTorch detaches, and what no file tells. The oracle is autograd on the same weights."""

import io

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from fastcam.cli import app
from fastcam.schema import FastcamError
from fastcam_export import export_model, vjp


class TwoStages(torch.nn.Module):
    """A head that refines boxes which a first stage guesses from the same map, and which it may detach."""

    def __init__(self, detach):
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Conv2d(3, 6, 3, padding=1)
        self.guess = torch.nn.Linear(6, 4)
        self.refine = torch.nn.Linear(4, 5)
        self.classes = torch.nn.Linear(6, 5)
        self.detach = detach

    def forward(self, image):
        self.map = torch.nn.functional.gelu(self.stem(image))
        pooled = self.map.mean((2, 3))
        boxes = torch.sigmoid(self.guess(pooled))
        return self.classes(pooled) * self.refine(boxes.detach() if self.detach else boxes)


IMAGES = np.random.default_rng(5).standard_normal((2, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def files():
    """The two modules' files: they are equal."""
    made = []
    for detach in (True, False):
        file = io.BytesIO()
        names = {"input_names": ["image"], "output_names": ["scores"], "opset_version": 17, "dynamo": False}
        torch.onnx.export(TwoStages(detach).eval(), (torch.from_numpy(IMAGES),), file, **names)
        made.append(file.getvalue())
    return made


def expected(detach):
    """Autograd's gradient of each image's best class at the map."""
    module = TwoStages(detach).eval()
    scores = module(torch.from_numpy(IMAGES))
    return torch.autograd.grad(scores.max(1).values.sum(), module.map)[0].numpy()


@pytest.mark.parametrize("emit", ["gradients", "weights"])
@pytest.mark.parametrize("detach", [True, False])
def test_the_gradient_is_that_of_a_model_that_detaches(files, detach, emit):
    options = {"stop_gradient": ["/Sigmoid_output_0"]} if detach else {}
    made = export_model(files[0], emit=emit, layer="/Mul_1_output_0", **options)
    name = f"fastcam.{emit}"
    found = onnxruntime.InferenceSession(made.model.SerializeToString()).run([name], {"image": IMAGES})[0][:, 0]
    want = expected(detach)
    np.testing.assert_allclose(found, want if emit == "gradients" else want.mean((2, 3)), rtol=1e-4, atol=1e-7)
    assert made.check["gradient_error"] < 1e-5
    assert any("/Sigmoid_output_0" in note for note in made.notes) == detach


def test_a_file_does_not_tell_and_the_gradients_differ(files):
    assert np.abs(expected(True) - expected(False)).max() > 0.03 * np.abs(expected(True)).max()
    assert export_model(files[0], check=False).model.graph == export_model(files[1], check=False).model.graph


def test_vjp_stops_too(files):
    made = vjp(files[0], ["image"], ["scores"], stop_gradient="/Sigmoid_output_0")
    ones = np.ones((2, 5), np.float32)
    feeds = {"image": IMAGES, "cotangent.scores": ones}
    (found,) = onnxruntime.InferenceSession(made.SerializeToString()).run(["grad.image"], feeds)
    image = torch.from_numpy(IMAGES).requires_grad_()
    (want,) = torch.autograd.grad(TwoStages(True).eval()(image).sum(), image)
    np.testing.assert_allclose(found, want.numpy(), rtol=1e-4, atol=1e-6)


def test_a_name_that_is_none_is_refused_with_the_nearest(files, tmp_path):
    with pytest.raises(FastcamError, match=r"no node computes a value 'Sigmoid'; the nearest: '/Sigmoid_output_0'"):
        export_model(files[0], stop_gradient=["Sigmoid"])
    with pytest.raises(FastcamError, match="is itself stopped"):
        export_model(files[0], layer="/Mul_1_output_0", stop_gradient=["/Mul_1_output_0", "/Sigmoid_output_0"])
    path = tmp_path / "two.onnx"
    path.write_bytes(files[0])
    result = CliRunner().invoke(app, ["export", str(path), "--stop-gradient", "/Sigmoid_output_0"])
    assert result.exit_code == 0, result.output
    assert "stopped /Sigmoid_output_0" in result.output
