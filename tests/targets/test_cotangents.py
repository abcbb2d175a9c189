"""The helpers that build cotangents, against PyTorch autograd of the very scalar."""

import numpy as np
import pytest

from fastcam import FastcamError
from fastcam.targets import cotangents
from fastcam_export import export_model
from support.models.heads_model import (
    MASK,
    C,
    D,
    F,
    autograd,
    finer,
    heads,
    images,
    pick,
    rank,
    run,
)

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")


@pytest.fixture(scope="module")
def exported():
    """name of an output -> the file with its cotangent and the whole gradient, and the outputs of two images."""
    model = heads()
    outputs = run(model, {"image": images()})
    made = {}

    def of(name):
        if name not in made:
            made[name] = export_model(model, layer="layer", emit="gradients", targets="cotangent", output_name=name)
        return made[name], outputs[name]

    return of


CAPTION = np.array([[3, 0, 2], [1, 1, -1]])
REFERENCES = np.random.default_rng(4).standard_normal((2, D))


def log_p(o):
    return torch.log_softmax(o["words"], 2)


def spoken(o, kind):
    """[N, L] of the caption's words."""
    y = log_p(o) if kind == "log" else o["words"]
    return y.gather(2, torch.from_numpy(np.maximum(CAPTION, 0))[..., None])[..., 0] * torch.from_numpy(CAPTION >= 0)


def best(o):
    return [o["dense"][:, :, 4 + 2].max(1).values]


def with_objectness(o):
    score = o["dense"][:, :, 5:] * o["dense"][:, :, 4:5]
    return [score[:, :, 1].max(1).values, score[:, 3, 0]]


def sides(o):
    x, y, w, h = o["dense"][torch.arange(2), torch.tensor([1, 4]), :4].T
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def partners(o):
    a, b = o["embedding"]
    cosine = F.cosine_similarity(a[None], b[None])
    return [cosine]  # of both images: the gradient at each is with respect to its own maps


HELPERS = {
    "class": ("logits", lambda y: cotangents.class_score(y, [2, -1]),
              lambda o: [o["logits"][:, 2], o["logits"].max(1).values]),
    "difference": ("logits", lambda y: cotangents.difference(y, -1, 3, 0.5),
                   lambda o: [o["logits"].max(1).values - 0.5 * o["logits"][:, 3]]),
    "combination": ("logits", lambda y: cotangents.combination(y, {0: 2, -2: -1}, {4: -1}),
                    lambda o: [2 * o["logits"][:, 0] - pick(o["logits"], rank(o["logits"], 2)), -o["logits"][:, 4]]),
    "finer": ("logits", lambda y: cotangents.finer(y, -1, [-2, -3, -4], 0.6),
              lambda o: finer(o["logits"], (2, 3, 4), False)),
    "finer, fixed": ("logits", lambda y: cotangents.finer(y, -1, [-2, -3], 0.6, fixed_weights=True),
                     lambda o: finer(o["logits"], (2, 3), True)),
    "probability": ("logits", lambda y: cotangents.probability(y, [1, -1]),
                    lambda o: [torch.softmax(o["logits"], 1)[:, 1], torch.softmax(o["logits"], 1).max(1).values]),
    "log probability": ("logits", lambda y: cotangents.probability(y, 1, log=True),
                        lambda o: [torch.log_softmax(o["logits"], 1)[:, 1]]),
    "multi-label": ("logits", lambda y: cotangents.multi_label(y, [0, 3]), lambda o: [o["logits"][:, [0, 3]].sum(1)]),
    "multi-label, present": ("logits", lambda y: cotangents.multi_label(y, threshold=-1.0),
                             lambda o: [(o["logits"] * (o["logits"].detach() > -1)).sum(1)]),
    "regression": ("numbers", lambda y: cotangents.element(y, 1, (0,)), lambda o: list(o["numbers"].flip(1).T)),
    "region": ("map", lambda y: cotangents.region(y, [1, 3], MASK),
               lambda o: [o["map"][:, c, MASK].sum(1) for c in (1, 3)]),
    "region, predicted": ("map", lambda y: cotangents.region(y, 3),
                          lambda o: [(o["map"][:, 3] * (o["map"].argmax(1) == 3)).sum((1, 2))]),
    "best box": ("dense", lambda y: cotangents.dense(y, 2), best),
    "objectness": ("dense", lambda y: cotangents.stack(*(
        cotangents.dense(y, c, box=box, objectness=True) for c, box in [(1, None), (0, 3)])), with_objectness),
    "sides": ("dense", lambda y: cotangents.dense(y, "x0", "y0", "x1", "y1", box=[1, 4]), sides),
    "transposed": ("dense", lambda y: cotangents.dense(y.swapaxes(1, 2), 2, axis=1).swapaxes(2, 3), best),
    "corner": ("dense", lambda y: np.pad(
        cotangents.coordinate(y[..., :4], 5, "y1", batched=True), ((0, 0),) * 3 + ((0, C),)),
               lambda o: [o["dense"][:, 5, 3]]),
    "cosine": ("embedding", lambda y: cotangents.similarity(y, REFERENCES),
               lambda o: [F.cosine_similarity(o["embedding"], torch.from_numpy(r)[None].float()) for r in REFERENCES]),
    "dot": ("embedding", lambda y: cotangents.similarity(y, REFERENCES[0], "dot"),
            lambda o: [o["embedding"] @ torch.from_numpy(REFERENCES[0]).float()]),
    "pair": ("embedding", cotangents.pairs, partners),
    "caption": ("words", lambda y: cotangents.caption(y, CAPTION), lambda o: [spoken(o, "log").sum(1)]),
    "caption, logits": ("words", lambda y: cotangents.caption(y, CAPTION, "logit"), lambda o: [spoken(o, "").sum(1)]),
    "words": ("words", lambda y: cotangents.words(y, CAPTION), lambda o: list(spoken(o, "log").T)),
}  # fmt: skip


@pytest.mark.parametrize("case", HELPERS)
def test_helper_equals_autograd_of_its_scalar(case, exported):
    name, helper_, scalars = HELPERS[case]
    made, output = exported(name)
    cotangent = helper_(output)
    assert cotangent.dtype == np.float32
    assert cotangent.shape[2:] == output.shape[1:]
    found = run(made.model, {"image": images(), "fastcam.cotangent": cotangent})
    expected = autograd(found["fastcam.activations"], scalars)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found["fastcam.gradients"], expected, atol=2e-6 * np.abs(expected).max())


# ---- refusals


Y = np.array([[2.0, 1.0, -1.0]])
BAD = {
    "class 3": lambda: cotangents.class_score(Y, 3),
    "rank -4": lambda: cotangents.class_score(Y, -4),
    "no class": lambda: cotangents.combination(Y, {}),
    "shape": lambda: cotangents.class_score(Y[0], 1),
    "probabilities": lambda: cotangents.probability([[0.2, 0.8]], 0),
    "no label": lambda: cotangents.multi_label(Y, threshold=5),
    "outside": lambda: cotangents.element(Y, (0, 1)),
    "mask": lambda: cotangents.region(np.zeros((1, 2, 4, 4)), 0, np.ones((3, 3))),
    "nowhere": lambda: cotangents.region(np.zeros((1, 2, 4, 4)), 1),
    "no box": lambda: cotangents.best_box([0.5, 0.4], [1, 1], 2),
    "which box": lambda: cotangents.dense(np.zeros((1, 5, 9)), "x0"),
    "transposed": lambda: cotangents.dense(np.zeros((1, 9, 3)), 0),
    "side": lambda: cotangents.coordinate(np.zeros((2, 4)), 0, "left"),
    "length": lambda: cotangents.similarity(Y, [1.0, 2.0]),
    "zeros": lambda: cotangents.similarity(Y * 0, Y[0]),
    "odd": lambda: cotangents.pairs(Y),
    "tokens": lambda: cotangents.caption(np.zeros((1, 2, 3)), [0, 3]),
    "stack": lambda: cotangents.stack(np.zeros((1, 1, 3)), np.zeros((1, 1, 4))),
}


@pytest.mark.parametrize("case", BAD)
def test_helpers_refuse_in_one_line(case):
    with pytest.raises(FastcamError) as caught:
        BAD[case]()
    assert "\n" not in str(caught.value)
