"""`fastcam export --for-engine web` writes what the page explains, and refuses the rest in one line, with no file."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

import fastcam
from fastcam import Explainer, FastcamError
from fastcam.web.models import web_model
from fastcam_export import export_model
from support.models.small_models import classifier, save

DATA = Path(fastcam.__file__).parent / "data"


def exported(folder, *options, preprocess=("--preprocess", "imagenet")):
    """The exit code and what was said of an export of the bundled model for browsers."""
    from fastcam.cli import app

    model, made = DATA / "scenes.onnx", folder / "net.cam.onnx"
    done = CliRunner().invoke(
        app, ["export", str(model), "-o", str(made), "--for-engine", "web", *preprocess, *options]
    )
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--on-demand",), "without --on-demand"),
        (("--targets", "cotangent"), "cotangents"),
        (("--frames", "any"), "without --frames"),
        (("--frames", "40x50"), "without --frames"),
        (("--color", "BANDS"), "RGB, BGR or GRAY"),
    ],
    ids=lambda one: "-".join(one) if isinstance(one, tuple) else "",
)
def test_what_the_page_does_not_explain_is_not_written(tmp_path, options, said):
    code, output = exported(tmp_path, *options)
    assert code == 2 and said in output, output
    assert not list(tmp_path.iterdir())


def test_an_export_that_does_not_say_how_pictures_are_prepared(tmp_path):
    code, output = exported(tmp_path, preprocess=())
    assert code == 2 and "and --preprocess" in output and not list(tmp_path.iterdir())


def of_type(kind):
    """A classifier whose image input has another element type."""
    model = classifier()
    model.graph.input[0].type.tensor_type.elem_type = kind
    model.graph.input[0].name = "raw"
    model.graph.node.insert(0, helper.make_node("Cast", ["raw"], ["image"], to=TensorProto.FLOAT))
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("kind", ["uint8", "float16"])
def test_a_model_of_other_pictures_than_float32(tmp_path, kind):
    model = of_type(getattr(TensorProto, kind.upper()))
    with pytest.raises(FastcamError, match=f"pictures of float32, and it takes {kind}"):
        export_model(model, tmp_path / "net.cam.onnx", preprocess="raw", for_engine="web", check=False)
    assert not list(tmp_path.iterdir())
    made = save(export_model(model, preprocess="raw", check=False).model, tmp_path / "other.cam.onnx")
    with pytest.raises(FastcamError, match=f"it takes {kind}"):
        web_model(made)


@pytest.mark.parametrize(
    "options",
    [
        ("--layer", "all"),
        ("--input-gradient", "guided"),
        ("--head",),
        ("--targets", "constant"),
        ("--resize", "letterbox"),
    ],
    ids=lambda options: options[0],
)
def test_whatever_else_is_written_is_one_that_the_page_takes(tmp_path, options):
    code, output = exported(tmp_path, *options)
    assert code == 0, output
    assert web_model(tmp_path / "net.cam.onnx").files[0].name == "net.cam.onnx"
    assert Explainer(tmp_path / "net.cam.onnx").metadata.engine == "web"
