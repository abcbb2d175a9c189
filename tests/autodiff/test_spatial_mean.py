"""The pooled gradient equals the mean of the full one, by whichever identities it was computed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcam_export import export_model
from fastcam_export.autodiff.pooled import spatial_mean
from fastcam_export.verify.session import quiet_session
from support.examples import examples
from support.models.chains import CHAINS, Builder


def weights_and_mean(model):
    """``fastcam.weights`` of one export, and the mean of ``fastcam.gradients`` of another, for the same input."""
    found = []
    images = np.random.default_rng(5).standard_normal((2, 3, 9, 9)).astype(np.float32)
    for emit in ("weights", "gradients"):
        exported = export_model(model, layer="map", emit=emit, check=False).model
        session = quiet_session(exported)
        feeds = {"image": images, "fastcam.targets": np.array([[-1, 2], [0, -3]])}
        found.append(session.run([f"fastcam.{emit}"], feeds)[0])
    weights, gradients = found
    assert np.abs(gradients).max() > 0
    return weights, gradients.mean((3, 4))


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("batch", ["N", 2])
def test_equals_the_mean_of_the_gradient(chain, batch):
    builder = Builder(batch=batch)
    CHAINS[chain](builder)
    weights, mean = weights_and_mean(builder.model())
    np.testing.assert_allclose(weights, mean, atol=1e-5 * np.abs(mean).max())


STEPS = {
    "conv": lambda b: b.conv(4),
    "1x1": lambda b: b.conv(4, kernel=1),
    "same": lambda b: b.conv(b.channels, pads=[1, 1, 1, 1]),
    "norm": lambda b: b.norm(),
    "relu": lambda b: b.node("Relu"),
    "pool": lambda b: b.node("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
    "average": lambda b: b.node("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
    "branch": lambda b: b.branch(),
    "residual": lambda b: b.residual(),
}


@settings(max_examples=examples(30), deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=4), st.integers(0, 100))
def test_random_chains(steps, seed):
    builder = Builder(seed)
    for step in steps:
        STEPS[step](builder)
    weights, mean = weights_and_mean(builder.mean().model())
    np.testing.assert_allclose(weights, mean, atol=1e-5 * np.abs(mean).max())


def test_the_whole_gradient_is_not_built_where_an_identity_holds():
    builder = Builder().node("MaxPool", kernel_shape=[3, 3], strides=[3, 3]).flat(3)
    added = [n for n in export_model(builder.model(), layer="map").model.graph.node if n.name.startswith("fastcam.")]
    assert not {"ArgMax", "Col2Im"} & {node.op_type for node in added}


def test_every_identity_is_used_by_a_chain_above(monkeypatch):
    used = set()
    for op_type, rule in list(spatial_mean.RULES.items()):

        def spy(op, node, index, channels, op_type=op_type, rule=rule):
            how = rule(op, node, index, channels)
            used.update([op_type] if how is not None else [])
            return how

        monkeypatch.setitem(spatial_mean.RULES, op_type, spy)
    for chain in CHAINS.values():
        builder = Builder()
        chain(builder)
        export_model(builder.model(), layer="map", check=False)
    never = {
        "Identity",
        "Sum",
        "Reshape",
        "MatMul",
        "ReduceMin",
    }  # registered with Dropout, Add, Flatten, Gemm, ReduceMax
    assert set(spatial_mean.RULES) - used == never
