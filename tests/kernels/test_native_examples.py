"""csrc/examples on ONNX Runtime's library, without Python: the same classes, boxes and overlays as the Explainer's.

So on OpenVINO, where its wheel is installed or OpenVINO_DIR says where its CMake package lies.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import fastcam
from fastcam import Explainer
from fastcam_export import export_model
from support.models.contract_model import noise, random_model

ROOT = Path(fastcam.__file__).resolve().parents[1]
DATA = ROOT / "fastcam" / "data"
pytestmark = pytest.mark.xdist_group("native examples")


@pytest.fixture(scope="module")
def library():
    """ONNX Runtime's library, which its wheels for Linux hold."""
    folder = Path(importlib.util.find_spec("onnxruntime").origin).parent / "capi"
    found = sorted(folder.glob("libonnxruntime.so*"))
    if not found:
        pytest.skip("onnxruntime's wheel holds no libonnxruntime.so here: no example ran")
    return str(found[0])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the programs."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake here: the examples were not built")
    folder = tmp_path_factory.mktemp("examples")
    options = ["-DFASTCAM_PYTHON=OFF", "-DFASTCAM_EXAMPLES=ON", "-DFASTCAM_CLONES=OFF", "-DCMAKE_CXX_FLAGS_RELEASE=-O1"]
    targets = ["--target", "fastcam_explain_example", "fastcam_camera_example"]
    wheel = importlib.util.find_spec("openvino")
    if wheel is not None and "OpenVINO_DIR" not in os.environ:
        options.append(f"-DOpenVINO_DIR={Path(wheel.origin).parent / 'cmake'}")
    if wheel is not None or "OpenVINO_DIR" in os.environ:
        targets.append("fastcam_explain_openvino_example")
    for command in (["-S", str(ROOT), "-B", str(folder), *options], ["--build", str(folder), *targets]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "warning" not in done.stdout, done.stdout
    return folder


@pytest.fixture(scope="module")
def on_openvino(built):
    """The program on OpenVINO."""
    if not (built / "explain_openvino").is_file():
        pytest.skip("no OpenVINO here: its example was not built")
    return built / "explain_openvino"


def run(program, *arguments, **options):
    """(exit code, lines, what was complained of), in an environment without anything of Python."""
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, env={}, timeout=300, **options)
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


def save(path, picture):
    """A picture as a PPM, which every build reads."""
    assert cv2.imwrite(str(path), picture[:, :, ::-1])
    return path


def scene(height, width):
    return cv2.resize(cv2.imread(str(DATA / "scene.jpg"))[:, :, ::-1].copy(), (width, height))


def export(path, **options):
    options = {"preprocess": "imagenet", "labels": DATA / "scenes.labels.txt", **options}
    export_model(DATA / "scenes.onnx", path, check=False, **options)
    return path


def agrees(lines, wanted):
    """Whether lines of the program say what an explanation says."""
    assert len(lines) == wanted.classes.shape[1]
    for t, line in enumerate(lines):
        label, score, status, box = line.split("\t")
        assert (label, status) == (wanted.label(0, t), wanted.status[0][t])
        assert float(score) == pytest.approx(float(wanted.scores[0, wanted.classes[0, t]]), rel=1e-4)
        if status == "ok":
            np.testing.assert_allclose(list(map(float, box.split())), wanted.boxes[0, t], rtol=1e-5)
        else:
            assert box == "-"


@pytest.mark.parametrize("options", [{}, {"emit": "cam"}, {"resize": "letterbox"}, {"resize": "crop"}], ids=str)
@pytest.mark.parametrize("size", [(300, 421), (90, 64)], ids=["shrunk", "enlarged"])
def test_classes_and_boxes_are_pythons(built, library, tmp_path, options, size):
    model = export(tmp_path / "net.cam.onnx", targets="required", **options)
    picture = scene(*size)
    file = save(tmp_path / "p.ppm", picture)
    wanted = Explainer(model)(picture, [-1, -2, 1], threshold=0.3)
    asked = ["--target", -1, "--target", -2, "--target", 1, "--threshold", 0.3, "--onnxruntime", library]
    code, lines, said = run(built / "explain", model, file, *asked)
    assert code == 0, said
    agrees(lines, wanted)


def test_a_grey_model_with_a_default_target_of_its_own(built, library, tmp_path):
    how = fastcam.schema.Preprocessing(size=(32, 32), color="GRAY", scale=1 / 255)
    contract = random_model(labels=("cat", 'dog \u00e9 "x"', "bird", "ship", "tree"), channels=1, preprocessing=how)
    (tmp_path / "net.cam.onnx").write_bytes(contract.file())
    picture = noise(70, 50, seed=2)
    file = save(tmp_path / "p.ppm", picture)
    asked = ["--target", 1, "--target", 0]
    code, lines, said = run(built / "explain", tmp_path / "net.cam.onnx", file, *asked, "--onnxruntime", library)
    assert code == 0, said
    wanted = Explainer(tmp_path / "net.cam.onnx")(picture, [1, 0])
    assert set(wanted.status[0]) == {"ok", "all_negative"}
    agrees(lines, wanted)


def test_the_overlay_is_pythons(built, library, tmp_path):
    model, picture = export(tmp_path / "net.cam.onnx"), scene(200, 260)
    file = save(tmp_path / "p.ppm", picture)
    code, _, said = run(built / "explain", model, file, "-o", tmp_path / "o.ppm", "--onnxruntime", library)
    assert code == 0, said
    wanted = Explainer(model)(picture)
    found = cv2.imread(str(tmp_path / "o.ppm"))[:, :, ::-1].astype(int)
    difference = np.abs(found - wanted.overlay(annotate=False)).max(axis=2)
    x0, y0, x1, y1 = wanted.boxes[0, 0].round().astype(int)
    near = np.zeros(difference.shape, bool)
    near[max(0, y0 - 3) : y1 + 3, max(0, x0 - 3) : x1 + 3] = True
    near[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3] = False
    assert (difference[~near] > 4).mean() < 1e-3 and (difference[near] > 20).mean() > 0.5  # the outline is drawn there


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_pictures_are_turned_as_their_files_say(built, library, tmp_path, ending):
    cache = (built / "CMakeCache.txt").read_text()
    if "OpenCV_DIR-NOTFOUND" in cache and "STB_INCLUDE_DIR-NOTFOUND" in cache:
        pytest.skip("neither OpenCV nor stb here: the program reads PPM alone")
    model, picture = export(tmp_path / "net.cam.onnx"), Image.fromarray(scene(300, 421))
    explainer, file = Explainer(model), tmp_path / f"p.{ending}"
    for orientation in range(10):  # 0 and 9 are none
        exif = Image.Exif()
        exif.endian = "<>"[orientation % 2]
        exif[0x10F], exif[0x112] = "a maker", orientation
        picture.save(file, exif=exif, quality=95)
        code, lines, said = run(built / "explain", model, file, "--onnxruntime", library)
        assert code == 0, said
        agrees(lines, explainer(file))


@pytest.mark.parametrize("exif", [b"", b"II*", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0"])
def test_damaged_exif_data_turn_nothing(built, library, tmp_path, exif):
    model, picture = export(tmp_path / "net.cam.onnx"), Image.fromarray(scene(300, 421))
    if "OpenCV_DIR-NOTFOUND" not in (built / "CMakeCache.txt").read_text():
        pytest.skip("OpenCV reads pictures here")
    picture.save(tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    chunk = b"eXIf" + exif
    chunk = len(exif).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "q.png").write_bytes(data[:33] + chunk + data[33:])
    found = [run(built / "explain", model, tmp_path / name, "--onnxruntime", library) for name in ("p.png", "q.png")]
    assert found[0] == found[1]


def test_what_is_wrong_is_one_line_and_code_2(built, library, tmp_path):
    file, here = save(tmp_path / "p.ppm", scene(64, 64)), ["--onnxruntime", library]
    gradients = export(tmp_path / "g.cam.onnx", emit="gradients")
    constant = export(tmp_path / "c.cam.onnx", targets="constant")
    for arguments, wanted in (
        ([constant, file, "--target", 3, *here], "predicted class alone"),
        ([DATA / "scenes.onnx", file, *here], "fastcam export"),
        ([gradients, file, *here], "--emit gradients"),
        ([tmp_path / "nowhere.onnx", file, *here], "nowhere.onnx"),
        ([gradients, tmp_path / "none.ppm", *here], "none.ppm"),
        ([gradients, file, "--onnxruntime", tmp_path / "none.so"], "--onnxruntime FILE"),
        ([gradients, file, "--threshold", "2"], "usage"),
        ([gradients, file, "--target", "dog"], "usage"),
        ([gradients, file, "--threads", "two"], "usage"),
        ([gradients, file, "-o", file, *here], "p.ppm: cannot be written"),
        ([gradients], "usage"),
    ):
        code, lines, said = run(built / "explain", *arguments)
        assert code == 2 and not lines and wanted in said, (arguments, said)
        assert len(said.splitlines()) == (2 if wanted == "usage" else 1), said


@pytest.mark.parametrize("options", [{}, {"emit": "cam", "resize": "letterbox"}], ids=str)
def test_openvino_finds_the_same_classes_and_boxes(on_openvino, tmp_path, options):
    model = export(tmp_path / "net.cam.onnx", targets="required", **options)
    picture = scene(300, 421)
    file, asked = save(tmp_path / "p.ppm", picture), ["--target", -1, "--target", -2, "--target", 1, "--threshold", 0.3]
    code, lines, said = run(on_openvino, model, file, *asked, "--threads", 1, "-o", tmp_path / "o.ppm")
    assert code == 0, said
    wanted = Explainer(model)(picture, [-1, -2, 1], threshold=0.3)
    agrees(lines, wanted)
    found = cv2.imread(str(tmp_path / "o.ppm"))[:, :, ::-1].astype(int)
    assert (np.abs(found - wanted.overlay(annotate=False)).max(axis=2) > 4).mean() < 0.1  # but for the box's outline


def test_openvino_refuses_in_one_line_what_it_cannot_ask(on_openvino, tmp_path):
    file, model = save(tmp_path / "p.ppm", scene(64, 64)), export(tmp_path / "net.cam.onnx")  # targets by default
    assert run(on_openvino, model, file)[0] == 0
    for arguments, wanted in (
        ([model, file, "--target", 2], "--targets required"),
        ([DATA / "scenes.onnx", file], "fastcam export"),
        ([tmp_path / "nowhere.onnx", file], "nowhere.onnx"),
    ):
        code, lines, said = run(on_openvino, *arguments)
        assert code == 2 and not lines and wanted in said and len(said.splitlines()) == 1, said


def test_the_model_alone_is_timed_beside_it(built, library, tmp_path):
    import json

    model, file = export(tmp_path / "net.cam.onnx"), save(tmp_path / "p.ppm", scene(64, 64))
    more = ["--onnxruntime", library, "--threads", 1, "--against", DATA / "scenes.onnx", "--repeat", 3]
    code, [line], said = run(built / "explain", model, file, *more)
    assert code == 0, said
    found = json.loads(line)
    assert found["rounds"] == 3 and 0 < found["plain_ms"] < 1000 * found["first_box_ms"] and found["ratio"] > 0.1


def test_a_camera_loop_in_c_says_a_line_for_each_frame(built, library, tmp_path):
    export(tmp_path / "net.cam.onnx", targets="required", frames=(120, 160))
    frames = [scene(120, 160), scene(120, 160)[:, ::-1].copy(), np.zeros((120, 160, 3), np.uint8)]
    content = b"".join(frame.tobytes() for frame in frames) + b"half a frame"
    code, lines, said = run(built / "camera", tmp_path / "net.cam.onnx", 120, 160, library, input=content)
    assert code == 0 and len(lines) == 3, said
    export(tmp_path / "plain.cam.onnx")
    explainer = Explainer(tmp_path / "plain.cam.onnx")
    for line, frame in zip(lines, frames):
        index, status, *box = map(int, line.split())
        wanted = explainer(frame)
        assert index == wanted.classes[0, 0] and (status == 0) == (wanted.status[0][0] == "ok")
        if status == 0:  # the same cells; their edges are in pixels of the frame here
            np.testing.assert_allclose(box, wanted.boxes[0, 0], atol=2)


def test_the_page_shows_the_program_that_was_built():
    page = (ROOT / "docs" / "tutorials" / "cpp.md").read_text()
    program = (ROOT / "csrc" / "examples" / "camera.c").read_text()
    assert f"```c\n{program}```" in page
    assert len(program.splitlines()) <= 110
