"""Prompts as targets, of an embedding with a text encoder and of a model of pairs: PyTorch autograd is the oracle."""

import json
import pickle

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.language.prompts import read_prompts
from fastcam_export import export_model
from support.models.language import dual_encoder as dual

pytest.importorskip("tokenizers", reason="texts need the library tokenizers")
X = dual.RNG.random((3, 3, 10, 12), dtype=np.float32)
IDS = {"a red square": [2, 3, 5], "a blue star": [2, 4, 6], "a star": [2, 6], "a red, blue star": [2, 3, 7, 4, 6]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dual")
    dual.write(folder)
    (folder / "prompts.txt").write_text("".join(f"{text}\n" for text in list(IDS)[:2]) + "star\ta star\n")
    cv2.imwrite(str(folder / "p.png"), dual.RNG.integers(0, 256, (20, 24, 3)).astype(np.uint8))
    return folder


@pytest.fixture(params=["apart", "pairs"])
def explainer(request, folder):
    return Explainer(folder / f"{request.param}.cam.onnx")


def close(found, prompts, factors, t=0):
    """A target of an explanation of X, to 1e-4 of each map's maximum."""
    scores, maps = dual.scores_and_maps(X, [IDS[one] for one in prompts], factors)
    for n in range(len(X)):
        np.testing.assert_allclose(np.maximum(found.maps[n, t], 0), maps[n], atol=1e-4 * max(maps[n].max(), 1e-3))
    return scores


@pytest.mark.parametrize("prompt", IDS)
def test_a_prompt_as_autograd_has_it(explainer, prompt):
    found = explainer(X, f"text: {prompt}")
    scores = close(found, [prompt], [1.0])
    said = [image["targets"][0] for image in found.to_dict()["images"]]
    np.testing.assert_allclose([one["score"] for one in said], scores, rtol=1e-4)
    assert (said[0]["target"] if "target" in said[0] else said[0]["label"]) == prompt


def test_prompts_against_each_other(explainer):
    found = explainer(X, ["text: a red square - a blue star", "text: not a star", "text: 2*a star + a red square"])
    close(found, ["a red square", "a blue star"], [1.0, -1.0], 0)
    close(found, ["a star"], [-1.0], 1)
    close(found, ["a star", "a red square"], [2.0, 1.0], 2)


def test_prompts_are_classes(explainer, folder):
    named = explainer.with_prompts(folder / "prompts.txt")
    wanted = np.stack([dual.scores_and_maps(X, [IDS[one]], [1.0])[0] for one in list(IDS)[:3]], axis=1)
    found = named.predict(X)
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-4)
    assert found.top(0, 1)[0][1] == ["a red square", "a blue star", "star"][wanted[0].argmax()]
    close(named(X, "star"), ["a star"], [1.0])
    close(named(X, "a red square - star"), ["a red square", "a star"], [1.0, -1.0])
    close(named(X, 1), ["a blue star"], [1.0])
    close(named(X, ["text: a red, blue star", "star"]), ["a red, blue star"], [1.0], 0)
    best = named(X)
    for n in range(len(X)):
        prompt = list(IDS)[wanted[n].argmax()]
        maps = dual.scores_and_maps(X, [IDS[prompt]], [1.0])[1][n]
        np.testing.assert_allclose(np.maximum(best.maps[n, 0], 0), maps, atol=1e-4 * maps.max())
    again = pickle.loads(pickle.dumps(named))(X, "star")
    np.testing.assert_array_equal(again.maps, named(X, "star").maps)
    with pytest.raises(FastcamError, match="no class"):
        named(X, "a circle")


def test_rows_of_prompts_and_streams(explainer, folder):
    prompts = ["text: a star", "text: a red square", "text: a blue star"]
    rows = explainer(X, [[one] for one in prompts])
    for n, prompt in enumerate(prompts):
        maps = dual.scores_and_maps(X, [IDS[prompt.removeprefix("text: ")]], [1.0])[1][n]
        np.testing.assert_allclose(np.maximum(rows.maps[n, 0], 0), maps, atol=1e-4 * max(maps.max(), 1e-3))
    wanted = explainer(folder / "p.png", prompts[0])
    [frame] = explainer.stream([folder / "p.png"], prompts[0])
    np.testing.assert_array_equal(frame.explanation.maps, wanted.maps)
    again = explainer(folder / "p.png", prompts[0], method="occlusion", options={"window": 5, "stride": 5})
    assert np.abs(again.maps).max() > 0
    assert len(explainer.probes([folder / "p.png"], prompts[0])) == 1


def test_one_text_for_each_of_as_many_pictures_is_no_pair(folder):
    """Three pictures and three prompts, run one by one: each picture is compared with all prompts."""
    alone = Explainer(folder / "pairs.cam.onnx", batch_size=1, prompts=list(IDS)[:3])
    wanted = np.stack([dual.scores_and_maps(X, [IDS[one]], [1.0])[0] for one in list(IDS)[:3]], axis=1)
    np.testing.assert_allclose(alone.predict(X).scores, wanted, rtol=1e-4)


def test_each_text_is_embedded_once(folder, monkeypatch):
    explainer = Explainer(folder / "apart.cam.onnx")
    explainer(X, "text: a star")
    import fastcam.runtime.text_encoder as module

    monkeypatch.setattr(module.TextEncoder, "_run", lambda *_: pytest.fail("embedded again"))
    close(explainer(X, ["text: a star", "text: a star"]), ["a star"], [1.0])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ([], "there are no prompts"),
        (["a", "a"], "the prompt 'a' is there twice"),
        ([5], "prompts are texts"),
        ({"x": ""}, "a prompt has no text"),
        (5, "prompts is 5; give a file of prompts"),
        ("missing.txt", "missing.txt: cannot be read"),
    ],
)
def test_what_are_no_prompts(source, words):
    with pytest.raises(FastcamError, match=words):
        read_prompts(source)


def test_prompts_of_files(tmp_path):
    for name, text in (("p.json", '{"x": "a star"}'), ("p.txt", "x\ta star\n\n"), ("q.json", '["x"]')):
        (tmp_path / name).write_text(text)
    assert read_prompts(tmp_path / "p.json") == read_prompts(tmp_path / "p.txt") == {"x": "a star"}
    assert read_prompts(tmp_path / "q.json") == {"x": "x"}
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(FastcamError, match="no JSON"):
        read_prompts(tmp_path / "p.json")


def test_what_is_missing_is_said(folder, tmp_path):
    path, data = folder / "apart.cam.onnx", (folder / "apart.cam.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(data)
    for model, words in ((data, "does not lie beside it"), (tmp_path / "m.onnx", "the text encoder of .* is missing")):
        with pytest.raises(FastcamError, match=words):
            Explainer(model)(X, "text: a star")
    (tmp_path / "texts.onnx").write_bytes((folder / "pairs.onnx").read_bytes())
    with pytest.raises(FastcamError, match="not the text encoder that"):
        Explainer(tmp_path / "m.onnx")(X, "text: a star")
    wanted = Explainer(path)(X, "text: a star")
    found = Explainer(data, text_encoder=folder / "texts.onnx")(X, "text: a star")
    np.testing.assert_array_equal(found.maps, wanted.maps)
    with pytest.raises(FastcamError, match="give the text encoder of the same model"):
        Explainer(path, text_encoder=folder / "pictures.onnx")(X, "text: a star")
    plain = export_model(dual.pictures(), preprocess="unit", targets="cotangent", output_name="image_embeds")
    with pytest.raises(FastcamError, match="has no text encoder"):
        Explainer(plain.model.SerializeToString())(X, "text: a star")
    with pytest.raises(FastcamError, match="give a text, like text: a red square"):
        Explainer(path)(X, "text:")
    with pytest.raises(FastcamError, match=r"compares pictures with texts: give targets='text"):
        Explainer(folder / "pairs.cam.onnx")(X)
    with pytest.raises(FastcamError, match="add --targets cotangent"):
        export_model(dual.pairs(), text_encoder=folder / "texts.onnx")


# ---- the command line


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_commands(folder, tmp_path):
    out = folder / "made.cam.onnx"
    done = run(
        "export", folder / "pictures.onnx", "-o", out, "--targets", "cotangent", "--output-name", "image_embeds",
        "--preprocess", "unit", "--tokenizer", folder / "tokenizer.json", "--text-encoder", folder / "texts.onnx",
        "--logit-scale", "7", "--logit-bias", "-1.5",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "texts   by texts.onnx: 7 * cosine - 1.5" in done.stdout and "-t 'text: A PROMPT'" in done.stdout
    for model in (out, folder / "pairs.cam.onnx"):
        done = run(
            "explain", model, folder / "p.png", "-t", "text: a star", "-t", "text: a star - a red square", "--json"
        )
        assert done.exit_code == 0, done.output
        assert len(json.loads(done.stdout)["images"][0]["targets"]) == 2
        done = run("explain", model, folder / "p.png", "--prompts", folder / "prompts.txt", "-t", "star", "--json")
        assert done.exit_code == 0, done.output
        done = run("explain", model, folder / "p.png", "--prompts", folder / "prompts.txt", "-o", tmp_path / "o")
        assert done.exit_code == 0, done.output
        done = run("explain", model, folder / "p.png", "--prompts", "none.txt")
        assert done.exit_code == 2 and "none.txt: cannot be read" in done.stderr, done.output
