"""Spectrograms [N, F, T] to which the network adds a channel: pictures of one. PyTorch autograd is the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam_export import export_model
from support.models.torch_file import grad_cam, onnx_bytes

X = np.random.default_rng(0).standard_normal((2, 12, 20)).astype(np.float32)


class Spectrograms(nn.Module):
    """[N, 12, 20] -> [N, 1, 12, 20] -> a map [N, 5, 6, 10] -> [N, 3]."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Sequential(nn.Conv2d(1, 5, 3, 2, 1), nn.ReLU()), nn.Linear(5, 3)

    def forward(self, x):
        self.map = self.body(x[:, None])
        return self.head(torch.tanh(self.map.mean((2, 3))))


@pytest.mark.parametrize("free", [(0,), (0, 2)])
def test_maps_have_rows_and_columns(free):
    net = Spectrograms()
    made = export_model(onnx_bytes(net, X[:1], free), input_gradient="gradient")
    found = Explainer(made.model.SerializeToString())(X, targets=1)
    assert (made.metadata.order, made.metadata.kind) == ("NHW", "spectrogram")
    np.testing.assert_allclose(found.maps[:, 0], grad_cam(net, X, 1), rtol=1e-4, atol=1e-6)
    assert found.heatmaps.shape == (2, 1, 12, 20) and found.boxes.shape == (2, 1, 4)
    x = torch.as_tensor(X).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    np.testing.assert_allclose(found.input_gradients[:, 0, 0], gradient, rtol=1e-4, atol=1e-7)


def test_methods_that_run_again():
    net = Spectrograms()
    explainer = Explainer(export_model(onnx_bytes(net, X[:1])).model.SerializeToString())
    found = explainer(X[:1], targets=[0, 1, 2], method="occlusion", options={"window": (12, 10), "stride": (12, 10)})
    covered = X[:1].repeat(2, 0)
    covered[0, :, :10], covered[1, :, 10:] = 0, 0
    fall = (net(torch.as_tensor(X[:1])) - net(torch.as_tensor(covered))).detach().numpy()  # [windows, classes]
    np.testing.assert_allclose(found.maps[0, :, 0], np.maximum(fall, 0).T.repeat(10, 1), rtol=1e-3, atol=1e-6)


def test_the_command_line_takes_arrays(tmp_path):
    (tmp_path / "s.onnx").write_bytes(onnx_bytes(Spectrograms(), X[:1]))
    np.save(tmp_path / "s.npy", X[0])
    assert CliRunner().invoke(app, ["export", str(tmp_path / "s.onnx")]).exit_code == 0
    given = [str(tmp_path / "s.cam.onnx"), str(tmp_path / "s.npy"), "-o", str(tmp_path / "out")]
    run = CliRunner().invoke(app, ["explain", *given])
    assert run.exit_code == 0 and "box x0 y0 x1 y1" in run.output, run.output
    with pytest.raises(FastcamError, match=r"a spectrogram of .* is \[12, 20\] \(NHW\), got \[12, 19\]"):
        Explainer(tmp_path / "s.cam.onnx")(X[:, :, :19])
