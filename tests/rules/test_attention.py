"""Attention operators of ONNX Runtime: their gradients against differences of its own kernels and against PyTorch."""

import numpy as np
import pytest

from fastcam_export import UnsupportedOperator, vjp
from support.rules.attention import CASES, GROUPED, GROUPS, ONE_MORE, TWO, WHOLE, ids
from support.rules.fused import equal_differences, fused
from support.rules.runs import run

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join([case[0], *case[1], *case[2], *map(str, case[3:])]))
def test_gradient_equals_differences_of_the_runtimes_kernel(case):
    equal_differences(fused(*case))


def torchs(x, w, b, bias=None, causal=False):
    """PyTorch's attention of two heads, and of what it is made."""
    parts = (x @ w + b).reshape(*x.shape[:2], 3, 2, -1).permute(2, 0, 3, 1, 4)
    y = torch.nn.functional.scaled_dot_product_attention(*parts, attn_mask=bias, is_causal=causal)
    return y.permute(0, 2, 1, 3).reshape(*x.shape[:2], -1)


@pytest.mark.parametrize("how", ["plain", "causal", "added", "keys"])
def test_attention_equals_pytorchs(how):
    torch.manual_seed(0)
    keys = ids([1, 1, 0, 1], [0, 1, 1, 1])
    more = {"added": {"m": None, "past": None, "a": (2, 2, 4, 4)}, "keys": {"m": keys}}.get(how, {})
    model = fused("Attention", {**WHOLE, **more}, {**TWO, "unidirectional": int(how == "causal")})
    names = [value.name for value in model.graph.input]
    values = {n: torch.randn({**WHOLE, **more}[n], dtype=torch.float64, requires_grad=True) for n in names}
    bias = values.get("a")
    bias = torch.tensor(keys[:, None, None] != 0) if how == "keys" else bias
    y = torchs(*(values[name] for name in "xwb"), bias, how == "causal")
    seed = torch.randn_like(y)
    expected = torch.autograd.grad(y, list(values.values()), seed)
    feeds = {name: value.detach().numpy().astype(np.float32) for name, value in values.items()}
    made = run(vjp(model), {**feeds, "cotangent.out": seed.numpy().astype(np.float32)})
    np.testing.assert_allclose(made["out"], y.detach().numpy(), atol=1e-5)
    for name, gradient in zip(values, expected):
        np.testing.assert_allclose(made[f"grad.{name}"], gradient.numpy(), atol=2e-5)


@pytest.mark.parametrize(
    ("inputs", "attributes", "why"),
    [
        ({**GROUPED, "last": ids(4, 3)}, GROUPS, "different numbers"),
        ({**ONE_MORE, "old_k": (2, 2, 7, 16), "old_v": (2, 2, 7, 16)}, GROUPS, "has room for more"),
    ],
)
def test_a_form_that_is_not_known_is_refused_and_named(inputs, attributes, why):
    with pytest.raises(UnsupportedOperator, match=f"GroupQueryAttention.*{why}"):
        vjp(fused("GroupQueryAttention", inputs, attributes, 3))
