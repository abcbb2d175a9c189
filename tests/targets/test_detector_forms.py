"""Detectors' outputs as their exporters lay them out, beside a decoder of each that is written down anew here.

Outputs are random. The decoder gives boxes in pixels and probabilities from them; the best box, its place, its score
and its sides have to be the decoder's, and the cotangents the derivatives that differences along a direction find.
"""

import numpy as np
import pytest

from fastcam import FastcamError
from fastcam.schema import Cotangent
from fastcam.targets.spec_kinds import KINDS, spec
from fastcam.targets.spec_parser import INPUT_SIZE, File
from support.detector_cases import CASES, RNG, ChannelsLast, Detr, H, RtDetr, TensorFlow, UltraFace, W, around


def asked(case, text, outputs=None):
    """What becomes of a spec, as of a run."""
    outputs = case.outputs if outputs is None else outputs
    names = case.explained or tuple(case.outputs)
    about = tuple(
        Cotangent(f"c.{name}", name, case.outputs[name].shape[case.batched :], case.batched, axes(case, name))
        for name in names
    )
    file = File("the file", about, case.labels, None, lambda picture: {})
    one = spec(text)
    return KINDS["box"].resolve(one, file)({**outputs, INPUT_SIZE: np.array([[H, W]])})


def axes(case, name):
    return "HWC" if isinstance(case, ChannelsLast) else ""


def of_one(case, outputs):
    return {name: y[0] if case.batched else y for name, y in outputs.items()}


def scalar(case, outputs, box, column, side):
    """What is explained, by the decoder."""
    y = of_one(case, outputs)
    boxes, chances = case.decode(y)
    if side is not None:
        return boxes[box, side]
    return case.logit(y, case)[box, column] if hasattr(case, "logit") else chances[box, column]


@pytest.mark.parametrize("name", CASES)
def test_the_best_box_is_the_decoders(name):
    case = CASES[name]()
    boxes, chances = case.decode(of_one(case, case.outputs))
    best, column = np.unravel_index(chances.argmax(), chances.shape)
    result = asked(case, "box")
    assert f"box {best}" in result.names[0][0]
    assert result.values[0, 0] == pytest.approx(scalar(case, case.outputs, best, column, None))
    if boxes is None:
        assert np.isnan(result.boxes).all()
    else:
        np.testing.assert_allclose(result.boxes[0, 0], boxes[best], rtol=1e-6)
    if case.labels is not None and chances.shape[1] == len(case.labels):
        assert result.names[0][0].startswith(case.labels[column])


@pytest.mark.parametrize("name", CASES)
def test_cotangents_are_derivatives(name):
    """Of the score and of each side, along a random direction of all outputs; sides in the outputs' own unit."""
    case = CASES[name]()
    boxes, chances = case.decode(of_one(case, case.outputs))
    best, column = np.unravel_index(chances.argmax(), chances.shape)
    result = asked(case, "box" if boxes is None else "box:score,x0,y0,x1,y1")
    rng = np.random.default_rng(1)
    for t, side in enumerate((None, 0, 1, 2, 3) if boxes is not None else (None,)):
        direction = {key: rng.standard_normal(y.shape) for key, y in case.outputs.items()}
        ends = [
            scalar(case, {key: y + h * direction[key] for key, y in case.outputs.items()}, best, column, side)
            for h in (1e-6, -1e-6)
        ]
        along = (ends[0] - ends[1]) / 2e-6
        ours = sum(float((c[0, t] * direction[key].reshape(c.shape[2:])).sum()) for key, c in result.arrays.items())
        unit = 1 if side is None else relative(case, boxes)[side % 2]
        assert ours * unit == pytest.approx(along, rel=2e-4, abs=1e-7), side


def relative(case, boxes):
    """Pixels in the unit of the sides."""
    return (W, H) if isinstance(case, Detr | RtDetr | UltraFace | TensorFlow) else (1, 1)


def test_the_best_boxes_do_not_overlap_and_score_nearly_as_well():
    case = CASES["YuNet"]()
    boxes, chances = case.decode(of_one(case, case.outputs))
    result = asked(case, "box:most=4")
    kept = []
    for k in np.argsort(-chances[:, 0]):
        inter = [
            np.prod(np.clip(np.minimum(boxes[k, 2:], boxes[j, 2:]) - np.maximum(boxes[k, :2], boxes[j, :2]), 0, None))
            for j in kept
        ]
        union = [np.prod(boxes[k, 2:] - boxes[k, :2]) + np.prod(boxes[j, 2:] - boxes[j, :2]) for j in kept]
        if all(i / (u - i) <= 0.5 for i, u in zip(inter, union, strict=True)):
            kept.append(k)
    wanted = [k for k in kept[:4] if chances[k, 0] >= 0.5 * chances.max()]
    assert result.names[0] == tuple(f"box {k}" for k in wanted)


def test_sides_that_count_from_anchors_need_the_anchors(tmp_path):
    case = CASES["UltraFace"]()
    case.outputs["boxes"] = np.random.default_rng(2).standard_normal((1, 40, 4))  # as SSD has them, not decoded
    assert np.isnan(asked(case, "box").boxes).all()
    with pytest.raises(FastcamError, match=r"where these boxes count from; explain their score, or .*priors=FILE.npy"):
        asked(case, "box:x0")
    priors = np.concatenate([RNG.random((40, 2)), 0.1 + RNG.random((40, 2)) / 5], 1)
    np.save(tmp_path / "priors.npy", priors)
    found = asked(case, f"box:x0,priors={tmp_path / 'priors.npy'}")
    k = int(found.names[0][0].split()[-1].strip(")"))
    y = case.outputs["boxes"][0, k]
    centre = priors[k, :2] + y[:2] * 0.1 * priors[k, 2:]
    corners = around(centre, np.exp(0.2 * y[2:]) * priors[k, 2:])
    np.testing.assert_allclose(found.boxes[0, 0], corners * [W, H, W, H], rtol=1e-6)
    assert found.values[0, 0] == pytest.approx(corners[0])
    with pytest.raises(FastcamError, match=r"holds \[3, 4\], the boxes are \[40, 4\]"):
        np.save(tmp_path / "few.npy", priors[:3])
        asked(case, f"box:priors={tmp_path / 'few.npy'}")
