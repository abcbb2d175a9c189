"""Class names and indices: how each is found, what is refused, and where labels come from."""

from __future__ import annotations

import numpy as np
import pytest

from fastcam import Explainer, FastcamError
from fastcam.targets import Targets, read_labels, short_label
from support.models.contract_model import LABELS, batch, random_model


@pytest.fixture(scope="module")
def model():
    return random_model(end="Softmax", labels=LABELS)


@pytest.fixture(scope="module")
def explainer(model):
    return Explainer(model.file())


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("tabby", 1),
        ("Tabby Cat", 1),
        ("n02123045 tabby, tabby cat", 1),
        ("tabby, tabby cat", 1),
        ("n02123045", 1),
        ("crane", 2),  # the whole label goes before a part of another
        ("crane, bird", 3),
        ("  golden   RETRIEVER ", 4),
    ],
)
def test_class_names_are_found(name, index):
    assert Targets(5, LABELS).resolve(name, 1).classes.tolist() == [[index]]


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (5, "class 5 is out of range: the model has 5 classes, 0 to 4, or -1 to -5"),
        (-6, "class -6 is out of range"),
        ([0, 1000], "class 1000 is out of range"),
        ("taby", "no class 'taby'; did you mean 'tabby'"),
        ("zeppelin", "no class 'zeppelin'; the model knows 5 classes"),
        ("", "no class ''"),
        (True, "must be a class index"),
        (1.5, "must be a class index"),
        (None, "must be a class index"),
        ([], "no targets"),
        ([[], []], "no targets"),
        ([[0], [1], [2]], "targets for 3 images were given, but there are 2"),
        ([[0], []], "no targets"),
        ([[0], 1], "both were given"),
        (np.zeros((2, 1, 1), np.int64), "must be a class index"),
    ],
)
def test_impossible_targets_are_refused(explainer, targets, words):
    with pytest.raises(FastcamError, match=words) as caught:
        explainer(batch(2), targets=targets)
    assert "\n" not in str(caught.value)


def test_ambiguous_and_nameless_classes_ask_for_the_index():
    twins = Targets(3, ("crane", "cock", "crane"))
    with pytest.raises(FastcamError, match=r"'Crane' is ambiguous: 0 \(crane\), 2 \(crane\); give the index"):
        twins.one("Crane")
    with pytest.raises(FastcamError, match="no class names"):
        Targets(3, None).one("crane")


def test_labels_are_shortened_for_captions():
    assert [short_label(label) for label in LABELS[1:4]] == ["tabby", "crane", "crane"]
    assert short_label("n64 console, game") == "n64 console"


def test_labels_come_from_a_file_or_a_list(model, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\ufeffa\nb\nü\nd\ne\n\n", encoding="utf-8")
    for labels in (path, str(path), ["a", "b", "ü", "d", "e"]):
        assert Explainer(model.file(), labels=labels)(batch(1), targets="Ü").classes.tolist() == [[2]]
    assert read_labels(path, None) == ("a", "b", "ü", "d", "e")
    with pytest.raises(FastcamError, match="2 labels do not fit a model with 5 classes"):
        Explainer(model.file(), labels=["a", "b"])
    with pytest.raises(FastcamError, match=r"absent\.txt: cannot be read"):
        Explainer(model.file(), labels="absent.txt")
