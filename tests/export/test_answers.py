"""What an export holds where nobody says it: the kind of target that the model's outputs are asked by."""

import pytest

from fastcam import Explainer
from fastcam_export import export_model
from support.models import detector_files as files
from support.models.small_models import classifier

KINDS = {
    "a detector": (files.yolo_v8, "box", ["output0"]),
    "a segmenter": (files.segmenter, "region", ["masks"]),
    "a text": (files.texts, "words", ["text"]),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_export_holds_what_its_kind_is_asked(name):
    build, answer, outputs = KINDS[name]
    made = export_model(build(), labels=files.CLASSES if answer != "words" else None)
    assert [(one.output, one.answer) for one in made.metadata.cotangents] == [(one, answer) for one in outputs]
    assert made.metadata.emit == "gradients"
    e = Explainer(made.model.SerializeToString())(files.picture())
    assert e.maps.any() and e.status[0][0] == "ok"


def test_classes_stay_classes_and_an_output_may_be_named():
    assert not export_model(classifier()).metadata.cotangents
    sums = export_model(files.segmenter(), output_name="masks", check=False).metadata
    assert not sums.cotangents and sums.score.output == "masks"
