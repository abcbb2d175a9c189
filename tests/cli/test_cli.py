"""The command line: what it prints and writes, and bad input: exit code 2, one line on stderr, nothing written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError, __version__
from fastcam.cli import app
from fastcam.cli.shared.options import class_targets
from fastcam.schema import Score, preset
from support.models.contract_model import brightness_model, random_model

LABELS = ("bright thing", "dark thing, shadow")


def noise(height=60, width=80, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working folder with an exported file, a plain one, and pictures."""
    exported = brightness_model((64, 64), preset("unit", size=(64, 64)), labels=LABELS)
    (tmp_path / "model.cam.onnx").write_bytes(exported.file())
    (tmp_path / "plain.onnx").write_bytes(random_model().file(metadata=False))
    image = np.zeros((128, 256, 3), np.uint8)
    image[32:96, 64:192] = 255
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    (tmp_path / "album").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / "album" / f"p{i}.jpg"), noise(seed=i))
    (tmp_path / "album" / "notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# --- explain ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gradcam", "gradcam,eigencam"])
def test_one_bad_picture_is_a_row_with_its_error_and_not_the_end(desk, method):
    """Exit code 2 says that something is missing; what macOS hides beside pictures is no picture."""
    (desk / "album" / "p1.jpg").write_bytes(b"\0\5\x16\7 no picture")
    (desk / "album" / "._p2.jpg").write_bytes(b"\0\5\x16\7 no picture")
    result = call("explain", "model.cam.onnx", "album", "-m", method, "-o", "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("fastcam: 1 of 3 pictures could not be explained: album/p1.jpg: not a picture")
    assert [row.split()[0] for row in result.stdout.splitlines()[1:4]] == ["p0.jpg", "p1.jpg", "p2.jpg"]
    assert "not explained: not a picture that OpenCV can decode" in result.stdout.splitlines()[2]
    names = [name for name in files(desk / "out") if name.endswith(".png")]
    assert [name[:2] for name in names] == ["p0", "p2"]
    report = json.loads((desk / "out" / "explanation.json").read_text(encoding="utf-8"))
    for part in report.get("methods", [report]):
        p0, p1, p2 = part["images"]
        assert (p0["file"], p1["file"], p2["file"]) == ("album/p0.jpg", "album/p1.jpg", "album/p2.jpg")
        assert "not a picture" in p1["error"] and p1["targets"] == []
        assert len(p0["targets"]) == len(p2["targets"]) == 1
    alone = call("explain", "model.cam.onnx", "album/p2.jpg", "--json")
    assert p2["targets"][0]["score"] == json.loads(alone.stdout)["images"][0]["targets"][0]["score"]


def test_bad_pictures_without_a_good_one_write_nothing(desk):
    for name in ("p0.jpg", "p1.jpg", "p2.jpg"):
        (desk / "album" / name).write_bytes(b"no picture")
    result = call("explain", "model.cam.onnx", "album", "-o", "out")
    assert result.exit_code == 2 and result.stdout == "" and "album/p0.jpg: not a picture" in result.stderr
    assert "out" not in files(desk)


def test_explain_writes_overlays_and_a_report_and_prints_a_table(desk):
    result = call(
        "explain", "model.cam.onnx", "photo.png", "-t", "bright thing", "-t", "1", "-o", "out", "--threshold", 0.5
    )
    assert result.exit_code == 0, result.output
    assert files(desk / "out") == ["explanation.json", "photo-1-bright-thing.png", "photo-2-dark-thing.png"]
    report = json.loads((desk / "out" / "explanation.json").read_text(encoding="utf-8"))
    first, second = report["images"][0]["targets"]
    np.testing.assert_allclose(first["box"], [64, 32, 192, 96], atol=17)  # a cell is 16 x 8 original pixels
    assert second["status"] == "all_negative" and second["box"] is None
    overlay = cv2.imread(str(desk / "out" / "photo-1-bright-thing.png"))
    assert overlay.shape == (256, 512, 3)  # magnified twice: small pictures become legible
    rows = result.stdout.splitlines()
    assert rows[0].split()[:3] == ["image", "class", "score"]
    assert rows[1].startswith("photo.png") and "0 bright thing" in rows[1] and rows[1].rstrip().endswith("ok")
    assert "1 dark thing" in rows[2] and "all_negative" in rows[2]
    assert "2 overlays and explanation.json are in out" in result.stdout


def test_json_prints_json_only_and_writes_nothing(desk):
    before = files(desk)
    result = call("explain", "model.cam.onnx", "photo.png", "album", "--json", "--batch-size", "3")
    assert result.exit_code == 0 and result.stderr == "" and files(desk) == before
    report = json.loads(result.stdout)
    pictures = [desk / "photo.png", *(desk / "album" / f"p{i}.jpg" for i in range(3))]
    expected = Explainer(desk / "model.cam.onnx")(pictures).to_dict()
    for image, other in zip(report["images"], expected["images"], strict=True):
        assert image["file"] == str(os.path.relpath(other["file"], desk))
        assert image["targets"] == other["targets"]
    assert {key: report[key] for key in report if key != "images"} == {
        key: expected[key] for key in expected if key != "images"
    }


def test_json_with_a_folder_does_both(desk):
    result = call("explain", "model.cam.onnx", "photo.png", "--json", "-o", "a/b")
    assert json.loads(result.stdout) == json.loads((desk / "a" / "b" / "explanation.json").read_text(encoding="utf-8"))
    assert len(files(desk / "a" / "b")) == 2


def test_a_folder_means_its_pictures(desk):
    assert call("explain", "model.cam.onnx", "album").exit_code == 0
    assert len(files(desk / "fastcam-out")) == 4


def test_pictures_of_one_name_do_not_overwrite_each_other(desk):
    cv2.imwrite(str(desk / "album" / "photo.png"), noise())
    assert call("explain", "model.cam.onnx", "photo.png", "album/photo.png", "--batch-size", "1").exit_code == 0
    names = files(desk / "fastcam-out")
    assert len(names) == 3 and names[1].startswith("photo-1-") and names[2].startswith("photo_2-1-")


def test_models_of_free_size_explain_pictures_of_different_sizes(desk):
    free = random_model(size=("H", "W"), preprocessing=preset("unit", size=None))
    (desk / "free.onnx").write_bytes(free.file())
    cv2.imwrite(str(desk / "a.png"), noise(40, 80))
    cv2.imwrite(str(desk / "b.png"), noise(60, 44))
    result = call("explain", "free.onnx", "a.png", "b.png", "--json")
    assert [image["width"] for image in json.loads(result.stdout)["images"]] == [80, 44]


def test_preprocess_and_labels_can_be_given(desk):
    bare = replace(brightness_model((64, 64), preset("unit")), preprocessing=None)
    (desk / "bare.onnx").write_bytes(bare.file())
    (desk / "names.txt").write_text("sun\nmoon\n")
    refused = call("explain", "bare.onnx", "photo.png")
    assert refused.exit_code == 2 and "--preprocess, one of: imagenet" in refused.stderr
    accepted = call(
        "explain", "bare.onnx", "photo.png", "--preprocess", "unit", "--labels", "names.txt", "-t", "SUN", "--json"
    )
    assert json.loads(accepted.stdout)["images"][0]["targets"][0]["label"] == "sun"


@pytest.mark.parametrize(
    ("given", "targets"),
    [(None, [-1]), (["-2"], [-2]), (["7", "golden retriever"], [7, "golden retriever"]), (["n02123045 tabby"], None)],
)
def test_numbers_are_indices_and_the_rest_are_names(given, targets):
    assert class_targets(given, None) == (targets or given)


# --- export, inspect, demo: wiring --------------------------------------------------------------------------------


@pytest.fixture
def exporter(monkeypatch):
    """A stand-in for fastcam_export that remembers how it was called."""
    calls = []

    def export_model(model, output, **options):
        calls.append((model, output, options))
        return SimpleNamespace(summary=lambda: ["layer   features", f"wrote   {output}"], taken_for=lambda: "")

    def inspect_model(path, output_name=None, score="logit", for_engine="onnxruntime", input_name=None):
        calls.append((path, output_name, score, for_engine))
        layers = [
            SimpleNamespace(
                name="a[0]",
                op_type="Conv",
                scope="stem",
                shape=("N", 8, 4, 4),
                chosen=False,
                note="",
                layout="NCHW",
                in_all=False,
            ),
            SimpleNamespace(
                name="b" * 150,
                op_type="Relu",
                scope="",
                shape=("N", 16, 2, 2),
                chosen=True,
                note="last",
                layout="NHWC",
                in_all=True,
            ),
        ]
        found = Score("scores", "logits", "logit", 5)
        engine = ("TensorRT 10: it does not read Col2Im",) if for_engine == "tensorrt" else ()
        missing = [("NonZero", 2)]
        return SimpleNamespace(
            layers=layers, reason="because", score=found, missing=missing, engine=engine, repairs=(), inputs=(),
            notes=(), outputs=(), blocks=(), command="fastcam export plain.onnx", taken_for="",
        )  # fmt: skip

    module = ModuleType("fastcam_export")
    module.export_model, module.inspect_model, module.exported = export_model, inspect_model, lambda path: None
    monkeypatch.setitem(sys.modules, "fastcam_export", module)
    return calls


def test_export_passes_its_options_on(desk, exporter):
    result = call("export", "plain.onnx")
    assert result.exit_code == 0 and result.stdout.splitlines() == ["layer   features", "wrote   plain.cam.onnx"]
    model, output, options = exporter[0]
    assert (str(model), str(output)) == ("plain.onnx", "plain.cam.onnx")
    assert options == {
        "layer": "auto",
        "layout": None,
        "prefix_tokens": None,
        "grid": None,
        "emit": None,
        "targets": "default",
        "score": "logit",
        "output_name": None,
        "output_layout": None,
        "preprocess": None,
        "resize": "stretch",
        "labels": None,
        "for_engine": "onnxruntime",
        "input_gradient": None,
        "input_gradient_at": None,
        "on_demand": None,
        "head": False,
        "frames": False,
        "input_name": None,
        "inputs": {},
        "roles": {},
        "tokenizer": None,
        "text_encoder": None,
        "logit_scale": 1.0,
        "logit_bias": 0.0,
        "check": True,
        "size": None,
        "order": None,
        "stop_gradient": (),
    }
    call(
        *("export", "plain.onnx", "-o", "x.onnx", "--layer", "conv", "--emit", "cam", "--preprocess", "tf"),
        *(
            "--resize",
            "crop",
            "--labels",
            "l.txt",
            "--score",
            "probability",
            "--output-name",
            "y",
            "--targets",
            "constant",
        ),
        *(
            "--layout",
            "tokens",
            "--prefix-tokens",
            "1",
            "--grid",
            "14x7",
            "--for-engine",
            "tensorrt",
            "--frames",
            "20x30",
        ),
    )
    _, output, options = exporter[1]
    assert str(output) == "x.onnx" and str(options.pop("labels")) == "l.txt"
    assert options == {
        "layer": "conv",
        "layout": "tokens",
        "prefix_tokens": 1,
        "grid": (14, 7),
        "emit": "cam",
        "targets": "constant",
        "score": "probability",
        "output_name": "y",
        "output_layout": None,
        "preprocess": "tf",
        "resize": "crop",
        "for_engine": "tensorrt",
        "input_gradient": None,
        "input_gradient_at": None,
        "on_demand": None,
        "head": False,
        "frames": (20, 30),
        "check": True,
        "input_name": None,
        "inputs": {},
        "roles": {},
        "tokenizer": None,
        "text_encoder": None,
        "logit_scale": 1.0,
        "logit_bias": 0.0,
        "size": None,
        "order": None,
        "stop_gradient": (),
    }
    call("export", "plain.onnx", "--frames", "any")
    assert exporter[2][2]["frames"] is True
    assert "give any, or height and width" in call("export", "plain.onnx", "--frames", "big").stderr


def test_inspect_prints_one_unbroken_line_per_layer(desk, exporter):
    result = call("inspect", "plain.onnx", "--output-name", "y", "--score", "probability")
    assert (str(exporter[0][0]), *exporter[0][1:]) == ("plain.onnx", "y", "probability", "onnxruntime")
    rows = result.stdout.splitlines()
    assert rows[1].split() == ["a[0]", "Conv", "N", "x", "8", "x", "4", "x", "4", "NCHW", "stem"]
    assert rows[2].split() == ["*", "b" * 150, "Relu", "N", "x", "16", "x", "2", "x", "2", "NHWC", "last"]
    assert rows[3:] == [
        "* chosen: because",
        "explained score: logit of output scores, 5 classes",
        "operators without a gradient rule: NonZero (2)",
        "tried   all of the next command but its check of the gradient, which may still refuse it",
        "next: fastcam export plain.onnx",
    ]
    result = call("inspect", "plain.onnx", "--for-engine", "tensorrt")
    assert result.stdout.splitlines()[-3] == "TensorRT 10: it does not read Col2Im"


def test_exporting_without_onnx_says_what_to_install(desk, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastcam_export", None)
    for verb in ("export", "inspect"):
        result = call(verb, "plain.onnx")
        assert result.exit_code == 2 and "pip install fastcam[export]" in result.stderr


# --- the real exporter --------------------------------------------------------------------------------------------


def test_export_then_explain_the_real_way(desk):
    result = call("export", "plain.onnx", "--preprocess", "unit", "--layer", "features")
    assert result.exit_code == 0, result.stderr
    found = Explainer(desk / "plain.cam.onnx")([noise(), noise(seed=1)], targets=[-1, 2])
    model = random_model()
    small = [cv2.resize(noise(seed=i), (32, 32), interpolation=cv2.INTER_AREA) for i in (0, 1)]
    x = np.stack(small).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(found.scores, model.scores(x), rtol=1e-4, atol=1e-5)
    expected = np.maximum(model.signed(x, found.classes), 0)
    np.testing.assert_allclose(found.maps, expected, atol=1e-4 * expected.max())
    explained = call("explain", "plain.cam.onnx", "photo.png")
    assert explained.exit_code == 0, explained.stderr


def test_inspect_the_real_way(desk):
    result = call("inspect", "plain.onnx")
    assert result.exit_code == 0, result.stderr
    chosen = [row.split() for row in result.stdout.splitlines() if row.startswith("* ")]
    assert (
        chosen[0][1] in ("features", "placed") and "explained score: raw of output scores, 5 classes" in result.stdout
    )


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


# --- bad input --------------------------------------------------------------------------------------------------


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
