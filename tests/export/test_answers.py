"""What an export holds where nobody says it: the kind of target that the model's outputs are asked by."""

import pytest

from fastcam import Explainer, FastcamError
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


def test_rows_of_several_images_at_once_say_nothing_of_whose_they_are():
    """Without an axis of images, in a file that takes two at once."""
    model = files.scrfd()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_value *= 2
    with pytest.raises(FastcamError, match="takes 2 images at once, and output 'score_8' has no axis of images"):
        export_model(model, targets="cotangent", output_name=[output.name for output in model.graph.output])
