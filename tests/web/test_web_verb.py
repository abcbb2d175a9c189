"""`fastcam web`: what it writes, and what it refuses with nothing written."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fastcam
from fastcam.web.models import web_model
from fastcam.web.onnxruntime_web import REQUIRED, WEBGPU
from fastcam_export import export_model, write_slim
from support.models.contract_model import random_model
from support.models.small_models import classifier, save

DATA = Path(fastcam.__file__).parent / "data"


def run(folder, *arguments):
    """The exit code and what was said of `fastcam web` in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        from fastcam.cli import app

        done = CliRunner().invoke(app, ["web", *map(str, arguments)])
    finally:
        os.chdir(before)
    return done.exit_code, done.output


def package(folder, names=REQUIRED):
    """An npm package with files of these names."""
    (folder / "dist").mkdir(parents=True)
    for name in names:
        (folder / "dist" / name).write_bytes(name.encode())
    return folder


def packed(path, names=REQUIRED, inside="package/dist"):
    """The same as `npm pack` writes it."""
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            about = tarfile.TarInfo(f"{inside}/{name}")
            about.size = len(name)
            archive.addfile(about, io.BytesIO(name.encode()))
    return path


def written(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_bundled_model_and_what_npm_packed_here(tmp_path):
    packed(tmp_path / "onnxruntime-web-1.30.0.tgz", (*REQUIRED, *WEBGPU))
    code, said = run(tmp_path, "--out", "site")
    assert code == 0, said
    files = written(tmp_path / "site")
    assert {"index.html", "page.js", "page.css", "site.json", "models/scenes.cam.onnx", "pictures/scene.jpg"} <= files
    assert {f"onnxruntime-web/{name}" for name in (*REQUIRED, *WEBGPU)} <= files
    assert {"fastcam-web/kernels.wasm", "fastcam-web/src/index.js"} <= files
    about = json.loads((tmp_path / "site" / "site.json").read_text())
    assert about["models"] == [{"name": "scenes", "file": "models/scenes.cam.onnx"}] and about["webgpu"]
    assert "http.server" in said
    metadata = fastcam.Explainer(tmp_path / "site" / "models" / "scenes.cam.onnx").metadata
    assert metadata.engine == "web" and metadata.labels


def test_every_module_that_the_page_imports_is_written(tmp_path):
    packed(tmp_path / "onnxruntime-web-1.30.0.tgz")
    assert run(tmp_path, "--out", "site")[0] == 0
    for file in (tmp_path / "site").rglob("*.js"):
        for line in file.read_text().splitlines():
            if ' from "./' in line:
                assert (file.parent / line.split('"')[1]).is_file(), line


def test_a_second_page_replaces_the_first(tmp_path):
    package(tmp_path / "node_modules" / "onnxruntime-web")
    for _ in range(2):
        assert run(tmp_path, "-o", "site")[0] == 0
    assert not json.loads((tmp_path / "site" / "site.json").read_text())["webgpu"]
    assert not [name for name in written(tmp_path / "site") if "/.fastcam" in name or name.startswith(".fastcam")]


def test_a_page_of_somebody_else_is_not_replaced(tmp_path):
    package(tmp_path / "node_modules" / "onnxruntime-web")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("my page")
    code, said = run(tmp_path, "-o", "site")
    assert code == 2 and "its index.html is of another page" in " ".join(said.split())
    assert (tmp_path / "site" / "index.html").read_text() == "my page" and written(tmp_path / "site") == {"index.html"}


@pytest.mark.parametrize("place", ["dist", ""])
def test_a_folder_of_the_package_or_its_dist(tmp_path, place):
    folder = package(tmp_path / "ort")
    path = save(export_model(classifier(), check=False, preprocess="unit").model, tmp_path / "net.cam.onnx")
    code, said = run(tmp_path, "--out", "site", path, "--onnxruntime-web", folder / place)
    assert code == 0, said
    assert "models/net.cam.onnx" in written(tmp_path / "site")


def test_weights_that_lie_beside_a_model_go_with_it(tmp_path, monkeypatch):
    from fastcam_export.graph import load, weights

    monkeypatch.setattr(load, "LARGE", 0)
    for name in ("APART", "MANY", "FULL_IN_BROWSERS"):
        monkeypatch.setattr(weights, name, 1)
    made = tmp_path / "big[1].cam.onnx"
    export_model(DATA / "scenes.onnx", made, preprocess="imagenet", for_engine="web")
    (tmp_path / "big1.cam.other.data").write_bytes(b"of another")
    [file] = tmp_path.glob("big[[]1].cam.*.data")
    assert web_model(made).files == (made, file)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: [], "npm pack onnxruntime-web"),
        (lambda folder: ["--onnxruntime-web", folder / "nowhere"], "no such file or folder"),
        (lambda folder: ["--onnxruntime-web", package(folder / "old", REQUIRED[:1])], "1.20 or later"),
        (lambda folder: ["--onnxruntime-web", packed(folder / "odd.tgz", inside="dist")], "1.20 or later"),
    ],
    ids=["none", "no folder", "an old one", "another archive"],
)
def test_without_onnxruntime_web_it_says_how_to_get_it(tmp_path, make, said):
    code, output = run(tmp_path, "--out", "site", *make(tmp_path))
    assert code != 0 and not (tmp_path / "site").exists()
    assert said in _message(output)


def test_an_archive_that_is_none_is_refused(tmp_path):
    (tmp_path / "onnxruntime-web-1.30.0.tgz").write_bytes(b"<html>not found</html>")
    code, output = run(tmp_path, "--out", "site")
    assert code != 0 and "no package of npm" in _message(output)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preprocess": None}, "--preprocess"),
        ({"targets": "cotangent"}, "cotangents"),
        ({"on_demand": True}, "without --on-demand"),
        ({"frames": True}, "without --frames"),
    ],
)
def test_a_file_that_no_page_explains_is_refused(tmp_path, options, said):
    packed(tmp_path / "onnxruntime-web-1.30.0.tgz")
    export_model(classifier(), tmp_path / "net.cam.onnx", check=False, **{"preprocess": "unit", **options})
    code, output = run(tmp_path, "--out", "site", "net.cam.onnx")
    assert code != 0 and said in _message(output), output
    assert not (tmp_path / "site").exists()


def test_a_file_in_onnxruntimes_own_format_is_refused(tmp_path):
    packed(tmp_path / "onnxruntime-web-1.30.0.tgz")
    export_model(classifier(), tmp_path / "net.cam.onnx", check=False, preprocess="unit")
    write_slim(tmp_path / "net.cam.onnx")
    code, output = run(tmp_path, "--out", "site", "net.cam.ort")
    assert code != 0 and "give the .onnx file" in _message(output), output
    assert not (tmp_path / "site").exists()


def test_two_models_of_one_name_are_refused(tmp_path):
    packed(tmp_path / "onnxruntime-web-1.30.0.tgz")
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.cam.onnx").write_bytes(random_model().file())
    code, output = run(tmp_path, "--out", "site", "a/net.cam.onnx", "b/net.cam.onnx")
    assert code != 0 and "another model has this name" in _message(output)
    assert not (tmp_path / "site").exists()


def _message(output):
    return " ".join(output.split())
