"""Recurrent networks behind a convolution, lines of any width: gradients by a Scan, against PyTorch's autograd."""

import io

import numpy as np
import pytest

from fastcam_export import export_model
from support.models.quantized import run_targets

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")


class Reader(torch.nn.Module):
    """A line of text: [N, 3, 8, W] -> [N, W / 2, 7], or the scores of its last column."""

    def __init__(self, kind, last):
        super().__init__()
        self.maps, self.last = torch.nn.Conv2d(3, 6, 3, stride=2, padding=1), last
        self.read = getattr(torch.nn, kind)(6, 5, bidirectional=True)
        self.scores = torch.nn.Linear(10, 7)

    def behind(self, maps):
        columns, _ = self.read(maps.mean(2).permute(2, 0, 1))
        return self.scores(columns[-1]) if self.last else self.scores(columns).permute(1, 0, 2)

    def forward(self, x):
        return self.behind(torch.relu(self.maps(x)))


def saved(net, steps):
    """Its file; ``steps`` names the axis of columns."""
    file, axes = io.BytesIO(), {"x": {0: "N", 3: "W"}, "y": {0: "N"} | ({} if net.last else {1: steps})}
    torch.onnx.export(
        net, (torch.zeros(2, 3, 8, 24),), file, dynamo=False, opset_version=17, input_names=["x"], output_names=["y"],
        dynamic_axes=axes,
    )  # fmt: skip
    return file.getvalue()


@pytest.mark.parametrize(("kind", "last", "steps"), [("LSTM", False, "T"), ("GRU", False, "S"), ("LSTM", True, "")])
def test_several_targets_of_a_line_of_any_width_equal_autograd(kind, last, steps):
    torch.manual_seed(0)
    net = Reader(kind, last).eval()
    exported = export_model(
        saved(net, steps), emit="gradients", targets="default" if last else "cotangent", size=(8, 32)
    )
    assert exported.check["bit_identical"] and 0 < exported.check["gradient_error"] < 1e-5
    x, seeds = torch.randn(2, 3, 8, 20), torch.randn(2, 2, 10, 7)
    asked = {"fastcam.targets": np.array([[1, 3]])} if last else {"fastcam.cotangent": seeds.numpy()}
    got = run_targets(exported.model, {"x": x.numpy(), **asked})["fastcam.gradients"]
    maps = torch.relu(net.maps(x)).detach().requires_grad_()
    y = net.behind(maps)
    for index, which in enumerate((1, 3)):
        seed = torch.eye(7)[which].expand(2, 7) if last else seeds[:, index]
        (expected,) = torch.autograd.grad(y, maps, seed, retain_graph=True)
        np.testing.assert_allclose(got[:, index], expected.numpy(), atol=1e-6)
