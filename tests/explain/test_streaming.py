"""Streams: the same explanations as one by one, in order; errors stay with their frame; the verb, video in and out."""

from __future__ import annotations

import json
import threading
import time
from itertools import count, islice, pairwise

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.explain import streaming
from fastcam.image import video_file
from fastcam.image.decode import weight
from fastcam.image.video_file import read_video, sampled_video
from fastcam.schema import preset
from support.models.contract_model import brightness_model, random_model

LABELS = ("bright thing", "dark thing, shadow")


def pictures(number, size=(40, 50)):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(number)]


@pytest.mark.parametrize("batch", ["N", 3])
def test_a_stream_is_what_one_by_one_gives(batch):
    explainer = Explainer(random_model(batch=batch, end="Softmax").file())
    given = pictures(8)
    found = list(explainer.stream(given, targets=[-1, 2], batch_size=4, workers=3, threshold=0.4))
    assert [frame.index for frame in found] == list(range(8))
    for picture, frame in zip(given, found):
        assert frame.error is None and frame.source is picture
        alone = explainer(picture, targets=[-1, 2], threshold=0.4)
        np.testing.assert_allclose(frame.explanation.heatmaps, alone.heatmaps, atol=1e-6)
        np.testing.assert_array_equal(frame.explanation.boxes, alone.boxes)
        np.testing.assert_array_equal(frame.explanation.classes, alone.classes)


@pytest.mark.parametrize("batch", ["N", 3])
def test_each_frame_may_have_targets_of_its_own(batch):
    explainer = Explainer(random_model(batch=batch).file())
    given, own = pictures(7), [[0], [1, -1], [2], 1, [{0: 1, 1: -1}], [7], [0, 1, 2]]
    seen = {}

    def targets(index, frame):
        seen[index] = frame
        return own[index]

    found = list(explainer.stream(given, targets, batch_size=3, workers=1))
    assert all(seen[n] is given[n] for n in range(7))
    for n, frame in enumerate(found):
        if n == 5:
            assert "class 7 is out of range" in str(frame.error) and str(frame.error).startswith("frame 5: ")
            continue
        alone = explainer(given[n], targets=own[n])
        asked = alone.classes.shape[1]
        assert frame.explanation.asked() == asked
        np.testing.assert_allclose(frame.explanation.heatmaps[:, :asked], alone.heatmaps, atol=1e-6)
        assert [frame.explanation.label(0, t) for t in range(asked)] == [alone.label(0, t) for t in range(asked)]


def test_an_error_stays_with_its_frame(tmp_path):
    explainer = Explainer(random_model().file())
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    good = pictures(4)
    found = list(
        explainer.stream([good[0], broken, good[1], np.zeros((0, 3, 3), np.uint8), good[2], good[3]], batch_size=2)
    )
    assert [frame.explanation is None for frame in found] == [False, True, False, True, False, False]
    assert str(found[1].error).startswith("frame 1: ") and "broken.png" in str(found[1].error)
    for frame, picture in zip([found[0], found[2], found[4], found[5]], good):
        np.testing.assert_array_equal(frame.explanation.boxes, explainer(picture).boxes)


def test_a_run_that_fails_fails_its_frames_and_no_others():
    """A file for pictures of any size, whose grid of 4 x 4 patches does not fit an odd size."""
    explainer = Explainer(random_model(size=("H", "W")).file(), preprocess=preset("unit", size=None))
    sizes = [(32, 32), (32, 32), (30, 30), (36, 32)]
    given = [pictures(1, size)[0] for size in sizes]
    alone = []
    for picture in given:
        try:
            alone.append(explainer(picture).boxes)
        except FastcamError:
            alone.append(None)
    found = list(explainer.stream(given, batch_size=4))
    assert [frame.explanation is None for frame in found] == [boxes is None for boxes in alone]
    for frame, boxes in zip(found, alone):
        if boxes is not None:
            np.testing.assert_array_equal(frame.explanation.boxes, boxes)


def test_an_endless_source_is_read_a_few_frames_ahead_and_ends_with_the_loop():
    explainer = Explainer(random_model().file())
    picture, read, before = pictures(1)[0], [], set(threading.enumerate())

    def camera():
        for i in count():
            read.append(i)
            yield picture

    frames = explainer.stream(camera(), batch_size=2, workers=2)
    assert [frame.index for frame in islice(frames, 5)] == [0, 1, 2, 3, 4]
    frames.close()
    assert len(read) < 40
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(20)
    assert not any(thread.is_alive() for thread in left)


def test_what_the_source_raises_is_raised_in_its_place():
    def source():
        yield from pictures(2)
        raise ZeroDivisionError

    frames = Explainer(random_model().file()).stream(source(), batch_size=1)
    assert [next(frames).index, next(frames).index] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(frames)


@pytest.mark.parametrize(
    "settings,message",
    [({"batch_size": 0}, "at least 1"), ({"workers": 0}, "at least 1"), ({"threshold": 2}, "threshold"),
     ({"targets": 99}, "99")],
)  # fmt: skip
def test_bad_settings_are_refused_before_anything_is_read(settings, message):
    def never():
        raise AssertionError("read")
        yield

    with pytest.raises(FastcamError, match=message):
        Explainer(random_model().file()).stream(never(), **settings)


# ---- the verb


@pytest.fixture
def desk(tmp_path, monkeypatch):
    exported = brightness_model((64, 64), preset("unit", size=(64, 64)), labels=LABELS)
    (tmp_path / "model.cam.onnx").write_bytes(exported.file())
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (128, 96))
    for i in range(6):
        frame = np.zeros((96, 128, 3), np.uint8)
        frame[32:64, 16 * i : 16 * i + 32] = 255  # a bright square that moves to the right
        writer.write(frame)
    writer.release()
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "album").mkdir()
    for i in range(2):
        cv2.imwrite(str(tmp_path / "album" / f"p{i}.png"), pictures(2)[i])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(app, ["stream", *map(str, arguments)])


def test_video_to_json_lines(desk):
    result = call("model.cam.onnx", "film.avi", "-t", "bright thing", "-o", "boxes.jsonl", "--batch-size", 4)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (desk / "boxes.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(6))
    explainer = Explainer("model.cam.onnx")
    for line, frame in zip(lines, read_video(desk / "film.avi"), strict=True):
        expected = explainer(frame, targets=["bright thing"]).to_dict()["images"][0]
        assert {key: line[key] for key in expected} == expected
    centres = [sum(line["targets"][0]["box"][::2]) / 2 for line in lines]
    assert all(later - sooner > 8 for sooner, later in pairwise(centres))


def test_video_to_overlay_video(desk):
    result = call("model.cam.onnx", "film.avi", "-o", "overlay.avi")
    assert result.exit_code == 0, result.output
    written, source = list(read_video(desk / "overlay.avi")), list(read_video(desk / "film.avi"))
    assert len(written) == 6 and written[0].shape == source[0].shape
    expected = Explainer("model.cam.onnx")(source[3]).overlay()
    assert np.abs(written[3].astype(int) - expected).mean() < 12  # of 255; the codec loses some
    assert np.abs(written[3].astype(int) - source[3]).mean() > 20
    assert sorted(path.name for path in desk.iterdir()) == [
        "album", "bad.mp4", "film.avi", "model.cam.onnx", "overlay.avi",
    ]  # fmt: skip


def test_folder_to_stdout(desk):
    result = call("model.cam.onnx", "album")
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["file"] for line in lines] == ["album/p0.png", "album/p1.png"]


def test_a_failed_frame_has_its_line_and_the_rest_go_on(desk):
    (desk / "album" / "p0.png").write_bytes(b"no picture")
    result = call("model.cam.onnx", "album", "-o", "boxes.jsonl")
    assert result.exit_code == 2
    lines = [json.loads(line) for line in (desk / "boxes.jsonl").read_text().splitlines()]
    assert "error" in lines[0] and lines[1]["targets"]
    assert "1 of 2 frames could not be explained" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("missing.mp4",),
        ("bad.mp4",),
        ("album", "-o", "boxes.txt"),
        ("album", "-o", "nowhere/boxes.jsonl"),
        ("album", "--batch-size", 0),
        ("album", "-t", "no such class"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(desk, arguments):
    before = sorted(path.name for path in desk.rglob("*"))
    result = call("model.cam.onnx", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("fastcam: ") and result.stderr.count("\n") == 1
    assert sorted(path.name for path in desk.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "how", "colors"),
    [(["--style", "captum"], {"style": "captum"}, "jet"), (["--colors", "inferno"], {}, "inferno")],
)
def test_an_overlay_video_takes_style_and_colours(desk, options, how, colors):
    """Frames are lossy: far nearer to the overlay in that style and colour map than to the plain one."""
    result = call("model.cam.onnx", "film.avi", "-o", "overlay.avi", *options)
    assert result.exit_code == 0, result.output
    written, source = list(read_video(desk / "overlay.avi")), list(read_video(desk / "film.avi"))
    explainer = Explainer("model.cam.onnx")
    wanted, plain = explainer(source[3], **how).overlay(colors=colors), explainer(source[3]).overlay()
    gaps = [np.abs(written[3].astype(int) - picture).mean() for picture in (wanted, plain)]
    assert gaps[0] < 12 and gaps[0] < gaps[1] / 2


# ---- how much is held


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("of", ["arrays", "files"])
def test_what_is_on_its_way_is_bounded_in_bytes(monkeypatch, tmp_path, of, batch_size):
    """Room for five frames: a sixth is not asked for while the reader has seen none."""
    frame = pictures(1, (300, 400))[0]
    explainer = Explainer(random_model().file())
    monkeypatch.setattr(streaming, "HELD", 5 * (frame.nbytes + 4 * 32 * 32 * 3))
    cv2.imwrite(str(tmp_path / "p.png"), frame)
    asked, ahead = [], []

    def source():
        for i in range(20):
            asked.append(i)
            yield frame if of == "arrays" else tmp_path / "p.png"

    for found in explainer.stream(source(), batch_size=batch_size, workers=4):
        assert found.error is None
        time.sleep(0.02 if found.index < 4 else 0)
        ahead.append(len(asked) - found.index)
    assert len(ahead) == 20 and max(ahead) <= 7  # the one that is read, those on their way, and one at the door


def test_frames_that_are_larger_than_all_room_still_pass(monkeypatch):
    explainer = Explainer(random_model().file())
    monkeypatch.setattr(streaming, "HELD", 1000)
    found = list(explainer.stream(pictures(6), batch_size=4))
    assert [frame.index for frame in found] == list(range(6)) and all(frame.error is None for frame in found)


def test_a_pictures_weight_is_asked_of_its_header(tmp_path):
    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((30, 40, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "p.tif"), np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    np.save(tmp_path / "p.npy", np.zeros((30, 40, 3), np.uint8))
    assert weight(tmp_path / "p.png") == weight(np.zeros((30, 40, 3), np.uint8)) == 3600
    assert weight(tmp_path / "p.tif") == 360_000 and weight(tmp_path / "p.npy") == 3600 + 128
    assert weight(tmp_path / "none.png") == weight("a\0b") == weight(None) == weight(b"nothing") - 7 == 0


def test_a_long_clip_is_read_twice_and_the_same(monkeypatch, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for i in range(30):
        writer.write(np.full((48, 64, 3), 8 * i, np.uint8))
    writer.release()

    def chosen(count):
        return [0, count // 2, count // 2, count - 1]

    plain = sampled_video(tmp_path / "v.avi", chosen)
    monkeypatch.setattr(video_file, "MOST_BYTES", 5 * 64 * 48 * 3)
    np.testing.assert_array_equal(sampled_video(tmp_path / "v.avi", chosen), plain)
    assert [frame.mean().round(-1) for frame in plain] == [0, 120, 120, 230]


def test_a_video_is_decoded_by_ffmpeg_alone_where_opencv_has_it(tmp_path, monkeypatch):
    """What it cannot open is one line, and no other decoder's pixels."""
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (50, 40))
    for picture in pictures(3):
        writer.write(picture)
    writer.release()
    assert len(list(read_video(tmp_path / "v.avi"))) == 3
    capture, other = cv2.VideoCapture, cv2.CAP_OPENCV_MJPEG
    assert capture(str(tmp_path / "v.avi"), other).isOpened()
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda path, kind=other: capture() if kind == cv2.CAP_FFMPEG else capture(path, other)
    )
    if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        with pytest.raises(FastcamError, match=r"v\.avi: OpenCV cannot read this as a video"):
            list(read_video(tmp_path / "v.avi"))
