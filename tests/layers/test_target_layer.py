"""Target layers that are no plain maps: channels last, token sequences, windows, videos; autograd is the oracle.

Every gradient is compared with autograd at the tensor that the exported file says it explains.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from fastcam.schema import FastcamError
from fastcam_bench.oracles import kinks
from fastcam_export import export_model, inspect_model
from fastcam_export.verify.session import quiet_session
from support.models.many_outputs import network, node, value

torch = pytest.importorskip("torch")
torch_oracle = pytest.importorskip("fastcam_bench.oracles.torch_oracle")
models = torch_oracle.torchvision.models
nn = torch.nn


def seeded(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        fan = parameter.shape[-1] if parameter.dim() == 2 else 10
        parameter.data.normal_(0, fan**-0.5) if parameter.dim() > 1 else parameter.data.add_(0.1)
    return module.eval()


class Block(nn.Module):
    """A transformer block, norms first."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        weights = torch.softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5, dim=-1)
        x = x + self.proj(weights @ v)
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A vision transformer: ``prefix`` tokens in front, ``suffix`` behind; the first is read, or the mean."""

    def __init__(self, prefix=1, suffix=0, mean=False, width=12):
        super().__init__()
        self.embed, self.mean, self.prefix, self.suffix = nn.Conv2d(3, width, 4, 4), mean, prefix, suffix
        self.tokens = nn.Parameter(torch.zeros(1, prefix + suffix, width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, image):
        x = self.embed(image).flatten(2).transpose(1, 2)
        tokens = self.tokens.expand(x.shape[0], -1, -1)
        if self.prefix or self.suffix:
            x = torch.cat([tokens[:, : self.prefix], x, tokens[:, self.prefix :]], dim=1)
        x = self.norm(self.blocks(x))
        if self.mean:
            return self.head(x[:, self.prefix :].mean(1))
        return self.head(x[:, : self.prefix].mean(1) if self.prefix > 1 else x[:, 0])


def convnext():
    settings = torch_oracle.torchvision.models.convnext.CNBlockConfig
    return models.ConvNeXt([settings(8, 16, 1), settings(16, None, 1)], num_classes=5)


def swin(block, merging):
    return models.SwinTransformer(
        [4, 4], 8, [1, 2], [1, 2], [2, 2], num_classes=5, block=block, downsample_layer=merging
    )


CASES = {
    "ViT": (lambda: Transformer(), (8, 8), "tokens", 1, (2, 2), "blocks.1.norm1"),
    "ViT, oblong": (lambda: Transformer(), (8, 16), "tokens", 1, (2, 4), "blocks.1.norm1"),
    "distilled": (lambda: Transformer(2), (8, 8), "tokens", 2, (2, 2), "blocks.1.norm1"),
    "tokens behind": (lambda: Transformer(1, 3), (8, 12), "tokens", 1, (2, 3), "blocks.1.norm1"),
    "mean": (lambda: Transformer(0, 0, True), (8, 8), "tokens", 0, (2, 2), "norm"),
    "mean beside a class token": (lambda: Transformer(1, 0, True), (8, 8), "tokens", 1, (2, 2), "norm"),
    "torchvision ViT": (
        lambda: models.VisionTransformer(16, 4, 2, 2, 12, 24, num_classes=5),
        (16, 16),
        "tokens",
        1,
        (4, 4),
        "encoder.layers.encoder_layer_1.ln_1",
    ),
    "Swin v2": (
        lambda: swin(models.swin_transformer.SwinTransformerBlockV2, models.swin_transformer.PatchMergingV2),
        (32, 32),
        "NHWC",
        0,
        None,
        "norm",
    ),
    "ConvNeXt": (convnext, (32, 32), "NCHW", 0, None, "features.3.0"),
    "MaxViT": (
        lambda: models.maxvit.MaxVit((32, 32), 8, 2, [8], [1], 4, 0.0, num_classes=5),
        (32, 32),
        "NCHW",
        0,
        None,
        "blocks.0.layers.0.layers.grid_attention.departition_op",
    ),
}


def exported_with_value(source, **options):
    """The exported file with the layer's own value as one more output, and its metadata."""
    made = export_model(source, **options)
    names = {value.name for value in made.model.graph.output}
    if made.metadata.layer.value not in names:
        made.model.graph.output.append(
            helper.make_tensor_value_info(made.metadata.layer.value, TensorProto.FLOAT, None)
        )
    return made


def run(made, images, targets=((-1, 2),)):
    session = quiet_session(made.model)
    feeds = {made.metadata.input: images, "fastcam.targets": np.array(targets)}
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds)))


class Recorder(torch.overrides.TorchFunctionMode):
    """Keeps every tensor that a forward pass computes."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def __torch_function__(self, function, kinds, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.requires_grad:
            self.kept.append(result)
        return result


def autograd(module, images, raw, classes):
    """Autograd's gradients [T] of the classes' scores at the tensor that equals ``raw``, in its own layout."""
    with kinks.away(), Recorder() as recorder:
        scores = module(torch.from_numpy(images).requires_grad_())
    if scores.dim() == 4:
        scores = scores.sum((2, 3))
    want = torch.from_numpy(raw)
    near = (
        t for t in recorder.kept if t.shape == want.shape and torch.allclose(t.detach(), want, rtol=1e-4, atol=1e-5)
    )
    same = next(near)
    columns = (scores.gather(1, torch.from_numpy(classes[:, t : t + 1])).sum() for t in range(classes.shape[1]))
    return [torch.autograd.grad(column, same, retain_graph=True)[0].numpy() for column in columns]


def as_maps(array, layer):
    """[N, K, h, w] of a value in the layer's layout."""
    if layer.layout == "tokens":
        h, w = layer.grid
        part = array[:, layer.prefix_tokens : layer.prefix_tokens + h * w]
        return part.reshape(len(array), h, w, -1).transpose(0, 3, 1, 2)
    return array.transpose(0, 3, 1, 2) if layer.layout == "NHWC" else array


@pytest.mark.parametrize("name", CASES)
def test_the_default_layer_and_its_gradient_are_pytorchs(name):
    build, size, layout, prefix, grid, scope = CASES[name]
    module = seeded(build())
    source = to_onnx(module, size)
    made = exported_with_value(source, emit="gradients")
    layer = made.metadata.layer
    assert (layer.layout, layer.prefix_tokens, layer.grid, layer.scope) == (layout, prefix, grid, scope)
    assert layout in layer.reason or layout == "NCHW"
    images = np.random.default_rng(1).standard_normal((2, 3, *size)).astype(np.float32)
    out = run(made, images)
    raw = out[layer.value]
    np.testing.assert_array_equal(out["fastcam.activations"], as_maps(raw, layer))
    expected = np.stack([as_maps(g, layer) for g in autograd(module, images, raw, out["fastcam.classes"])], axis=1)
    assert np.abs(expected).max() > 0
    close = {"rtol": 1e-3, "atol": 2e-5 * np.abs(expected).max()}
    np.testing.assert_allclose(out["fastcam.gradients"], expected, **close)
    weights = run(exported_with_value(source), images)
    np.testing.assert_allclose(weights["fastcam.weights"], expected.mean((3, 4)), **close)
    cam = run(exported_with_value(source, emit="cam"), images)["fastcam.cam"]
    wanted = np.maximum(np.einsum("ntk,nkhw->nthw", expected.mean((3, 4)), as_maps(raw, layer)), 0)
    np.testing.assert_allclose(cam, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def to_onnx(module, size):
    shapes = ({0: torch.export.Dim("N", min=1)},)
    program = torch.onnx.export(module, (torch.zeros(2, 3, *size),), dynamo=True, dynamic_shapes=shapes, verbose=False)
    return program.model_proto


@pytest.fixture(scope="module")
def transformer():
    return to_onnx(seeded(Transformer()), (8, 8))


def test_where_the_tokens_come_from_is_said(transformer):
    found = inspect_model(transformer)
    assert "1 prefix token (added by Concat" in found.reason
    assert "2 x 2 positions from Conv" in found.reason
    assert "its positions do not reach the score" in found.reason
    notes = {layer.scope: layer.note for layer in found.layers}
    assert notes["norm"] == "its positions do not reach the score"
    assert {layer.layout for layer in found.layers} == {"NCHW", "NCL", "tokens"}


@pytest.mark.parametrize("layer", ["norm", "blocks.1.norm2", "blocks.1.mlp"])
def test_a_layer_whose_positions_are_not_read_is_refused(transformer, layer):
    """After the last attention only the class token matters: a map of exact zeros, see pytorch-grad-cam's issue 513."""
    works = next(each.name for each in inspect_model(transformer).layers if each.chosen)
    with pytest.raises(FastcamError, match=f"does not depend on the image positions.*works is '{works}'") as error:
        export_model(transformer, layer=layer)
    assert "\n" not in str(error.value)


def test_the_check_finds_unread_positions_that_the_graph_does_not_show(transformer, monkeypatch):
    from fastcam_export.layers import target_layer

    monkeypatch.setattr(target_layer.Maps, "live", lambda maps, value: True)
    with pytest.raises(FastcamError, match="does not depend on the image positions"):
        export_model(transformer, layer="norm")


def test_a_layer_in_the_middle_by_name(transformer):
    layer = export_model(transformer, layer="blocks.0.mlp").metadata.layer
    assert (layer.layout, layer.prefix_tokens, layer.grid) == ("tokens", 1, (2, 2))


def test_what_is_given_replaces_what_the_graph_tells(transformer):
    given = export_model(transformer, prefix_tokens=1, grid=(4, 1)).metadata.layer
    assert (given.prefix_tokens, given.grid) == (1, (4, 1))
    images = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    square = run(export_model(transformer), images)
    tall = run(export_model(transformer, layout="tokens", prefix_tokens=1, grid=(4, 1)), images)
    assert tall["fastcam.activations"].shape == (2, 12, 4, 1)
    np.testing.assert_array_equal(tall["fastcam.activations"][..., 0], square["fastcam.activations"].reshape(2, 12, 4))
    np.testing.assert_allclose(tall["fastcam.weights"], square["fastcam.weights"], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grid": (3, 2)}, "make 7 tokens, but layer .* has 5"),
        ({"prefix_tokens": 2}, "make 6 tokens"),
        ({"prefix_tokens": -1}, "negative"),
        ({"layout": "NHWC"}, "does not fit"),
        ({"layout": "NLC"}, "must be one of"),
    ],
)
def test_what_is_given_and_does_not_fit_is_one_line(transformer, options, words):
    with pytest.raises(FastcamError, match=words) as error:
        export_model(transformer, **options)
    assert "\n" not in str(error.value)


def test_free_rows_and_columns_of_a_sequence():
    """As PVT: tokens between convolutions, of any size."""

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm, self.head = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6, 5)

        def forward(self, image):
            return self.head(torch.tanh(self.norm(self.embed(image).flatten(2).transpose(1, 2))).mean(1))

    module = seeded(Pyramid())
    free = {0: torch.export.Dim("N", min=1), 2: 4 * torch.export.Dim("h", min=2), 3: 4 * torch.export.Dim("w", min=2)}
    source = torch.onnx.export(
        module, (torch.zeros(2, 3, 12, 16),), dynamo=True, dynamic_shapes=(free,), verbose=False
    ).model_proto
    made = exported_with_value(source, emit="gradients", layer="norm")
    assert (made.metadata.layer.layout, made.metadata.layer.grid) == ("tokens", None)
    images = np.random.default_rng(1).standard_normal((3, 3, 8, 20)).astype(np.float32)
    out = run(made, images)
    assert out["fastcam.gradients"].shape == (3, 2, 6, 2, 5)
    raw = out[made.metadata.layer.value]
    maps = raw.reshape(3, 2, 5, 6).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(out["fastcam.activations"], maps)
    expected = [g.reshape(3, 2, 5, 6) for g in autograd(module, images, raw, out["fastcam.classes"])]
    want = np.stack(expected, 1).transpose(0, 1, 4, 2, 3)
    np.testing.assert_allclose(out["fastcam.gradients"], want, rtol=1e-4, atol=1e-6 * np.abs(want).max())


def test_a_segmenter_is_explained_by_the_sum_over_its_positions():
    module = seeded(nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, 5, 3, padding=1)))
    source = to_onnx(module, (8, 8))
    assert export_model(source, check=False).metadata.cotangents[0].answer == "region"  # unless its output is named
    name = source.graph.output[0].name
    made = exported_with_value(source, emit="gradients", output_name=name)
    images = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    out = run(made, images)
    order = out[name].sum((2, 3)).argmax(1)
    assert out["fastcam.classes"].tolist() == [[order[0], 2], [order[1], 2]]
    expected = np.stack(autograd(module, images, out[made.metadata.layer.value], out["fastcam.classes"]), axis=1)
    np.testing.assert_allclose(out["fastcam.gradients"], expected, rtol=1e-4, atol=1e-6)


def test_a_video_model_gives_maps_per_frame():
    class Video(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv3d(3, 6, 3, padding=1), nn.Linear(6, 5)

        def forward(self, clip):
            return self.head(torch.tanh(self.conv(clip)).mean((2, 3, 4)))

    module = seeded(Video())
    made = exported_with_value(to_onnx(module, (4, 8, 8)), emit="gradients")
    assert made.metadata.layer.layout == "NCTHW"
    clips = np.random.default_rng(1).standard_normal((2, 3, 4, 8, 8)).astype(np.float32)
    out = run(made, clips)
    expected = np.stack(autograd(module, clips, out[made.metadata.layer.value], out["fastcam.classes"]), axis=1)
    np.testing.assert_allclose(out["fastcam.gradients"], expected, rtol=1e-4, atol=1e-8)


def test_a_detectors_layers_are_shown_and_its_boxes_are_no_score():
    class Boxes(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1)

        def forward(self, image):
            return self.head(torch.relu(self.body(image))).flatten(2).transpose(1, 2)[0]

    source = to_onnx_fixed(seeded(Boxes()), (8, 8))
    name = source.graph.output[0].name
    assert [layer.op_type for layer in inspect_model(source, output_name=name).layers][:2] == ["Conv", "Relu"]


def to_onnx_fixed(module, size):
    return torch.onnx.export(module, (torch.zeros(1, 3, *size),), dynamo=True, verbose=False).model_proto


@pytest.mark.parametrize("part", [0, 1])
def test_of_a_split_the_part_that_the_score_is_made_of_is_a_layer(part):
    parts = [node("Split", "feat sizes", "a b", axis=1), node("GlobalAveragePool", "ab"[part], "p")]
    ends = [node("Flatten", "p", "f"), node("MatMul", "f k", "y")]
    sizes = np.array([2, 4])
    outputs, k = [value("y", ["N", 3])], np.ones((sizes[part], 3), np.float32)
    made = network([*parts, *ends], outputs, sizes=sizes, k=k)
    names = [layer.name for layer in inspect_model(made).layers]
    assert "ab"[part] in names and "ba"[part] not in names
    assert export_model(made).check["gradient_error"] < 1e-4
