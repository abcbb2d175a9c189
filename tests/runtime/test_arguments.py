"""Arguments of another type than they have: one line that says what to give."""

import numpy as np
import pytest

from fastcam import Explainer, FastcamError, cotangents
from fastcam.errors import LONGEST, typed
from fastcam_export import export_model
from support.models.heads_model import heads, images

SCORES = np.zeros((2, 4))
CALLS = {
    "threshold": ({"threshold": "x"}, "threshold is 'x'; give a number"),
    "no threshold": ({"threshold": None}, "threshold is None; give a number"),
    "method": ({"method": 5}, "method is 5; give the name of a method"),
    "inputs": ({"inputs": 5}, "inputs is 5; give a dict"),
    "rows of targets": ({"cotangent": ["a", ["b"]]}, "cotangents are an array of numbers"),
    "a long name": ({"cotangent": "region:" + "x" * 5000}, "no class 'xxx.*xxx'"),
    "a long kind": ({"cotangent": "x" * 5000}, "no kind of target 'xxx"),
}
OPENED = {
    "providers": ({"providers": 5}, "providers is 5; give names of providers"),
    "threads": ({"threads": "x"}, "threads is 'x'; give a whole number"),
    "batch size": ({"batch_size": 1.5}, "batch_size is 1.5; give a whole number"),
    "preprocess": ({"preprocess": 5}, "preprocess is 5; give the name of a preset"),
    "mean": ({"preprocess": {"mean": "x"}}, "mean is 'x'; give a number, or one for each channel"),
}
EXPORTED = (
    "layer", "output_name", "preprocess", "frames", "input_name", "inputs", "size", "output", "order", "grid"
)  # fmt: skip
FUNCTIONS = {
    "class_score": [SCORES, None],
    "probability": [SCORES, 1.5],
    "combination": [SCORES, {0: "x"}],
    "element": [SCORES, "x"],
    "coordinate": [np.zeros((3, 4)), "a", "x0"],
    "region": [np.zeros((1, 3, 4, 4)), "a"],
}


@pytest.fixture(scope="module")
def file():
    return export_model(heads(), layer="layer", output_name="map", targets="cotangent", check=False,
                        labels=list("abcde")).model.SerializeToString()  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_of_a_call(name, file):
    options, words = CALLS[name]
    with pytest.raises(FastcamError, match=words) as error:
        Explainer(file, "cpu")(images(), **{"cotangent": "region:a", **options})
    assert len(str(error.value)) < 3 * LONGEST


@pytest.mark.parametrize("name", OPENED)
def test_of_an_explainer(name, file):
    options, words = OPENED[name]
    with pytest.raises(FastcamError, match=words):
        Explainer(file, **{"providers": "cpu", **options})


@pytest.mark.parametrize("model", [None, 5, []])
def test_of_a_file(model):
    with pytest.raises(FastcamError, match="give the path of an exported ONNX file"):
        Explainer(model)


@pytest.mark.parametrize("name", EXPORTED)
def test_of_an_export(name):
    with pytest.raises(FastcamError, match=f"^{name} is 5; give ") as error:
        export_model(heads(), **{"output_name": "logits", name: 5})
    assert "defect" not in str(error.value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_of_a_function_of_cotangents(name):
    with pytest.raises(FastcamError):
        getattr(cotangents, name)(*FUNCTIONS[name])


def test_true_is_no_number():
    with pytest.raises(FastcamError, match="n is True; give one"):
        typed("n", True, int, "one")
    typed("n", True, bool | int, "one")
