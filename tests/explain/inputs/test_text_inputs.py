"""Questions beside a picture, in words: ids and masks follow, and maps are those of PyTorch autograd."""

import json
import pickle

import cv2
import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.language.tokenizer import Tokenizer
from fastcam.language.word_level import word_level, write_word_level
from fastcam.schema import Metadata
from fastcam_export import export_model
from support.models.language.questions import ANSWERS, RNG, WORDS, grad_cam, questions

pytest.importorskip("tokenizers", reason="texts need the library tokenizers")
PICTURES = RNG.random((2, 3, 10, 12), dtype=np.float32)
ASKED = ["what colour is the cat?", "where is the dog"]
IDS = [[2, 3, 4, 5, 6, 8], [9, 4, 5, 7]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    write_word_level(folder / "tokenizer.json", WORDS)
    onnx.save(questions(), folder / "m.onnx")
    export_model(
        folder / "m.onnx", folder / "m.cam.onnx", preprocess="unit", labels=ANSWERS, tokenizer=folder / "tokenizer.json"
    )
    for i, picture in enumerate(RNG.integers(0, 256, (2, 20, 24, 3)).astype(np.uint8)):
        cv2.imwrite(str(folder / f"{i}.png"), picture)
    return folder


def close(found, wanted):
    """To 1e-4 of each map's maximum."""
    assert wanted.max() > 0
    np.testing.assert_allclose(np.maximum(found, 0), wanted, atol=1e-4 * wanted.max())


@pytest.mark.parametrize("answer", [0, 3])
def test_a_question_a_picture_as_autograd_has_it(folder, answer):
    found = Explainer(folder / "m.cam.onnx")(PICTURES, answer, text=ASKED)
    wanted = grad_cam(PICTURES, IDS, answer)
    for n in range(2):
        close(found.maps[n, 0], wanted[n])


def test_every_way_to_ask_is_the_same(folder):
    explainer = Explainer(folder / "m.cam.onnx")
    wanted = explainer(PICTURES, 1, text=ASKED[1])
    close(wanted.maps[1, 0], grad_cam(PICTURES, [IDS[1]] * 2, 1)[1])
    ids, mask = np.array([[*IDS[1], 0, 0]]), np.array([[1, 1, 1, 1, 0, 0]])
    images = {"image": PICTURES, "input_ids": ASKED[1]}
    for same in (
        explainer(PICTURES, 1, inputs={"input_ids": ASKED[1]}),
        explainer(PICTURES, 1, text=[ASKED[1]] * 2),
        explainer(PICTURES, 1, inputs={"input_ids": ids, "attention_mask": mask}),
        explainer(images, 1),
        explainer.explain(explainer.predict(PICTURES, text=ASKED[1]), 1),
        Explainer(folder / "m.cam.onnx", inputs={"input_ids": ASKED[1]})(PICTURES, 1),
        Explainer(folder / "m.cam.onnx", inputs={"input_ids": ASKED[0]})(PICTURES, 1, text=ASKED[1]),
        Explainer(folder / "m.cam.onnx", batch_size=1)(PICTURES, 1, text=[ASKED[1]] * 2),
        Explainer(folder / "m.cam.onnx", tokenizer=folder / "tokenizer.json")(PICTURES, 1, text=ASKED[1]),
        pickle.loads(pickle.dumps(explainer))(PICTURES, 1, text=ASKED[1]),
    ):
        np.testing.assert_allclose(same.maps, wanted.maps, rtol=1e-5, atol=1e-7)


def test_streams_and_methods_that_run_again_take_it(folder):
    explainer = Explainer(folder / "m.cam.onnx")
    files = [folder / "0.png", folder / "1.png"]
    wanted = explainer(files, 2, text=ASKED[0])
    for i, frame in enumerate(explainer.stream(files, 2, text=ASKED[0])):
        np.testing.assert_array_equal(frame.explanation.maps[0], wanted.maps[i])
    own = [{"image": file, "input_ids": text} for file, text in zip(files, ASKED)]
    each = [frame.explanation for frame in explainer.stream(own, 2)]
    together = explainer(files, 2, text=ASKED)
    np.testing.assert_allclose([one.maps[0] for one in each], together.maps, rtol=1e-6)
    options = {"window": 4, "stride": 4}
    again = explainer(files, 2, text=ASKED, method="occlusion", options=options)
    alone = explainer(files[1], 2, text=ASKED[1], method="occlusion", options=options)
    np.testing.assert_allclose(again.maps[1], alone.maps[0], rtol=1e-4, atol=1e-6)
    assert np.abs(again.maps[1]).max() > 0
    assert len(explainer.probes(files, 2, text=ASKED)) == 2


def test_a_free_length_takes_the_longest(tmp_path):
    write_word_level(tmp_path / "t.json", WORDS)
    exported = export_model(questions("words"), preprocess="unit", tokenizer=tmp_path / "t.json")
    explainer = Explainer(exported.model.SerializeToString())
    found = explainer(PICTURES, 0, text=ASKED)
    close(found.maps[1, 0], grad_cam(PICTURES, IDS, 0)[1])
    frames = [{"image": p[None], "input_ids": text} for p, text in zip(PICTURES, ASKED)]
    for i, frame in enumerate(explainer.stream(frames, 0)):  # of two lengths, which do not run together
        close(frame.explanation.maps[0, 0], found.maps[i, 0])


def test_without_a_mask_texts_of_two_lengths_are_refused(tmp_path):
    content = json.loads(word_level(WORDS))
    content["padding"] = None
    (tmp_path / "t.json").write_text(json.dumps(content))
    explainer = Explainer(
        export_model(questions("words", mask=False), preprocess="unit", tokenizer=tmp_path / "t.json")
        .model.SerializeToString()
    )  # fmt: skip
    close(explainer(PICTURES[:1], 0, text=ASKED[0]).maps[0, 0], grad_cam(PICTURES[:1], IDS[:1], 0)[0])
    with pytest.raises(FastcamError, match="give them one by one"):
        explainer(PICTURES, 0, text=ASKED)


def test_a_large_tokenizer_lies_beside_the_file(tmp_path):
    words = [*WORDS, *(f"word{i}" for i in range(6000))]
    model = questions()
    table = next(one for one in model.graph.initializer if one.name == "table")
    table.CopyFrom(onnx.numpy_helper.from_array(np.ones((len(words), 6), np.float32), "table"))
    write_word_level(tmp_path / "t.json", words)
    exported = export_model(model, tmp_path / "m.cam.onnx", preprocess="unit", tokenizer=tmp_path / "t.json")
    assert exported.metadata.tokenizer.file == "m.cam.tokenizer.json" and exported.metadata.tokenizer.content == ""
    assert tmp_path / "m.cam.tokenizer.json" in exported.files
    assert Metadata.from_json(exported.metadata.to_json()) == exported.metadata
    Explainer(tmp_path / "m.cam.onnx")(PICTURES, 0, text=ASKED)
    write_word_level(tmp_path / "m.cam.tokenizer.json", words[::-1])
    with pytest.raises(FastcamError, match=r"not the tokenizer that .*m\.cam\.onnx was exported with"):
        Explainer(tmp_path / "m.cam.onnx")(PICTURES, 0, text=ASKED)
    (tmp_path / "m.cam.tokenizer.json").unlink()
    with pytest.raises(FastcamError, match="is missing"):
        Explainer(tmp_path / "m.cam.onnx")(PICTURES, 0, text=ASKED)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"text": [*ASKED, "what"]}, "got 3 rows for 2 images"),
        ({"text": "what " * 7}, "has 7 tokens, and the network takes 6"),
        ({"text": 5}, "text is 5; give a text"),
        ({"text": []}, "text is an empty list"),
        ({"text": "what", "inputs": {"input_ids": [[0] * 6]}}, "both given; give one of the two"),
        ({"inputs": {"input_ids": [[10] * 6], "attention_mask": [[1] * 6]}}, "ids from 10 to 10, and .* knows 0 to 9"),
        ({"inputs": {"input_ids": [[-1] * 6], "attention_mask": [[1] * 6]}}, "ids from -1 to -1"),
        ({}, r"needs a text for its input 'input_ids' .*text='...' \(--text\)"),
        ({"text": "what", "inputs": {"attention_mask": "what"}}, "takes no text; give numbers"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, call, words):
    with pytest.raises(FastcamError, match=words):
        Explainer(folder / "m.cam.onnx")(PICTURES, 0, **call)


def test_unknown_words_are_said(folder):
    with pytest.warns(UserWarning, match="does not know .*'horse'"):
        Explainer(folder / "m.cam.onnx")(PICTURES, 0, text="where is the horse")


def test_a_model_without_a_text_says_so(tmp_path):
    from support.models.heads_model import heads

    explainer = Explainer(export_model(heads()).model.SerializeToString())
    shape = [side if isinstance(side, int) else 1 for side in explainer.input_shape]
    with pytest.raises(FastcamError, match=r"takes no text; leave text \(--text\) out"):
        explainer(np.zeros(shape, np.float32), text="what")


def test_without_a_tokenizer_ids_still_do(folder):
    explainer = Explainer(export_model(questions(), preprocess="unit").model.SerializeToString())
    with pytest.raises(FastcamError, match=r"has no tokenizer; give tokenizer.json \(--tokenizer\)"):
        explainer(PICTURES, 0, text=ASKED)
    given = {"input_ids": [[*IDS[1], 0, 0]], "attention_mask": [[1, 1, 1, 1, 0, 0]]}
    close(explainer(PICTURES, 0, inputs=given).maps[1, 0], grad_cam(PICTURES, [IDS[1]] * 2, 0)[1])


# ---- the command line


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_asks(folder, tmp_path):
    files = [folder / "0.png", folder / "1.png"]
    done = run("explain", folder / "m.cam.onnx", *files, "--text", ASKED[0], "--json")
    assert done.exit_code == 0, done.output
    images = json.loads(done.stdout)["images"]
    assert [image["text"] for image in images] == [ASKED[0]] * 2
    done = run("explain", folder / "m.cam.onnx", files[0], "--text", ASKED[0], "--text", ASKED[1], "-o", tmp_path / "o")
    assert done.exit_code == 0 and ASKED[1] in done.stdout, done.output
    assert len(list((tmp_path / "o").glob("*.jpg")) + list((tmp_path / "o").glob("*.png"))) == 2
    scores = [
        image["targets"][0]["score"]
        for image in json.loads((tmp_path / "o" / "explanation.json").read_text())["images"]
    ]
    own = Explainer(folder / "m.cam.onnx")
    np.testing.assert_allclose(scores, [own(files[0], text=text).scores.max() for text in ASKED], rtol=1e-5)
    sheet = ["--method", "gradcam,layercam", "-o", tmp_path / "sheet"]
    assert run("explain", folder / "m.cam.onnx", *files, "--text", ASKED[0], *sheet[2:]).exit_code == 0
    done = run("stream", folder / "m.cam.onnx", *files, "--text", ASKED[0])
    assert done.exit_code == 0 and len(done.stdout.splitlines()) >= 2, done.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--text", "a", "--text", "b", "--text", "c"], "3 texts (--text) for 2 pictures"),
        (["--text", "what " * 9], "has 9 tokens, and the network takes 6"),
        (["--text", "what", "--tokenizer", "none.json"], "none.json: cannot be read"),
        ([], "--text"),
    ],
)
def test_the_command_refuses_in_one_line(folder, options, words):
    done = run("explain", folder / "m.cam.onnx", folder / "0.png", folder / "1.png", *options)
    assert done.exit_code == 2 and words in done.stderr and "Traceback" not in done.stderr, done.output


def test_an_export_says_what_its_inputs_hold(folder, tmp_path):
    out = tmp_path / "m.cam.onnx"
    done = run("export", folder / "m.onnx", "-o", out, "--preprocess", "unit", "--tokenizer", folder / "tokenizer.json")
    assert done.exit_code == 0, done.output
    assert (
        "input_ids wants a text, of 10 words" in done.stdout and "attention_mask follows from input_ids" in done.stdout
    )
    assert "PICTURE --text TEXT" in done.stdout and "--input-value" not in done.stdout
    for options, words in (
        (["--role", "image2=text"], "no input 'image2'"),
        (["--role", "input_ids=words"], "give one of text, prompts, ids"),
        (["--role", "input_ids"], "give NAME=ROLE"),
        (["--tokenizer", "no.json"], "no.json: cannot be read"),
        (["--role", "input_ids=ids", "--tokenizer", str(folder / "tokenizer.json")], "is of no use"),
    ):
        refused = run("export", folder / "m.onnx", "-o", tmp_path / "x.onnx", *options)
        assert refused.exit_code == 2 and words in refused.stderr, refused.output
    assert not (tmp_path / "x.onnx").exists()


def test_a_tokenizer_with_more_words_than_the_model_is_refused(tmp_path):
    write_word_level(tmp_path / "t.json", [*WORDS, "more"])
    with pytest.raises(FastcamError, match="has 11 words, and input 'input_ids' is looked up among 10"):
        export_model(questions(), tokenizer=tmp_path / "t.json")
    assert Tokenizer(word_level(WORDS)).size == 10
