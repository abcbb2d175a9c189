"""Pictures of any channels, depth and size: grey, alpha, bands, 16 bits, bytes; sizes that only a run tells."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError, Preprocessing
from fastcam.cli import app
from fastcam.image.preprocess import prepare
from fastcam.runtime.session import warn_once
from fastcam.schema import PRESETS
from fastcam_export import export_model
from support.models.checked_network import SIDE, network

RNG = np.random.default_rng(0)
N = helper.make_node


def model(channels, size=(8, 10), dtype=TensorProto.FLOAT, last=False, weights=None):
    """Scores that are the means of the channels themselves: what goes in can be read off them."""
    w = np.eye(channels, dtype=np.float32)[..., None, None] if weights is None else weights
    nodes = [N("Cast", ["x"], ["f"], to=TensorProto.FLOAT)] if dtype != TensorProto.FLOAT else []
    x = "f" if nodes else "x"
    nodes += [N("Transpose", [x], ["t"], perm=[0, 3, 1, 2])] if last else []
    x = "t" if last else x
    nodes += [N("Conv", [x, "w"], ["a"]), N("GlobalAveragePool", ["a"], ["g"]), N("Flatten", ["g"], ["y"])]
    shape = ["N", *size, channels] if last else ["N", channels, *size]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", channels])],
        [numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def scores(made, picture, **how):
    return Explainer(made.model.SerializeToString(), **how)(picture).scores[0]


COLOURS = RNG.integers(0, 256, (8, 10, 4)).astype(np.uint8)


@pytest.mark.parametrize("preset", ["imagenet", "caffe", "clip", "unit", "tf"])
def test_a_grey_model_takes_the_mean_of_a_preset_s_numbers(preset):
    from fastcam.preprocessing import PRESETS

    made = export_model(model(1), preprocess=preset)
    said = PRESETS[preset]
    mean, std = np.mean(said.get("mean", 0.0)), np.mean(said.get("std", 1.0))
    grey = cv2.cvtColor(COLOURS[..., :3], cv2.COLOR_RGB2GRAY)
    expected = (grey * said.get("scale", 1.0) - mean) / std
    np.testing.assert_allclose(scores(made, COLOURS[..., :3]), [expected.mean()], rtol=1e-4)
    if preset == "imagenet":
        assert any("mean 0.449" in line for line in made.summary())


@pytest.mark.parametrize(("color", "order"), [("RGBA", [0, 1, 2, 3]), ("BGRA", [2, 1, 0, 3]), ("BANDS", [0, 1, 2, 3])])
@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
def test_four_channels(color, order, last, tmp_path):
    made = export_model(
        model(4, last=last), preprocess={"color": color, "scale": 1 / 255, "mean": (0.1, 0.2, 0.3, 0.4)}
    )
    expected = (COLOURS.mean((0, 1)) / 255)[order] - [0.1, 0.2, 0.3, 0.4]
    np.testing.assert_allclose(scores(made, COLOURS), expected, rtol=1e-4)
    cv2.imwrite(str(tmp_path / "alpha.png"), COLOURS[..., [2, 1, 0, 3]])
    np.testing.assert_allclose(scores(made, tmp_path / "alpha.png"), expected, rtol=1e-4)
    if color != "BANDS":  # opaque
        opaque = scores(made, np.ascontiguousarray(COLOURS[..., :3]))
        np.testing.assert_allclose(opaque, [*expected[:3], 1 - 0.4], rtol=1e-4)
    else:
        with pytest.raises(FastcamError, match="takes 4 bands, the picture has 3"):
            scores(made, np.ascontiguousarray(COLOURS[..., :3]))


def test_bands_of_a_multispectral_picture(tmp_path):
    bands = RNG.integers(0, 65536, (16, 20, 6)).astype(np.uint16)  # shrinks to 8 x 10
    np.save(tmp_path / "bands.npy", bands)
    made = export_model(model(6), preprocess={"color": "BANDS", "scale": 1 / 255})
    explainer = Explainer(made.model.SerializeToString())
    for source in (bands, tmp_path / "bands.npy"):
        found = explainer(source)
        np.testing.assert_allclose(found.scores[0], bands.mean((0, 1)) / 65535, rtol=1e-4)
        assert found.image().shape == (16, 20, 3)


def test_sixteen_bits_keep_their_precision(tmp_path):
    deep = np.full((8, 10), 1000, np.uint16)  # 3.89 of 255: a byte would say 3
    cv2.imwrite(str(tmp_path / "xray.png"), deep)
    made = export_model(model(1), preprocess="unit")
    for source in (tmp_path / "xray.png", deep, (tmp_path / "xray.png").read_bytes()):
        np.testing.assert_allclose(scores(made, source), [1000 / 65535], rtol=1e-5)
    colour = export_model(model(3), preprocess="raw")
    np.testing.assert_allclose(scores(colour, tmp_path / "xray.png"), [1000 / 257] * 3, rtol=1e-5)


@pytest.mark.parametrize(
    ("channels", "preprocess", "words"),
    [
        (2, "imagenet", "takes 2 channels, and RGB makes 3; say --color BANDS"),
        (4, "unit", "say --color RGBA"),
        (3, {"color": "GRAY"}, "takes 3 channels, and GRAY makes 1"),
        (6, {"color": "BANDS", "mean": (1, 2)}, "do not fit the 6 channels"),
        (3, {"colour": "RGB"}, "a preprocessing has no 'colour'"),
        (3, {"color": "CMYK"}, "color is 'CMYK'; give 'RGB'"),
    ],
)
def test_a_preprocessing_that_does_not_fit_is_refused_at_the_export(channels, preprocess, words):
    with pytest.raises(FastcamError, match=words):
        export_model(model(channels), preprocess=preprocess)


@pytest.mark.parametrize(("dtype", "preset"), [(TensorProto.UINT8, "raw"), (TensorProto.UINT8, {"color": "BGR"})])
def test_a_model_that_takes_bytes(dtype, preset):
    made = export_model(model(3, dtype=dtype), preprocess=preset)
    picture = np.ascontiguousarray(COLOURS[..., :3])
    expected = picture.mean((0, 1))[:: 1 if preset == "raw" else -1]
    np.testing.assert_allclose(scores(made, picture), expected, rtol=1e-4)
    whole = picture.transpose(2, 0, 1)[None].astype(np.float32)
    np.testing.assert_allclose(scores(made, whole), picture.mean((0, 1)), rtol=1e-4)
    for tensor in (whole / 255, whole - 100, whole * 2):
        with pytest.raises(FastcamError, match="takes uint8, and the tensor holds other numbers"):
            scores(made, tensor)
    for refused in ("imagenet", "unit", "tf128", {"scale": 1.5}):
        with pytest.raises(FastcamError, match="takes uint8, 0 to 255, and this preprocessing makes"):
            export_model(model(3, dtype=dtype), preprocess=refused)
        with pytest.raises(FastcamError, match="such a model prepares its pixels itself"):
            Explainer(made.model.SerializeToString(), preprocess=refused)


def test_tensors_of_the_wrong_range_are_told_apart():
    pixels = RNG.uniform(0, 255, (1, 3, 8, 10)).astype(np.float32)
    normalised = export_model(model(3), preprocess="imagenet")
    with pytest.raises(FastcamError, match=r"values up to 25\d.*lies in -2.12 to 2.64"):
        scores(normalised, pixels)
    raw = export_model(model(3), preprocess="raw")
    with pytest.raises(FastcamError, match=r"lies in 0 to 1, and the input of .* in 0 to 255"):
        scores(raw, pixels / 255)
    np.testing.assert_allclose(scores(raw, pixels), pixels.mean((2, 3))[0], rtol=1e-4)


UNLIKELY = {
    "dark pixels for 0..1": ("unit", lambda x: x * 15, "far beyond"),
    "standardised for 0..1": ("unit", lambda x: (x - 0.45) / 0.22, "far beyond"),
    "0..1 that was not normalised": ("imagenet", lambda x: x, "like pixels that were not normalised"),
    "0..1 for -1..1": ("tf", lambda x: x, "like pixels that were not normalised"),
    "0..1 for pixels less their mean": ("caffe", lambda x: x, "makes no such numbers"),
    "-1..1 for pixels": ("raw", lambda x: 2 * x - 1, "makes no such numbers"),
}


@pytest.mark.parametrize("name", UNLIKELY)
def test_a_tensor_of_an_unlikely_range_is_warned_of_once(name):
    preset, change, words = UNLIKELY[name]
    explainer = Explainer(export_model(model(3), preprocess=preset, check=False).model.SerializeToString())
    tensor = change(RNG.uniform(0, 1, (1, 3, 8, 10))).astype(np.float32)
    warn_once.cache_clear()
    with pytest.warns(UserWarning, match=rf"{words}.*; pixels become .* or give pictures") as seen:
        explainer(tensor)
        explainer(tensor * np.float32(0.99))
    assert len(seen) == 1 and seen[0].filename == __file__


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_preprocessing_makes_is_never_warned_of(preset):
    explainer = Explainer(export_model(model(3), preprocess=preset, check=False).model.SerializeToString())
    warn_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for low, high in ((0, 256), (0, 30), (120, 140), (0, 1), (255, 256)):
            tensor, _ = prepare(RNG.integers(low, high, (8, 10, 3), np.uint8), explainer.metadata.preprocessing)
            explainer(tensor)
            explainer(tensor + RNG.normal(0, 0.1 * abs(tensor).max(), tensor.shape).astype(np.float32))


# ---- sizes


def of_height(height, size=("H", "W")):
    """A model that runs at one height alone, as text recognisers do: its map becomes a sequence [N, W/8, 2 h/8]."""
    w = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)
    tensors = {"w": w, "s": np.array([0, 2 * (height // 8), -1]), "fc": np.ones((2 * (height // 8), 4), np.float32)}
    nodes = [
        N("Conv", ["x", "w"], ["c"], strides=[8, 8]),
        N("Relu", ["c"], ["r"]),
        N("Reshape", ["r", "s"], ["q"]),
        N("Transpose", ["q"], ["t"], perm=[0, 2, 1]),
        N("MatMul", ["t", "fc"], ["m"]),
        N("Mul", ["m", "rows"], ["l"]),
        N("ReduceMean", ["l", "one"], ["y"], keepdims=0),
    ]
    tensors |= {"rows": np.ones((1, 40, 4), np.float32), "one": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "line",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("size", [("H", "W"), (48, "W")])
def test_a_size_that_only_a_run_tells_is_found_and_said(size):
    made = export_model(of_height(48, size), preprocess="unit")
    assert made.metadata.preprocessing.size == (48, 320)
    assert any(line.startswith("size    48 x 320: the model takes") for line in made.summary())


def test_the_size_may_be_said(tmp_path):
    free = model(3, size=("H", "W"))
    assert export_model(free, preprocess="unit", size=(40, 24)).metadata.preprocessing.size == (40, 24)
    said = export_model(free, preprocess=Preprocessing(size=(40, 24)))
    assert said.metadata.preprocessing.size == (40, 24)
    assert export_model(free, preprocess=Preprocessing(size=None)).metadata.preprocessing.size is None
    taken = export_model(free, preprocess="unit")
    assert taken.metadata.preprocessing.size == (224, 224)
    assert any("224 x 224: the model takes any size" in line for line in taken.summary())
    free.metadata_props.add(key="imgsz", value="[64, 96]")
    carried = export_model(free, preprocess="unit")
    assert carried.metadata.preprocessing.size == (64, 96) and "(imgsz)" in "".join(carried.summary())
    with pytest.raises(FastcamError, match="size 8 x 11 does not fit input 'x', whose own is 8 x 10"):
        export_model(model(3), size=(8, 11))
    onnx.save(of_height(56), tmp_path / "line.onnx")  # no size that is tried
    refused = CliRunner().invoke(app, ["export", str(tmp_path / "line.onnx")])
    assert refused.exit_code == 2 and "--size HEIGHTxWIDTH" in refused.stderr
    done = CliRunner().invoke(app, ["export", str(tmp_path / "line.onnx"), "--size", "56x320", "--preprocess", "unit"])
    assert done.exit_code == 0 and "56 x 320, as given" in done.stdout, done.output


def test_the_command_line_says_the_pixels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(model(3), "m.onnx")
    cv2.imwrite("p.png", COLOURS[..., :3])
    how = ["--color", "BGR", "--mean", "0.5,0.4,0.3", "--std", "0.5", "--scale", "1/255"]
    assert CliRunner().invoke(app, ["export", "m.onnx", *how]).exit_code == 0
    said = Explainer("m.cam.onnx").metadata.preprocessing
    assert (said.color, said.mean, said.std, said.scale) == ("BGR", (0.5, 0.4, 0.3), (0.5,), 1 / 255)
    done = CliRunner().invoke(app, ["explain", "m.cam.onnx", "p.png", "--json", "--mean", "0", "--std", "1"])
    assert done.exit_code == 0, done.output
    wanted = Explainer("m.cam.onnx", preprocess={"mean": 0, "std": 1})("p.png")  # the rest stays the file's
    np.testing.assert_allclose(wanted.scores[0], COLOURS[..., :3].mean((0, 1)) / 255, rtol=1e-4)
    assert f'"score": {float(wanted.scores[0].max())}' in done.stdout
    for wrong in (["--mean", "a"], ["--std", "0"], ["--scale", "1/0"], ["--size", "48"]):
        refused = CliRunner().invoke(app, ["explain", "m.cam.onnx", "p.png", *wrong])
        assert refused.exit_code == 2 and wrong[0] in refused.stderr


def test_a_picture_without_an_axis_of_images_is_refused_with_the_way_on():
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 16, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0, 1], keepdims=0),
        helper.make_node("Reshape", ["m", "shape"], ["y"]),
    ]
    shape = numpy_helper.from_array(np.array([1, 3]), "shape")
    made = helper.make_model(
        helper.make_graph(nodes, "g", [image], [y], [shape]), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    with pytest.raises(FastcamError, match="of a picture without an axis of images put one in front"):
        export_model(made)


def test_a_free_width_follows_from_a_fixed_height():
    """As of readers of lines of text: the picture keeps its form."""
    file = export_model(network([], end="feat", image=("N", 3, SIDE, "W")), layer="feat").model.SerializeToString()
    picture = np.random.default_rng(0).integers(0, 256, (16, 40, 3), np.uint8)
    free, said = (Explainer(file, preprocess={"preset": "unit", **size}) for size in ({}, {"size": (SIDE, 20)}))
    np.testing.assert_array_equal(free(picture).heatmaps, said(picture).heatmaps)
