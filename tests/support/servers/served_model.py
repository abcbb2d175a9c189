"""A small file behind the server's application, as the verb puts it there."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fastcam import Explainer
from fastcam.serving.limits import Limits
from support.models.contract_model import noise, random_model

LIMITS = Limits(body=1 << 20, pixels=1_000_000, pictures=3, targets=4, seconds=20.0)
LABELS = ("cat", "dog", "crane", "ship", "tree")


def png(picture: Any) -> bytes:
    """An RGB picture, encoded."""
    return cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()


PICTURES = [noise(50, 70, seed=seed) for seed in range(4)]
PNGS = [png(picture) for picture in PICTURES]


def tensor(count: int) -> Any:
    """The network's input for that many pictures."""
    return np.random.default_rng(3).random((count, 3, 32, 32), np.float32)


def tiny_file(folder: Path, **how: Any) -> Path:
    """``tiny.cam.onnx`` with five classes; ``how`` are settings of the model."""
    path = folder / "tiny.cam.onnx"
    path.write_bytes(random_model(labels=LABELS, **how).file(emit="gradients"))
    return path


def server(path: Path, limits: Limits = LIMITS, keys: tuple[str, ...] = (), metrics: Any = None, **more: Any) -> Any:
    """The application of one file."""
    from fastcam.serving.http import Server
    from fastcam.serving.model import ServedModel
    from fastcam.serving.repository import Repository
    from fastcam.serving.watching.metrics import Metrics

    metrics = metrics or Metrics()

    def load(place: Any) -> ServedModel:
        explainer = Explainer(place.path, max_pixels=limits.pixels)
        how = {"observe": partial(metrics.observe, place.name), "saw": partial(metrics.saw, place.name)}
        spans = {"spans": more["spans"]} if "spans" in more else {}
        return ServedModel(place.name, place.version, explainer, limits, **how, **spans)

    return Server(Repository([path], load), limits, metrics, keys, **more)
