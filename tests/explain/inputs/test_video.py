"""Video models: a heatmap a frame; autograd and torch's trilinear interpolation are the oracle."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.concepts.dff import concepts
from fastcam_export import export_model
from support.models.video_model import CLIPS, FRAMES, SIZE, TENSORS, F, gradcam, heatmaps, video


@pytest.fixture(scope="module")
def exported():
    return export_model(video(), layer="a", emit="gradients", preprocess="unit").model.SerializeToString()


@pytest.mark.parametrize("emit", ["weights", "gradients", "cam"])
def test_each_frame_has_its_heatmap_and_box(emit):
    made = export_model(video(), layer="a", emit=emit)
    found = Explainer(made.model.SerializeToString())(CLIPS, targets=[1, 3], threshold=0.9)
    maps, scores = gradcam(CLIPS, [1, 3])
    expected = heatmaps(maps)
    assert len(found) == 2 * FRAMES and (expected > 0).any()
    np.testing.assert_allclose(found.heatmaps, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.scores, np.repeat(scores, FRAMES, axis=0), rtol=1e-4, atol=1e-5)
    assert {word for row in found.status for word in row} == {"ok"}
    boxed = 0
    for row, t in np.ndindex(*found.heatmaps.shape[:2]):
        clip = slice(row // FRAMES * FRAMES, row // FRAMES * FRAMES + FRAMES)
        labels, count = scipy.ndimage.label(
            found.heatmaps[row, t] >= 0.9 * found.heatmaps[clip, t].max(), np.ones((3, 3))
        )
        if not count:
            assert not found.boxes[row, t].any()
            continue
        rows, columns = scipy.ndimage.find_objects(labels)[int(np.argmax(np.bincount(labels.ravel())[1:]))]
        np.testing.assert_array_equal(found.boxes[row, t], (columns.start, rows.start, columns.stop, rows.stop))
        boxed += 1
    assert 0 < boxed < found.heatmaps.shape[0] * 2  # frames without a box as well


def test_other_methods_and_layers_see_time_as_further_positions(exported):
    found = Explainer(exported)(CLIPS, targets=[1], method="hirescam")
    w = {name: torch.tensor(array) for name, array in TENSORS.items()}
    a = F.relu(F.conv3d(torch.tensor(CLIPS), w["w"], padding=1, stride=2)).requires_grad_()
    scores = torch.tanh(F.conv3d(a, w["w2"], padding=1)).mean((2, 3, 4)) @ w["fc"]
    (gradient,) = torch.autograd.grad(scores[:, 1].sum(), a)
    expected = F.relu((gradient * a).sum(1, keepdim=True)).detach().numpy()
    np.testing.assert_allclose(found.heatmaps, heatmaps(expected), rtol=1e-3, atol=1e-5)
    both = export_model(video(), layer=["b", "a"], emit="gradients").model.SerializeToString()
    several = Explainer(both)(CLIPS, targets=[1], layers="all")
    maps, _ = gradcam(CLIPS, [1])
    np.testing.assert_allclose(several.layers[0].heatmaps, heatmaps(maps), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("last", [False, True], ids=["NCTHW", "NTHWC"])
def test_the_gradient_at_the_image_is_given_frame_by_frame(last):
    file = export_model(video(last), layer="a", input_gradient="gradient").model.SerializeToString()
    given = np.moveaxis(CLIPS, 1, -1) if last else CLIPS
    found = Explainer(file)(np.ascontiguousarray(given), targets=[1, 3])
    x = torch.tensor(CLIPS).requires_grad_()
    w = {name: torch.tensor(array) for name, array in TENSORS.items()}
    a = F.relu(F.conv3d(x, w["w"], padding=1, stride=2))
    scores = torch.tanh(F.conv3d(a, w["w2"], padding=1)).mean((2, 3, 4)) @ w["fc"]
    for t, c in enumerate((1, 3)):
        (gradient,) = torch.autograd.grad(scores[:, c].sum(), x, retain_graph=True)
        expected = np.moveaxis(gradient.numpy(), 2, 1).reshape(-1, 3, SIZE, SIZE)
        np.testing.assert_allclose(found.input_gradients[:, t], expected, rtol=1e-3, atol=1e-7)
    np.testing.assert_array_equal(found.inputs, np.moveaxis(CLIPS, 2, 1).reshape(-1, 3, SIZE, SIZE))
    assert found.gradient_image(7, 1).shape == (SIZE, SIZE, 3)


def pictures(count):
    return np.random.default_rng(count).integers(0, 256, (count, 20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("last", [False, True], ids=["NCTHW", "NTHWC"])
def test_clips_are_prepared_frame_by_frame_and_sampled(last):
    file = export_model(video(last), layer="a", preprocess="unit").model.SerializeToString()
    explainer, clip = Explainer(file), pictures(13)
    chosen = clip[[int((k + 0.5) * 13 / FRAMES) for k in range(FRAMES)]]
    prepared = np.stack([cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for frame in chosen]) / 255
    tensor = prepared.transpose(3, 0, 1, 2)[None].astype(np.float32)
    found = explainer(clip, targets=[2])
    maps, scores = gradcam(tensor, [2])
    np.testing.assert_allclose(found.scores[0], scores[0], atol=1e-4)
    np.testing.assert_allclose(found.heatmaps, heatmaps(maps), rtol=1e-2, atol=1e-3)
    np.testing.assert_array_equal(np.stack(found.images), chosen)
    y, x = np.nonzero(found.heatmaps[5, 0] >= 0.15 * found.heatmaps.max())
    inside = (x.min() * 30 / SIZE, y.min() * 20 / SIZE, (x.max() + 1) * 30 / SIZE, (y.max() + 1) * 20 / SIZE)
    assert (found.boxes[5, 0, :2] >= inside[:2]).all() and (found.boxes[5, 0, 2:] <= inside[2:]).all()
    assert np.isclose(found.boxes[5, 0] * np.array([SIZE / 30, SIZE / 20] * 2) % 1, 0).all()  # in pixels of the frames
    several = explainer([clip, list(pictures(FRAMES))], targets=[2])
    np.testing.assert_allclose(several[:FRAMES].heatmaps, found.heatmaps, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.stack(several.images[FRAMES:]), pictures(FRAMES))


def test_a_video_file_is_a_clip_and_is_saved_frame_by_frame(exported, tmp_path):
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (30, 20))
    for frame in pictures(FRAMES):
        writer.write(frame)
    writer.release()
    explainer = Explainer(exported)
    found = explainer(path)
    later = explainer.explain(explainer.predict(str(path)))
    np.testing.assert_array_equal(found.heatmaps, later.heatmaps)
    assert found.files == (str(path),) * FRAMES
    names = [one.name for one in found.save(tmp_path / "out")]
    assert len(set(names)) == FRAMES + 1 and names[0].startswith("film-1") and names[1].startswith("film_2-1")


def test_the_command_line_explains_a_video_file(exported, tmp_path):
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (30, 20))
    for frame in pictures(FRAMES):
        writer.write(frame)
    writer.release()
    (tmp_path / "v.onnx").write_bytes(exported)
    arguments = ["explain", tmp_path / "v.onnx", path, "-t", 1, "-o", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    found = Explainer(exported)(path, targets=[1])
    for k in range(FRAMES):
        drawn = cv2.imread(str(tmp_path / "out" / f"film-{k:03}-1-class-1.png"))[..., ::-1]
        np.testing.assert_array_equal(drawn, found.overlay(k, 0, min_side=192))


def test_what_is_no_clip_is_refused(exported):
    explainer = Explainer(exported)
    with pytest.raises(FastcamError, match=r"must be \[N, 3, 6, 12, 12\]"):
        explainer(CLIPS[:, :, :5])
    with pytest.raises(FastcamError, match="frames of one size"):
        explainer([pictures(2)[0], pictures(2)[1][:10]])
    with pytest.raises(FastcamError, match="concepts are of pictures"):
        concepts(explainer, CLIPS)
    bare = Explainer(export_model(video(), layer="a").model.SerializeToString())
    with pytest.raises(FastcamError, match="does not say how pictures become its input"):
        bare(pictures(FRAMES))


def test_what_is_not_finite_is_said_of_every_frame(exported):
    clips = CLIPS.copy()
    clips[1, 0, 2, 3, 3] = np.nan
    found = Explainer(exported)(clips)
    assert found.status[FRAMES:] == (("non_finite",),) * FRAMES and not found.heatmaps[FRAMES:].any()
    assert found.status[0] == ("ok",)
