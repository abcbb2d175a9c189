"""Texts in pictures (CTC): blanks skipped, repeats taken once, their steps summed; captions behind a softmax."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import helper, numpy_helper

from fastcam import Explainer, FastcamError
from fastcam.schema import preset
from fastcam.targets import cotangents, ctc
from fastcam.targets.arrays import softmax
from fastcam_export import export_model
from support.models.many_outputs import node, run, value

W, V, K = 12, 5, 6
RNG = np.random.default_rng(0)
CONV = RNG.standard_normal((K, 3, 3, 3)).astype(np.float32)
MATRIX = (3 * RNG.standard_normal((K, V))).astype(np.float32)
MATRIX -= MATRIX.mean(0)
NAMES = ["c", "a", "t", "s"]


def recogniser(end="Softmax", time_major=False, last=False, batch="N"):
    """image [N, 3, 8, 12] -> convolution, ReLU "feat" -> mean of each column -> scores of 4 characters and a blank."""
    matrix = np.roll(MATRIX, -1, axis=1) if last else MATRIX  # the blank is the first class, or the last
    nodes = [
        node("Conv", "image w", "c", pads=[1] * 4),
        node("Relu", "c", "feat"),
        node("ReduceMean", "feat two", "columns", keepdims=0),
        node("Transpose", "columns", "steps", perm=[2, 0, 1] if time_major else [0, 2, 1]),
        node("MatMul", "steps m", "scores"),
        node("Add", "scores bias", "logits" if end else "y"),
        *([node(end, "logits", "y", axis=2)] if end else []),
    ]
    bias = np.zeros(V, np.float32)
    bias[-1 if last else 0] = 3  # most steps are blank
    tensors = {"w": CONV, "m": matrix, "two": np.array([2]), "bias": bias}
    shape = [W, batch, V] if time_major else [batch, W, V]
    graph = helper.make_graph(
        nodes, "g", [value("image", [batch, 3, 8, W])], [value("y", shape)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def pictures(n=2):
    return (2 * np.random.default_rng(2).standard_normal((n, 3, 8, W))).astype(np.float32)


def seen(x):
    """The feature map, and the scores [N, W, V] of the model with the blank first."""
    model = recogniser(end="")
    model.graph.output.append(value("feat", None))
    found = run(model, {"image": x})
    return found["feat"].astype(np.float64), found["y"].astype(np.float64)


def read(best):
    """The text of a picture, by hand: [(character, steps)]."""
    found = []
    for step, token in enumerate(best):
        if step and token == best[step - 1] and token:
            found[-1][1].append(step)
        elif token:
            found.append((int(token), [step]))
    return found


def wanted(x, ask=None):
    """Names, values and HiResCAM of every character in closed form: d log p_c / d feat = (m_c - sum p m) / h."""
    feat, y = seen(x)
    p = softmax(y)
    rows = []
    for n in range(len(x)):
        row = []
        for number, (token, steps) in enumerate(read(y[n].argmax(1))):
            token = token if ask is None else ask[number]
            gradient = np.zeros((K, W))
            gradient[:, steps] = MATRIX[:, [token]] - MATRIX @ p[n, steps].T
            row.append((NAMES[token - 1], np.log(p[n, steps, token]).sum(), (gradient[:, None] * feat[n] / 8).sum(0)))
        rows.append(row)
    return rows


def explained(model, x, specs, labels=("<blank>", *NAMES), **options):
    export = export_model(model, targets="cotangent", layer="feat", emit="gradients", labels=labels, check=False)
    return Explainer(export.model.SerializeToString(), "cpu")(x, cotangent=specs, method="hirescam", **options)


FORMS = {
    "softmax": {},
    "logits": {"end": ""},
    "log-softmax": {"end": "LogSoftmax"},
    "images second": {"time_major": True},
    "images second, two at once": {"time_major": True, "batch": 1},
    "blank last": {"last": True},
}


@pytest.mark.parametrize("name", FORMS)
def test_a_target_for_each_character(name):
    how = FORMS[name]
    x = pictures(1 if how.get("time_major") else 2)
    assert all(len(row) > 1 for row in wanted(x)) and any(len(s) > 1 for _, s in read(seen(x)[1][0].argmax(1)))
    names = (*NAMES, "<blank>") if how.get("last") else ("<blank>", *NAMES)
    spec = "words" if name != "logits" else "words:blank=first"
    e = explained(recogniser(**how), x, [spec], names)
    for n, row in enumerate(wanted(x)):
        assert [t.name for t in e.targets[n] if t.name] == [f"character {i + 1}: {one[0]}" for i, one in enumerate(row)]
        for t, (_, score, signed) in enumerate(row):
            assert e.score(n, t) == pytest.approx(score, rel=1e-4, abs=1e-6)
            np.testing.assert_allclose(e.maps[n, t], np.maximum(signed, 0), rtol=2e-3, atol=2e-4)
    assert all(status == "not_asked" for n, row in enumerate(wanted(x)) for status in e.status[n][len(row) :])


@pytest.mark.parametrize("last", [False, True])
def test_names_of_all_but_the_blank(last):
    """Where the names are one fewer than the classes, the class that stands between others is the blank."""
    e = explained(recogniser(last=last), pictures(), ["words"], NAMES)
    for n, row in enumerate(wanted(pictures())):
        assert [t.name.split(": ")[1] for t in e.targets[n]] == [one[0] for one in row]


def test_the_text_as_a_whole_and_other_characters():
    x = pictures(1)
    row = wanted(x)[0]
    text = "".join(one[0] for one in row)
    e = explained(recogniser(), x, ["caption", "words"])
    assert e.label(0, 0) == f"text {text}" and e.score(0, 0) == pytest.approx(sum(one[1] for one in row), rel=1e-4)
    np.testing.assert_allclose(e.maps[0, 0], np.maximum(sum(one[2] for one in row), 0), rtol=2e-3, atol=2e-4)
    other = "s" * len(row)
    e = explained(recogniser(), x, [f"words:{other}"])
    for t, (_, score, signed) in enumerate(wanted(x, [4] * len(row))[0]):
        assert e.label(0, t) == f"character {t + 1}: s" and e.score(0, t) == pytest.approx(score, rel=1e-4)
        np.testing.assert_allclose(e.maps[0, t], np.maximum(signed, 0), rtol=2e-3, atol=2e-4)
    with pytest.raises(FastcamError, match=f"{len(row) + 1} characters were given, {len(row)} are read in picture 1"):
        explained(recogniser(), x, [f"words:{other}s"])


def test_several_specs_of_pictures_with_texts_of_different_length():
    """What a picture does not have stands behind what it has."""
    x = pictures(4)
    rows = wanted(x)
    assert len({len(row) for row in rows}) > 1
    e = explained(recogniser(), x, ["words", "caption"])
    for n, row in enumerate(rows):
        assert e.asked(n) == len(row) + 1 and e.label(n, len(row)).startswith("text ")
        assert e.score(n, len(row)) == pytest.approx(sum(one[1] for one in row), rel=1e-4)
        assert len(e.to_dict()["images"][n]["targets"]) == len(row) + 1


def test_a_picture_in_which_nothing_is_read():
    blank = np.zeros((1, 3, 8, W), np.float32)
    export = export_model(recogniser(), targets="cotangent", layer="feat", labels=["<blank>", *NAMES], check=False)
    with pytest.raises(FastcamError, match="no character is read in picture 1"):
        Explainer(export.model.SerializeToString(), "cpu")(blank, cotangent="words")


def test_reading_takes_repeats_once_and_leaves_blanks_out():
    best = np.array([0, 3, 3, 0, 3, 1, 1, 0, 0])
    assert [(c.token, c.start, c.stop) for c in ctc.read(best, 0)] == [(3, 1, 3), (3, 4, 5), (1, 5, 7)]
    assert ctc.read(np.zeros(4, np.int64), 0) == []


@pytest.mark.parametrize(
    ("best", "labels", "blank"),
    [
        ([0, 3, 0, 0, 2, 0], None, 0),
        ([4, 3, 4, 2, 4, 4], None, 4),
        ([3, 2, 1, 0, 0, 0], None, None),  # padding behind a caption
        ([3, 2, 1, 3, 2, 1], None, None),
        ([0, 3, 0, 0, 2, 0], ["a", "b", "c", "d", "<blank>"], 4),
        ([3, 4, 3, 4, 2, 1], ["a", "b", "c", "d"], 4),
        ([0, 0, 0, 0, 2, 2], ["a", "b", "c", "d"], 0),
        ([3, 2, 0, 0, 0, 0], ["a", "b", "c", "d"], 0),
    ],
)
def test_which_class_is_the_blank(best, labels, blank):
    assert ctc.find_blank(np.array([best]), 5, labels) == blank


def test_a_blank_that_nothing_tells_is_a_question():
    with pytest.raises(FastcamError, match=r"which class is the blank.* blank=first, blank=last or blank=none"):
        ctc.find_blank(np.array([[0, 4, 1, 0, 4, 2]]), 5, None)


def test_words_of_a_caption_behind_its_softmax():
    """d log p / dp = 1 / p; behind the softmax this is the cotangent of the logits."""
    y = np.random.default_rng(1).standard_normal((2, 3, 7))
    p, tokens = softmax(y), [3, 1, 6]
    c = cotangents.words(p, tokens).astype(np.float64)
    position = np.arange(3)
    assert (c[:, position, position, tokens] * p[:, position, tokens]) == pytest.approx(1)
    assert np.count_nonzero(c) == 6
    through = p[:, None] * (c - (c * p[:, None]).sum(-1, keepdims=True))  # the softmax's own rule
    np.testing.assert_allclose(through, cotangents.words(y, tokens), atol=1e-6)
    np.testing.assert_allclose(cotangents.caption(p, tokens), c.sum(1, keepdims=True), rtol=1e-5)


def test_the_size_of_a_line_is_tried_first_where_a_model_reads_text_of_any_size():
    model = recogniser()
    for value_info, axes in ((model.graph.input[0], (2, 3)), (model.graph.output[0], (1,))):
        for axis in axes:
            value_info.type.tensor_type.shape.dim[axis].dim_param = f"free{axis}"
    export = export_model(model, labels=["<blank>", *NAMES])
    assert export.metadata.check["image_shape"] == [3, 48, 320] and "48 x 320" in " ".join(export.notes)
    assert export.metadata.cotangents[0].answer == "words"


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("words", [np.zeros((2, 3, 5)), [1, 2]]),
        ("words", [np.zeros((2, 3, 5)), [[1, 2, 3], [1]]]),
        ("words", [np.zeros((2, 3, 5)), [[0, 0, 0]] * 3]),
        ("words", [np.zeros((2, 3, 5)), [0, 1.5, 2]]),
        ("words", [np.zeros((2, 3, 5)), "abc"]),
        ("words", [[1, 2], [1, 2]]),
        ("caption", [[[1], [2, 3]], [1]]),
        ("class_score", [[[1], [2, 3]], 1]),
        ("similarity", ["abc", [1]]),
        ("stack", ["abc"]),
        ("stack", [3.0]),
    ],
)
def test_arrays_that_are_none_are_refused_in_one_line(function, arguments):
    with pytest.raises(FastcamError) as error:
        getattr(cotangents, function)(*arguments)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


def test_rounded_probabilities_are_no_logits():
    """Those of an int8 softmax sum to 0.97: the graph says what they are, the values do not."""
    made = recogniser()
    made.graph.node[-1].output[0] = "p"
    made.graph.node.extend([node("QuantizeLinear", "p step zero", "q"), node("DequantizeLinear", "q step zero", "y")])
    made.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(0.06), "step"), numpy_helper.from_array(np.uint8(0), "zero")]
    )
    x = pictures(1)
    e = explained(made, x, ["words"])
    for t, (name, _, _) in enumerate(wanted(x)[0]):
        steps = read(seen(x)[1][0].argmax(1))[t][1]
        p = np.round(softmax(seen(x)[1])[0, steps, NAMES.index(name) + 1] / 0.06) * 0.06
        assert e.label(0, t).endswith(name) and e.score(0, t) == pytest.approx(np.log(p).sum(), rel=1e-3)


# ---- files of other people


def picture_of(word, path):
    """A word in Pillow's own font, black on grey, 48 x 320, and the columns of its characters."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=36)
    image = Image.new("RGB", (320, 48), (200, 200, 200))
    draw, x, columns = ImageDraw.Draw(image), 100, []
    for character in word:
        draw.text((x, 2), character, fill=(20, 20, 20), font=font)
        columns.append((x, x + font.getlength(character)))
        x += font.getlength(character)
    image.save(path)
    return columns


def test_a_captcha_is_read_as_its_name_says(assets, tmp_path):
    folder = assets / "models" / "deployed"
    path = tmp_path / "captcha.cam.onnx"
    names = list("Y65WRD98SMBG3NJ21CP4K?7ZXH!TQL")
    model = folder / "sat_captcha.onnx"
    export_model(model, path, targets="cotangent", preprocess="raw", labels=names, check=False)
    files = sorted((folder / "sat_captcha_pictures").glob("*.png"))
    e = Explainer(path, "cpu")([str(file) for file in files], cotangent="caption")
    assert [e.label(n) for n in range(len(files))] == [f"text {Path(file).stem}" for file in files]


def test_maps_lie_on_the_characters_that_a_recogniser_reads(assets, tmp_path):
    """PP-OCR brings its characters; the maximum of each map lies between the sides of the character."""
    path = tmp_path / "rec.cam.onnx"
    export = export_model(
        assets / "models" / "deployed" / "ppocr_rec.onnx", path, targets="cotangent", check=False, on_demand=True,
        preprocess=preset("tf", color="BGR", size=(48, 320), resize="letterbox"),
    )  # fmt: skip
    assert "character" in export.metadata.labels_from and export.metadata.labels[0] == "<blank>"
    columns = picture_of("Hotel", tmp_path / "word.png")
    assert cv2.imread(str(tmp_path / "word.png")).shape[0] == 48
    e = Explainer(path, "cpu")(str(tmp_path / "word.png"), cotangent="words")
    assert [e.label(0, t).split(": ")[1] for t in range(e.asked(0))] == list("Hotel")
    for t, (left, right) in enumerate(columns):
        heat = e.geometry[0].heatmap_to_original(e.heatmaps[0, t])
        assert left - 2 <= heat.max(0).argmax() <= right + 2
