"""Networks of texts: heat for each word. PyTorch autograd on the same weights is the oracle."""

from __future__ import annotations

import html
import io
import json
import re

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.language.tokenizer import Tokenizer
from fastcam.language.word_level import word_level
from fastcam.schema import Metadata
from fastcam_export import export_model
from support.models.torch_file import grad_cam

pytest.importorskip("tokenizers", reason="needs the library tokenizers")
WORDS = ["<pad>", "<unk>", "a", "warm", "and", "funny", "film", "dull", "but", ","]
TEXTS = ["A warm, funny film", "dull and dull"]
IDS = np.array([[2, 3, 9, 5, 6], [7, 4, 7, 0, 0]])


class TextNetwork(nn.Module):
    """Words looked up, two widths of windows over them, the largest of each filter, two classes (Kim 2014)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(len(WORDS), 6)
        self.windows = nn.ModuleList([nn.Conv1d(6, 4, width, padding=width // 2) for width in (1, 3)])
        self.head = nn.Linear(8, 2)

    def forward(self, ids):
        x = self.table(ids).transpose(1, 2)
        self.map = torch.relu(torch.cat([window(x) for window in self.windows], 1))
        return self.head(torch.tanh(self.map.amax(2)))


def file_of(length=None, kind=torch.long):
    file = io.BytesIO()
    free = {0: "N"} | ({} if length else {1: "L"})
    example = torch.zeros(1, length or 5, dtype=kind)
    names = {"input_names": ["ids"], "output_names": ["y"], "dynamic_axes": {"ids": free}}
    torch.onnx.export(TextNetwork().eval(), (example,), file, dynamo=False, opset_version=17, **names)
    return file.getvalue()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    path.write_text(word_level(WORDS))
    return path


@pytest.fixture(scope="module")
def exported(tokenizer):
    return export_model(file_of(), tokenizer=tokenizer, labels=["bad", "good"])


@pytest.fixture(scope="module")
def explainer(exported):
    return Explainer(exported.model.SerializeToString())


def test_maps_are_those_of_autograd(exported, explainer):
    found = explainer(TEXTS, targets=[1, 0])
    net = TextNetwork()
    for t, target in enumerate((1, 0)):
        expected = grad_cam(net, IDS, target)
        np.testing.assert_allclose(found.maps[:, t], expected, rtol=1e-4, atol=1e-6)
        peak = np.maximum(expected.max(1, keepdims=True), 1e-9)
        np.testing.assert_allclose(found.heatmaps[:, t], expected / peak, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.scores, net(torch.as_tensor(IDS)).detach(), rtol=1e-4, atol=1e-5)
    assert exported.metadata.kind == "text" and exported.metadata.words == len(WORDS)
    assert Metadata.from_json(exported.metadata.to_json()) == exported.metadata


@pytest.mark.parametrize(("length", "kind"), [(8, torch.long), (8, torch.int32), (None, torch.int32)])
def test_texts_are_filled_up_to_a_fixed_length_and_ids_have_the_networks_type(tokenizer, length, kind):
    file = export_model(file_of(length, kind), tokenizer=tokenizer).model.SerializeToString()
    found = Explainer(file)(TEXTS, targets=[1])
    ids = np.pad(IDS, [(0, 0), (0, (length or 5) - 5)])
    expected = grad_cam(TextNetwork(), ids, 1)
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(Explainer(file)(ids, targets=[1]).maps, found.maps, rtol=1e-5, atol=1e-7)


def test_words_have_their_heat_and_segments_lie_among_them(explainer):
    found = explainer(TEXTS, targets=[1], threshold=0.5)
    words = found.word_heat(0, 0)
    assert [word for word, _ in words] == ["A", "warm", ",", "funny", "film"]
    np.testing.assert_allclose([heat for _, heat in words], found.heatmaps[0, 0], rtol=1e-6)
    assert [word for word, _ in found.word_heat(1, 0)] == ["dull", "and", "dull"]  # not what fills it up
    for i, count in enumerate((5, 3)):
        assert all(0 <= first < past <= count for first, past, _ in found.components[i][0])
        above = np.concatenate([[0], found.heatmaps[i, 0, :count] >= 0.5, [0]]).astype(int)
        starts = np.nonzero(np.diff(above) == 1)[0]
        np.testing.assert_array_equal(found.components[i][0][:, 0], starts)
    entry = found.to_dict()["images"][0]
    assert entry["text"] == TEXTS[0] and entry["words"] == [word for word, _ in words]
    np.testing.assert_allclose(entry["targets"][0]["heat"], found.heatmaps[0, 0], atol=1e-4)


def test_a_stream_of_texts_is_that_of_its_calls(explainer):
    for frame, text in zip(explainer.stream(TEXTS, targets=[1]), TEXTS, strict=True):
        assert frame.error is None
        np.testing.assert_allclose(frame.explanation.heatmaps, explainer(text, targets=[1]).heatmaps, rtol=1e-5)


def test_heat_is_the_colour_behind_each_word(explainer, tmp_path):
    found = explainer(TEXTS, targets=[1])
    paths = {path.suffix: path for path in found[0].save(tmp_path / "one")}
    assert set(paths) == {".png", ".html", ".json"}
    page = paths[".html"].read_text()
    text = re.sub(r"<[^>]*>", "", page.split("<p")[1].split(">", 1)[1].split("</p>")[0])
    assert html.unescape(text) == TEXTS[0] and "<script" not in page
    shades = re.findall(r"background:(#\w{6});padding", page)
    behind = found.word_colours(0, 0)
    assert shades == ["#" + bytes(map(int, one)).hex() for one in behind]
    cold = [heat == 0 for _, heat in found.word_heat(0, 0)]
    assert [tuple(one) == (255, 255, 255) for one in behind] == cold
    drawn = cv2.imread(str(paths[".png"]))[..., ::-1]
    hottest = int(np.argmax([heat for _, heat in found.word_heat(0, 0)]))
    assert (drawn == behind[hottest]).all(2).any() and found.overlay(1).shape[2] == 3


@pytest.mark.parametrize(("options", "width", "hidden"), [(None, 1, 1), ({"window": 2}, 2, 1), ({"value": 6}, 1, 6)])
def test_occlusion_hides_words_by_the_unknown_one(explainer, options, width, hidden):
    """The mean fall of the score over the windows that hide a word, by PyTorch; the texts have several lengths."""
    found = explainer(TEXTS, targets=[1, 0], method="occlusion", options=options)
    net = TextNetwork().eval()

    def scores(ids):
        with torch.no_grad():
            return net(torch.as_tensor(ids[None]))[0].numpy()

    for i, (ids, count) in enumerate(zip(IDS, (5, 3), strict=True)):
        falls, seen = np.zeros((2, 5)), np.zeros(5)
        for first in range(5 - width + 1):
            changed = ids.copy()
            changed[first : first + width] = hidden
            falls[:, first : first + width] += (scores(ids) - scores(changed))[[1, 0], None]
            seen[first : first + width] += 1
        expected = np.maximum(falls / seen, 0)
        expected[:, count:] = 0  # what fills a text up is none of its words
        np.testing.assert_allclose(found.maps[i], expected, atol=1e-5)
        assert found.maps[i].max() > 1e-3
    assert found.method == "occlusion" and len(found.word_heat(1, 0)) == 3


def test_occlusion_needs_a_word_that_hides(tokenizer):
    bare = Explainer(export_model(file_of()).model.SerializeToString())
    with pytest.raises(FastcamError, match=r"nothing tells which word of .* stands for a hidden one; give its id"):
        bare(IDS, method="occlusion")
    told = bare(IDS[:1], targets=[1], method="occlusion", options={"value": 1})
    known = Explainer(export_model(file_of(), tokenizer=tokenizer).model.SerializeToString())
    np.testing.assert_allclose(told.maps, known(TEXTS[0], targets=[1], method="occlusion").maps, atol=1e-6)
    for value in (10, -1, 1.5):
        with pytest.raises(FastcamError, match=r"value is the id of a word of .*, 0 to 9"):
            bare(IDS, method="occlusion", options={"value": value})


def test_the_mask_hides_before_the_unknown_word():
    assert Tokenizer(word_level(WORDS)).hiding == WORDS.index("<unk>")
    assert Tokenizer(word_level([*WORDS, "[MASK]"])).hiding == len(WORDS)
    assert Tokenizer(word_level(["<pad>", "a"], unknown=None)).hiding is None


def test_a_text_that_looks_like_markup_stays_text(tokenizer, tmp_path):
    explainer = Explainer(export_model(file_of(), tokenizer=tokenizer).model.SerializeToString())
    [page] = [path for path in explainer("warm <b>film</b>").save(tmp_path) if path.suffix == ".html"]
    assert "<b>" not in page.read_text() and "&lt;" in page.read_text()


def test_the_command_line_explains_words_and_files(exported, tmp_path):
    (tmp_path / "t.cam.onnx").write_bytes(exported.model.SerializeToString())
    (tmp_path / "review.txt").write_text("dull and\ndull\n")

    def fastcam(*arguments):
        return CliRunner().invoke(app, [str(one) for one in arguments])

    given = [tmp_path / "review.txt", "--text", TEXTS[0], "-t", "good"]
    result = fastcam("explain", tmp_path / "t.cam.onnx", *given, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "dull and dull" in result.output and "hottest:" in result.output
    found = Explainer(tmp_path / "t.cam.onnx")([TEXTS[1], TEXTS[0]], targets=["good"])
    report = json.loads((tmp_path / "out" / "explanation.json").read_text())
    np.testing.assert_allclose(report["images"][1]["targets"][0]["heat"], found.heatmaps[1, 0], atol=1e-4)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".png", ".html", ".json"}
    for arguments, said in (
        ([], "no text given"),
        (["photo.jpg"], "not a text file"),
        (["--text", "warm", "--method", "rise"], "takes words, and RISE changes its input a little"),
        (["--text", ""], "has no words"),
        (["--text", "warm", "--preprocess", "unit"], "takes texts, which are not prepared as pixels"),
    ):
        wrong = fastcam("explain", tmp_path / "t.cam.onnx", *arguments, "-o", tmp_path / "none")
        assert wrong.exit_code == 2 and said in wrong.stderr, (arguments, wrong.output)
    assert not (tmp_path / "none").exists()


def test_what_is_no_such_text_is_refused(explainer, tokenizer):
    with pytest.raises(FastcamError, match="knows the ids 0 to 9, and the text has 3 to 10"):
        explainer(np.array([[3, 10]]))
    with pytest.raises(FastcamError, match=r"words, or whole numbers \[L\]"):
        explainer(np.ones((1, 4), np.float32))
    with pytest.raises(FastcamError, match="no text given"):
        explainer([])
    bare = Explainer(export_model(file_of()).model.SerializeToString())
    with pytest.raises(FastcamError, match="has no tokenizer"):
        bare("warm")
    assert [word for word, _ in bare(np.array([[3, 5]])).word_heat()] == ["3", "5"]
    with pytest.raises(FastcamError, match="through which no gradient passes"):
        export_model(file_of(), input_gradient="gradient")
    with pytest.raises(FastcamError, match="not prepared as pixels are"):
        export_model(file_of(), preprocess="unit")


def test_methods_that_change_the_layer_take_texts(tokenizer):
    made = export_model(file_of(8), tokenizer=tokenizer, head=True)
    explainer = Explainer(made.model.SerializeToString(), head=made.head.SerializeToString())
    found = explainer(TEXTS[0], targets=[1], method="ablationcam")
    assert found.heatmaps.shape == (1, 1, 8) and np.isfinite(found.heatmaps).all()


def test_other_verbs_know_that_it_is_a_text(exported, explainer, tmp_path):
    from fastcam.evaluation.contestant import Contestant
    from fastcam.runtime.timing import cpu_session, random_feeds

    (tmp_path / "t.onnx").write_bytes(file_of())
    said = CliRunner().invoke(app, ["inspect", str(tmp_path / "t.onnx")])
    assert said.exit_code == 0 and "a text, ids of 10 words" in said.output
    (tmp_path / "t.cam.onnx").write_bytes(exported.model.SerializeToString())
    session = cpu_session(tmp_path / "t.cam.onnx", 1)
    ids = random_feeds(session, 64)["ids"]
    assert ids.shape[0] == 64 and ids.min() >= 0 and ids.max() < len(WORDS)
    session.run(None, random_feeds(session, 64))
    with pytest.raises(FastcamError, match="t explains texts, and the data set has pictures"):
        Contestant("t", explainer, None).check()
    given = ["explain", str(tmp_path / "t.cam.onnx"), "--text", "warm", "--words", str(tmp_path / "neurons.csv")]
    refused = CliRunner().invoke(app, given)
    assert refused.exit_code == 2 and "leave it out for texts" in refused.stderr
