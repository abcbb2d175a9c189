"""The protocols of faithfulness on an exported file: rows, figures, and the model's own numbers in torch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fastcam import Explainer, FastcamError
from fastcam.evaluation import faithfulness as f
from fastcam.evaluation.protocols import PROTOCOLS
from fastcam.evaluation.protocols.base import Case, Present
from fastcam.evaluation.protocols.faithfulness import FAITHFULNESS
from fastcam.evaluation.protocols.faithfulness.subject import NO_MAP, Subject
from fastcam.evaluation.samples import Sample
from fastcam.preprocessing import preset
from fastcam_export import export_model
from support.evaluation_cases import figures
from support.models.small_models import classifier, weights_of

SIDE = 32
MODEL = classifier(size=SIDE)
W = {name: torch.tensor(array, dtype=torch.float32) for name, array in weights_of(MODEL).items()}
PICTURE = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
HOW = preset("imagenet", size=(SIDE, SIDE))
X = ((PICTURE / 255.0 - HOW.mean) / HOW.std).transpose(2, 0, 1).astype(np.float32)


def net(x):
    layer = F.relu(F.conv2d(F.relu(F.conv2d(torch.tensor(x), W["w1"], padding=1)), W["w2"], padding=1))
    return (layer.mean((2, 3)) @ W["fc"] + W["bias"]).numpy()


def chance(c):
    return lambda x: torch.softmax(torch.tensor(net(x)), 1)[:, c].numpy()


@pytest.fixture(scope="module")
def explainer():
    exported = export_model(MODEL, check=False).model.SerializeToString()
    return Explainer(exported, preprocess=HOW, batch_size=8)


def case(explainer, *targets, name="a"):
    explanation = explainer([PICTURE], [list(targets)])
    present = tuple(Present(str(t), t, frozenset({t}), ()) for t in targets if t >= 0)
    columns = {target: i for i, target in enumerate(targets)}
    return Case(Sample(name, PICTURE), present, explanation, columns, explainer, "gradcam", {})


def only(row):
    """The values of the one map of a row, once through JSON."""
    (values,) = json.loads(json.dumps(row))["maps"]
    return values


def test_insertion_and_deletion_are_those_of_the_softmax_of_the_predicted_class(explainer):
    one = case(explainer, -1)
    best, heat = int(net(X[None]).argmax()), one.explanation.heatmaps[0, 0]
    for name, formula, end in (("insertion", f.insertion, f.baseline(X, "blur")), ("deletion", f.deletion, 0 * X)):
        expected = f.area(formula(chance(best), X, heat, end))
        assert only(PROTOCOLS[name]().measure(one)) == {name: pytest.approx(expected, abs=1e-5)}


def test_occlusion_correlation_is_that_of_the_score(explainer):
    one = case(explainer, -1)
    best, heat = int(net(X[None]).argmax()), one.explanation.heatmaps[0, 0]
    cover = f.baseline(X, "grey", HOW)
    expected = f.occlusion_correlation(lambda x: net(x)[:, best], X, heat, cover, 8, 4)
    found = only(PROTOCOLS["occlusion-correlation"](patch=8, stride=4).measure(one))
    assert found == {"rank correlation": pytest.approx(expected, abs=1e-5)}


def test_marked_classes_have_a_value_each_and_the_means_are_over_maps(explainer):
    protocol = PROTOCOLS["average-drop"](of="marked")
    one = case(explainer, 1, 4)
    assert protocol.targets(one.present) == [1, 4] and PROTOCOLS["average-drop"]().targets(one.present) == [-1]
    row = protocol.measure(one)
    drops = [
        f.average_drop(chance(c), X, one.explanation.heatmaps[0, i], f.baseline(X, "black", HOW))
        for i, c in enumerate((1, 4))
    ]
    assert [each["average drop"] for each in row["maps"]] == pytest.approx([each.drop for each in drops], abs=1e-5)
    found = figures(protocol, row, row)
    assert found["average drop"].value == pytest.approx(np.mean([each.drop for each in drops]), abs=1e-5)
    assert found["average drop"].n == 4 and found[NO_MAP].value == 0


SMALL = {
    "occlusion-correlation": {"patch": 8, "stride": 8},
    "road": {"percentages": (20, 60)},
    "pixel-flipping": {"most": 6},
    "sensitivity-n": {"shares": (0.1, 0.5), "samples": 6},
    "infidelity": {"perturbation": "noise", "samples": 7},
    "max-sensitivity": {"samples": 9},
}


@pytest.mark.parametrize("protocol", FAITHFULNESS)
def test_a_picture_has_the_same_row_whatever_ran_before(explainer, protocol):
    protocol = protocol(**SMALL.get(protocol.name, {}))
    first = protocol.measure(case(explainer, -1))
    other = protocol.measure(case(explainer, -1, name="b"))
    again = protocol.measure(case(explainer, 2, -1))
    assert json.dumps(first) == json.dumps(again)
    random = protocol.name in ("road", "sensitivity-n", "infidelity", "max-sensitivity")
    assert (json.dumps(first) != json.dumps(other)) == random


def test_road_counts_how_often_the_class_stays_the_first(explainer):
    one = case(explainer, -1)
    best, heat = int(net(X[None]).argmax()), one.explanation.heatmaps[0, 0]
    found = only(PROTOCOLS["road"](percentages=(30, 70), noise=0.0, curve=True).measure(one))
    assert len(found) == 10 and len(only(PROTOCOLS["road"](percentages=(30, 70)).measure(one))) == 6
    for least, which in ((False, "hottest"), (True, "coldest")):
        pictures = np.stack(list(f.removed(X, heat, (30, 70), least)))
        assert found[f"accuracy without the {which}"] == np.mean(net(pictures).argmax(1) == best)
        assert found[f"probability without the {which}"] == pytest.approx(chance(best)(pictures).mean(), abs=1e-4)
        for share, kept in zip((30, 70), net(pictures).argmax(1) == best, strict=True):
            assert found[f"accuracy without the {which} {share} %"] == kept


def test_pixel_flipping_sensitivity_n_and_infidelity_are_those_of_the_model(explainer):
    one = case(explainer, -1)
    best, heat = int(net(X[None]).argmax()), one.explanation.heatmaps[0, 0]
    found = only(PROTOCOLS["pixel-flipping"](region=4, most=9).measure(one))
    most, least = (
        f.aopc(f.pixel_flipping(chance(best), X, heat, 0 * X, 4, 1, 9, coldest)) for coldest in (False, True)
    )
    assert list(found.values()) == pytest.approx([most, least, most - least], abs=1e-5)
    expected = f.infidelity(lambda x: net(x)[:, best], X, heat, f.squares(X, 0 * X, 5, 2))
    found = only(PROTOCOLS["infidelity"]().measure(one))  # a seventh of 32 is 5, half of that 2
    assert found["infidelity"] == pytest.approx(expected.scaled, rel=1e-3)
    assert found["unexplained share"] == pytest.approx(expected.unexplained, rel=1e-3)


def test_max_sensitivity_explains_the_same_class_by_the_same_method(explainer):
    one = case(explainer, -1)
    protocol = PROTOCOLS["max-sensitivity"](radius=0.3, samples=4)
    best = int(net(X[None]).argmax())
    rng = Subject(one, 0).random("max-sensitivity")
    near = np.stack([X + rng.uniform(-0.3, 0.3, X.shape).astype(np.float32) for _ in range(4)])
    heats = explainer(near, best).heatmaps[:, 0]
    heat = one.explanation.heatmaps[0, 0]
    expected = max(np.linalg.norm(each - heat) for each in heats) / np.linalg.norm(heat)
    assert only(protocol.measure(one)) == {"max-sensitivity": pytest.approx(expected, rel=1e-5)}


def test_a_map_that_says_nothing_is_counted_and_not_measured(explainer):
    one = case(explainer, -1)
    object.__setattr__(one.explanation, "status", (("constant",),))
    row = PROTOCOLS["insertion"]().measure(one)
    assert row == {"maps": [None]}
    found = figures(PROTOCOLS["insertion"](), row, {"maps": [{"insertion": 0.5}]})
    assert (found["insertion"].value, found["insertion"].n, found[NO_MAP].value) == (0.5, 1, 0.5)


def test_a_file_of_whole_pixels_is_refused_with_a_way_out(explainer):
    frames = export_model(MODEL, check=False, preprocess=HOW, frames=True).model.SerializeToString()
    explain = Explainer(frames)
    one = Case(Sample("a", PICTURE), (), explain([PICTURE]), {-1: 0}, explain, "gradcam", {})
    with pytest.raises(FastcamError, match="without --frames"):
        PROTOCOLS["deletion"]().measure(one)


# ---- at the layer


def test_at_the_layer_the_head_alone_runs_on_changed_activations():
    made = export_model(MODEL, check=False, head=True)
    explain = Explainer(made.model.SerializeToString(), preprocess=HOW, head=made.head.SerializeToString())
    one = case(explain, -1)
    best, heat = int(net(X[None]).argmax()), one.explanation.maps[0, 0]
    layer = F.relu(F.conv2d(F.relu(F.conv2d(torch.tensor(X[None]), W["w1"], padding=1)), W["w2"], padding=1))[0].numpy()

    def chance_behind(layers):
        logits = torch.tensor(layers).mean((2, 3)) @ W["fc"] + W["bias"]
        return torch.softmax(logits, 1)[:, best].numpy()

    for name, formula in (("insertion", f.insertion), ("deletion", f.deletion)):
        for baseline in ("zero", "mean"):
            expected = f.area(formula(chance_behind, layer, heat, f.baseline(layer, baseline), 64))
            found = only(PROTOCOLS[name](at="layer", baseline=baseline, step=64).measure(one))
            assert found == {name: pytest.approx(expected, abs=1e-4)}


@pytest.mark.parametrize(("end", "kind"), [("Softmax", "logit"), ("Sigmoid", "logit")])
def test_what_lies_between_the_heads_scores_and_probabilities_is_that_which_the_model_has(end, kind):
    made = export_model(classifier(size=SIDE, end=end), check=False, head=True)
    explain = Explainer(made.model.SerializeToString(), preprocess=HOW, head=made.head.SerializeToString())
    one = case(explain, -1)
    subject = Subject(one, 0)
    assert one.explanation.metadata.score.kind == kind
    own = subject.probability(subject.x[None])
    np.testing.assert_allclose(subject.layer_probability(subject.activations[None]), own, rtol=1e-4)


def test_at_the_layer_needs_a_head_a_baseline_of_numbers_and_maps_of_its_size(explainer):
    with pytest.raises(FastcamError, match="again with --head"):
        PROTOCOLS["deletion"](at="layer").measure(case(explainer, -1))
    with pytest.raises(FastcamError, match=r"insertion\.baseline is blur; at the layer give zero or mean"):
        PROTOCOLS["insertion"](at="layer")
