"""What a model is given of a sample: its picture, and where the model takes a text the sample's question too."""

from __future__ import annotations

from typing import Any

from fastcam.evaluation.samples import Sample
from fastcam.explainer import Explainer
from fastcam.runtime.inputs.text_inputs import Written


def model_input(sample: Sample, explainer: Explainer) -> Any:
    """The picture, or a dict of the picture and the text by the names of the model's inputs.

    A model without texts is given the picture alone: what it finds salient is the same for every question.
    """
    if sample.text is None or not explainer.text_inputs:
        return sample.picture
    return {explainer.metadata.input: sample.picture, explainer.text_inputs[0]: Written([sample.text])}
