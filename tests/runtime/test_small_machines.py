"""A machine that has NumPy and ONNX Runtime, and nothing else of what FastCAM can use; then Pillow beside them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import fastcam
from fastcam import Explainer, FastcamError
from fastcam.image import decode, resampling
from fastcam_export import export_model

DATA = Path(fastcam.__file__).parent / "data"
BLOCKED = """
import sys
class Allowed:
    def __init__(self, finders):
        self.finders = finders
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "fastcam", "numpy", "onnxruntime", *ALSO}:
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)
sys.meta_path[:] = [Allowed(sys.meta_path[:])]
"""
# wheels of onnxruntime before 1.28 import these
NEEDS = ["flatbuffers", "google", "packaging", "sympy", "mpmath", "coloredlogs", "humanfriendly"]
EXPLAIN = """
import json, sys
import numpy as np
from fastcam import Explainer, FastcamError
model, picture, out = sys.argv[1:]
try:
    found = Explainer(model, threads=1)(np.load(picture) if picture.endswith(".npy") else picture)
except FastcamError as error:
    sys.exit(str(error))
np.savez(out, heatmaps=found.heatmaps, boxes=found.boxes, scores=found.scores, colours=found.heatmap_image())
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(loaded & {"cv2", "PIL", "typer", "rich", "yaml", "threadpoolctl", "onnx", "torch"})))
"""


def explained(model, picture, out, *also):
    """(packages that were loaded, what was found) in a process that can import only ``also`` beside the two; or the
    line that it ended with."""
    code = f"ALSO = {[*NEEDS, *also]}" + BLOCKED + EXPLAIN
    command = [sys.executable, "-c", code, str(model), str(picture), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip(), None
    return json.loads(done.stdout), np.load(out)


@pytest.fixture(scope="module", params=["stretch", "letterbox", "grey"])
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "net.cam.onnx"
    how = {"preset": "imagenet", "color": "GRAY", "mean": 0.45, "std": 0.22} if request.param == "grey" else "imagenet"
    if request.param == "grey":
        import onnx
        from onnx import helper, numpy_helper

        source = onnx.load(DATA / "scenes.onnx")  # of three channels; here all are the one that is given
        name = source.graph.input[0].name
        repeats = np.array([1, 3, 1, 1], np.int64)
        source.graph.initializer.append(numpy_helper.from_array(repeats, "repeats"))
        for node in source.graph.node:
            node.input[:] = ["rgb" if value == name else value for value in node.input]
        source.graph.node.insert(0, helper.make_node("Tile", [name, "repeats"], ["rgb"]))
        source.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    else:
        source = DATA / "scenes.onnx"
    resize = "letterbox" if request.param == "letterbox" else "stretch"
    export_model(source, path, preprocess=how, resize=resize, labels=DATA / "scenes.labels.txt", check=False)
    return path


@pytest.mark.parametrize("size", [(300, 421), (90, 64)], ids=["shrunk", "enlarged"])
def test_numpy_and_onnxruntime_explain_an_array(model, tmp_path, size):
    picture = cv2.resize(cv2.imread(str(DATA / "scene.jpg"))[:, :, ::-1].copy(), size[::-1])
    np.save(tmp_path / "p.npy", picture)
    loaded, found = explained(model, tmp_path / "p.npy", tmp_path / "out.npz")
    assert loaded == [], loaded
    wanted = Explainer(model)(picture)
    np.testing.assert_allclose(found["scores"], wanted.scores, atol=0.02)
    np.testing.assert_allclose(found["heatmaps"], wanted.heatmaps, atol=0.02)
    assert np.abs(found["colours"].astype(int) - wanted.heatmap_image()).mean() < 3
    np.testing.assert_allclose(found["boxes"], wanted.boxes, atol=4)


def test_pillow_reads_what_opencv_does_not(model, tmp_path):
    loaded, found = explained(model, DATA / "scene.jpg", tmp_path / "out.npz", "PIL")
    assert loaded == ["PIL"]
    wanted = Explainer(model)(DATA / "scene.jpg")
    np.testing.assert_allclose(found["heatmaps"], wanted.heatmaps, atol=0.02)
    said, _ = explained(model, DATA / "scene.jpg", tmp_path / "out.npz")
    assert "needs Pillow" in said and "pip install pillow" in said and len(said.splitlines()) == 1


@pytest.fixture
def without_opencv(monkeypatch):
    for module in (decode, resampling):
        monkeypatch.setattr(module, "has_opencv", lambda: False)


def test_pillow_turns_pictures_as_opencv_does(monkeypatch, without_opencv):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    for how in range(1, 9):
        for form in ("PNG", "TIFF"):
            file = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = how
            Image.fromarray(pixels).save(file, form, exif=exif)
            for reading in (fastcam.image.reading.Reading(), fastcam.image.reading.Reading(exif=False)):
                found = decode.load(file.getvalue(), reading)
                with monkeypatch.context() as patch:
                    patch.setattr(decode, "has_opencv", lambda: True)
                    np.testing.assert_array_equal(found, decode.load(file.getvalue(), reading), f"{form} {how}")


def test_what_pillow_would_read_with_half_its_bits_is_refused(without_opencv):
    deep = cv2.imencode(".png", np.full((4, 5, 3), 257 * 7 + 3, np.uint16))[1].tobytes()
    with pytest.raises(FastcamError, match="8 of its 16 bits; run: pip install opencv-python"):
        decode.load(deep)
    grey = cv2.imencode(".png", np.full((4, 5), 257 * 7, np.uint16))[1].tobytes()
    assert np.unique(decode.load(grey)).tolist() == [7]
    with pytest.raises(FastcamError, match="not a picture that Pillow can decode"):
        decode.load(b"no picture")
    with pytest.raises(FastcamError, match="cut short"):
        decode.load((DATA / "scene.jpg").read_bytes()[:-400])


@pytest.mark.parametrize("size", [(7, 5), (31, 64), (50, 20), (10, 90), (33, 47)], ids=str)
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_numpys_sizes_are_opencvs(without_opencv, monkeypatch, size, channels):
    rng = np.random.default_rng(1)
    shape = (33, 47) if channels is None else (33, 47, channels)
    floats, bytes_ = rng.normal(size=shape).astype(np.float32), rng.integers(0, 256, shape, np.uint8)
    found = [resampling.resize(array, size) for array in (floats, bytes_)]
    monkeypatch.setattr(resampling, "has_opencv", lambda: True)
    wanted = [resampling.resize(array, size).reshape(found[0].shape) for array in (floats, bytes_)]
    assert [array.dtype for array in found] == [np.float32, np.uint8]
    np.testing.assert_allclose(found[0], wanted[0], atol=1e-5)
    assert np.abs(found[1].astype(int) - wanted[1]).max() <= 1


def test_numpys_grey_is_opencvs(without_opencv, monkeypatch):
    pixels = np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8)
    found = resampling.grey(pixels), resampling.grey(pixels.astype(np.float32))
    monkeypatch.setattr(resampling, "has_opencv", lambda: True)
    np.testing.assert_array_equal(found[0], resampling.grey(pixels))
    np.testing.assert_allclose(found[1], resampling.grey(pixels.astype(np.float32)), rtol=1e-6)


def test_a_threads_limit_does_without_threadpoolctl(monkeypatch):
    from fastcam.runtime import thread_limit

    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    thread_limit.pools.cache_clear()
    try:
        with thread_limit.at_most(1):
            assert len(thread_limit.pools()) <= 1  # OpenCV's
    finally:
        thread_limit.pools.cache_clear()
