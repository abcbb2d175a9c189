"""Targets are said by one grammar: the same word in targets= and -t, of files of classes and of every other kind.

What a word explains is held against autograd in test_specs.py; here, that it arrives there, and what is refused.
"""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.targets.classes import Targets, whole_number
from fastcam.targets.grammar import in_words, own_kind
from fastcam_export import export_model
from support.models.heads_model import heads, images, run

CLASSES = ("tabby, tabby cat", "tiger cat", "sky", "person", "box")


@pytest.fixture(scope="module")
def explainers():
    """Of an output by cotangents; of "classes" the logits by class."""
    made = {}

    def of(name):
        if name not in made:
            how = {"targets": "cotangent", "output_name": name} if name != "classes" else {"output_name": "logits"}
            labels = CLASSES if name != "words" else None  # it has four
            file = export_model(heads(), layer="layer", labels=labels, preprocess="unit", check=False, **how)
            made[name] = Explainer(file.model.SerializeToString(), batch_size=2)
        return made[name]

    return of


SAME = [
    ("logits", "sky", "class:sky"),
    ("logits", 2, "class:2"),
    ("logits", "-2", "class:-2"),
    ("logits", "tabby - 0.5*sky", "class:tabby - 0.5*sky"),
    ("logits", {"tabby": 1, "sky": -0.5}, "class:tabby - 0.5*sky"),
    ("logits", {"sky": -1}, "class:not sky"),
    ("logits", "box", "class:box"),
    ("map", "Tiger cat", "region:tiger cat"),
    ("map", "tabby, tabby cat", "region:0"),
    ("map", "element:0,1,2", "element:0,1,2"),
    ("words", "words", "words"),
    ("logits", np.int64(1), "class:1"),
]


@pytest.mark.parametrize(("output", "target", "spec"), SAME, ids=str)
def test_a_target_is_the_cotangent_of_the_same_words(output, target, spec, explainers):
    explainer = explainers(output)
    asked, said = explainer(images(), targets=[target]), explainer(images(), cotangent=[spec])
    assert asked.label(0, 0) == said.label(0, 0)
    np.testing.assert_array_equal(asked.maps, said.maps)
    assert asked.maps.any()


def test_each_picture_has_its_own_words(explainers):
    explainer = explainers("map")
    e = explainer(images(), targets=[["tiger cat"], ["region:person", 0]])
    assert [e.label(0, 0), e.label(1, 0), e.label(1, 1)] == ["tiger cat", "person", "tabby"]


def test_without_a_word_the_largest_region_and_the_likeliest_words(explainers):
    largest = np.bincount(run(heads(), {"image": images()})["map"][0].argmax(0).ravel(), minlength=5).argmax()
    assert explainers("map")(images()).label(0, 0) == CLASSES[largest].partition(",")[0]
    assert explainers("words")(images()).label(0, 0).startswith("word 1")


def test_a_file_of_classes_takes_the_words_of_a_class(explainers):
    explainer = explainers("classes")
    np.testing.assert_array_equal(
        explainer(images(), targets=["element:2"]).maps, explainer(images(), targets=["sky"]).maps
    )
    assert explainer(images(), targets="box").label(0, 0) == "box"  # a class of this name


REFUSED = {
    "another kind": ("classes", "probability:sky", r"export it for that: .*--targets cotangent --output-name logits"),
    "no such kind here": ("logits", "box:sky", "which are no boxes or scores of boxes; it answers class:NAME"),
    "no class": ("map", "sgy", "no class 'sgy'; did you mean 'sky'"),
    "none": ("map", 1.5, "a word, a number or a combination of classes, got 1.5"),
    "a factor": ("logits", {"sky": float("nan")}, "the coefficient of class 'sky' must be a number other than zero"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, explainers):
    output, target, message = REFUSED[case]
    with pytest.raises(FastcamError, match=message):
        explainers(output)(images(), targets=[target])


@pytest.mark.parametrize("verb", ["explain", "stream"])
def test_the_command_line_takes_every_word_as_target(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    how = {"layer": "layer", "labels": CLASSES, "preprocess": "unit", "check": False}
    export_model(heads(), "m.onnx", targets="cotangent", output_name="map", **how)
    picture = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    cv2.imwrite("p.png", picture)
    result = CliRunner().invoke(app, [verb, "m.onnx", "p.png", "-t", "element:0,1,2", "-t", "region"])
    assert result.exit_code == 0, result.output
    assert "map [0, 1, 2]" in result.output
    result = CliRunner().invoke(app, [verb, "m.onnx", "p.png"])
    assert result.exit_code == 0, result.output


FORMER = [
    ((4,), "", None, "class"),
    ((1,), "", None, "element"),
    ((), "", None, "element"),
    ((3, 8, 8), "", None, "region"),
    ((12, 4), "LC", None, "words"),
    ((8400, 85), "", 80, "box"),
]
"""Shapes of an output without its images, its axes, how many names there are, and the only kind that fits."""


@pytest.mark.parametrize(("shape", "axes", "names", "kind"), FORMER)
def test_files_of_former_versions_are_asked_by_what_their_shapes_tell(explainers, shape, axes, names, kind):
    metadata = explainers("logits").metadata
    about = replace(metadata.cotangents[0], shape=shape, axes=axes, answer="")
    labels = tuple(f"name {i}" for i in range(names)) if names else None
    former = replace(metadata, cotangents=(about,), labels=labels)
    assert own_kind(former) == kind
    assert in_words(-1, former, "file") == {"class": "class:-1", "box": "box:most=5"}.get(kind, kind)
    assert in_words(np.array([2, -1]), former, "file")[0] == f"{kind}:2"


def test_what_is_no_target_is_refused(explainers):
    metadata = explainers("logits").metadata
    for target in (True, 1.5, None):
        with pytest.raises(FastcamError, match="a target is a word, a number or a combination of classes"):
            in_words(target, metadata, "file")
    with pytest.raises(FastcamError, match="needs a class with a positive coefficient"):
        in_words({"tabby": -1, "sky": -2}, metadata, "file")
    about = replace(metadata.cotangents[0], shape=(8400, 85), axes="", answer="")
    with pytest.raises(FastcamError, match=r"say what to explain of it with a target \(-t\), one of"):
        in_words(-1, replace(metadata, cotangents=(about,), labels=None), "file")


ENDLESS = "9" * 5000


@pytest.mark.parametrize("text", [ENDLESS, f"-{ENDLESS}", "²", "box:²", f"box:{'9' * 30}", "1e999*dog", "a\nb * c"])
def test_numbers_without_measure_and_odd_digits_are_no_classes(text):
    with pytest.raises(FastcamError) as error:
        Targets(3, ("cat", "dog", "cow")).terms(text)
    assert len(str(error.value)) < 500


def test_numbers_of_classes_in_the_digits_that_indices_have():
    assert [whole_number(text) for text in ("3", "-1", " +2 ", "²", "٣", "3.0", "", "9" * 18, "9" * 19)] == [
        3, -1, 2, None, None, None, None, int("9" * 18), None
    ]  # fmt: skip
