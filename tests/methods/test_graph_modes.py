"""What backward modes bring back, at run time: arrays, pictures, files and the command line."""

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer
from fastcam.cli import app
from fastcam.image.preprocess import prepare
from fastcam.render import drawing
from fastcam.schema import INPUT_GRADIENT, RELEVANCE, FastcamError, preset
from fastcam_export import export_model
from support.models.small_models import channels_last, classifier, save

SIDE = 16
LABELS = [f"thing {i}" for i in range(5)]


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, size, dtype=np.uint8) for size in ((24, 32, 3), (40, 20, 3))]


def exported(mode, **options):
    options = {"preprocess": "imagenet", "resize": "letterbox", "labels": LABELS, **options}
    return export_model(classifier(size=SIDE), input_gradient=mode, check=False, **options)


def explainer(mode, **options):
    return Explainer(exported(mode, **options).model.SerializeToString())


def test_arrays_are_what_the_file_gives(pictures):
    guided, plain = explainer("guided")(pictures, targets=[1, 3]), explainer("gradient")(pictures, targets=[1, 3])
    assert guided.input_gradients.shape == (2, 2, 3, SIDE, SIDE) and guided.relevance is None
    product = guided.input_gradients * guided.heatmaps[:, :, None]
    assert np.array_equal(guided.guided_gradcam, product) and np.abs(product).max() > 0
    tensors = [prepare(picture, preset("imagenet", size=(SIDE, SIDE), resize="letterbox"))[0] for picture in pictures]
    assert np.array_equal(plain.inputs, np.concatenate(tensors))
    expected = plain.input_gradients * np.concatenate(tensors)[:, None]
    assert np.array_equal(plain.input_x_gradient, expected)


def test_images_keep_their_own(pictures):
    found = explainer("guided")
    both, one = found(pictures, targets=[1, 3]), found(pictures[1], targets=[1, 3])
    assert np.allclose(both[1].input_gradients, one.input_gradients, atol=1e-6)
    small = Explainer(exported("guided").model.SerializeToString(), batch_size=1)
    assert np.allclose(small(pictures, targets=[1, 3]).input_gradients, both.input_gradients, atol=1e-6)


def test_channels_last_come_as_channels_first():
    """A model whose image is [N, H, W, C]: the same numbers in the explanation's order."""
    model = channels_last(SIDE)
    tensor = np.random.default_rng(1).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)
    made = export_model(model, input_gradient="guided", layer="r2", check=False).model.SerializeToString()
    found = Explainer(made)(np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)), targets=2)
    expected = explainer("guided", layer="r2")(tensor, targets=2)
    assert np.allclose(found.input_gradients, expected.input_gradients, atol=1e-6)
    assert np.array_equal(found.inputs, tensor)


def test_guided_maps_are_shown_around_grey(pictures):
    found = explainer("guided")(pictures, targets=[1])
    for i, picture in enumerate(pictures):
        shown = found.gradient_image(i)
        assert shown.shape == picture.shape
        values = np.stack([found.geometry[i].heatmap_to_original(c) for c in found.input_gradients[i, 0]], -1)
        clear = np.abs(values) > 0.1 * np.abs(values).max()
        assert np.array_equal(shown[clear] > 127.5, values[clear] > 0)
    assert not np.array_equal(found.gradient_image(0, cam=True), found.gradient_image(0))


def test_grey_is_zero_and_the_scale_is_the_largest_values():
    values = np.zeros((3, 20, 20))
    values[0, :, :4], values[1, :, 4:8], values[2, 0, 0] = 2, -1, np.nan
    shown = drawing.on_grey(values)
    assert shown[0, 10].tolist() == [128, 128, 128]
    assert shown[5, 0].tolist() == [255, 128, 128] and shown[5, 5].tolist() == [128, 64, 128]
    assert drawing.on_grey(values[:1])[5, 0].tolist() == [255] * 3
    assert (drawing.on_grey(np.zeros((3, 4, 4))) == 128).all()


def test_signed_maps_have_a_diverging_scale():
    shown = drawing.diverging(np.array([[-2.0, -1.0, 0.0, 1.0, 2.0]]))
    assert shown[0, [0, 2, 4]].tolist() == [[0, 0, 255], [255, 255, 255], [255, 0, 0]]
    assert shown[0, 1, 2] == shown[0, 3, 0] == 255 and 120 < shown[0, 1, 0] < 140


def test_relevance_at_the_layer_is_a_heatmap(pictures):
    found = explainer("excitation")(pictures, targets=[1, 3])
    assert found.relevance.shape == (2, 2, SIDE, SIDE) and found.input_gradients is None
    assert found.relevance.sum((2, 3)) == pytest.approx(1, abs=1e-5)
    assert found.gradient_image(1, 1).shape == pictures[1].shape


@pytest.mark.parametrize(
    ("mode", "files"), [("guided", ["guided", "guided-gradcam"]), ("lrp-composite", ["lrp-composite"])]
)
def test_saved_beside_the_overlays(pictures, tmp_path, mode, files):
    names = [path.name for path in explainer(mode)(pictures[0], targets=[2]).save(tmp_path)]
    assert names == ["image-1-thing-2.png", *(f"image-1-thing-2-{file}.png" for file in files), "explanation.json"]
    assert all((tmp_path / name).stat().st_size for name in names)


def test_command_line(pictures, tmp_path):
    model, picture = save(classifier(size=SIDE), tmp_path / "m.onnx"), tmp_path / "p.png"
    cv2.imwrite(str(picture), pictures[0])
    run = CliRunner().invoke
    made = run(app, ["export", str(model), "--input-gradient", "guided", "--preprocess", "imagenet"])
    assert made.exit_code == 0 and INPUT_GRADIENT in made.output and RELEVANCE not in made.output
    shown = run(app, ["explain", str(tmp_path / "m.cam.onnx"), str(picture), "-o", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    assert "3 files (overlays and guided)" in shown.output
    assert len(list((tmp_path / "out").glob("p-1-*-guided-gradcam.png"))) == 1


def test_what_the_file_does_not_have_is_refused(pictures):
    found = explainer("gradient")(pictures[0])
    with pytest.raises(FastcamError, match="the file has gradient; export the model with --input-gradient guided"):
        _ = found.guided_gradcam
    with pytest.raises(FastcamError, match="the file brings nothing back to the image"):
        explainer(None)(pictures[0]).gradient_image()


def test_an_export_on_demand_brings_back_the_same(pictures, tmp_path):
    whole, parts = tmp_path / "whole.onnx", tmp_path / "parts.onnx"
    options = {"input_gradient": "guided", "preprocess": "imagenet", "check": False}
    export_model(classifier(size=SIDE), whole, **options)
    export_model(classifier(size=SIDE), parts, on_demand=True, **options)
    split = Explainer(parts)
    later = split.explain(split.predict(pictures), targets=[1, -1])
    expected = Explainer(whole)(pictures, targets=[1, -1]).input_gradients
    assert np.allclose(later.input_gradients, expected, atol=1e-6)
