"""Clips as pictures are: layers fused, other tools' styles, modes as methods, streams; PyTorch is the oracle."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.methods.layer_fusion import NAMES
from fastcam.runtime.inputs.clips import clips_of
from fastcam_export import export_model
from support.models.video_model import CLIPS, FRAMES, SIZE, TENSORS, F, video


def relu_video():
    """The network, whose second layer is a ReLU too, so that guided backpropagation changes both."""
    model = video()
    next(node for node in model.graph.node if node.op_type == "Tanh").op_type = "Relu"
    return model


def layers(clips, target, relu=torch.tanh):
    """Grad-CAM's signed maps of one class at "a" and "b", [N, 1, t, h, w] each."""
    w = {name: torch.tensor(array) for name, array in TENSORS.items()}
    a = F.relu(F.conv3d(torch.tensor(clips), w["w"], padding=1, stride=2)).requires_grad_()
    b = relu(F.conv3d(a, w["w2"], padding=1))
    score = (b.mean((2, 3, 4)) @ w["fc"])[:, target].sum()
    return [
        (gradient.mean((2, 3, 4), keepdim=True) * value).sum(1, keepdim=True).detach()
        for value, gradient in zip((a, b), torch.autograd.grad(score, (a, b)), strict=True)
    ]


def rows(maps):
    """[N, T, frames, H, W] as the explanation's rows, [N frames, T, H, W]."""
    return np.moveaxis(np.asarray(maps), 2, 1).reshape(-1, maps.shape[1], *maps.shape[3:])


def scaled(maps):
    peak = maps.amax((2, 3, 4), keepdim=True)
    return maps / torch.where(peak > 0, peak, 1)


def trilinear(maps, size):
    return F.interpolate(maps, size, mode="trilinear", align_corners=False)


@pytest.fixture(scope="module")
def both():
    return Explainer(export_model(video(), layer=["b", "a"], preprocess="unit").model.SerializeToString())


@pytest.mark.filterwarnings("ignore:.*float tensor")
@pytest.mark.parametrize("fuse", NAMES)
def test_layers_are_fused_over_time(both, fuse):
    """The maps of both layers, brought to the frames, divided by the clip's maximum and put together."""
    found = both(CLIPS, targets=[1], fuse=fuse)
    at_frames = [scaled(trilinear(torch.relu(m), (FRAMES, *m.shape[3:]))) for m in layers(CLIPS, 1)]
    a, b = (trilinear(m, (FRAMES, SIZE, SIZE)) if fuse == "refinecam" else m for m in at_frames)
    last = torch.where((b.amax((2, 3, 4), keepdim=True) > 0), b, a)
    expected = {
        "max": torch.maximum(a, b),
        "mean": (a + b) / 2,
        "layercam": torch.maximum(torch.tanh(2 * a), torch.tanh(2 * b)),
        "last": last,
        "place": torch.where((b * a).amax((2, 3, 4), keepdim=True) > 0, b * a, b),
        "refinecam": a * b,
    }[fuse]
    np.testing.assert_allclose(found.maps, rows(expected), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        found.heatmaps, rows(trilinear(scaled(expected), (FRAMES, SIZE, SIZE))), rtol=1e-3, atol=2e-5
    )
    assert found.fuse == fuse and found.fused == ("a", "b") and len(found) == 2 * FRAMES


def minimum_to_maximum(maps, epsilon):
    above = maps - maps.amin((2, 3, 4), keepdim=True)
    return above / (above.amax((2, 3, 4), keepdim=True) + epsilon)


@pytest.mark.filterwarnings("ignore:.*float tensor")
@pytest.mark.parametrize("style", ["pytorch-grad-cam", "torch-cam", "captum"])
def test_heatmaps_of_other_tools_have_one_scale_for_a_clip(both, style):
    found = both.at("a")(CLIPS, targets=[1], style=style)
    signed = layers(CLIPS, 1)[0]
    if style == "captum":
        expected = F.interpolate(signed, (FRAMES, SIZE, SIZE), mode="nearest")
    elif style == "pytorch-grad-cam":
        once = minimum_to_maximum(torch.relu(signed), 1e-7)
        expected = minimum_to_maximum(trilinear(once, (FRAMES, SIZE, SIZE)), 1e-7)
    else:
        frames = trilinear(minimum_to_maximum(torch.relu(signed), 1e-8), (FRAMES, *signed.shape[3:])).numpy()
        from PIL import Image

        each = [
            np.asarray(Image.fromarray(frame, mode="F").resize((SIZE, SIZE), resample=Image.Resampling.BICUBIC))
            for frame in frames.reshape(-1, *frames.shape[3:])
        ]
        expected = torch.tensor(np.stack(each).reshape(2, 1, FRAMES, SIZE, SIZE))
    np.testing.assert_allclose(found.heatmaps, rows(expected), rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    assert found.style == style and found.overlay(3).shape == (SIZE, SIZE, 3)


class GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clamp(min=0) * (ctx.saved_tensors[0] > 0)


@pytest.mark.filterwarnings("ignore:.*float tensor")
def test_guided_gradcam_is_guided_backpropagation_times_the_heatmap_frame_by_frame():
    file = export_model(relu_video(), layer="b", input_gradient="guided", check=False).model.SerializeToString()
    explainer = Explainer(file)
    x, guided = torch.tensor(CLIPS).requires_grad_(), GuidedReLU.apply
    w = {name: torch.tensor(array) for name, array in TENSORS.items()}
    b = guided(F.conv3d(guided(F.conv3d(x, w["w"], padding=1, stride=2)), w["w2"], padding=1))
    (gradient,) = torch.autograd.grad((b.mean((2, 3, 4)) @ w["fc"])[:, 1].sum(), x)
    heat = trilinear(scaled(torch.relu(layers(CLIPS, 1, torch.relu)[1])), (FRAMES, SIZE, SIZE))
    product = np.moveaxis((gradient * heat).numpy(), 2, 1).reshape(-1, 3, SIZE, SIZE)
    found = explainer(CLIPS, targets=[1], method="guided-gradcam", options={"blur": 0.0})
    scale = np.abs(product).max()
    np.testing.assert_allclose(found.attributions[:, 0], product, atol=1e-4 * scale)
    strongest = np.abs(product).max(1).reshape(2, FRAMES, SIZE, SIZE)
    expected = (strongest / strongest.max((1, 2, 3), keepdims=True)).reshape(-1, 1, SIZE, SIZE)
    np.testing.assert_allclose(found.heatmaps, expected, atol=1e-4)
    plain = explainer(CLIPS, targets=[1])
    np.testing.assert_allclose(plain.guided_gradcam[:, 0], product, atol=1e-4 * scale)
    alone = explainer(CLIPS, targets=[1], method="guided", options={"blur": 0.0})
    np.testing.assert_allclose(
        alone.attributions[:, 0], np.moveaxis(gradient.numpy(), 2, 1).reshape(-1, 3, SIZE, SIZE), atol=1e-5
    )
    blurred = explainer(CLIPS, targets=[1], method="guided-gradcam").heatmaps
    assert blurred.max() == 1 and not np.allclose(blurred, found.heatmaps)


@pytest.mark.filterwarnings("ignore:.*float tensor")
def test_relevance_at_the_layer_is_a_map_for_each_frame():
    """Excitation backpropagation of one linear layer behind a mean: each position has its share of what is positive."""
    file = export_model(relu_video(), layer="b", input_gradient="excitation", check=False).model.SerializeToString()
    found = Explainer(file)(CLIPS, targets=[1], method="excitation")
    w = {name: torch.tensor(array) for name, array in TENSORS.items()}
    b = F.relu(F.conv3d(F.relu(F.conv3d(torch.tensor(CLIPS), w["w"], padding=1, stride=2)), w["w2"], padding=1))
    share = (b * w["fc"][:, 1].clamp(min=0)[:, None, None, None]).sum(1, keepdim=True)
    expected = scaled(share)
    np.testing.assert_allclose(found.heatmaps, rows(trilinear(expected, (FRAMES, SIZE, SIZE))), rtol=1e-3, atol=1e-5)


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 20, 30, 3), dtype=np.uint8)


def film(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (30, 20))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


@pytest.mark.parametrize("count,expected", [(12, [0, 6]), (13, [0, 6, 7]), (4, [0])])
def test_a_video_is_cut_into_neighbouring_clips_with_every_frame_once(count, expected):
    clips = list(clips_of(iter(range(count)), FRAMES))
    assert [clip.start for clip in clips] == expected
    assert all(clip.frames == list(range(clip.start, clip.start + len(clip))) for clip in clips)
    numbers = [number for clip in clips for number, _ in clip.rows(FRAMES)]
    assert numbers == list(range(count))
    for clip in clips:
        assert all(0 <= row < FRAMES for _, row in clip.rows(FRAMES))


def test_a_stream_of_clips_is_that_of_its_calls(both):
    given = [pictures(FRAMES, seed) for seed in range(5)]
    for frame, clip in zip(both.stream(given, targets=[2], batch_size=2), given, strict=True):
        assert frame.error is None and frame.source is clip
        np.testing.assert_allclose(frame.explanation.heatmaps, both(clip, targets=[2]).heatmaps, atol=1e-5)
        np.testing.assert_array_equal(np.stack(frame.explanation.images), clip)


def test_a_broken_clip_does_not_stop_the_stream(both):
    found = list(both.stream([pictures(FRAMES), [pictures(2)[0], pictures(2)[1][:10]], pictures(FRAMES)]))
    assert [frame.error is None for frame in found] == [True, False, True]
    assert "frame 1: the frames of a clip have different sizes" in str(found[1].error)


def test_a_video_file_streams_as_clips_and_the_command_line_has_a_line_for_each_frame(both, tmp_path):
    path = film(tmp_path / "film.avi", pictures(9))
    clips = list(both.stream(path))
    assert [(clip.source.start, clip.source.seen) for clip in clips] == [(0, 0), (3, 3)]
    (tmp_path / "v.onnx").write_bytes(both.model)
    arguments = ["stream", tmp_path / "v.onnx", path, "-o", tmp_path / "out.jsonl"]
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    assert "9 frames" in result.output
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(9))
    whole = [*clips[0].explanation.boxes[:, 0], *clips[1].explanation.boxes[3:, 0]]
    for line, box in zip(lines, whole, strict=True):
        np.testing.assert_allclose(line["targets"][0]["box"] or np.zeros(4), box, atol=0.01)
    drawn = CliRunner().invoke(app, [str(one) for one in (*arguments[:3], "-o", tmp_path / "out.avi")])
    assert drawn.exit_code == 0, drawn.output
    reader, count = cv2.VideoCapture(str(tmp_path / "out.avi")), 0
    while reader.grab():
        count += 1
    assert count == 9


def test_a_data_set_of_pictures_is_refused(both):
    from fastcam.evaluation.contestant import Contestant

    with pytest.raises(FastcamError, match="v explains clips, and the data set has pictures"):
        Contestant("v", both, None).check()
