"""Pictures in, explanations out: ``POST /v1/explain``, and KServe's v1 protocol, ``:predict`` and ``:explain``.

Source of the latter: https://kserve.github.io/website, "Data Plane: V1 Inference Protocol".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.labels import short_label
from fastcam.results.explanation import Explanation
from fastcam.results.prediction import Prediction
from fastcam.serving.model import ServedModel
from fastcam.serving.parameters import parse_parameters

TOP = 5
"""Classes of a prediction."""


def explain(model: ServedModel, pictures: Sequence[bytes], said: Mapping[str, Any], until: float) -> list[Explanation]:
    """The explanations of encoded pictures, by the parameters of a request."""
    return model.explain(pictures, parse_parameters(said, model.limits), until)


def explain_later(model: ServedModel, prediction: Prediction, said: Mapping[str, Any], until: float) -> Explanation:
    """The explanation of a prediction that was kept, by the parameters of a request."""
    return model.explain_later(prediction, parse_parameters(said, model.limits), until)


def described(model: ServedModel, explanation: Explanation) -> dict[str, Any]:
    """One picture's explanation for JSON, without the places where files lie."""
    about = explanation.to_dict()
    image = {key: value for key, value in about.pop("images")[0].items() if key != "file"}
    about.pop("model", None)
    about.pop("layers", None)
    return {"model": model.name, "version": model.version} | about | image | {"classes": _top(explanation, 0)}


IMAGES = ("overlay", "heatmap")
"""What a PNG shows: the picture under the heatmap, or the heatmap alone, of the picture's size."""


def png(explanation: Explanation, image: str, target: int = 0) -> bytes:
    """One of :data:`IMAGES` of a target."""
    from fastcam.image.resampling import opencv

    draw = explanation.overlay if image == "overlay" else explanation.heatmap_image
    good, content = opencv().imencode(".png", draw(0, target)[:, :, ::-1])
    if not good:
        raise FastcamError("the picture could not be written as PNG; ask for JSON")
    return bytes(content.tobytes())


# ---- KServe v1


def predict_v1(
    model: ServedModel,
    body: Mapping[str, Any],
    until: float,
    keep: Callable[[ServedModel, Prediction], str | None] = lambda model, prediction: None,
) -> dict[str, Any]:
    """Of ``:predict``: of each instance the best classes, and the name by which it may be explained later.

    Args:
        keep: keeps a prediction, and says its name; None where it does not.
    """
    predictions = []
    for one in model.predict(_instances(body), until):
        name = keep(model, one)
        about: dict[str, Any] = {"classes": _best(np.asarray(one.scores)[0], one.labels)}
        predictions.append(about | ({"id": name} if name is not None else {}))
    return {"predictions": predictions}


def explain_v1(model: ServedModel, body: Mapping[str, Any], until: float) -> dict[str, Any]:
    """Of ``:explain``: of each instance its explanation; ``parameters`` say what is explained."""
    said = body.get("parameters", {})
    if not isinstance(said, Mapping):
        raise FastcamError("parameters is no JSON object; send one")
    return {"explanations": [described(model, one) for one in explain(model, _instances(body), said, until)]}


def _instances(body: Mapping[str, Any]) -> list[bytes]:
    """Encoded pictures: {"b64": "..."}, {"image": {"b64": "..."}}, or {"image_bytes": {"b64": "..."}}."""
    given = body.get("instances")
    if not isinstance(given, list) or not given:
        raise FastcamError('instances is no list of pictures; send [{"b64": "..."}]')
    return [_decoded(one) for one in given]


def _decoded(instance: Any) -> bytes:
    found = instance
    while isinstance(found, Mapping) and "b64" not in found and len(found) == 1:
        found = next(iter(found.values()))
    text = found.get("b64") if isinstance(found, Mapping) else None
    if not isinstance(text, str):
        raise FastcamError('an instance is no {"b64": "..."}; send a picture so')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FastcamError(f"an instance is not base64 ({error}); send a picture so") from error


def _top(explanation: Explanation, i: int) -> list[dict[str, Any]]:
    if explanation.metadata.cotangents:
        return []
    return _best(np.asarray(explanation.scores)[i], explanation.labels)


def _best(scores: Any, labels: Sequence[str] | None) -> list[dict[str, Any]]:
    order = np.argsort(-scores, kind="stable")[:TOP]
    return [
        {
            "class": int(index),
            "label": short_label(labels[index]) if labels and index < len(labels) else None,
            "score": float(scores[index]) if np.isfinite(scores[index]) else None,
        }
        for index in order
    ]
