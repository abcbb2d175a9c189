"""The command line as a whole: help, the demo, and bad input: exit code 2, one line on stderr, nothing written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import cv2
import onnx
import pytest

from fastcam import Explainer, FastcamError, __version__
from fastcam.cli import app
from support.command_line import call, files
from support.models.contract_model import noise


def test_demo_writes_the_heatmaps_and_says_where(desk):
    result = call("demo", "-o", "show")
    assert result.exit_code == 0, result.stderr
    written = [line.removeprefix("heatmap: ") for line in result.stdout.splitlines() if line.startswith("heatmap: ")]
    assert len(written) == 4
    written += [line.removeprefix("strip: ") for line in result.stdout.splitlines() if line.startswith("strip: ")]
    for path in written:
        assert cv2.imread(path) is not None
    others = ["explanation.json", "scenes.cam.onnx", "captions.cam.onnx", "questions.cam.onnx"]
    assert sorted([*written, *(os.path.join("show", name) for name in others)]) == [
        os.path.join("show", name) for name in files(desk / "show")
    ]
    assert "what colour is the star? red" in result.stdout
    said = next(line for line in result.stdout.splitlines() if line.startswith("two_objects.jpg: "))
    assert "red star" in said or "blue ring" in said
    report = json.loads((desk / "show" / "explanation.json").read_text(encoding="utf-8"))
    targets = report["images"][0]["targets"]
    assert [target["status"] for target in targets] == ["ok"] * 3 and targets[0]["score"] > 0.5


BAD = [
    (["explain", "model.cam.onnx", "absent.png"], "absent.png: no such file"),
    (["explain", "absent.onnx", "photo.png"], "absent.onnx: no such file"),
    (["explain", "plain.onnx", "photo.png"], "plain.onnx was not exported by FastCAM; run: fastcam export plain.onnx"),
    (["explain", "text.onnx", "photo.png"], "text.onnx: not an ONNX file, or cut short"),
    (["explain", "short.onnx", "photo.png"], "short.onnx: not an ONNX file, or cut short"),
    (["explain", "detached.onnx", "photo.png"], "detached.onnx: its external data, gone.data, is missing"),
    (["explain", "model.cam.onnx", "album/notes.txt"], "notes.txt: not a picture"),
    (["explain", "model.cam.onnx", "empty.png"], "empty.png: not a picture"),
    (["explain", "model.cam.onnx", "short.png", "empty.png"], "short.png: the picture is cut short"),
    (
        ["explain", "model.cam.onnx", "short.png", "empty.png", "-m", "gradcam,eigencam"],
        "short.png: the picture is cut",
    ),
    (["explain", "model.cam.onnx", "nothing"], "nothing: no pictures in this folder"),
    (["explain", "model.cam.onnx", "photo.png", "--target", "2"], "class 2 is out of range: the model has 2 classes"),
    (["explain", "model.cam.onnx", "photo.png", "--target", "-3"], "class -3 is out of range"),
    (["explain", "model.cam.onnx", "photo.png", "--target", "shadw"], "no class 'shadw'; did you mean 'shadow'?"),
    (["explain", "model.cam.onnx", "photo.png", "-o", "photo.png"], "photo.png: cannot be written"),
    (["explain", "model.cam.onnx", "photo.png", "-o", "photo.png/deep"], "cannot be written"),
    (["explain", "model.cam.onnx", "photo.png", "--threshold", "2"], "fraction"),
    (["explain", "model.cam.onnx", "photo.png", "--batch-size", "0"], "batch size must be at least 1"),
    (["explain", "model.cam.onnx", "photo.png", "--threads", "0"], "threads must be at least 1"),
    (["explain", "model.cam.onnx", "photo.png", "--preprocess", "imagnet"], "no preprocessing preset 'imagnet'"),
    (["explain", "model.cam.onnx", "photo.png", "--labels", "short.txt"], "1 labels do not fit a model with 2 classes"),
    (["explain", "model.cam.onnx", "photo.png", "--threshold", "low"], "--threshold"),
    (["explain", "model.cam.onnx"], "no picture given"),
    (["explain", "model.cam.onnx", "photo.png", "--loud"], "--loud"),
    (["--loud"], "--loud"),
    (["explian", "model.cam.onnx", "photo.png"], "explian"),
    (["export", "plain.onnx", "--emit", "everything"], "--emit"),
    (["export", "absent.onnx"], "absent.onnx"),
    (["export", "text.onnx"], "text.onnx"),
    (["export", "short.onnx"], "short.onnx"),
    (["export", "model.cam.onnx"], "model.cam.onnx"),
    (["export", "plain.onnx", "--layer", "featuers"], "features"),
    (["export", "plain.onnx", "-o", "photo.png/x.onnx"], "photo.png"),
    (["export", "plain.onnx", "--preprocess", "imagnet"], "imagnet"),
    (["export", "plain.onnx", "--labels", "short.txt"], "1"),
    (["inspect", "text.onnx"], "text.onnx"),
    (["demo", "-o", "photo.png"], "photo.png: cannot be written"),
    (["tune", "absent/m.cam.onnx"], "m.cam.onnx: no such file"),
]


@pytest.fixture
def trouble(desk):
    """The desk with everything that can be wrong with a file."""
    (desk / "text.onnx").write_text("hello")
    data = (desk / "model.cam.onnx").read_bytes()
    (desk / "short.onnx").write_bytes(data[: len(data) // 2])
    proto = onnx.load(desk / "model.cam.onnx")
    onnx.save_model(proto, desk / "detached.onnx", save_as_external_data=True, location="gone.data", size_threshold=100)
    (desk / "gone.data").unlink()
    (desk / "empty.png").write_bytes(b"")
    (desk / "short.png").write_bytes((desk / "photo.png").read_bytes()[:-20])
    (desk / "short.txt").write_text("only one\n")
    (desk / "nothing").mkdir()
    return desk


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(trouble, arguments, words):
    before = files(trouble)
    result = call(*arguments)
    assert result.exit_code == 2, (result.exception, result.output)
    assert result.stdout == ""
    assert result.stderr.startswith("fastcam: ") and result.stderr.count("\n") == 1, result.stderr
    assert words in result.stderr
    assert files(trouble) == before


@pytest.mark.parametrize(
    ("lacks", "arguments", "words"),
    [
        ("cv2", ["report", "model.cam.onnx", "photo.png"], "opencv-python"),
        ("cv2", ["evaluate", "model.cam.onnx", "--data", "scenes:2"], "pip install opencv-python"),
        ("yaml", ["explain", "model.cam.onnx", "photo.png", "--labels", "names.yaml"], "pip install pyyaml"),
        ("typer", ["explain", "model.cam.onnx", "photo.png"], "pip install typer rich"),
        ("rich", ["--help"], "pip install typer rich"),
    ],
)
def test_a_package_that_is_missing_is_one_line(desk, lacks, arguments, words):
    (desk / "names.yaml").write_text("names: {0: cat, 1: dog}")
    before = files(desk)
    code = f"import runpy, sys; sys.modules[{lacks!r}] = None; sys.argv = {['fastcam', *arguments]!r}; "
    command = [sys.executable, "-W", "ignore", "-c", code + "runpy.run_module('fastcam', run_name='__main__')"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=desk)
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert result.stderr.startswith("fastcam: ") and result.stderr.count("\n") == 1 and words in result.stderr
    assert files(desk) == before


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["tune", "model.cam.onnx", "--seconds", "0.1", "-o"], "model.cam.onnx"),
        (["tune", "model.cam.onnx", "photo.png", "--seconds", "0.1", "-o"], "photo.png"),
        (["report", "model.cam.onnx", "photo.png", "-o"], "photo.png"),
        (["report", "model.cam.onnx", "photo.png", "-o"], "link.html"),
        (["stream", "model.cam.onnx", "clip.avi", "-o"], "clip.avi"),
        (["export", "plain.onnx", "--labels", "short.txt", "-o"], "short.txt"),
        (["study", "score", "short.txt", "photo.png", "-o"], "short.txt"),
    ],
)
def test_no_verb_overwrites_what_it_reads(trouble, arguments, output):
    (trouble / "link.html").symlink_to("model.cam.onnx")
    video = cv2.VideoWriter(str(trouble / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 64))
    for seed in range(2):
        video.write(noise(64, 64, seed))
    video.release()
    before = (trouble / output).read_bytes()
    result = call(*arguments, output)
    assert result.exit_code == 2, result.output
    assert f"{output}: cannot be written" in result.stderr and result.stderr.count("\n") == 1
    assert (trouble / output).read_bytes() == before


def command(*arguments, **options):
    environment = {**os.environ, "COLUMNS": "40"}
    return subprocess.run(
        [sys.executable, "-m", "fastcam", *arguments], capture_output=True, text=True, env=environment, **options
    )


def test_python_dash_m_fastcam_refuses_in_one_line(trouble):
    before = files(trouble)
    for arguments, words in [
        (["explain", "model.cam.onnx", "short.png"], "short.png: the picture is cut short"),
        (["explain", "short.onnx", "photo.png"], "not an ONNX file, or cut short"),
        (["explain", "plain.onnx", "photo.png"], "run: fastcam export plain.onnx"),
    ]:
        result = command(*arguments, cwd=trouble)
        assert (result.returncode, result.stdout) == (2, "") and words in result.stderr
        assert result.stderr.startswith("fastcam: ") and result.stderr.count("\n") == 1, result.stderr
    assert files(trouble) == before


def test_python_dash_m_fastcam_explains(desk):
    result = command("explain", "model.cam.onnx", "photo.png", "album", "-t", "bright thing", cwd=desk)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert len(result.stdout.splitlines()) == 6  # header, four rows that a narrow terminal does not break, and where
    assert command("--version").stdout == f"fastcam {__version__}\n" == command("version").stdout


def test_a_defect_is_a_traceback_and_exit_code_1(desk):
    code = (
        "import sys, fastcam.image.decode, fastcam.cli\n"
        "def broken(*how): raise ZeroDivisionError('a defect')\n"
        "fastcam.image.decode._decoded = broken\n"
        "sys.argv = ['fastcam', 'explain', 'model.cam.onnx', 'photo.png']\n"
        "fastcam.cli.main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=desk, check=False)
    assert result.returncode == 1 and "Traceback" in result.stderr and "a defect" in result.stderr
    assert "fastcam-out" not in files(desk)


LONG = (
    "export {}",
    "inspect {}",
    "explain model.cam.onnx {}",
    "explain {} photo.png",
    "explain model.cam.onnx photo.png -t {}",
)


@pytest.mark.parametrize("command", LONG)
def test_a_name_of_any_length_gives_one_short_line(desk, command):
    result = call(*command.format("a" * 5000).split())
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "aaa...aaa" in result.stderr and len(result.stderr) < 700


def test_help_names_every_verb_and_calling_nothing_shows_it():
    shown = call("--help").stdout
    assert all(verb in shown for verb in ("export", "inspect", "explain", "demo", "version"))
    assert "Usage" in call().output


def test_help_groups_the_verbs_and_begins_with_those_of_every_day():
    shown = call("--help").stdout
    panels = ["Every day", "Explain more", "Deploy", "Look up", "Measure", "Try it"]
    assert [line.split("─")[1].strip() for line in shown.splitlines() if line.startswith("╭")] == ["Options", *panels]
    verbs = [line.split()[1] for line in shown.splitlines() if re.match(r"│ [a-z]", line)]
    assert verbs[:3] == ["export", "explain", "inspect"]
    known = [verb.name or verb.callback.__name__ for verb in app.registered_commands]
    assert sorted(verbs) == sorted([*known, *(group.name for group in app.registered_groups)])


def test_errors_of_the_library_stay_exceptions_for_python_users():
    with pytest.raises(FastcamError):
        Explainer("absent.onnx")
