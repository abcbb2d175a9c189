"""Streams and files that are damaged, endless or no pictures at all: what was read is kept, and the fault is said."""

import json
import os
import socket
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.image.video_file import read_video
from fastcam.input_files import read_array, read_bytes, read_text
from fastcam.runtime.inputs.further_inputs import read_array as read_values
from fastcam_export import export_model, inspect_model
from support.models.small_models import classifier, save


@pytest.fixture(scope="module")
def explainer():
    made = export_model(classifier(), preprocess="unit", check=False)
    return Explainer(made.model.SerializeToString())


def clip(path, frames=30):
    code = cv2.VideoWriter_fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, 10, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(rng.integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    return path


def halved(path):
    """The same file, cut off in the middle, its index where the format has one in front."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


# ---- videos


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_sound_videos_are_read_to_their_end(tmp_path, suffix):
    assert len(list(read_video(clip(tmp_path / f"v{suffix}")))) == 30


def test_a_video_that_is_cut_short_says_so_behind_what_was_read(tmp_path, explainer):
    video, read = halved(clip(tmp_path / "v.avi")), []
    with pytest.raises(FastcamError, match=r"v\.avi: the video is cut short or damaged, \d+ of 30 frames can be read"):
        read.extend(read_video(video))
    assert 5 < len(read) < 25
    explained = []
    with pytest.raises(FastcamError, match="cut short"):
        for frame in explainer.stream(video):
            explained.append(frame)
    assert 5 < len(explained) < 25 and all(frame.explanation is not None for frame in explained)


def test_the_command_keeps_what_was_read_and_fails(tmp_path):
    model, video = tmp_path / "m.cam.onnx", halved(clip(tmp_path / "v.avi"))
    export_model(classifier(), model, preprocess="unit", check=False)
    done = CliRunner().invoke(app, ["stream", str(model), str(video), "-o", str(tmp_path / "out.jsonl")])
    assert done.exit_code == 2 and "cut short" in done.output
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert 5 < len(lines) < 25 and json.loads(lines[-1])["frame"] == len(lines) - 1


# ---- frames of a stream


class Broken:
    """A picture whose reading fails in a way of its own."""

    def __array__(self, *_, **__):
        raise RuntimeError("the camera is gone")


class Unweighable(Broken):
    """One that breaks when it is asked how large it is."""

    @property
    def nbytes(self):
        raise RuntimeError("the camera is gone")


def test_any_exception_of_a_frame_is_that_frames(tmp_path, explainer):
    good = np.zeros((8, 8, 3), np.uint8)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "p.jpg")
    truncated = Image.open(halved(tmp_path / "p.jpg"))
    frames = list(
        explainer.stream([good, truncated, "a\0b.png", Broken(), {"no": "picture"}, None, Unweighable(), good])
    )
    assert [frame.error is None for frame in frames] == [True, *[False] * 6, True]
    for frame in frames[1:-1]:
        assert str(frame.error).startswith(f"frame {frame.index}: ") and "\n" not in str(frame.error)
    assert "the camera is gone" in str(frames[3].error)
    assert np.array_equal(frames[0].explanation.maps, frames[-1].explanation.maps)


def test_one_path_is_one_picture_or_one_video(tmp_path, explainer):
    Image.new("RGB", (8, 8), (200, 30, 90)).save(tmp_path / "photo.png")
    for given in (str(tmp_path / "photo.png"), tmp_path / "photo.png"):
        (frame,) = explainer.stream(given)
        assert frame.error is None and frame.source == given
    assert len(list(explainer.stream(str(clip(tmp_path / "v.avi", 5))))) == 5


# ---- what may never end


def readers(path):
    """Everything that reads a file, by what reads it."""
    return {
        "bytes": lambda: read_bytes(path, "give a file"),
        "text": lambda: read_text(path, "give a file"),
        "array": lambda: read_array(path, "give a file"),
        "values": lambda: read_values(path),
        "export": lambda: export_model(path, None),
        "inspect": lambda: inspect_model(path),
        "labels": lambda: export_model(classifier(), labels=path, check=False),
        "explainer": lambda: Explainer(path),
        "picture": lambda: Explainer(
            export_model(classifier(), preprocess="unit", check=False).model.SerializeToString()
        )(path),
    }


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "zero byte", "long", "missing"])
@pytest.mark.parametrize("reader", readers(Path("x")))
def test_pipes_devices_and_impossible_names_are_refused_at_once(tmp_path, kind, reader):
    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind != "missing":
        path = Path("a\0b" if kind == "zero byte" else "n" * 5000)
    said = []

    def read():
        with pytest.raises(FastcamError) as caught:
            readers(path)[reader]()
        said.append(str(caught.value))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert said, "it waits for ever, or raised something else"
    assert len(said[0]) < 300 and "\n" not in said[0] and "\0" not in said[0]


def test_a_models_file_that_is_replaced_by_a_folder_is_said(tmp_path):
    save(classifier(), tmp_path / "m.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(FastcamError, match=r"folder\.onnx: cannot be read \(Is a directory\); give an ONNX file"):
        export_model(tmp_path / "folder.onnx")


def test_a_file_that_explains_other_targets_than_those_that_were_asked_for():
    made = export_model(classifier(), preprocess="unit", check=False).model
    (node,) = [one for one in made.graph.node if one.op_type == "Concat" and one.name.startswith("fastcam.")]
    count = next(one for one in made.graph.initializer if one.name == node.input[1])
    count.raw_data = np.array([3], np.int64).tobytes()
    with pytest.raises(FastcamError, match=r"is damaged: asked for 1 targets of 1 images it explains \[1, 3\]"):
        Explainer(made.SerializeToString())(np.zeros((8, 8, 3), np.uint8))
