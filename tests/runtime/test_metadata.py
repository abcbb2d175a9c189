"""What a file says about itself is checked, field by field and together; what later versions add is passed over."""

import json
import math
from dataclasses import replace

import numpy as np
import onnx
import pytest

from fastcam import Explainer, FastcamError, Preprocessing
from fastcam.schema import METADATA_KEY, Metadata, preset
from fastcam_export import export_model
from support.models.contract_model import LABELS, random_model
from support.models.small_models import classifier

DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def plain():
    made = export_model(classifier(), preprocess="imagenet", check=False)
    layers = (made.metadata.layer, replace(made.metadata.layer, value="another one"))
    return json.loads(replace(made.metadata, order="NCHW", layers=layers).to_json())


def changed(plain, path, value):
    raw = json.loads(json.dumps(plain))
    *way, last = path.split(".")
    inner = raw
    for step in way:
        inner = inner[int(step) if step.isdigit() else step]
    inner[last] = value
    return json.dumps(raw)


WRONG = [
    ("emit", "map"), ("emit", []), ("input", 5), ("input", ""), ("input", None), ("input_shape", "N"),
    ("input_shape", []), ("input_shape", ["N", 3, 0, 8]), ("input_shape", ["N", 3, -1, 8]),
    ("input_shape", ["N", 3, 2**40, 8]), ("input_shape", [2**20] * 4), ("input_shape", ["N", 3, 8.5, 8]),
    ("layer", None), ("layer", "r1"), ("layer.value", ""), ("layer.layout", "CHWN"), ("layer.prefix_tokens", -3),
    ("layer.prefix_tokens", True), ("layer.grid", [0, 7]), ("layer.grid", "77"), ("layer.averaged", "no"),
    ("layer.value", "another"), ("layers", {}), ("layers", [5]), ("layers.0.layout", "?"),
    ("score.kind", "odds"), ("score.classes", 0), ("score.classes", -5), ("score.classes", "many"),
    ("score.classes", 1e3), ("score.axis", None), ("score.single", 1),
    ("labels", ["a"]), ("labels", []), ("labels", [1, 2, 3, 4, 5]), ("labels", "abcde"), ("labels", {"0": "a"}),
    ("preprocessing", "imagenet"), ("preprocessing.size", [0, 5]), ("preprocessing.size", [5]),
    ("preprocessing.size", [10**6, 10**6]), ("preprocessing.size", [5.5, 5]), ("preprocessing.crop_fraction", 0),
    ("preprocessing.crop_fraction", 1.5), ("preprocessing.crop_fraction", math.nan), ("preprocessing.std", [0, 1, 1]),
    ("preprocessing.std", [-1, 1, 1]), ("preprocessing.std", []), ("preprocessing.std", [1, 1]),
    ("preprocessing.std", [math.inf] * 3), ("preprocessing.mean", ["a", "b", "c"]), ("preprocessing.mean", [1e300] * 3),
    ("preprocessing.mean", 5), ("preprocessing.scale", 0), ("preprocessing.scale", math.nan),
    ("preprocessing.scale", 10**400), ("preprocessing.scale", "1/255"), ("preprocessing.resize", "squash"),
    ("preprocessing.color", "HSV"), ("preprocessing.layout", None), ("preprocessing.pad_value", 300),
    ("source", []), ("source", {"file": 5}), ("check", []), ("check", {"output_shapes": [1]}),
    ("check", {"output_shapes": {"y": [-1]}}), ("check", {"output_shapes": {"y": [2**40]}}),
    ("check", {"image_shape": 3}),
    ("engine", "cpu"), ("pair", {}), ("pair", {"part": "forward", "other": "x", "extra": ["y"]}),
    ("input_gradient", "sideways"), ("input_gradient_at", ""), ("head", {"part": "tail"}), ("cotangents", [{}]),
    ("cotangents", [{"input": "c", "output": "y", "shape": [0], "batched": True}]),
    ("cotangents", [{"input": "c", "output": "y", "shape": [2**40], "batched": True}]),
    ("cotangents", [{"input": "c", "output": "y", "shape": [4], "batched": 1}]),
    ("frames", "yes"), ("inputs", [{"name": ""}]), ("inputs", [{"name": "a", "default": [1], "default_shape": [2]}]),
    ("inputs", [{"name": "a", "default": [], "default_shape": [0, 2**62]}]),
    ("inputs", [{"name": "a", "default": [10**400], "default_shape": [1]}]),
    ("order", "HWCN"), ("order", "NCTHW"), ("size_step", 0), ("size_step", 10**9), ("version", None), ("schema", True),
    ("method", None), ("fuse", 5),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), WRONG, ids=[f"{path} {str(value)[:30]}" for path, value in WRONG])
def test_a_field_that_cannot_be_is_refused_by_its_name(plain, path, value):
    Metadata.from_json(json.dumps(plain))
    with pytest.raises(FastcamError, match=r"metadata (is incomplete or damaged: |schema )") as error:
        Metadata.from_json(changed(plain, path, value))
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


@pytest.mark.parametrize("other", ["../b.onnx", "/b.onnx", "a/b.onnx", "..", ".", "a\0b"])
@pytest.mark.parametrize("kind", ["pair", "head"])
def test_the_other_file_lies_in_the_folder_of_the_first(plain, kind, other):
    about = {"part": "forward", "extra": []} if kind == "pair" else {"part": "model", "kept": []}
    about |= {"sha256": "0" * 64}
    said = Metadata.from_json(changed(plain, kind, about | {"other": "b ..c.onnx"}))
    assert getattr(said, kind).other == "b ..c.onnx"
    with pytest.raises(FastcamError, match=rf"{kind}\.other is .*; give the name of a file in its folder"):
        Metadata.from_json(changed(plain, kind, about | {"other": other}))


@pytest.mark.parametrize(
    "text", [DEEP, '{"a":' * 100_000, "", "5", "null", "[]", "{}", '{"schema": []}', "NaN", "\0", "{"]
)
def test_text_that_is_no_metadata_is_one_line(text):
    with pytest.raises(FastcamError, match="metadata") as error:
        Metadata.from_json(text)
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def test_fields_of_later_versions_are_passed_over(plain):
    more = plain | {"weather": "fine", "layer": plain["layer"] | {"colour": 5}}
    more["preprocessing"] = plain["preprocessing"] | {"gamma": 2.2}
    assert Metadata.from_json(json.dumps(more)) == Metadata.from_json(json.dumps(plain))


def test_what_files_say_stays_as_it_was(plain):
    meta = Metadata.from_json(json.dumps(plain))
    assert Metadata.from_json(meta.to_json()) == meta and json.loads(meta.to_json()) == plain


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": (0, 5)}, "size is .*a height and a width"),
        ({"size": 224}, "size is 224; give a list"),
        ({"std": 0.0}, "std is 0.0; give a list"),
        ({"std": (1.0, -1.0, 1.0)}, "std is .*above 0"),
        ({"mean": ("a",)}, r"mean\[0\] is 'a'; give a number"),
        ({"scale": float("nan")}, "scale is nan; give finite"),
        ({"scale": True}, "scale is True"),
        ({"crop_fraction": 0}, "crop_fraction is 0; give a share"),
        ({"layout": "HWC"}, "layout is 'HWC'; give 'NCHW' or 'NHWC'"),
    ],
)
def test_a_preprocessing_is_checked_where_it_is_made(fields, words):
    with pytest.raises(FastcamError, match=words):
        Preprocessing(**fields)


def test_numbers_and_lists_of_other_libraries_are_taken():
    how = Preprocessing(size=np.array([8, 9]), mean=np.float32([0.5, 0.25, 0]), std=[1, 2, 3], scale=np.float64(-0.5))
    assert how.size == (8, 9) and how.mean == (0.5, 0.25, 0.0) and how.std == (1, 2, 3) and hash(how)


def test_metadata_that_lies_about_the_graph_is_refused_by_the_explainer():
    """Said to hold clips, with a size of its own and an order that another rank has: the input is a picture's."""
    exported = random_model(end="Softmax", labels=LABELS, preprocessing=preset("unit", size=(32, 32)))
    model = onnx.load_from_string(exported.file())
    entry = next(one for one in model.metadata_props if one.key == METADATA_KEY)
    raw = json.loads(entry.value)
    for lie in ({"order": "NCTHW", "input_shape": ["N", 3, 8, 32, 32]}, {"order": "NCL", "input_shape": ["N", 3, 32]}):
        entry.value = json.dumps(raw | lie)
        with pytest.raises(FastcamError, match=r"its metadata .* export it again"):
            Explainer(model.SerializeToString())(np.zeros((32, 32, 3), np.uint8))
