"""Class names: the exporter and the run time read them by the same rules and refuse them with the same messages."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from fastcam import Explainer, FastcamError
from fastcam.labels import read_labels
from fastcam.schema import Metadata
from fastcam_export import export_model
from support.models.heads_model import heads
from support.models.small_models import classifier

FILES = {
    "plain": (b"a\nb\nc\nd\ne\n", ("a", "b", "c", "d", "e")),
    "no last newline": (b"a\nb\nc\nd\ne", ("a", "b", "c", "d", "e")),
    "windows": (b"\xef\xbb\xbfa\r\nb\r\nc\r\nd\r\ne\r\n\r\n", ("a", "b", "c", "d", "e")),
    "blank lines": (b" a \n\nc\t\nd\ne\n \n\n", ("a", "", "c", "d", "e")),
    "other alphabets": ("ä\nб\n猫\nd\ne".encode(), ("ä", "б", "猫", "d", "e")),
}
NAMES = ("cat", "dog", "n01440764 tench, Tinca tinca", "d", "traffic light")
KEPT = {
    "numbers behind what counts as a space": (
        None,
        {f"{space}{i}": name for i, (space, name) in enumerate(zip(" \t\x1c\u2003 ", NAMES))},
    ),
    "JSON list": ("names.json", json.dumps(NAMES)),
    "JSON dict": ("names.json", json.dumps({str(i): NAMES[i] for i in (2, 0, 1, 4, 3)})),
    "Keras' JSON": ("names.json", json.dumps({str(i): name.split(" ", 1) for i, name in enumerate(NAMES)})),
    "Hugging Face": (
        "config.json",
        json.dumps({"model_type": "vit", "id2label": {str(i): n for i, n in enumerate(NAMES)}}),
    ),
    "label2id alone": ("config.json", json.dumps({"label2id": {name: i for i, name in enumerate(NAMES)}})),
    "COCO": ("c.json", json.dumps({"categories": [{"id": i, "name": NAMES[i]} for i in (3, 1, 0, 2, 4)]})),
    "Python dict": ("names.txt", "{" + ",\n ".join(f"{i}: {name!r}" for i, name in enumerate(NAMES)) + "}"),
    "Python list": ("names.txt", f"names = {list(NAMES)}"),
    "Ultralytics": (
        "data.yaml",
        "path: ../coco  # root\nnames:\n" + "".join(f"  {i}: {name!r}\n" for i, name in enumerate(NAMES)) + "nc: 5\n",
    ),
    "YAML list": ("data.yaml", "nc: 5\nnames: [cat, 'dog', \"n01440764 tench, Tinca tinca\",\n d, traffic light]\n"),
    "YAML, indented rows": ("data.yaml", "names:\n" + "".join(f"    - {name}\n" for name in NAMES) + "train: x\n"),
    "YAML flow dict": (
        "data.yaml",
        "names: {0: cat, 1: dog, 2: 'n01440764 tench, Tinca tinca', 3: d, 4: traffic light}",
    ),
    "YAML rows": ("data.yml", "names:\n" + "".join(f"- {name}\n" for name in NAMES)),
    "numbered lines": ("names.txt", "".join(f"{i}: {name}\n" for i, name in enumerate(NAMES))),
    "pairs": ("", [(i, NAMES[i]) for i in (4, 3, 1, 0, 2)]),
    "dicts with an id": ("", [{"id": i, "name": NAMES[i]} for i in (4, 3, 1, 0, 2)]),
    "bytes": ("", [name.encode() for name in NAMES]),
    "a table with a head": ("names.csv", "index;name\n" + "".join(f"{i};{name}\n" for i, name in enumerate(NAMES))),
    "byte order mark and CRLF": ("names.json", "\ufeff" + json.dumps(NAMES, indent=1).replace("\n", "\r\n")),
    "dict, int keys": ("", {i: NAMES[i] for i in (4, 3, 1, 0, 2)}),
    "dict, str keys": ("", {str(i): name for i, name in enumerate(NAMES)}),
    "dict of name to index": ("", {NAMES[i]: np.int64(i) for i in (1, 0, 4, 3, 2)}),
}
BAD_FORMS = {
    "a gap": (
        "n.json",
        '{"0": "a", "1": "b", "3": "c", "4": "d", "5": "e"}',
        "n.json have 5 names, but none for class 2",
    ),
    "from 1 on": ("n.json", '{"1": "a", "2": "b", "3": "c", "4": "d", "5": "e"}', "none for class 0"),
    "other JSON": ("n.json", '{"model": {"layers": 5}}', "n.json: no class names in it"),
    "broken JSON": ("n.json", "{0: cat", "n.json: no valid JSON"),
    "other YAML": ("n.yaml", "nc: 5\npath: here\nname: [a, b]\n", "n.yaml"),
    "broken YAML": ("n.yaml", "names: [a, b\n", "n.yaml: no valid YAML"),
    "label map": ("n.pbtxt", "item {\n id: 1\n name: 'x'\n}\n", "a label map of TensorFlow"),
    "no numbers": ("", {"cat": "feline", "dog": "canine"}, "keys are no class numbers"),
    "a number": ("", 5, "the labels are int"),
    "a set, which has no order": ("", set("abcde"), "the labels are set"),
    "a class without a name": ("", ["a", None, "c", "d", "e"], "a class has no name"),
}
BAD = {
    "too few": (b"a\nb\n", r"2 labels do not fit a model with 5 classes"),
    "empty": (b"\n \n", r"0 labels do not fit a model with 5 classes|names\.txt: no names"),
    "no text": (b"\xff\xfe\x00", r"names\.txt: not UTF-8 text"),
    "absent": (None, r"names\.txt: cannot be read"),
}


def test_a_class_of_a_yaml_file_may_be_called_no(tmp_path):
    (tmp_path / "data.yaml").write_text("names:\n- yes\n- no\n- 1.50\n- null\n", encoding="utf-8")
    assert read_labels(tmp_path / "data.yaml", 4) == ("yes", "no", "1.50", "null")


@pytest.fixture(scope="module")
def model():
    """A classifier, whose export knows how many classes there are."""
    return classifier()


def readers(model):
    """What reads labels: the function, an export, an Explainer."""
    file = export_model(model, check=False).model.SerializeToString()
    return (
        lambda labels: read_labels(labels, 5),
        lambda labels: Metadata.from_json(metadata(export_model(model, labels=labels, check=False))).labels,
        lambda labels: Explainer(file, labels=labels).metadata.labels,
    )


def metadata(export):
    return next(entry.value for entry in export.model.metadata_props if entry.key == "fastcam")


@pytest.mark.parametrize("name", FILES)
def test_labels_are_read_the_same_everywhere(model, tmp_path, name):
    content, labels = FILES[name]
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    for read in readers(model):
        for given in (path, str(path), list(labels)):
            assert read(given) == labels


@pytest.mark.parametrize("name", KEPT)
def test_every_form_gives_the_names_in_the_order_of_their_numbers(tmp_path, name):
    file, content = KEPT[name]
    if file:
        (tmp_path / file).write_text(content, encoding="utf-8")
    assert read_labels(tmp_path / file if file else content, 5) == NAMES


@pytest.mark.parametrize("name", BAD_FORMS)
def test_what_holds_no_names_is_named(tmp_path, name):
    file, content, message = BAD_FORMS[name]
    if file:
        (tmp_path / file).write_text(content, encoding="utf-8")
    with pytest.raises(FastcamError, match=message):
        read_labels(tmp_path / file if file else content, 5)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("names", "{0: 'a', 1: 'b', 2: 'c', 3: 'd', 4: 'e'}"),
        ("id2label", '{"0": "a", "1": "b", "2": "c", "3": "d", "4": "e"}'),
        ("classes", "a,b,c,d,e"),
        ("labels", "a\nb\nc\nd\ne\n"),
    ],
)
def test_a_model_brings_its_names_in_its_metadata(key, text):
    model = classifier()
    helper.set_model_props(model, {key: text})
    export = export_model(model, check=False)
    assert export.metadata.labels == ("a", "b", "c", "d", "e")
    assert f"names   5, from the file's metadata ({key})" in export.summary()
    assert export_model(model, labels=NAMES, check=False).metadata.labels == NAMES
    helper.set_model_props(model, {key: "a,b"})
    assert export_model(model, check=False).metadata.labels is None


@pytest.mark.parametrize("folder", ["", "onnx"])
def test_a_configuration_beside_the_model_is_read(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    onnx.save_model(classifier(), tmp_path / folder / "model.onnx")
    config = {"id2label": {str(i): name for i, name in enumerate(NAMES)}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    export = export_model(tmp_path / folder / "model.onnx", check=False)
    assert export.metadata.labels == NAMES and "config.json" in export.metadata.labels_from
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {str(i): f"LABEL_{i}" for i in range(5)}}))
    assert export_model(tmp_path / folder / "model.onnx", check=False).metadata.labels is None


@pytest.mark.parametrize("name", BAD)
def test_labels_are_refused_the_same_everywhere(model, tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    for read in readers(model):
        with pytest.raises(FastcamError, match=message):
            read(path)


@pytest.mark.parametrize("name", ["names.txt", "classes.txt", "labels.txt"])
def test_names_beside_the_file_count_where_there_is_one_for_each_class(model, tmp_path, name):
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / name).write_text("\r\n".join(NAMES))
    made = export_model(tmp_path / "m.onnx", check=False).metadata
    assert (made.labels, made.labels_from) == (NAMES, name)
    (tmp_path / name).write_text("\n".join(NAMES[:4]))
    assert export_model(tmp_path / "m.onnx", check=False).metadata.labels is None


def test_names_that_do_not_fit_a_map_or_a_text_are_refused():
    """Of outputs that are asked by cotangents too."""
    how = {"targets": "cotangent", "layer": "layer", "check": False}
    with pytest.raises(FastcamError, match="3 labels do not fit a model with 5 classes"):
        export_model(heads(), output_name="map", labels=NAMES[:3], **how)
    assert export_model(heads(), output_name="map", labels=NAMES, **how).metadata.labels == NAMES
    with pytest.raises(FastcamError, match="5 labels do not fit a text of 4 classes"):
        export_model(heads(), output_name="words", labels=NAMES, **how)
    assert export_model(heads(), output_name="words", labels=NAMES[:3], **how).metadata.labels == NAMES[:3]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.names", "{0: 'cat', {0: 'cat'}: 'dog'}"),
        ("a.txt", "0,cat\n1" + "9" * 5000 + ",dog\n"),
        ("a.yaml", "names: " + "[" * 3000),
        ("a.yaml", "a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]\n"),
        ("a.yaml", "names: &a [*a, *a]\n"),
        ("a.json", '{"names": ' * 900 + "[[[1]]]" + "}" * 900),
        ("a.json", "[[1, {}]]"),
    ],
)
def test_a_hostile_file_gives_texts_or_one_line(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    try:
        names = read_labels(tmp_path / file, None)
    except FastcamError as error:
        assert "\n" not in str(error)
    else:
        assert all(type(name) is str for name in names) and names == tuple(text.splitlines())
