"""Deep feature factorisation against its definition and scikit-learn; concepts against planted ones."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.concepts import nmf
from fastcam.concepts.dff import color, concepts, factorised
from fastcam_export import export_model
from support.models.contract_model import random_model
from support.models.pyramid_model import pyramid

RNG = np.random.default_rng(0)


# ---- the factorisation


def test_an_update_is_the_formula_and_the_error_never_grows():
    x, w, h = RNG.random((7, 9)), RNG.random((7, 3)), RNG.random((3, 9))
    errors = [nmf.error(x, w, h)]
    for _ in range(20):
        found = nmf.updated(x, w, h, 1, 0)
        above, below = np.zeros_like(w), np.zeros_like(w)
        for i, c in np.ndindex(*w.shape):
            above[i, c] = sum(x[i, j] * h[c, j] for j in range(9))
            below[i, c] = sum(w[i, d] * sum(h[d, j] * h[c, j] for j in range(9)) for d in range(3))
        w = w * above / below
        np.testing.assert_allclose(found[0], w)
        h = h * (w.T @ x) / (w.T @ w @ h)
        np.testing.assert_allclose(found[1], h)
        errors.append(nmf.error(x, w, h))
    assert all(after <= before + 1e-12 for before, after in pairwise(errors))


def test_the_result_is_a_stationary_point():
    """The gradient of the squared error is zero wherever a factor is positive (Karush, Kuhn, Tucker)."""
    x = RNG.random((12, 10))
    w, h = nmf.nmf(x, 3, iterations=20000, tolerance=0)
    assert (w >= 0).all() and (h >= 0).all()
    assert np.abs((w @ h - x) @ h.T * w).max() < 1e-6
    assert np.abs(w.T @ (w @ h - x) * h).max() < 1e-6
    assert (w > 1e-3).mean() > 0.5 and (h > 1e-3).mean() > 0.5


def test_the_start_is_the_best_non_negative_part_of_each_pair_of_singular_vectors():
    x = RNG.random((6, 5))
    w, h = nmf.start(x, 2)
    u, s, v = np.linalg.svd(x)
    np.testing.assert_allclose(np.outer(w[:, 0], h[0]), s[0] * np.outer(np.abs(u[:, 0]), np.abs(v[0])))
    best = max((np.outer(np.maximum(k * u[:, 1], 0), np.maximum(k * v[1], 0)) for k in (1, -1)), key=np.linalg.norm)
    mean = x.mean()
    inside = (w[:, 1] != mean)[:, None] & (h[1] != mean)[None]
    np.testing.assert_allclose(np.outer(w[:, 1], h[1])[inside], s[1] * best[inside])
    assert inside.any() and not inside.all()


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_scikit_learn_finds_the_same_factors(rank):
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = RNG.random((20, 15))
    w, h = nmf.start(x, rank)
    oracle = decomposition.NMF(rank, init="custom", solver="mu", max_iter=100, tol=0)
    expected = oracle.fit_transform(x, W=w.copy(), H=h.copy())
    found = nmf.nmf(x, rank, iterations=100, tolerance=0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[1], oracle.components_, rtol=1e-4, atol=1e-6)
    assert nmf.error(x, *found) <= oracle.reconstruction_err_ * (1 + 1e-5)


@pytest.mark.parametrize(
    ("x", "rank", "said"),
    [
        (-np.eye(3), 1, "none of them negative"),
        (np.eye(3), 4, "between 1 and 3 factors, not 4"),
        ([[np.nan]], 1, "finite"),
    ],
)
def test_what_has_no_factors_is_refused(x, rank, said):
    with pytest.raises(FastcamError, match=said):
        nmf.nmf(x, rank)


# ---- concepts


def test_planted_concepts_are_found():
    """Maps of three patterns with channels of their own: each concept is one of them, whatever the picture."""
    vectors = np.zeros((3, 8))
    vectors[0, :3], vectors[1, 3:5], vectors[2, 5:] = 1, 2, 1
    where = RNG.integers(0, 3, (2, 4, 5))
    strengths = np.stack([(where == c) * RNG.uniform(1, 2, where.shape) for c in range(3)], 1)
    activations = np.einsum("nchw,ck->nkhw", strengths, vectors).astype(np.float32)
    maps, found, error = factorised(activations, 3)
    assert error < 1e-3
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    same = (found @ unit.T).argmax(1)
    assert sorted(same) == [0, 1, 2]
    for c in range(3):
        expected = strengths[:, same[c]] * np.linalg.norm(vectors[same[c]])
        np.testing.assert_allclose(maps[:, c], expected, atol=5e-3)
    totals = maps.sum((0, 2, 3))
    assert (np.diff(totals) <= 0).all()


@pytest.fixture(scope="module")
def model():
    made = random_model(seed=4, labels=tuple("abcde"))
    return replace(made, place=np.ones((1, 1), np.float32))


@pytest.mark.parametrize("emit", ["weights", "gradients"])
def test_concepts_of_a_file_and_what_they_say_of_the_classes(model, emit):
    x = RNG.random((3, 3, 32, 32)).astype(np.float32)
    explainer = Explainer(model.file(emit), batch_size=2)
    found = concepts(explainer, x, count=4)
    a = model.activations(x)
    rebuilt = np.einsum("nchw,ck->nkhw", found.maps, found.vectors)
    assert found.error == pytest.approx(np.linalg.norm(rebuilt - a) / np.linalg.norm(a), rel=1e-3)
    assert found.error < 0.5 and found.negative == 0
    peaks = found.maps.max((0, 2, 3))
    np.testing.assert_allclose(found.scores, (found.vectors * peaks[:, None]) @ model.head.T, rtol=1e-3, atol=1e-4)
    shares = np.einsum("nc,ck,jk->nj", found.strengths, found.vectors, model.head)
    np.testing.assert_allclose(shares, rebuilt.mean((2, 3)) @ model.head.T, rtol=1e-3, atol=1e-4)
    best = int(found.scores[0].argmax())
    assert found.top(0, 1) == [(best, "abcde"[best], pytest.approx(float(found.scores[0, best])))]
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_matrix_is_not_claimed_where_the_head_is_another():
    found = concepts(Explainer(random_model(seed=4).file()), RNG.random((1, 3, 32, 32)).astype(np.float32), count=2)
    assert found.scores is None and found.top(0) == []


def test_negative_activations_are_measured():
    model, _ = pyramid()
    explainer = Explainer(export_model(model, layer="c3", check=False).model.SerializeToString())
    x = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)
    positive = Explainer(export_model(model, layer="r3", check=False).model.SerializeToString())
    found, same = concepts(explainer, x, count=2), concepts(positive, x, count=2)
    assert 0.1 < found.negative < 0.9 and same.negative == 0
    np.testing.assert_allclose(found.maps, same.maps, rtol=1e-4, atol=1e-6)


def test_the_picture_shows_the_strongest_concept_in_its_colour():
    model = random_model(seed=4)
    found = concepts(Explainer(model.file()), RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8), count=3)
    drawn = found.picture(0, width=32).astype(float)
    grey = found.images[0].mean(-1, keepdims=True)
    strongest, strength = found.heatmaps[0].argmax(0), found.heatmaps[0].max(0)[..., None]
    colors = np.array([color(c) for c in range(3)])
    expected = (1 - 0.75 * strength) * grey + 0.75 * strength * colors[strongest]
    assert np.abs(drawn[:32, 32:64] - expected).max() <= 1
    np.testing.assert_array_equal(drawn[:32, :32], found.images[0])


@pytest.mark.parametrize(
    ("emit", "count", "said"),
    [("cam", 3, "holds maps, no activations"), ("weights", 0, "from 1 to 16"), ("weights", 9, "factors, not 9")],
)
def test_what_has_no_concepts_is_refused(emit, count, said):
    with pytest.raises(FastcamError, match=said):
        concepts(Explainer(random_model(seed=4).file(emit)), np.zeros((1, 3, 32, 32), np.float32), count)


def test_the_command_line_writes_pictures_and_says_what_concepts_speak_for(tmp_path, model):
    (tmp_path / "m.onnx").write_bytes(model.file())
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
    arguments = ["concepts", tmp_path / "m.onnx", tmp_path / "a.png", tmp_path / "b.png", "-n", 2, "-o", tmp_path / "o"]
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    found = concepts(Explainer(tmp_path / "m.onnx"), files, 2)
    shown = cv2.imread(str(tmp_path / "o" / "b-concepts.png"))[..., ::-1]
    np.testing.assert_array_equal(shown, found.picture(1))
    assert json.loads((tmp_path / "o" / "concepts.json").read_text()) == json.loads(json.dumps(found.to_dict()))
    assert all(found.top(c)[0][1] in result.stdout for c in range(2))
