"""Labels of a data set as classes of a model: found in files and names, refused where nothing tells."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fastcam.errors import FastcamError
from fastcam.evaluation.class_map import class_map
from fastcam.schema import Metadata, Score, TargetLayer

CATS = ("n02123045 tabby, tabby cat", "n02123159 tiger cat", "n02127052 lynx, catamount")
BIRDS = ("crane", "hen", "crane, derrick")


def of(labels, count=None):
    score = Score("scores", "scores", "logit", count or len(labels))
    named = None if labels is None else tuple(labels)
    return Metadata("weights", TargetLayer("maps"), score, "image", (1, 3, 8, 8), labels=named)


def test_wordnet_ids_are_compared_where_both_sides_have_them():
    found = class_map(("n02127052", "n02123045 a name", "n09999999"), of(CATS))
    assert found.by_label == {"n02127052": {2}, "n02123045 a name": {0}}
    assert found.unmapped == ("n09999999",)
    assert str(found) == "2 of 3 labels are known, by WordNet ids; unknown: n09999999"


def test_names_are_compared_in_any_case_and_with_any_word_breaks():
    found = class_map(("Tabby_Cat", "lynx", "dog"), of(CATS))
    assert found.by_label == {"Tabby_Cat": {0}, "lynx": {2}}
    assert found.unmapped == ("dog",)


def test_a_name_of_two_classes_maps_nothing_unless_it_is_all_of_one_label():
    found = class_map(("crane", "hen", "derrick"), of(BIRDS))
    assert found.by_label == {"crane": {0}, "hen": {1}, "derrick": {2}}
    assert class_map(("crane", "hen"), of(("a, crane", "hen", "b, crane"))).unmapped == ("crane",)


def test_as_many_synsets_as_classes_are_in_sorted_order():
    synsets = ("n03", "n01", "n02")
    labels = tuple(f"{one}000000"[:9] for one in synsets)
    assert class_map(labels, of(None, 3)).by_label == {labels[0]: {2}, labels[1]: {0}, labels[2]: {1}}
    behind = of(("background", "a", "b", "c"))
    assert class_map(labels, behind).by_label == {labels[0]: {3}, labels[1]: {1}, labels[2]: {2}}
    assert class_map(labels, of(None, 4), offset=1).by_label[labels[1]] == {1}
    with pytest.raises(FastcamError, match="offset 1"):
        class_map(labels, of(None, 4))
    with pytest.raises(FastcamError, match="leads out"):
        class_map(labels, of(None, 4), offset=2)


def test_synsets_whose_names_stand_elsewhere_are_not_taken_by_their_order():
    labels = ("n00000001 lynx", "n00000002 tabby", "n00000003 tiger cat")
    with pytest.raises(FastcamError, match="not in the order"):
        class_map(labels, of(("tabby", "tiger cat", "lynx")))


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_file_maps_to_indices_names_ids_and_lists_of_them(tmp_path, form):
    content = {"cat": ["tabby", 1, "n02127052"], "Wild Cat": "lynx", "dog": None, "other": 0}
    path = tmp_path / f"map.{form}"
    path.write_text(json.dumps(content) if form == "json" else "cat: [tabby, 1, n02127052]\nWild Cat: lynx\ndog:\n")
    found = class_map(("cat", "wild cat", "dog", "cow"), of(CATS), path)
    assert found.by_label == {"cat": {0, 1, 2}, "wild cat": {2}}
    assert found.unmapped == ("dog", "cow")


def test_indices_behind_a_background_are_shifted_where_labels_tell_and_asked_for_where_not(tmp_path):
    behind = of(("background", "tench", "tabby, cat", "lynx"))
    path = tmp_path / "map.json"
    for content, expected in (({"lynx": 2, "feline": [1, 2]}, {2, 3}), ({"lynx": 3, "feline": [2, 3]}, {2, 3})):
        path.write_text(json.dumps(content))
        assert class_map(("lynx", "feline"), behind, path).by_label["feline"] == expected
    path.write_text(json.dumps({"feline": [1, 2]}))
    with pytest.raises(FastcamError, match="--offset"):
        class_map(("feline",), behind, path)
    assert class_map(("feline",), behind, path, offset=1).by_label == {"feline": {2, 3}}
    assert class_map(("feline",), behind, path, offset=0).by_label == {"feline": {1, 2}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "no mapping"),
        ("{", "no mapping"),
        ('{"cat": 3}', "has 3"),
        ('{"cat": -1}', "class -1"),
        ('{"cat": "tabbi"}', "close to it: tabby"),
        ('{"cat": 1.5}', "no index or name"),
        ('{"cat": true}', "no index or name"),
        ('{"cat": {"a": 1}}', "no index or name"),
        ('{"horse": 1}', "none of its labels"),
        ('{"cat": []}', "no label of the data set"),
        ("[" * 50_000, "no mapping"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "map.json"
    path.write_text(content)
    with pytest.raises(FastcamError, match=message) as caught:
        class_map(("cat",), of(CATS), path)
    assert "\n" not in str(caught.value)


def test_yaml_that_refers_to_itself_is_refused(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_text("cat: &a [*a, *a]\n")
    with pytest.raises(FastcamError, match="no mapping"):
        class_map(("cat",), of(CATS), path)


def test_no_label_in_common_is_an_error_and_not_an_empty_map():
    with pytest.raises(FastcamError, match="give a mapping file"):
        class_map(("horse",), of(CATS))


@pytest.mark.skipif("FASTCAM_ASSETS" not in os.environ, reason="FASTCAM_ASSETS is not set")
@pytest.mark.parametrize(("labels", "shift"), [("synset_words.txt", 0), ("imagenet_labels_1001.txt", 1)])
def test_the_map_of_coco_fits_networks_with_a_background_class_and_without(labels, shift):
    assets = Path(os.environ["FASTCAM_ASSETS"])
    file = assets / "coco" / "coco_to_imagenet.json"
    raw = json.loads(file.read_text())
    network = of((assets / "models" / labels).read_text().splitlines())
    found = class_map(tuple(raw), network, file)
    assert found.by_label == {label: {i + shift for i in each} for label, each in raw.items() if each}
