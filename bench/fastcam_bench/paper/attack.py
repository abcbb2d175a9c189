"""Adversarial noise by FastCAM's own gradient in ONNX Runtime: pictures that a model takes for something absent.

Projected steepest ascent on the log-likelihood of one class, in whole steps of a pixel's value, so that what comes out
is a picture of bytes and nothing has to be rounded.

Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from fastcam.image.preprocess import Float, prepare
from fastcam.schema import Preprocessing
from fastcam_export import vjp

Uint8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
SURE, NOTHING = 0.9999, 1e-4
"""The absent class's probability from which on an attack is done, and the present classes' below which it is."""


@dataclass(frozen=True, eq=False)
class Attacked:
    """A picture after the attack.

    Attributes:
        picture: uint8 RGB, of the network's size.
        steps: how many it took.
        absent, present: probabilities of the class that is not there, and the largest of those that are.
        done: whether both are where they should be.
    """

    picture: Uint8
    steps: int
    absent: float
    present: float
    done: bool


class Attack:
    """A model's gradient with respect to its picture.

    Args:
        model: the plain ONNX file.
        logits: the value whose softmax, or sigmoid, are the probabilities.
        single: whether each class has a probability of its own (a sigmoid).
        preprocessing: of the model; it takes RGB, NCHW.
    """

    def __init__(self, model: Path, logits: str, preprocessing: Preprocessing, single: bool = False) -> None:
        self.logits, self.single, self.preprocessing = logits, single, preprocessing
        proto = onnx.load(model)
        if logits not in [output.name for output in proto.graph.output]:  # in front of the model's sigmoid
            like = proto.graph.output[0].type.tensor_type
            proto.graph.output.append(onnx.helper.make_tensor_value_info(logits, like.elem_type, None))
            proto.graph.output[-1].type.tensor_type.shape.CopyFrom(like.shape)
        self.input = proto.graph.input[0].name
        made = vjp(proto, wrt=[self.input], of=[logits]).SerializeToString()
        self.session = ort.InferenceSession(made, providers=["CPUExecutionProvider"])
        shapes = {each.name: each.shape for each in self.session.get_inputs()}
        self.classes = int(shapes[f"cotangent.{logits}"][-1])

    def tensor(self, picture: Uint8) -> Float:
        """The network's input, float32 [1, 3, H, W]."""
        return prepare(picture, self.preprocessing)[0]

    def probabilities(self, scores: Float) -> Floats:
        """Of the classes, by softmax or sigmoid."""
        z = scores.reshape(-1).astype(np.float64)
        if self.single:
            return np.asarray(1 / (1 + np.exp(-z)))
        powers = np.exp(z - z.max())
        return np.asarray(powers / powers.sum())

    def __call__(self, picture: Uint8, absent: int, present: list[int], epsilon: int, most: int = 150) -> Attacked:
        """The picture with noise of at most ``epsilon`` of 255, that the model takes for the class ``absent``."""
        noise, momentum = np.zeros(picture.shape, np.int64), np.zeros(picture.shape)
        changed, wish = picture, np.zeros(self.classes)
        for step in range(most + 1):
            scores, gradient = self._run(self.tensor(changed), wish)
            p = self.probabilities(scores)
            if (p[absent] > SURE and p[present].max() < NOTHING) or step == most:
                break
            if step:  # the first run says what is to be wished
                ascent = gradient[0].transpose(1, 2, 0)
                momentum = 0.75 * momentum + ascent / max(float(np.abs(ascent).mean()), 1e-30)
                noise = np.clip(noise + np.sign(momentum).astype(np.int64), -epsilon, epsilon)
                changed = np.clip(picture.astype(np.int64) + noise, 0, 255).astype(np.uint8)
            wish = self._wish(p, absent, present)  # of the step before: one run a step
        done = bool(p[absent] > SURE and p[present].max() < NOTHING)
        return Attacked(changed, step, float(p[absent]), float(p[present].max()), done)

    def _wish(self, p: Floats, absent: int, present: list[int]) -> Floats:
        """Weights of the logits: the gradient of the absent class's log-likelihood under a softmax.

        With probabilities of their own, one for each class that is not yet where it should be.
        """
        if not self.single:
            return np.asarray(np.eye(self.classes)[absent] - p)
        wish = np.zeros(self.classes)
        wish[present] = -(p[present] >= NOTHING).astype(np.float64)
        wish[absent] = p[absent] <= SURE
        return wish

    def _run(self, tensor: Float, cotangent: Floats) -> tuple[Float, Float]:
        """Scores, and the gradient at the picture of their sum with the weights ``cotangent`` [classes]."""
        feed = {self.input: tensor, f"cotangent.{self.logits}": cotangent.astype(np.float32)[None]}
        scores, gradient = self.session.run([self.logits, f"grad.{self.input}"], feed)
        return scores, gradient
