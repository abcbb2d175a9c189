"""How large a picture may be, in every way in, and whether its orientation counts; what reading one costs."""

import io
import json
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError, memory
from fastcam.cli import app
from fastcam.cli.explain import pictures
from fastcam.explain import streaming
from fastcam.image import decode
from fastcam.image.decode import load, read
from fastcam.image.reading import Reading
from fastcam.image.video_file import read_video
from fastcam.schema import preset
from support.models.contract_model import random_model

SMOOTH = np.dstack([np.indices((32, 48))[0] * 7, np.indices((32, 48))[1] * 5, np.full((32, 48), 90)]).astype(np.uint8)
ALPHA = np.dstack([SMOOTH, SMOOTH[..., 0] + 20])
SMALL = Reading(max_pixels=1000)


def chunk(name, data):
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def huge(width=16_000, height=16_000):
    """A PNG whose header promises much and which holds nothing."""
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def encoded(form="PNG", picture=SMOOTH, **options):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, form, **options)
    return file.getvalue()


# ---- too large


@pytest.mark.parametrize("color", ["RGB", "BANDS"])
@pytest.mark.parametrize("way", ["path", "text path", "bytes", "memory", "open file", "PIL", "npy"])
def test_every_way_in_is_asked_for_its_size_before_it_is_decoded(tmp_path, monkeypatch, way, color):
    path = tmp_path / ("photo.npy" if way == "npy" else "photo.png")
    np.save(path, SMOOTH) if way == "npy" else path.write_bytes(encoded())
    given = {"path": path, "npy": path, "text path": str(path), "bytes": encoded(), "memory": memoryview(encoded()),
             "open file": io.BytesIO(encoded()), "PIL": Image.open(io.BytesIO(encoded()))}[way]  # fmt: skip
    monkeypatch.setattr(decode, "_by_opencv", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(FastcamError, match=r"48 x 32 pixels, more than the 1,000 that are read; .*raise max_pixels"):
        read(given, color, SMALL)
    if way in ("path", "bytes", "PIL"):
        with pytest.raises(FastcamError, match="48 x 32"):
            load(given, SMALL)


def test_a_picture_that_is_allowed_and_larger_than_memory_is_one_line(monkeypatch):
    monkeypatch.setattr(memory, "limit", lambda: 2**29)
    with pytest.raises(FastcamError, match=r"the picture would take 732 MiB of memory, and there are 512 MiB"):
        load(huge(), Reading(max_pixels=10**9))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM"])
def test_every_format_is_asked(form):
    assert load(encoded(form), Reading(max_pixels=32 * 48)).shape == (32, 48, 3)
    with pytest.raises(FastcamError, match="48 x 32"):
        load(encoded(form), Reading(max_pixels=32 * 48 - 1))


def test_arrays_in_memory_have_no_limit():
    assert load(SMOOTH, SMALL) is not None and read(SMOOTH, "BANDS", SMALL)[1].shape == (32, 48, 3)


def video(path, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, size)
    for i in range(6):
        writer.write(np.full((*size[::-1], 3), 40 * i, np.uint8))
    writer.release()
    return path


def test_an_explainer_refuses_and_says_its_option(tmp_path):
    explainer = Explainer(random_model(preprocessing=preset("unit", size=(32, 32))).file(), max_pixels=1000)
    (tmp_path / "p.png").write_bytes(encoded())
    for given in (tmp_path / "p.png", encoded(), [SMOOTH, tmp_path / "p.png"], Image.fromarray(SMOOTH)):
        with pytest.raises(FastcamError, match="48 x 32 pixels"):
            explainer(given)
    frames = list(explainer.stream([SMOOTH, tmp_path / "p.png", encoded()]))
    assert [frame.error is None for frame in frames] == [True, False, False] and "48 x 32" in str(frames[1].error)
    with pytest.raises(FastcamError, match="64 x 48 pixels"):
        list(explainer.stream(video(tmp_path / "v.avi")))
    with pytest.raises(FastcamError, match="64 x 48 pixels"):
        next(read_video(tmp_path / "v.avi", SMALL))


def test_a_copy_in_another_process_reads_as_the_first():
    explainer = Explainer(random_model(preprocessing=preset("unit", size=(32, 32))).file(), max_pixels=1000, exif=False)
    other = pickle.loads(pickle.dumps(explainer))
    with pytest.raises(FastcamError, match="48 x 32 pixels"):
        other(encoded())
    assert other._file.reading == explainer._file.reading == Reading(1000, False)


@pytest.mark.parametrize("value", [0, -5, 1.5, "many", None, True])
def test_a_limit_is_a_whole_number(value):
    with pytest.raises(FastcamError, match="max_pixels is"):
        Explainer(random_model().file(), max_pixels=value)


def test_the_command_refuses_huge_pictures_and_has_the_options(tmp_path):
    model = tmp_path / "m.cam.onnx"
    model.write_bytes(random_model(preprocessing=preset("unit", size=(32, 32))).file())
    (tmp_path / "huge.png").write_bytes(huge())
    (tmp_path / "good.png").write_bytes(encoded())

    def call(verb, picture, *more):
        return CliRunner().invoke(app, [verb, str(model), str(tmp_path / picture), *more])

    for verb in ("explain", "stream"):
        out = ["-o", str(tmp_path / ("out" if verb == "explain" else "out.jsonl"))]
        done = call(verb, "huge.png", *out)
        assert (done.exit_code == 2 and done.exception is None) or isinstance(done.exception, SystemExit)
        done = call(verb, "good.png", "--max-pixels", "1000", *out)
        assert done.exit_code == 2
        assert call(verb, "good.png", "--max-pixels", "2000", "--no-exif", *out).exit_code == 0
    done = call("explain", "huge.png", "-o", str(tmp_path / "other"))
    assert "16000 x 16000 pixels, more than the 100,000,000 that are read" in " ".join(done.output.split())
    assert not (tmp_path / "other").exists()


# ---- what it costs

PEAK = """
import resource, sys
from fastcam.image.decode import read
from fastcam import FastcamError
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
read({small!r}, "RGB")
before = peak()
try:
    shape = read({path!r}, {color!r})[0].shape
except FastcamError as error:
    shape = (1, 1)
print((peak() - before) / (shape[0] * shape[1]))
"""


def cost(folder, name, color):
    """Bytes of memory, at the peak, for each pixel; for a refused one of all."""
    (folder / "small.png").write_bytes(encoded())
    script = PEAK.format(small=str(folder / "small.png"), path=str(folder / name), color=color)
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the room is given by a file in memory, of Linux")
def test_a_large_picture_costs_its_own_bytes_and_a_refused_one_nothing(tmp_path):
    large = np.zeros((4000, 4000, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "large.png"), large)
    cv2.imwrite(str(tmp_path / "large.jpg"), large)
    (tmp_path / "huge.png").write_bytes(huge())
    assert cost(tmp_path, "large.png", "RGB") < 4  # bytes a pixel; twice three where OpenCV makes room of its own
    assert cost(tmp_path, "large.jpg", "RGB") < 4
    assert cost(tmp_path, "huge.png", "RGB") < 8 << 20


def test_the_command_keeps_few_large_pictures_at_once(tmp_path, monkeypatch):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    small.write_bytes(encoded())
    cv2.imwrite(str(large), np.zeros((300, 300, 3), np.uint8))
    monkeypatch.setattr(streaming, "HELD", 600_000)
    runs = list(pictures._runs([small, small, large, large, large, small, small, small], 4))
    assert [start for start, _ in runs] == [0, 4] and [len(part) for _, part in runs] == [4, 4]
    monkeypatch.setattr(streaming, "HELD", 300_000)
    assert [len(part) for _, part in pictures._runs([small, small, large, large, large, small], 4)] == [3, 1, 2]
    model = tmp_path / "m.cam.onnx"
    model.write_bytes(random_model(preprocessing=preset("unit", size=(32, 32))).file())
    done = CliRunner().invoke(app, ["explain", str(model), *[str(large)] * 3, "--json"])
    assert done.exit_code == 0 and len(json.loads(done.stdout)["images"]) == 3


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("deep", [False, True])
def test_large_pictures_have_the_same_pixels_as_small_ones(monkeypatch, form, deep):
    if deep and form not in ("PNG", "TIFF"):
        pytest.skip("8 bits only")
    noise = np.random.default_rng(0).integers(0, 256, (70, 600, 3), np.uint8)
    data = encoded(form, noise, exif=oriented(6)) if form != "BMP" else encoded(form, noise)
    if deep:
        suffix = {"PNG": ".png", "TIFF": ".tif"}[form]
        data = cv2.imencode(suffix, noise.astype(np.uint16) * 200)[1].tobytes()
    plain = read(data, "RGB")
    monkeypatch.setattr(decode, "_LARGE", 1)
    for a, b in zip(plain, read(data, "RGB"), strict=True):
        np.testing.assert_array_equal(a, b)
    wanted = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert deep or np.array_equal(plain[0], wanted)


# ---- orientation


def oriented(how):
    exif = Image.Exif()
    exif[0x0112] = how
    return exif


FORMS = {"JPEG": {"quality": 98}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "AVIF": {"quality": 98}}


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_files_and_their_pil_images_lie_alike_in_every_format(form, alpha):
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    picture = ALPHA if alpha and form != "JPEG" else SMOOTH
    upright = encoded(form, picture, **FORMS[form])
    for how in range(1, 9):
        data = encoded(form, picture, exif=oriented(how), **FORMS[form])
        for color in ("RGB", "BANDS"):
            pixels = read(data, color)[1].astype(int)
            other = read(Image.open(io.BytesIO(data)), color)[1].astype(int)
            assert pixels.shape == other.shape == ((48, 32) if how > 4 else (32, 48)) + pixels.shape[2:]
            assert np.abs(pixels - other).max() <= 6
            ignored = read(data, color, Reading(exif=False))[1].astype(int)
            assert np.abs(ignored - read(upright, color)[1]).max() <= 6


def test_a_pil_image_is_left_as_it_lies_where_that_is_said():
    image = Image.open(io.BytesIO(encoded("PNG", exif=oriented(6))))
    np.testing.assert_array_equal(load(image, Reading(exif=False)), SMOOTH)
    explainer = Explainer(random_model(preprocessing=preset("unit", size=(32, 32))).file(), exif=False)
    for given in (image, encoded("PNG", exif=oriented(6))):
        assert explainer(given).images[0].shape == (32, 48, 3)


@pytest.mark.parametrize("color", ["RGB", "RGBA", "BANDS"])
def test_a_tiff_with_alpha_keeps_its_colours(color):
    """libtiff, by which OpenCV reads it, multiplies them by the alpha."""
    pixels = read(encoded("TIFF", ALPHA), color)[1]
    np.testing.assert_array_equal(pixels, SMOOTH if color == "RGB" else ALPHA)


def test_a_file_that_is_closed_or_of_text_is_one_line(tmp_path):
    closed = io.BytesIO(encoded())
    closed.close()
    (tmp_path / "t.txt").write_text("x")
    with pytest.raises(FastcamError, match="closed file"):
        load(closed)
    with (tmp_path / "t.txt").open() as text, pytest.raises(FastcamError, match="as bytes"):
        load(text)
    assert Path(tmp_path / "t.txt").exists()
