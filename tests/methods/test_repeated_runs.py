"""What methods that run again refuse, count and print, and their probes."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.methods import METHODS
from fastcam.methods.options import parameters, parsed, with_options
from fastcam_export import export_model
from support.explained_network import MODEL, SIDE, X, close, explainer, layer, net
from support.models.small_models import save


@pytest.mark.parametrize(
    "name,made,message",
    [
        ("layercam", {}, "fastcam export net.onnx --emit gradients"),
        ("scorecam", {"emit": "cam"}, "fastcam export net.onnx --emit weights$"),
        ("smoothgrad", {}, "fastcam export net.onnx --input-gradient gradient"),
        ("smoothgrad", {"input_gradient": "guided"}, "brings back guided, SmoothGrad needs gradient"),
        ("guided-gradcam", {"layer": "r1"}, "fastcam export net.onnx --layer r1 --input-gradient guided"),
        ("ablationcam", {"emit": "gradients"}, "fastcam export net.onnx --emit gradients --head"),
        ("lrp-gamma", {"emit": "gradients"}, "fastcam export net.onnx --emit gradients --input-gradient lrp-gamma"),
    ],
)
def test_what_a_file_cannot_serve_names_the_export_that_can(tmp_path, name, made, message):
    save(MODEL, tmp_path / "net.onnx")
    export_model(tmp_path / "net.onnx", tmp_path / "m.cam.onnx", check=False, **made)
    with pytest.raises(FastcamError, match=message):
        Explainer(tmp_path / "m.cam.onnx")(X, method=name)


OF_ATTENTION = ("rollout", "rollout-max", "rollout-min", "legrad")
"""Modes that this network has nothing for."""


def test_the_named_export_serves_every_method(tmp_path):
    """What the message says is run; then the method works."""
    save(MODEL, tmp_path / "net.onnx")
    export_model(tmp_path / "net.onnx", tmp_path / "m.cam.onnx", emit="cam", check=False)
    small = {"samples": 2, "steps": 2, "masks": 3, "window": (8, 8), "stride": (8, 8)}
    for name, one in METHODS.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            file = tmp_path / "m.cam.onnx"
            try:
                Explainer(file)(X[:1], method=name, options=_some(one, small))
                continue
            except FastcamError as error:
                command = str(error).partition("run: ")[2].split()
            file = tmp_path / f"{abs(hash(name))}.onnx"
            done = CliRunner().invoke(app, [*command[1:], "-o", str(file)])
            if one.mode in OF_ATTENTION:
                assert done.exit_code == 2 and "the model has no attention" in done.output
                continue
            assert done.exit_code == 0, (name, command, done.output)
            if name == "vit-reciprocam":
                with pytest.raises(FastcamError, match="this layer has none; use Recipro-CAM"):
                    Explainer(file)(X[:1], method=name)
                continue
            e = Explainer(file)(X[:1], method=name, options=_some(one, small))
            assert e.method == name and np.isfinite(e.maps).all()


def _some(method, values):
    return {key: values[key] for key in parameters(method) if key in values}


def test_options_are_checked(plain):
    cases = [
        ("scorecam", {"steps": 3}, "Score-CAM has no option 'steps'; it has none"),
        ("gradcam", {"steps": 3}, "Grad-CAM has no option 'steps'; it has none"),
        ("iscam", {"step": 3}, "IS-CAM has no option 'step'; it has: steps=10"),
        ("iscam", {"steps": 0}, "steps is 0; it must be at least 1"),
        ("iscam", {"steps": "many"}, "steps is 'many'; give a whole number"),
        ("iscam", {"steps": 2.5}, "give a whole number"),
        ("sscam", {"noise": float("nan")}, "give a finite number"),
        ("sscam", {"noise": -1.0}, "at least 0"),
        ("occlusion", {"window": "8x8x8"}, "like 32x32"),
        ("occlusion", {"window": (40, 40)}, "must fit in the image"),
        ("rise", {"keep": 0.0}, "RISE needs"),
        ("reciprocam", {"gaussian": "perhaps"}, "give true or false"),
    ]
    for name, options, message in cases:
        with pytest.raises(FastcamError, match=message):
            with_options(METHODS[name], options)
            plain(X[:1], method=name, options=options)
    assert with_options(METHODS["occlusion"], {"window": 8, "stride": "4"}).options == {
        "window": (8, 8),
        "stride": (4, 4),
    }
    assert parsed(["a=1", "b = 8x8"]) == {"a": "1", "b": "8x8"}
    with pytest.raises(FastcamError, match="give key=value"):
        parsed(["samples"])


def test_targets_that_cannot_be_asked_again_are_refused():
    constant = explainer(targets="constant", input_gradient="gradient")
    with pytest.raises(FastcamError, match="--targets default"):
        constant(X, method="smoothgrad")
    close(constant(X, method="scorecam").maps, explainer()(X, method="scorecam").maps, 1e-6)
    with pytest.raises(FastcamError, match="without --frames"):
        explainer(frames=True, preprocess="unit")(np.zeros((20, 20, 3), np.uint8), method="scorecam")


def test_cotangents_are_asked_of_changed_images_too():
    c = np.zeros((1, 2, 5), np.float32)
    c[0, 0, [0, 3]] = 1, -2
    c[0, 1, 4] = 1
    found = explainer(targets="cotangent", emit="gradients")
    plain = explainer(emit="gradients")
    for name in ("scorecam", "occlusion", "smoothgradcam++"):
        options = {"window": (8, 8), "stride": (8, 8)} if name == "occlusion" else {}
        a = found(X, cotangent=c, method=name, options=options)
        b = plain(X, targets=[{0: 1.0, 3: -2.0}, 4], method=name, options=options)
        close(a.maps, b.maps, 1e-4)


def test_progress_goes_up_to_the_whole(plain):
    seen = []
    plain(X, method="scorecam", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12) and [done for done, _ in seen] == sorted(done for done, _ in seen) and len(seen) > 4


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_model(MODEL, tmp_path / "m.cam.onnx", preprocess="unit", check=False)
    cv2.imwrite("p.png", np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    asked = ["explain", "m.cam.onnx", "p.png", "--json", "--method", "occlusion", "--option", "window=8x8"]
    done = CliRunner().invoke(app, [*asked, "--option", "stride=8"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["method"] == "occlusion" and report["options"] == {"window": [8, 8], "stride": [8, 8]}
    several = ["explain", "m.cam.onnx", "p.png", "--json", "--method", "rise,occlusion", "--option", "masks=5"]
    done = CliRunner().invoke(app, [*several, "--option", "window=8", "--option", "stride=8"])
    assert done.exit_code == 0, done.output
    assert [one["options"] for one in json.loads(done.stdout)["methods"]] == [
        {"masks": 5},
        {"window": [8, 8], "stride": [8, 8]},
    ]
    refused = CliRunner().invoke(app, [*several, "--option", "samples=3"])
    assert refused.exit_code == 2 and "none of rise, occlusion has an option 'samples'" in refused.stderr
    refused = CliRunner().invoke(app, [*asked, "--option", "stride"])
    assert refused.exit_code == 2 and "give key=value" in refused.stderr and refused.stderr.count("\n") == 1
    streamed = CliRunner().invoke(app, ["stream", "m.cam.onnx", "p.png", "--method", "rise", "--option", "masks=5"])
    assert streamed.exit_code == 0 and '"box"' in streamed.stdout
    listed = CliRunner().invoke(app, ["methods"]).stdout
    assert "masks=4000" in listed and "--input-gradient guided" in listed and "(K + 1) heads" in listed


# ---- probes for whoever measures maps


def test_a_probe_of_each_picture_runs_the_model_and_its_head_on_changed_ones():
    made = export_model(MODEL, check=False, head=True)
    explain = Explainer(made.model.SerializeToString(), head=made.head.SerializeToString(), batch_size=2)
    probes = explain.probes(X, [[1, 0], [2, 2]])
    changed = np.random.default_rng(8).standard_normal((5, 3, SIDE, SIDE)).astype(np.float32)
    scores = net(torch.tensor(changed)).numpy()
    for probe, x, classes in zip(probes, X, ([1, 0], [2, 2]), strict=True):
        assert np.array_equal(probe.x, x)
        np.testing.assert_allclose(probe.class_scores(changed), scores, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(probe.scores(changed), scores[:, classes], rtol=1e-4, atol=1e-5)
        activations = layer(torch.tensor(changed))
        np.testing.assert_allclose(probe.activations, layer(torch.tensor(x)[None])[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(probe.layer_scores(activations.numpy()), scores[:, classes], rtol=1e-4, atol=1e-5)
