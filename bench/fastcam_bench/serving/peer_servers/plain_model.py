"""An image classifier in ONNX Runtime, as it is written by hand: pictures in base64 to the five best classes."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
import onnxruntime

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
TOP = 5


class Plain:
    """A session with so many threads."""

    def __init__(self, model: str, threads: int) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        cv2.setNumThreads(threads)

    def prepared(self, text: str) -> Any:
        """A picture in base64 as the network's input, float32 [3, 224, 224]."""
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        small = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA)[:, :, ::-1]
        return ((small.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)

    def run(self, batch: Any) -> Any:
        """Scores of a batch."""
        return self.session.run(None, {self.input: np.ascontiguousarray(batch)})[0]

    def best(self, scores: Any) -> list[dict[str, float]]:
        """The best classes of a row of scores."""
        return [{"class": int(i), "score": float(scores[i])} for i in np.argsort(-scores)[:TOP]]
