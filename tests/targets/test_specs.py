"""Cotangents in words: what each spec explains, its value and its name, against PyTorch autograd of the very scalar."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.labels import short_label
from fastcam.targets import cotangents
from fastcam.targets.spec_kinds import KINDS
from fastcam_export import export_model
from support.models.heads_model import MASK, F, autograd, finer, heads, images, run
from support.models.small_models import classifier

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

CLASSES = ("tabby, tabby cat", "tiger cat", "sky", "person", "car")
WORDS = ("a", "dog", "runs", "fast")


@pytest.fixture(scope="module")
def explainers():
    """Name of an output (and class names) -> an Explainer of the file that explains it."""
    made = {}

    def of(name, labels=None):
        if (name, labels) not in made:
            file = export_model(
                heads(), layer="layer", targets="cotangent", output_name=name, labels=labels, preprocess="unit",
                check=False,
            )  # fmt: skip
            made[name, labels] = Explainer(file.model.SerializeToString(), batch_size=2)
        return made[name, labels]

    return of


def softmax(o):
    return torch.softmax(o["logits"], 1)


def log_p(o, tokens):
    y = torch.log_softmax(o["words"], 2)
    return [y[:, i, k] for i, k in enumerate(tokens)]


def likeliest(o):
    return torch.log_softmax(o["words"], 2).max(2).values


def top(o, r):
    return o["logits"].sort(1, descending=True).values[:, r - 1]


SPECS = {
    "class": ("logits", CLASSES, ["class:sky,-2"], lambda o: [o["logits"][:, 2], top(o, 2)], {0: "sky"}),
    "class, no word": ("logits", None, "class", lambda o: [top(o, 1)], {}),
    "several": ("logits", CLASSES, ["class: Person", "probability:1"],
                lambda o: [o["logits"][:, 3], softmax(o)[:, 1]], {0: "person", 1: "probability of tiger cat"}),
    "combination": ("logits", CLASSES, "class:tabby - 0.5*sky", lambda o: [o["logits"][:, 0] - 0.5 * o["logits"][:, 2]],
                    {0: "tabby - 0.5 sky"}),
    "counterfactual": ("logits", CLASSES, "class:not car", lambda o: [-o["logits"][:, 4]], {0: "not car"}),
    "probability": ("logits", CLASSES, "probability:car,-1", lambda o: [softmax(o)[:, 4], softmax(o).max(1).values],
                    {0: "probability of car"}),
    "log-probability": ("logits", None, "Log_Probability:4", lambda o: [softmax(o)[:, 4].log()],
                        {0: "log probability of class 4"}),
    "finer": ("logits", None, "finer:-1,-2,-3,-4,strength=0.6", lambda o: finer(o["logits"], (2, 3, 4), False), {}),
    "finer, no word": ("logits", None, "finer", lambda o: [
        top(o, 1) - (torch.softmax(o["logits"], 1).sort(1).values[:, 1:4] * o["logits"].sort(1).values[:, 1:4]).sum(1)
        / torch.softmax(o["logits"], 1).sort(1).values[:, 1:4].sum(1)], {}),
    "finer of two numbers": ("numbers", None, "finer",
                             lambda o: [o["numbers"].max(1).values - o["numbers"].min(1).values], {}),
    "labels": ("logits", CLASSES, "labels:tabby,person", lambda o: [o["logits"][:, [0, 3]].sum(1)],
               {0: "tabby + person"}),
    "labels, present": ("logits", None, "labels:threshold=-1",
                        lambda o: [(o["logits"] * (o["logits"].detach() > -1)).sum(1)], {}),
    "element": ("numbers", None, ["element:1", "element:0"], lambda o: list(o["numbers"].flip(1).T),
                {0: "numbers [1]"}),
    "element of a map": ("map", None, "element:3,0,7", lambda o: [o["map"][:, 3, 0, 7]], {0: "map [3, 0, 7]"}),
    "region": ("map", CLASSES, "region:person", lambda o: [(o["map"][:, 3] * (o["map"].argmax(1) == 3)).sum((1, 2))],
               {0: "person"}),
    "point": ("map", CLASSES, "point:person,0", lambda o: list(o["map"][:, [3, 0]].amax((2, 3)).T),
              {0: "person", 1: "tabby"}),
    "point, no word": ("map", None, "point", lambda o: [o["map"].amax((1, 2, 3))], {}),
    "caption": ("words", WORDS, "caption:fast,a,runs", lambda o: [sum(log_p(o, (3, 0, 2)))],
                {0: "caption fast a runs"}),
    "caption by number": ("words", None, "caption:3,0", lambda o: [sum(log_p(o, (3, 0)))], {0: "caption 3 0"}),
    "caption, logits": ("words", None, "caption:3,kind=logit", lambda o: [o["words"][:, 0, 3]], {}),
    "likeliest caption": ("words", None, "caption", lambda o: [likeliest(o).sum(1)], {}),
    "words": ("words", WORDS, "words:dog,runs", lambda o: log_p(o, (1, 2)), {0: "word 1: dog", 1: "word 2: runs"}),
    "likeliest words": ("words", None, "words", lambda o: list(likeliest(o).T), {}),
    "pair": ("embedding", None, "pair", lambda o: [F.cosine_similarity(*o["embedding"][:, None])], {}),
}  # fmt: skip


def cams(explainer, pictures, scalars):
    """Grad-CAM [N, T, h, w] of the scalars, and their values [N, T]."""
    model = heads()
    model.graph.output.append(type(model.graph.output[0])(name="layer"))
    layer = run(model, {"image": pictures})["layer"]
    gradient = autograd(layer, scalars)
    values = scalars({name: torch.from_numpy(y) for name, y in run(heads(), {"image": pictures}).items()})
    maps = np.maximum(np.einsum("ntk,nkhw->nthw", gradient.mean((3, 4)), layer), 0)
    return maps, np.stack([np.broadcast_to(value, len(pictures)) for value in values], 1)


@pytest.mark.parametrize("case", SPECS)
def test_a_spec_equals_autograd_of_its_scalar(case, explainers):
    output, labels, spec, scalars, names = SPECS[case]
    e = explainers(output, labels)(images(), cotangent=spec, method="gradcam")
    maps, values = cams(explainers(output, labels), images(), scalars)
    assert e.maps.shape == maps.shape
    np.testing.assert_allclose(e.maps, maps, atol=2e-5 * maps.max())
    np.testing.assert_allclose(e.scores, values, rtol=1e-4)
    assert maps.max() > 0
    for t, name in names.items():
        assert e.label(0, t) == name
    assert e.score(1, 0) == pytest.approx(values[1, 0], rel=1e-4)


def picture(path, seed=0, size=(8, 8)):
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))
    return str(path)


def tensor(path):
    return (cv2.imread(path)[:, :, ::-1].transpose(2, 0, 1)[None] / 255).astype(np.float32)


def test_similarity_to_pictures_and_to_numbers(explainers, tmp_path):
    a, b, other = (picture(tmp_path / f"{name}.png", seed) for seed, name in enumerate("abc"))
    text = np.random.default_rng(9).standard_normal(6).astype(np.float32)
    np.save(tmp_path / "text.npy", text)
    reference = torch.from_numpy(run(heads(), {"image": tensor(other)})["embedding"])
    e = explainers("embedding")([a, b], cotangent=f"similarity:{other},{tmp_path / 'text.npy'}")
    both = np.concatenate([tensor(a), tensor(b)])
    maps, values = cams(
        explainers("embedding"), both,
        lambda o: [F.cosine_similarity(o["embedding"], r) for r in (reference, torch.from_numpy(text)[None])],
    )  # fmt: skip
    np.testing.assert_allclose(e.maps, maps, atol=2e-5 * maps.max())
    np.testing.assert_allclose(e.scores, values, rtol=1e-4)
    assert [e.label(1, t) for t in range(2)] == ["similarity to c", "similarity to text"]


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_mask_is_brought_to_the_scores_as_the_picture_is(resize, tmp_path):
    """A picture twice as wide as high: letterboxed, it covers the middle rows; its mask lies where it lies."""
    file = export_model(
        heads(), layer="layer", targets="cotangent", output_name="map", preprocess="unit", resize=resize, labels=CLASSES
    )
    wide, mask = picture(tmp_path / "wide.png", size=(8, 16)), np.zeros((8, 16), np.uint8)
    mask[:, 4:12] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    within = np.zeros((8, 8), bool)
    within[slice(None) if resize == "stretch" else slice(2, 6), 2:6] = True
    e = Explainer(file.model.SerializeToString())(wide, cotangent=f"region:person,mask={tmp_path / 'mask.png'}")
    np.testing.assert_allclose(e.score(), e.outputs["map"][0, 3][within].sum(), rtol=1e-4)
    assert e.label() == "person within mask"


def test_several_outputs_and_which_one(tmp_path):
    file = export_model(
        heads(), layer="layer", targets="cotangent", output_name=["logits", "numbers", "map"], check=False
    )
    explainer = Explainer(file.model.SerializeToString())
    specs = ["element:1,output=numbers", "region:1", "class:2,output=logits"]
    e = explainer(images(), cotangent=specs, method="gradcam")
    maps, values = cams(
        explainer, images(),
        lambda o: [o["numbers"][:, 1], (o["map"][:, 1] * (o["map"].argmax(1) == 1)).sum((1, 2)), o["logits"][:, 2]],
    )  # fmt: skip
    np.testing.assert_allclose(e.maps, maps, atol=2e-5 * maps.max())
    np.testing.assert_allclose(e.scores, values, rtol=1e-4)
    for spec in ("class:2", "element:1", "probability:2"):
        with pytest.raises(FastcamError, match="of which output\\? add output=NAME, one of logits, numbers"):
            explainer(images(), cotangent=spec)


def test_each_image_has_its_own_list_of_any_length(explainers):
    """Over two runs; missing targets are said to be missing."""
    explainer, pictures = explainers("logits", CLASSES), images(3)
    rows = [["class:sky"], ["probability:-1", "class:not car", "class:tabby - sky"], ["labels:tabby,car", "class:-2"]]
    e = explainer(pictures, cotangent=rows)
    for n, row in enumerate(rows):
        alone = explainer(pictures[n : n + 1], cotangent=row)
        np.testing.assert_allclose(e.maps[n, : len(row)], alone.maps[0], atol=1e-6)
        assert not e.maps[n, len(row) :].any()
        assert [e.label(n, t) for t in range(e.asked(n))] == [alone.label(0, t) for t in range(len(row))]
        assert [e.score(n, t) for t in range(len(row))] == pytest.approx([alone.score(0, t) for t in range(len(row))])
    assert [row.count("not_asked") for row in e.status] == [2, 0, 1]
    assert e.classes.tolist() == [[0, -1, -1], [0, 1, 2], [0, 1, -1]]
    later = explainer.explain(explainer.predict(pictures)[1:], cotangent=rows[1:])
    np.testing.assert_allclose(later.maps, e.maps[1:], atol=1e-6)
    with pytest.raises(FastcamError, match="cotangents of 2 images, there are 3"):
        explainer(pictures, cotangent=rows[:2])


def test_a_function_may_give_another_number_of_targets_for_each_run(explainers):
    def asked(outputs):
        return cotangents.class_score(outputs["logits"], [1] if len(outputs["logits"]) == 2 else [1, 2, 3])

    e = explainers("logits")(images(3), cotangent=asked)
    assert [e.asked(n) for n in range(3)] == [1, 1, 3] and e.status[0][1:] == ("not_asked", "not_asked")
    expected = explainers("logits")(images(3), cotangent="class:1,2,3")
    np.testing.assert_allclose(e.maps[2], expected.maps[2], atol=1e-6)
    assert e[2].score(0, 2) == pytest.approx(expected.score(2, 2)) and len(e.components[0]) == 3


def test_streams_and_predictions_take_specs(explainers):
    explainer = explainers("logits", CLASSES)
    pictures = [np.random.default_rng(s).integers(0, 256, (8, 8, 3), dtype=np.uint8) for s in range(5)]
    expected = explainer(pictures, cotangent=["probability:-1", "class:sky - car"])
    frames = list(explainer.stream(pictures, cotangent=["probability:-1", "class:sky - car"]))
    for i, frame in enumerate(frames):
        assert frame.error is None
        np.testing.assert_allclose(frame.explanation.maps[0], expected.maps[i], atol=1e-6)
        assert [frame.explanation.label(0, t) for t in range(2)] == [expected.label(i, t) for t in range(2)]
    later = explainer.explain(explainer.predict(pictures), cotangent=["probability:-1", "class:sky - car"])
    np.testing.assert_allclose(later.maps, expected.maps, atol=1e-6)


def with_reshaped(name, nodes, shape):
    """``heads`` with one more output, made of another by ``nodes``; free but for the batch."""
    model = heads()
    model.graph.node.extend(nodes)
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]))
    return model


def test_outputs_that_end_with_axes_of_one_element():
    """[N, 5, 1, 1], as of networks that end with a pool, and asked as [N, 5]."""
    model = with_reshaped("pooled", [helper.make_node("GlobalAveragePool", ["map"], ["pooled"], "pool")], [5, 1, 1])
    file = export_model(model, layer="layer", targets="cotangent", output_name="pooled", labels=CLASSES, check=False)
    explainer = Explainer(file.model.SerializeToString())
    e = explainer(images(), cotangent=["class:sky", "probability:-1", "element:4"])
    maps, values = cams(
        explainer, images(),
        lambda o: [o["map"].mean((2, 3))[:, 2], torch.softmax(o["map"].mean((2, 3)), 1).max(1).values,
                   o["map"].mean((2, 3))[:, 4]],
    )  # fmt: skip
    np.testing.assert_allclose(e.maps, maps, atol=2e-5 * maps.max())
    np.testing.assert_allclose(e.scores, values, rtol=1e-4)
    assert e.label(0, 0) == "sky"


def test_maps_with_channels_last():
    last = helper.make_node("Transpose", ["map"], ["last"], "turn", perm=[0, 2, 3, 1])
    file = export_model(
        with_reshaped("last", [last], [8, 8, 5]), layer="layer", targets="cotangent", output_name="last",
        labels=CLASSES, check=False,
    )  # fmt: skip
    explainer = Explainer(file.model.SerializeToString())
    for spec in ("region:person,axis=last", "region:person"):  # the graph tells it too
        e = explainer(images(), cotangent=spec, method="gradcam")
        maps, values = cams(explainer, images(), SPECS["region"][3])
        np.testing.assert_allclose(e.maps, maps, atol=2e-5 * maps.max())
        np.testing.assert_allclose(e.scores, values, rtol=1e-4)
    with pytest.raises(FastcamError, match="5 class names for an output of 8"):
        explainer(images(), cotangent="region:person,axis=first")


def test_what_ends_with_a_softmax_is_a_probability_already():
    file = export_model(classifier(end="Softmax"), targets="cotangent", check=False)
    logits = Explainer(export_model(classifier(), targets="cotangent", check=False).model.SerializeToString())
    for spec in ("probability:-1,2", "log-probability:3"):
        e = Explainer(file.model.SerializeToString())(images(), cotangent=spec)
        expected = logits(images(), cotangent=spec)
        np.testing.assert_allclose(e.maps, expected.maps, atol=1e-5 * expected.maps.max())
        np.testing.assert_allclose(e.scores, expected.scores, rtol=1e-4)
        assert expected.maps.max() > 0


# ---- refusals

REFUSED = {
    "a kind that is none": ("logits", None, "probabilty:1",
                            r"no kind of target 'probabilty'; did you mean probability\?"),
    "a class name": ("logits", CLASSES, "tabby", r"no kind of target 'tabby'; there are class, probability"),
    "what the file cannot": ("map", CLASSES, "class:sky", r"needs an output with 1 axes.*explains map \[5, 8, 8\]; it "
                             r"answers element:INDEX, region:NAME"),
    "an unknown class": ("map", CLASSES, "region:persn", "no class 'persn'; did you mean 'person'"),
    "a rank": ("map", CLASSES, "region:-1", "'-1' is no single class"),
    "an option": ("map", CLASSES, "region:sky,msk=a.png", "no option 'msk'; region knows output, threshold, mask"),
    "no such mask": ("map", CLASSES, "region:sky,mask=none.png", "none.png: cannot be read"),
    "an index outside": ("numbers", None, "element:2", "outside of"),
    "an index of words": ("numbers", None, "element:x", "whole numbers"),
    "an index too short": ("map", None, "element:2", r"an output with 1 axes .* explains map \[5, 8, 8\]"),
    "no reference": ("embedding", None, "similarity", "give a reference"),
    "no such reference": ("embedding", None, "similarity:none.jpg", "none.jpg: cannot be read .No such file"),
    "a kind of similarity": ("embedding", None, "pair:kind=l2", "kind is one of cosine, dot"),
    "against nothing": ("logits", None, "finer:2", "against which classes"),
    "a sum as probability": ("logits", CLASSES, "probability:sky - car", "is of single classes"),
    "strength": ("logits", None, "finer:strength=x", "strength is a number"),
    "too many words": ("words", None, "caption:0,1,2,3", "3 positions"),
    "no such word": ("words", WORDS, "caption:cat", "no class 'cat'"),
    "no boxes": ("logits", None, "box", "no boxes or scores"),
    "another output": ("logits", None, "class:1,output=map", "does not explain an output 'map'"),
    "three pictures": ("embedding", None, "pair", "no pairs"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_file_does_not_answer_is_refused_in_one_line(case, explainers):
    output, labels, spec, words = REFUSED[case]
    with pytest.raises(FastcamError, match=words) as caught:
        explainers(output, labels)(images(1 if "pict" in case else 2), cotangent=spec)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(repr(spec))


def test_an_absent_class_is_refused_with_those_that_are_there(explainers):
    explainer = explainers("map", CLASSES)
    found = explainer.predict(images(1)).outputs["map"][0].argmax(0)
    missing = next(c for c in range(5) if not (found == c).any())
    with pytest.raises(
        FastcamError,
        match=r"is predicted nowhere in picture 1.*there are: .* \d+%.*give a threshold=NUMBER, or a mask=FILE",
    ):
        explainer(images(1), cotangent=f"region:{missing}")


def test_a_file_of_classes_or_of_cotangents_says_so(explainers):
    plain = Explainer(export_model(heads(), output_name="logits", check=False).model.SerializeToString())
    with pytest.raises(FastcamError, match=r"answers targets of one class .*fastcam export .* --targets cotangent"):
        plain(images(), targets="region:1")
    with pytest.raises(FastcamError, match=r"explains classes, by targets .*--targets cotangent"):
        plain(images(), cotangent=np.zeros((1, 1, 5)))
    with pytest.raises(FastcamError, match=r"needs an output with 1 axes.*it answers element:INDEX, region:NAME"):
        explainers("map", CLASSES)(images(), targets="class:sky")


# ---- the command line


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_model(
        heads(), "m.onnx", layer="layer", targets="cotangent", output_name="map", labels=CLASSES, preprocess="unit",
        check=False,
    )  # fmt: skip
    picture("p.png", 3)
    cv2.imwrite("mask.png", (MASK * 255).astype(np.uint8))
    result = CliRunner().invoke(
        app,
        ["explain", "m.onnx", "p.png", "-c", "region:person,mask=mask.png", "--cotangent", "element:0,1,2", "--json"],
    )
    assert result.exit_code == 0, result.output
    targets = json.loads(result.output)["images"][0]["targets"]
    assert [one["target"] for one in targets] == ["person within mask", "map [0, 1, 2]"]
    expected = run(heads(), {"image": tensor("p.png")})["map"][0]
    np.testing.assert_allclose(
        [one["score"] for one in targets], [expected[3][MASK].sum(), expected[0, 1, 2]], rtol=1e-4
    )
    lines = CliRunner().invoke(app, ["stream", "m.onnx", "p.png", "-c", "element:0,1,2"])
    assert json.loads(lines.stdout.splitlines()[0])["targets"][0]["score"] == pytest.approx(expected[0, 1, 2], rel=1e-4)
    both = CliRunner().invoke(app, ["explain", "m.onnx", "p.png", "-c", "element:0,1,2", "-t", "1"])
    assert both.exit_code == 2 and "both given" in both.stderr
    listed = CliRunner().invoke(app, ["cotangents", "m.onnx"]).output
    assert "map [5, 8, 8]" in listed and "region:NAME" in listed and "probability" not in listed
    every = CliRunner().invoke(app, ["cotangents"]).output
    assert all(kind.form in every for kind in KINDS.values())


def test_a_target_that_a_picture_does_not_have_is_a_row_with_its_error(tmp_path, monkeypatch):
    """The picture's other targets are explained, and so are the other pictures, which may have it."""
    monkeypatch.chdir(tmp_path)
    export_model(
        heads(), "m.onnx", layer="layer", targets="cotangent", output_name="map", labels=CLASSES, preprocess="unit",
        check=False,
    )  # fmt: skip
    for seed in range(3):
        picture(f"p{seed}.png", seed)
    best = [set(run(heads(), {"image": tensor(f"p{seed}.png")})["map"][0].argmax(0).ravel()) for seed in range(3)]
    here = next(c for c in range(5) if all(c in one for one in best))
    absent = next(c for c in range(5) if any(c not in one for one in best) and c != here)
    specs, names = [f"region:{here}", f"region:{absent}"], [short_label(CLASSES[c]) for c in (here, absent)]
    line = ["explain", "m.onnx", *(f"p{seed}.png" for seed in range(3)), "--cotangent", specs[0], "-c", specs[1]]
    result = CliRunner().invoke(app, line)
    lacking = [seed for seed in range(3) if absent not in best[seed]]
    assert result.exit_code == 2 and f"{len(lacking)} of 3 pictures could not be explained whole" in result.stderr
    images = json.loads(Path("fastcam-out/explanation.json").read_text())["images"]
    for seed, image in enumerate(images):
        assert [one["target"] for one in image["targets"]] == ([names[0], specs[1]] if seed in lacking else names)
        assert ("predicted nowhere" in image["targets"][1].get("error", "")) == (seed in lacking)
    overlays = list(Path("fastcam-out").glob("*.png"))
    assert len(overlays) == 6 - len(lacking)
