"""The command line with an export in two files."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from fastcam.cli import app
from support.models.split_models import DATA


def command(*args):
    done = CliRunner().invoke(app, args)
    return done.exit_code, done.stdout, done.stderr


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = [str(DATA / "scenes.onnx"), "--preprocess", "imagenet", "--labels", str(DATA / "scenes.labels.txt")]
    code, out, error = command("export", *source, "-o", "scenes.cam.onnx", "--on-demand")
    assert code == 0, error
    assert "scenes.cam.explain.onnx" in out
    picture = str(next(DATA.glob("scene.[jp]*g")))
    code, out, error = command("explain", "scenes.cam.onnx", picture, "--json", "-t", "-1", "-t", "-2")
    assert code == 0, error
    command("export", *source, "-o", "one.cam.onnx")
    _, expected, _ = command("explain", "one.cam.onnx", picture, "--json", "-t", "-1", "-t", "-2")
    assert json.loads(out)["images"] == json.loads(expected)["images"]
    code, out, _ = command("inspect", "scenes.cam.onnx")
    assert code == 0 and "the explanation part is scenes.cam.explain.onnx" in out and "warning" not in out
    (tmp_path / "scenes.cam.explain.onnx").unlink()
    code, out, _ = command("inspect", "scenes.cam.onnx")
    assert code == 0 and "not beside this file" in out
    code, out, _ = command("inspect", "one.cam.onnx")
    assert code == 0 and "layer" in out and "part " not in out
    code, _, error = command("explain", "scenes.cam.onnx", picture)
    assert code == 2 and "scenes.cam.explain.onnx is not beside it" in error and "Traceback" not in error
