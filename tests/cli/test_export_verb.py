"""``fastcam export`` and ``inspect``: the options that they pass on, and what they print."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

from fastcam import Explainer
from fastcam.schema import Score
from support.command_line import call
from support.models.contract_model import noise, random_model


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
