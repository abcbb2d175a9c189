"""From a PyTorch module in one call; autograd at that module's output, caught by a hook, is the oracle."""

from __future__ import annotations

import builtins

import numpy as np
import onnx
import pytest

from fastcam.schema import METADATA_KEY, FastcamError, Metadata
from fastcam_bench.oracles import kinks
from fastcam_export import from_torch
from fastcam_export.verify.session import quiet_session

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
nn = torch.nn


class Net(nn.Module):
    """Two convolutions with one activation module between them that is called twice, and works in place."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act, self.spare = nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)
        self.pair = Pair()
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.act(self.first(x))
        x, _ = self.pair(self.norm(self.second(x)))
        return self.head(self.act(x).mean((2, 3)))


class Pair(nn.Module):
    def forward(self, x):
        return x * 1.5, x.shape[0]


class Attention(nn.Module):
    """One block of a vision transformer with torch's own attention."""

    def __init__(self):
        super().__init__()
        self.embed, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.ones(1, 1, 8))
        self.norm1, self.attend = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        y = self.norm1(x)
        return self.head((x + self.attend(y, y, y, need_weights=False)[0])[:, 0])


def seeded(kind):
    torch.manual_seed(0)
    return kind().eval()


def images(n=2, size=8):
    return np.random.default_rng(3).standard_normal((n, 3, size, size)).astype(np.float32)


def run(model, pictures):
    session = quiet_session(model)
    feeds = {session.get_inputs()[0].name: pictures, "fastcam.targets": np.array([[-1, 2]])}
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds)))


def at_output(module, part, pictures, classes):
    """(value, gradients [N, T, ...]) of what ``part`` returned last; the value is copied before others overwrite it."""
    kept = []

    def keep(_, __, result):
        first = result[0] if isinstance(result, tuple) else result
        kept.append(first)
        copy = first * 1.0
        return (copy, *result[1:]) if isinstance(result, tuple) else copy

    handle = part.register_forward_hook(keep)
    with kinks.away():
        scores = module(torch.from_numpy(pictures))
    handle.remove()
    columns = [scores.gather(1, torch.from_numpy(classes[:, t : t + 1])).sum() for t in range(classes.shape[1])]
    gradients = [torch.autograd.grad(column, kept[-1], retain_graph=True)[0].numpy() for column in columns]
    return kept[-1].detach().numpy(), np.stack(gradients, axis=1)


@pytest.mark.parametrize("name", ["first", "second", "norm", "act", "pair"])
@pytest.mark.parametrize("as_module", [True, False], ids=["module", "path"])
def test_the_gradient_is_autograds_at_the_modules_output(name, as_module):
    module = seeded(Net)
    part = module.get_submodule(name)
    made = from_torch(module, torch.zeros(1, 3, 8, 8), layer=part if as_module else name, emit="gradients")
    out = run(made.model, images())
    value, gradients = at_output(module, part, images(), out["fastcam.classes"])
    np.testing.assert_allclose(out["fastcam.activations"], value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["fastcam.gradients"], gradients, rtol=1e-4, atol=1e-7)
    assert f"the output of module {name!r}" in made.metadata.layer.reason
    assert ("last of its 2 calls" in made.metadata.layer.reason) == (name == "act")
    expected = module(torch.from_numpy(images())).detach().numpy()
    np.testing.assert_allclose(next(iter(out.values())), expected, rtol=1e-4, atol=1e-5)


def test_several_modules_in_one_file():
    module = seeded(Net)
    made = from_torch(module, torch.zeros(1, 3, 8, 8), layer=[module.second, "first"], emit="gradients")
    assert [one.reason for one in made.metadata.layers] == [f"the output of module {n!r}" for n in ("first", "second")]
    assert made.metadata.layer == made.metadata.layers[1]
    out = run(made.model, images())
    for part, number in ((module.second, ""), (module.first, ".1")):
        value, gradients = at_output(module, part, images(), out["fastcam.classes"])
        np.testing.assert_allclose(out["fastcam.activations" + number], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(out["fastcam.gradients" + number], gradients, rtol=1e-4, atol=1e-7)


def test_a_transformers_norm():
    module = seeded(Attention)
    made = from_torch(module, torch.zeros(2, 3, 8, 8), layer=module.norm1, emit="gradients")
    assert (made.metadata.layer.layout, made.metadata.layer.prefix_tokens) == ("tokens", 1)
    out = run(made.model, images())
    value, gradients = at_output(module, module.norm1, images(), out["fastcam.classes"])
    maps = value[:, 1:].reshape(2, 2, 2, 8).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(out["fastcam.activations"], maps, rtol=1e-4, atol=1e-5)
    wanted = gradients[:, :, 1:].reshape(2, 2, 2, 2, 8).transpose(0, 1, 4, 2, 3)
    np.testing.assert_allclose(out["fastcam.gradients"], wanted, rtol=1e-3, atol=1e-6)


def test_the_default_layer_and_the_file(tmp_path):
    path = tmp_path / "net.cam.onnx"
    made = from_torch(seeded(Net), torch.zeros(2, 3, 8, 8), output=path, preprocess="imagenet")
    assert made.output == path and made.metadata.layer.op_type == "Relu"
    named = from_torch(seeded(Net), torch.zeros(2, 3, 8, 8), "pair", path)
    written = onnx.load(path)
    told = [entry.value for entry in written.metadata_props if entry.key == METADATA_KEY]
    assert [Metadata.from_json(text) for text in told] == [named.metadata]
    assert "the output of module 'pair'" in named.metadata.layer.reason
    assert [value.name for value in written.graph.output][1:] == [
        "fastcam.classes",
        "fastcam.activations",
        "fastcam.weights",
    ]


def test_a_tensors_name_means_that_value():
    plain = from_torch(seeded(Net), torch.zeros(2, 3, 8, 8))
    name = plain.metadata.layer.value
    assert from_torch(seeded(Net), torch.zeros(2, 3, 8, 8), layer=name).metadata.layer.value == name


def test_the_batch_is_free_or_fixed():
    free = from_torch(seeded(Net), torch.zeros(1, 3, 8, 8), layer="norm")
    assert run(free.model, images(5))["fastcam.weights"].shape == (5, 2, 8)
    fixed = from_torch(seeded(Net), torch.zeros(3, 3, 8, 8), layer="norm", dynamic_batch=False)
    assert fixed.metadata.input_shape == (3, 3, 8, 8)


def test_the_module_is_left_as_it_was():
    module = seeded(Net)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    from_torch(module, torch.zeros(2, 3, 8, 8), layer=module.norm)
    assert "forward" not in module.__dict__ and not module.norm._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("no way through\nhere")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: from_torch(seeded(Net), torch.zeros(2, 3, 8, 8), layer=nn.ReLU()), "a ReLU, is no part of the module"),
        (lambda: from_torch(seeded(Net), torch.zeros(2, 3, 8, 8), layer="spare"), "'spare' is not called"),
        (lambda: from_torch(seeded(Net).train(), torch.zeros(2, 3, 8, 8)), "call module.eval"),
        (lambda: from_torch(seeded(Net), torch.zeros(2, 3, 8, 8), layer="firs"), "nearest is 'first'"),
        (lambda: from_torch(seeded(Broken), torch.zeros(2, 3, 8, 8)), "cannot export the module .*no way through here"),
        (lambda: from_torch(seeded(Net), "images"), "give a tensor, or a list of them"),
        (lambda: from_torch(seeded(Net), torch.zeros(2, 3, 8, 8), layer="head"), "cannot be reached"),
    ],
)
def test_what_cannot_be_done_is_one_line(call, words):
    with pytest.raises(FastcamError, match=words) as error:
        call()
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_part_in_training_mode_is_named():
    module = seeded(Net)
    module.norm.train()
    with pytest.raises(FastcamError, match="'norm' is in training mode"):
        from_torch(module, torch.zeros(2, 3, 8, 8))


def test_without_torch_it_says_what_to_install(monkeypatch):
    module = seeded(Net)
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "onnxscript":
            raise ImportError("No module named 'onnxscript'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(FastcamError, match="pip install torch onnxscript"):
        from_torch(module, torch.zeros(2, 3, 8, 8))
