"""Pictures folded into the batch, [N, T, C, H, W] to [N T, C, H, W]: each has its own weights and map."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam_export import export_model
from support.models.torch_file import grad_cam, onnx_bytes

BAGS = np.random.default_rng(0).random((2, 3, 3, 12, 8), dtype=np.float32)


class Bags(nn.Module):
    """[N, T, 3, 12, 8] -> maps [N T, 6, 6, 4] -> a mean or maximum over the pictures, or their attention -> [N, 4]."""

    def __init__(self, how="mean"):
        super().__init__()
        torch.manual_seed(1)
        self.how = how
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.gate, self.head = nn.Linear(6, 1), nn.Linear(6, 4)

    def forward(self, x):
        n, t = x.shape[:2]
        self.map = self.body(x.squeeze(0) if self.how == "one" else x.reshape(-1, *x.shape[2:]))
        rows = torch.tanh(self.map.mean((2, 3)))
        rows = rows[None] if self.how == "one" else rows.reshape(n, t, 6)
        if self.how == "max":
            return self.head(rows.max(1).values)
        if self.how == "attention":
            return self.head((rows * torch.softmax(self.gate(rows), 1)).sum(1))
        return self.head(rows.mean(1))


@pytest.mark.parametrize(
    ("how", "free"), [("mean", (0, 1)), ("mean", ()), ("max", (0,)), ("attention", (0, 1, 3, 4)), ("one", ())]
)
def test_each_picture_has_the_map_of_autograd(how, free):
    net, bags = Bags(how), BAGS if free else BAGS[:1]
    made = export_model(onnx_bytes(net, bags[:1], free))
    found = Explainer(made.model.SerializeToString())(bags, targets=1)
    expected = grad_cam(net, bags, 1)
    assert made.metadata.layer.layout == "FCHW" and found.maps.shape == (3 * len(bags), 1, 6, 4)
    assert (expected > 0).any()
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.scores[::3], net(torch.as_tensor(bags)).detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("emit", ["gradients", "cam"])
def test_every_emit_level_and_method(emit):
    net = Bags("attention")
    explainer = Explainer(export_model(onnx_bytes(net, BAGS[:1]), emit=emit).model.SerializeToString())
    np.testing.assert_allclose(explainer(BAGS, targets=2).maps[:, 0], grad_cam(net, BAGS, 2), rtol=1e-4, atol=1e-7)
    if emit == "gradients":
        (gradient,) = torch.autograd.grad(net(torch.as_tensor(BAGS))[:, 2].sum(), net.map)
        expected = torch.relu((gradient * net.map).sum(1)).detach().numpy()
        found = explainer(BAGS, targets=2, method="hirescam")
        np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-4, atol=1e-7)


def test_a_head_is_refused():
    with pytest.raises(FastcamError, match="leave head"):
        export_model(onnx_bytes(Bags(), BAGS[:1]), head=True)


def test_the_command_line_takes_folders_and_arrays_as_clips(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_model(onnx_bytes(Bags(), BAGS[:1]), "bags.cam.onnx", preprocess="unit")
    frames = np.random.default_rng(0).integers(0, 256, (3, 12, 8, 3), dtype=np.uint8)
    (tmp_path / "bag").mkdir()
    for number, frame in enumerate(frames):
        cv2.imwrite(f"bag/{number}.png", frame[:, :, ::-1])
    np.save("bytes.npy", frames)
    tensor = (frames.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
    np.save("tensor.npy", tensor)
    expected = Explainer("bags.cam.onnx")(tensor[None], targets=1).scores
    for name in ("bag", "bytes.npy", "tensor.npy"):
        run = CliRunner().invoke(app, ["explain", "bags.cam.onnx", name, "-t", "1", "-o", "out"])
        assert run.exit_code == 0, run.output
        assert run.stdout.count(f"{expected[0, 1]:.4g} ") == 3  # a row for each picture, the scores are the bag's
    run = CliRunner().invoke(app, ["explain", "bags.cam.onnx", "bag/0.png"])
    assert run.exit_code == 2 and "give a video, a folder" in run.stderr


def test_a_tensor_in_a_file_is_used_as_it_is(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    explainer = Explainer(export_model(onnx_bytes(net, BAGS[:1, 0]), check=False).model.SerializeToString())
    np.save(tmp_path / "one.npy", BAGS[0, 0])
    np.save(tmp_path / "both.npy", BAGS[:, 0])
    expected = explainer(BAGS[:, 0]).scores
    found = explainer([tmp_path / "one.npy", tmp_path / "both.npy"])
    np.testing.assert_array_equal(found.scores, expected[[0, 0, 1]])
    assert found.files == (str(tmp_path / "one.npy"), *[str(tmp_path / "both.npy")] * 2)
