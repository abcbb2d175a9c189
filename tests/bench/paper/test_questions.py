"""Questions about scenes: answers are true, the networks are the papers', and their maps equal PyTorch's autograd."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from fastcam_bench.paper.questions import measure, pictures  # noqa: E402
from fastcam_bench.paper.questions.exported import QUESTION, by_autograd, explainer_of  # noqa: E402
from fastcam_bench.paper.questions.grammar import ANSWERS, KINDS, LENGTH, UNKNOWN, WORDS, ids  # noqa: E402
from fastcam_bench.paper.questions.networks import CoAttention, HierarchicalCoAttention, LstmProduct  # noqa: E402
from fastcam_bench.paper.questions.pictures import COLOURS, SHAPES, Pictures  # noqa: E402
from fastcam_bench.paper.questions.training import batches, pairs, questions  # noqa: E402
from fastcam_bench.paper.trunk import normalised  # noqa: E402


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Twelve scenes, and ten questions about each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "CACHE", tmp_path_factory.mktemp("kept"))
        drawn = pictures.draw(12, 7)
        again = pictures.draw(12, 7)  # of the file
    assert all(np.array_equal(getattr(drawn, name), getattr(again, name)) for name in vars(drawn))
    return drawn, questions(drawn, 2 * len(KINDS), Random(1))


def truth(text, shown):
    """The answer of a question about objects (shape, colour, x, y, place), and their places, read from its words."""
    words = text.removesuffix("?").split()
    shape = next((word for word in words if word in SHAPES), None)
    colour = next((word for word in words if word in COLOURS), None)
    if words[0] == "how":
        found = [one for one in shown if words[2] in (one[0] + "s", one[0] + "es")]
        return str(len(found)), {one[4] for one in found}
    if words[0] == "is":
        found = [one for one in shown if one[:2] == (shape, colour)]
        return ("yes" if found else "no"), {one[4] for one in found}
    if colour:
        (only,) = [one for one in shown if one[1] == colour]
        return only[0], {only[4]}
    (only,) = [one for one in shown if one[0] == shape]
    if "colour" in words:
        return only[1], {only[4]}
    axis, sign = {"left": (2, -1), "right": (2, 1), "above": (3, -1), "below": (3, 1)}[
        next(word for word in words if word in ("left", "right", "above", "below"))
    ]
    (beside,) = [one for one in shown if one is not only and sign * (one[axis] - only[axis]) > 0]
    return beside[0], {only[4], beside[4]}


@pytest.mark.parametrize("turn", [0, 1, 2, 5, 6])
def test_answers_are_true_of_what_the_masks_show(scenes, turn):
    turned = scenes[0].turned(turn)
    kinds = set()
    for i, some in enumerate(questions(turned, 2 * len(KINDS), Random(turn))):
        shown = []
        for k in np.flatnonzero(turned.shapes[i] >= 0):
            y, x = np.nonzero(turned.masks[i, k])
            assert (
                abs(x.mean() + 0.5 - 64 * turned.centres[i, k, 0]) < 6
            )  # outlines are not quite in their circle's middle
            shown.append((SHAPES[turned.shapes[i, k]], COLOURS[turned.colours[i, k]], x.mean(), y.mean(), int(k)))
        for one in some:
            assert (ANSWERS[one.answer], set(one.objects)) == truth(one.text, shown), one
            assert UNKNOWN not in ids(one.text) and len(one.text.split()) < LENGTH
            kinds.add(one.kind)
    assert kinds == set(KINDS)


def test_batches_have_all_kinds_and_their_pictures(scenes):
    many = Pictures(*(np.repeat(getattr(scenes[0], name), 3, axis=0) for name in vars(scenes[0])))
    (batch,) = batches(many, 1, 3)
    images, of, words, answers, shown = batch
    assert images.shape == (32, 3, 64, 64) and -2.2 < images.min() < images.max() < 2.7
    assert shown.shape == (32, len(SHAPES) * len(COLOURS))
    assert words.shape == (len(of), LENGTH) and answers.shape == of.shape and of.max() == 31
    assert 0.2 < (words == WORDS["?"]).any(1).float().mean() < 0.8


def test_pairs_are_what_the_scenes_show(scenes):
    shown = pairs(scenes[0]).reshape(-1, len(SHAPES), len(COLOURS))
    for row, shapes, colours in zip(shown, scenes[0].shapes, scenes[0].colours, strict=True):
        there = {(shape, colour) for shape, colour in zip(shapes, colours, strict=True) if shape >= 0}
        assert {(int(i), int(j)) for i, j in row.nonzero()} == there and len(there) > 1


def test_co_attention_is_lus_equations():
    torch.manual_seed(1)
    one = CoAttention(6, 5)
    rng = np.random.default_rng(1)
    v, q = rng.normal(size=(6, 9)), rng.normal(size=(6, 4))  # columns are positions and words, as in the paper
    weights = {name: each.weight.detach().numpy().astype(np.float64) for name, each in one.named_modules() if name}
    c = np.tanh(q.T @ weights["affinity"].T @ v)
    seen, asked = weights["of_picture"] @ v, weights["of_question"] @ q
    h_v, h_q = np.tanh(seen + asked @ c), np.tanh(asked + seen @ c.T)
    a_v, a_q = (
        np.exp(w @ h) / np.exp(w @ h).sum() for w, h in ((weights["at_picture"], h_v), (weights["at_question"], h_q))
    )
    with torch.no_grad():
        found = one.double()(
            *(torch.from_numpy(x.T[None].copy()) for x in (v, q)), torch.zeros(1, 4, dtype=torch.float64)
        )
    for got, want in zip(found, (v @ a_v.ravel(), q @ a_q.ravel(), a_v.ravel()), strict=True):
        np.testing.assert_allclose(got[0].numpy(), want, atol=1e-12)


def small(cls):
    """A network with random weights, and BatchNormalization that has seen pictures."""
    torch.manual_seed(3)
    net = cls(len(WORDS), len(ANSWERS))
    with torch.no_grad():
        for _ in range(3):
            net.train().features(torch.rand(8, 3, 64, 64) * 2 - 1)
    return net.eval()


def asked_of(scenes):
    return measure.question_set(scenes[0], [some[:2] for some in scenes[1]])


@pytest.mark.parametrize("cls", [LstmProduct, HierarchicalCoAttention])
def test_maps_of_answers_equal_autograd(scenes, cls):
    net, asked = small(cls), asked_of(scenes)
    explainer = explainer_of(net)
    found = measure.beside_autograd(net, explainer, asked)
    assert found["questions"] == len(asked) >= 20
    assert found["predicted answer"] < 1e-4 and found["its difference to the second"] < 1e-4
    sides = {"red": 1, "star": -0.5}, {"red": -1, "star": 0.5}  # a map of one of them at least has heat
    answer, heated = explainer(list(asked.images), list(sides), inputs={QUESTION: asked.words}), 0
    for t, side in enumerate(sides):
        weights = np.zeros((len(asked), len(ANSWERS)), np.float32)
        weights[:, [ANSWERS.index(name) for name in side]] = list(side.values())
        want = np.maximum(by_autograd(net, asked.images, asked.words, weights), 0)
        most = want.max((1, 2))
        assert (np.abs(answer.maps[:, t] - want).max((1, 2)) <= 1e-4 * most).all()
        heated += int((most > 0).sum())
    assert heated >= len(asked)
    np.testing.assert_allclose(answer.scores, measure.logits(net, asked), atol=1e-5)


def test_every_layers_maps_of_the_co_attention_network_equal_autograd(scenes):
    net, asked = small(HierarchicalCoAttention), asked_of(scenes)
    explainer = explainer_of(net, measure.LAYERS)
    found = explainer(list(asked.images[:4]), -1, inputs={QUESTION: asked.words[:4]}, layers="all")
    kept = {}
    for name in measure.LAYERS:
        net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: kept.setdefault(name, out))
    x = normalised(asked.images[:4]).requires_grad_()
    scores = net(x, torch.from_numpy(asked.words[:4])).max(1).values.sum()
    assert [one.maps.shape[2] for one in found.layers] == [32, 16, 8, 8, 8, 8]
    for name, one in zip(measure.LAYERS, found.layers, strict=True):
        (gradient,) = torch.autograd.grad(scores, kept[name], retain_graph=True)
        want = torch.relu((gradient.mean((2, 3), keepdim=True) * kept[name]).sum(1)).detach().numpy()
        assert np.abs(one.maps[:, 0] - want).max() <= 1e-4 * want.max(), name
    changes = measure.between_layers(explainer, asked)
    assert len(changes) == len(measure.LAYERS) + 1 and "trunk.relu to trunk.stages.0.relu2, 32 to 16" in changes


def test_heat_is_measured_on_the_objects_asked_about(scenes):
    about = asked_of(scenes).with_objects()
    masks = np.stack([about.mask(k) for k in range(len(about))])
    perfect = measure.meaning(masks.astype(np.float32), about)
    assert perfect["heat on the objects asked about"]["value"] == 1
    assert perfect["even map on them"]["value"] == pytest.approx(masks.mean())
    assert perfect["rank correlation"]["value"] > 0.7 > perfect["rank correlation, another question's"]["value"]
    assert perfect["heat on the picture's other objects, times an even map's"]["value"] == 0
    even = measure.meaning(np.ones(masks.shape, np.float32), about)
    assert even["times an even map's"]["value"] == pytest.approx(1) and even["rank correlation"]["value"] == 0
    assert measure.share(np.zeros((64, 64), np.float32), masks[0]) == 0
