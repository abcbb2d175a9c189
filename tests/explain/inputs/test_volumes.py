"""Volumes: maps, heatmaps and cuboids. The oracles are PyTorch's autograd and trilinear resize, SciPy's labels."""

from __future__ import annotations

import gzip
import json
import struct

import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import nn
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.explain.volume import cuboids
from fastcam_export import export_model
from support.models.torch_file import grad_cam, onnx_bytes

SIZE = (8, 12, 10)
VOLUMES = np.random.default_rng(0).standard_normal((2, 1, *SIZE)).astype(np.float32)


class Volumes(nn.Module):
    """[N, 1, 8, 12, 10] -> a map [N, 6, 4, 6, 5] -> [N, 3]; ``way``: how the input lies; slices: each alone."""

    def __init__(self, way="NCDHW", slices=False):
        super().__init__()
        torch.manual_seed(3)
        self.way, self.slices = way, slices
        conv, one, two = (nn.Conv2d, 1, 2) if slices else (nn.Conv3d, 1, 2)
        self.body = nn.Sequential(conv(1, 5, 3, two, 1), nn.ReLU(), conv(5, 6, 3, one, 1), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = {"NCDHW": lambda: x, "NDHWC": lambda: x.permute(0, 4, 1, 2, 3), "NDHW": lambda: x[:, None]}[self.way]()
        if self.slices:
            n, _, d = x.shape[:3]
            self.map = self.body(x.reshape(n * d, 1, *x.shape[3:]))
            return self.head(torch.tanh(self.map.mean((2, 3)).reshape(n, d, 6)).mean(1))
        self.map = self.body(x)
        return self.head(torch.tanh(self.map.mean((2, 3, 4))))


def lying(way):
    return {"NCDHW": VOLUMES, "NDHWC": np.moveaxis(VOLUMES, 1, -1).copy(), "NDHW": VOLUMES[:, 0]}[way]


@pytest.mark.parametrize(
    ("way", "free", "slices"),
    [("NCDHW", (0, 2, 3, 4), False), ("NDHWC", (0,), False), ("NDHW", (0,), False), ("NDHW", (0, 2, 3), True)],
)
def test_maps_are_those_of_autograd_however_the_volume_lies(way, free, slices):
    net, volumes = Volumes(way, slices), lying(way)
    made = export_model(onnx_bytes(net, volumes[:1], free))
    found = Explainer(made.model.SerializeToString())(volumes, targets=1)
    assert (made.metadata.order, made.metadata.kind) == (way, "volume")
    expected = grad_cam(net, volumes, 1).reshape(2, -1, 6, 5)
    assert expected.max((1, 2, 3)).min() > 0
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-4, atol=1e-6)
    peak = torch.as_tensor(expected / expected.max((1, 2, 3), keepdims=True))[:, None]
    large = nn.functional.interpolate(peak, SIZE, mode="trilinear", align_corners=False)[:, 0].numpy()
    np.testing.assert_allclose(found.heatmaps[:, 0], large, rtol=1e-3, atol=1e-5)
    box = found.boxes[0, 0].astype(int)
    labels, count = scipy.ndimage.label(
        found.heatmaps[0, 0] >= found.threshold * found.heatmaps[0, 0].max(), np.ones((3, 3, 3))
    )
    largest = 1 + np.argmax(np.bincount(labels.ravel(), minlength=count + 1)[1:])
    z, y, x = scipy.ndimage.find_objects(labels)[largest - 1]
    assert tuple(box) == (x.start, y.start, z.start, x.stop, y.stop, z.stop)


@pytest.mark.parametrize(
    ("connectivity", "structure"), [(4, scipy.ndimage.generate_binary_structure(3, 1)), (8, np.ones((3, 3, 3)))]
)
def test_cuboids_are_those_of_scipys_components(connectivity, structure):
    for seed, share in enumerate((0.02, 0.1, 0.25, 0.5, 0.9)):
        mask = np.random.default_rng(seed).random((9, 11, 13)) < share
        labels, count = scipy.ndimage.label(mask, structure)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        boxes = [[x.start, y.start, z.start, x.stop, y.stop, z.stop] for z, y, x in scipy.ndimage.find_objects(labels)]
        np.testing.assert_array_equal(cuboids(mask, connectivity), np.column_stack([np.reshape(boxes, (-1, 6)), sizes]))
    assert cuboids(np.zeros((3, 4, 5), bool)).shape == (0, 7)


def nifti(voxels, order, code, slope, shift):
    """A NIfTI-1 file by its definition: dim at byte 40, type at 70, offset, slope and shift at 108, a row of sform."""
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, 3, *voxels.shape, 1, 1, 1, 1)
    struct.pack_into(f"{order}2h", header, 70, code, 8 * voxels.dtype.itemsize)
    struct.pack_into(f"{order}3f", header, 108, 352, slope, shift)
    struct.pack_into(f"{order}4f", header, 280, -1.5, 0, 0, 90)
    header[344:348] = b"n+1\0"
    return bytes(header) + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")


@pytest.mark.parametrize(("order", "packed"), [("<", True), (">", False)])
def test_nifti_goes_in_and_comes_out_in_its_space(tmp_path, order, packed):
    voxels = (VOLUMES[0, 0] * 1000).astype(np.int16)
    path = tmp_path / ("head.nii.gz" if packed else "head.nii")
    content = nifti(voxels, order, 4, 0.001, 0.5)
    path.write_bytes(gzip.compress(content) if packed else content)
    explainer = Explainer(export_model(onnx_bytes(Volumes(), VOLUMES[:1])).model.SerializeToString())
    found = explainer(path, targets=1)
    np.testing.assert_allclose(found.images[0][0], voxels * 0.001 + 0.5, rtol=1e-5, atol=1e-6)
    found.save(tmp_path / "out")
    made = gzip.decompress(next((tmp_path / "out").glob("head*.nii.gz")).read_bytes())
    written = np.frombuffer(made[352:], f"{order}f4").reshape(SIZE, order="F")
    np.testing.assert_array_equal(written, found.heatmaps[0, 0])
    assert struct.unpack_from(f"{order}4f", made, 280) == (-1.5, 0, 0, 90)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(FastcamError, match=r"ends before|no volume can be read"):
        explainer(path)


def test_a_region_of_a_segmenter_is_the_sum_of_its_scores():
    torch.manual_seed(0)
    body, head = nn.Conv3d(1, 4, 3, 1, 1), nn.Conv3d(4, 3, 3, 1, 1)
    made = export_model(onnx_bytes(nn.Sequential(body, nn.ReLU(), head), VOLUMES[:1]))
    assert made.metadata.cotangents[0].answer == "region"
    found = Explainer(made.model.SerializeToString())(VOLUMES, targets="region:1")
    a = torch.relu(body(torch.as_tensor(VOLUMES))).detach().requires_grad_()
    scores = head(a)
    value = (scores[:, 1] * (scores.argmax(1) == 1)).sum((1, 2, 3))
    (gradient,) = torch.autograd.grad(value.sum(), a)
    expected = torch.relu((gradient * a).sum(1)).detach().numpy()
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.scores[:, 0], value.detach(), rtol=1e-4)


def test_the_command_line_draws_slices_and_writes_the_heatmap(tmp_path):
    (tmp_path / "ct.onnx").write_bytes(onnx_bytes(Volumes(), VOLUMES[:1]))
    np.save(tmp_path / "chest.npy", VOLUMES[0, 0])
    assert CliRunner().invoke(app, ["export", str(tmp_path / "ct.onnx")]).exit_code == 0
    given = [str(tmp_path / "ct.cam.onnx"), str(tmp_path / "chest.npy"), "-t", "1"]
    run = CliRunner().invoke(app, ["explain", *given, "-o", str(tmp_path / "out")])
    assert run.exit_code == 0 and "box x0 y0 z0 x1 y1 z1" in run.output, run.output
    (image,) = json.loads((tmp_path / "out/explanation.json").read_text())["images"]
    assert (image["depth"], image["height"], image["width"]) == SIZE and len(image["targets"][0]["box"]) == 6
    found = Explainer(tmp_path / "ct.cam.onnx")(VOLUMES[:1], targets=1)
    np.testing.assert_array_equal(np.load(next((tmp_path / "out").glob("chest-1-*.npy"))), found.heatmaps[0, 0])
    assert cv2.imread(str(next((tmp_path / "out").glob("chest-1-*.png")))).std() > 10


def test_a_clip_of_three_channels_is_a_volume_where_that_is_said():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 4, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2))
    source = onnx_bytes(net, np.zeros((1, 3, 4, 8, 8), np.float32))
    assert export_model(source, check=False).metadata.kind == "video"
    made = export_model(source, order="NCDHW", check=False)
    found = Explainer(made.model.SerializeToString())(np.random.default_rng(0).random((2, 3, 4, 8, 8), np.float32))
    assert made.metadata.kind == "volume" and found.heatmaps.shape == (2, 1, 4, 8, 8)


def test_methods_that_run_again_are_refused_by_name():
    explainer = Explainer(export_model(onnx_bytes(Volumes(), VOLUMES[:1])).model.SerializeToString())
    with pytest.raises(FastcamError, match="explains volumes, and Occlusion pictures"):
        explainer(VOLUMES, method="occlusion")


@pytest.mark.parametrize("fuse", ["max", "refinecam"])
def test_maps_of_several_layers_are_fused_over_slices_too(fuse):
    names = ["/body/body.3/Relu_output_0", "/body/body.1/Relu_output_0"]
    file = export_model(onnx_bytes(Volumes(), VOLUMES[:1]), layer=names).model.SerializeToString()
    found = Explainer(file)(VOLUMES, targets=[1, 2], layers="all", fuse=fuse)

    def large(maps, size):
        peak = torch.as_tensor(maps).amax((2, 3, 4), keepdim=True)
        scaled = torch.as_tensor(maps) / peak.clamp(min=1e-9)
        return nn.functional.interpolate(scaled, size, mode="trilinear", align_corners=False)

    sides = [one.maps.shape[2:] for one in found.layers]
    size = tuple(max(each) for each in zip(*sides, strict=True)) if fuse == "max" else SIZE
    each = torch.stack([large(one.maps, size) for one in found.layers])
    expected = each.amax(0) if fuse == "max" else each.prod(0)
    np.testing.assert_allclose(found.maps, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.heatmaps, large(expected.numpy(), SIZE), rtol=1e-3, atol=1e-5)
    assert found.boxes.shape == (2, 2, 6)


def test_a_heatmap_of_another_tool_has_one_scale_for_the_volume():
    found = Explainer(export_model(onnx_bytes(Volumes(), VOLUMES[:1])).model.SerializeToString())
    signed = found(VOLUMES, targets=[1], style="captum").heatmaps
    net = Volumes()
    net(torch.as_tensor(VOLUMES))
    score = net.head(torch.tanh(net.map.mean((2, 3, 4))))[:, 1].sum()
    (gradient,) = torch.autograd.grad(score, net.map)
    maps = (gradient.mean((2, 3, 4), keepdim=True) * net.map).sum(1, keepdim=True).detach()
    expected = nn.functional.interpolate(maps, SIZE, mode="nearest")
    np.testing.assert_allclose(signed, expected, rtol=1e-3, atol=1e-5)
