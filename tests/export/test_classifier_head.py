"""What lies behind the layer as a file of its own: exported, found, refused, and asked by methods, against torch."""

from __future__ import annotations

import io
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError, schema
from fastcam.cli import app
from fastcam_bench.oracles import torch_oracle as oracle  # noqa: F401 - before torchvision: it says what that may go without
from fastcam_export import export_model
from support.models.small_models import classifier, save, weights_of

from torchvision.models import VisionTransformer  # isort: skip

SIDE = 16
MODEL = classifier(size=SIDE)
W = {name: torch.tensor(array, dtype=torch.float32) for name, array in weights_of(MODEL).items()}
X = np.random.default_rng(7).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)


def layer(x):
    conv = torch.nn.functional.conv2d
    return conv(conv(torch.as_tensor(x), W["w1"], padding=1).relu(), W["w2"], padding=1).relu()


def head(a):
    return a.mean((2, 3)) @ W["fc"] + W["bias"]


def close(found, expected, share=1e-4):
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, atol=share * np.abs(expected).max())


def ablated(a, run, terms):
    """(y - y_k) / y for each channel of one image's activations."""
    score = lambda maps: sum(c * run(maps)[0, k] for k, c in terms.items()).item()  # noqa: E731
    whole, found = score(a), []
    for k in range(a.shape[1]):
        without = a.clone()
        without[:, k] = 0
        found.append((whole - score(without)) / whole)
    return np.array(found)


def alone(a, run, c, gaussian):
    """The score where one position is left, less the minimum, [h, w]."""
    h, w = a.shape[2:]
    found = np.zeros((h, w))
    for i, j in np.ndindex(h, w):
        mask = torch.zeros(h, w)
        for u, v in np.ndindex(h, w):
            far = max(abs(u - i), abs(v - j))
            if gaussian and far <= 1:
                mask[u, v] = 0.25 * 0.5 ** (abs(u - i) + abs(v - j))
            elif far == 0:
                mask[u, v] = 1
        found[i, j] = run(a * mask)[0, c].item()
    return found - found.min()


def exported(model, **options):
    """An Explainer of bytes; the export with its head."""
    made = export_model(model, head=True, **options)
    pair = {"explanation": made.explanation.SerializeToString()} if made.explanation is not None else {}
    return Explainer(made.model.SerializeToString(), head=made.head.SerializeToString(), **pair), made


def test_ablationcam_and_reciprocam_by_the_head_alone():
    found, made = exported(MODEL)
    assert made.check["head_difference"] < 1e-6
    terms = [{1: 1.0}, {0: 1.0, 3: -0.5}]
    e = found(X, targets=[1, terms[1]], method="ablationcam")
    for n in range(2):
        a = layer(X[n : n + 1])
        for t in range(2):
            weighed = np.einsum("k,khw->hw", ablated(a, head, terms[t]), a[0].numpy())
            close(e.maps[n, t], np.maximum(weighed, 0))
    for gaussian in (False, True):
        e = found(X, targets=[2], method="reciprocam", options={"gaussian": gaussian})
        for n in range(2):
            close(e.maps[n, 0], alone(layer(X[n : n + 1]), head, 2, gaussian))
    assert np.abs(found(X, targets=2, method="ablationcam").maps - found(X, targets=2).maps).max() > 1e-3


def test_the_head_gives_the_logit_of_a_model_that_ends_with_a_softmax():
    found, _ = exported(classifier(size=SIDE, end="Softmax"))
    close(
        found(X, targets=2, method="ablationcam").maps,
        exported(MODEL)[0](X, targets=2, method="ablationcam").maps,
        1e-5,
    )


@pytest.mark.parametrize("options", [{"on_demand": True}, {"emit": "gradients"}, {"targets": "required"}])
def test_other_exports_have_the_same_head(options):
    found, _ = exported(MODEL, **options)
    expected = exported(MODEL)[0](X, targets=[1, 2], method="ablationcam").maps
    np.testing.assert_array_equal(found(X, targets=[1, 2], method="ablationcam").maps, expected)


def test_a_fixed_batch_runs_as_often_as_it_must():
    for batch in (1, 2):
        found, made = exported(classifier(size=SIDE, batch=batch))
        assert made.head.graph.input[0].type.tensor_type.shape.dim[0].dim_value == batch
        close(
            found(X[:batch], targets=2, method="ablationcam").maps,
            exported(MODEL)[0](X[:batch], targets=2, method="ablationcam").maps,
            1e-5,
        )


# ---- sequences, and other ways to the score


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    net = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=7
    ).eval()
    torch.nn.init.normal_(net.heads.head.weight)
    file = io.BytesIO()
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}}
    torch.onnx.export(net, (torch.zeros(2, 3, 32, 32),), file, dynamo=False, opset_version=17, **names)
    return net.requires_grad_(False), *exported(file.getvalue())


@pytest.mark.parametrize(
    "method,gaussian", [("vit-reciprocam", True), ("vit-reciprocam", False), ("reciprocam", False)]
)
def test_vit_reciprocam_keeps_class_token_and_residual(transformer, method, gaussian):
    """The default layer is the last block's first norm: what it is added to stays the image's own."""
    net, found, made = transformer
    assert made.metadata.head.kept == (schema.TOKENS, f"{schema.KEPT}0")
    x = np.random.default_rng(3).standard_normal((1, 3, 32, 32)).astype(np.float32)
    e = found(x, targets=4, method=method, options={"gaussian": gaussian})
    seen = []
    norm = net.encoder.layers[-1].ln_1
    handle = norm.register_forward_hook(lambda _, __, y: seen.append(y))
    net(torch.tensor(x))
    handle.remove()
    tokens = seen[0] if method == "vit-reciprocam" else seen[0] * torch.tensor([0.0] + [1.0] * 16)[None, :, None]
    grid = seen[0][:, 1:].transpose(1, 2).reshape(1, 16, 4, 4)

    def run(maps):
        changed = torch.cat([tokens[:, :1], maps.flatten(2).transpose(1, 2)], 1)
        handle = norm.register_forward_hook(lambda *_: changed)
        scores = net(torch.tensor(x))
        handle.remove()
        return scores

    close(e.maps[0, 0], alone(grid, run, 4, gaussian), 1e-3)


def residual(batch="N", free=False):
    """image -> conv -> relu -> conv -> relu (the layer) -> + what it started from -> mean -> logits."""
    rng = np.random.default_rng(2)
    made = {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "fc": (4, 5)}
    tensors = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in made.items()
    ]
    tensors += [numpy_helper.from_array(np.array([4]), "four"), numpy_helper.from_array(np.array([-1]), "open")]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Add", ["r1", "r2"], ["sum"]),
        helper.make_node("Shape", ["image"], ["size"], start=0, end=1),  # as exporters write a Flatten
        helper.make_node("Concat", ["size", "four", "open"], ["flat_size"], axis=0),
        helper.make_node("Reshape", ["sum", "flat_size"], ["flat"]),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[2], keepdims=0),
        helper.make_node("MatMul", ["mean", "fc"], ["logits"]),
    ]
    sides = ["H", "W"] if free else [8, 8]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, *sides])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 5])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("batch,free", [("N", False), (1, False), ("N", True)])
def test_a_layer_that_a_shortcut_passes_by_keeps_the_shortcut(batch, free):
    model = residual(batch, free)
    w = {t.name: torch.tensor(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    found, made = exported(model, layer="r2", check=not free)  # of a free size the check runs a large image
    assert made.metadata.head.kept == (f"{schema.KEPT}0",)
    x = torch.tensor(np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32))
    first = torch.nn.functional.conv2d(x, w["w1"], padding=1).relu()
    a = torch.nn.functional.conv2d(first, w["w2"], padding=1).relu()
    weights = ablated(a, lambda maps: (first + maps).mean((2, 3)) @ w["fc"], {3: 1.0})
    e = found(x.numpy(), targets=3, method="ablationcam")
    close(e.maps[0, 0], np.maximum(np.einsum("k,khw->hw", weights, a[0].numpy()), 0))


def test_channels_last_and_sequences_without_tokens():
    """The layer transposed, and flattened to a sequence: the same head but for the layout."""
    expected = exported(MODEL)[0](X, targets=2, method="ablationcam").maps
    for kind in ("NHWC", "tokens"):
        model = onnx.ModelProto()
        model.CopyFrom(MODEL)
        where = next(i for i, node in enumerate(model.graph.node) if node.output[0] == "mean")
        ways = {
            "NHWC": [
                ("Transpose", ["r2"], ["t"], {"perm": [0, 2, 3, 1]}),
                ("ReduceMean", ["t"], ["mean"], {"axes": [1, 2]}),
            ],
            "tokens": [
                ("Reshape", ["r2", "rows"], ["s"], {}),
                ("Transpose", ["s"], ["t"], {"perm": [0, 2, 1]}),
                ("ReduceMean", ["t"], ["mean"], {"axes": [1]}),
            ],
        }
        nodes = [helper.make_node(op, i, o, **a) for op, i, o, a in ways[kind]]
        model.graph.initializer.append(numpy_helper.from_array(np.array([0, 6, -1]), "rows"))
        old = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([*old[:where], *nodes, *old[where + 1 :]])
        model.opset_import[0].version = 17
        found, made = exported(model, layer="t")
        assert made.metadata.layer.layout == kind
        close(found(X, targets=2, method="ablationcam").maps, expected, 1e-5)


# ---- files


def test_the_head_lies_beside_its_model_and_weights_lie_once(tmp_path):
    rng = np.random.default_rng(5)
    model = classifier(size=SIDE)
    wide = rng.standard_normal((6, 4096)).astype(np.float32)
    back = (rng.standard_normal((4096, 5)) / 64).astype(np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(wide, "wide"), numpy_helper.from_array(back, "back")])
    end = model.graph.node.pop()
    model.graph.node.extend(
        [
            helper.make_node("MatMul", [end.input[0], "wide"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("MatMul", ["active", "back"], ["logits"]),
        ]
    )
    save(model, tmp_path / "net.onnx")
    done = CliRunner().invoke(app, ["export", str(tmp_path / "net.onnx"), "--head"])
    assert done.exit_code == 0, done.output
    assert "net.cam.head.onnx" in done.stdout and "the head of the activations gives the model's scores" in done.stdout
    sizes = {path.suffixes[-1]: 0 for path in tmp_path.glob("net.cam.*")}
    for path in tmp_path.glob("net.cam.*"):
        sizes[path.suffixes[-1]] += path.stat().st_size
    assert sizes[".data"] >= wide.nbytes + back.nbytes and sizes[".onnx"] < back.nbytes
    files = Explainer(tmp_path / "net.cam.onnx")
    expected = exported(model)[0](X, targets=1, method="ablationcam").maps
    np.testing.assert_array_equal(files(X, targets=1, method="ablationcam").maps, expected)


def test_a_head_that_does_not_belong_is_refused(tmp_path):
    for name, options in (("a", {}), ("b", {"layer": "r1"})):
        save(MODEL, tmp_path / f"{name}.onnx")
        export_model(tmp_path / f"{name}.onnx", tmp_path / f"{name}.cam.onnx", head=True, **options)
    shutil.copy(tmp_path / "b.cam.head.onnx", tmp_path / "a.cam.head.onnx")
    about = [CliRunner().invoke(app, ["inspect", str(tmp_path / f"b.cam{part}.onnx")]).stdout for part in ("", ".head")]
    assert "head    b.cam.head.onnx" in about[0] and "warning" not in about[0] and "the model is b.cam.onnx" in about[1]
    found = Explainer(tmp_path / "a.cam.onnx")
    assert found(X).maps.any()
    with pytest.raises(FastcamError, match=r"a.cam.head.onnx is not the head of .*a.cam.onnx; export again"):
        found(X, method="ablationcam")
    (tmp_path / "a.cam.head.onnx").unlink()
    with pytest.raises(FastcamError, match=r"a.cam.head.onnx is not beside it"):
        found(X, method="ablationcam")
    with pytest.raises(FastcamError, match="is not the head of"):
        Explainer(tmp_path / "a.cam.onnx", head=tmp_path / "a.cam.onnx")(X, method="reciprocam")
    with pytest.raises(FastcamError, match="give it as head"):
        Explainer((tmp_path / "a.cam.onnx").read_bytes())(X, method="ablationcam")
    with pytest.raises(FastcamError, match="leave head out, or export with --head"):
        Explainer(export_model(MODEL, check=False).model.SerializeToString(), head=b"")
    with pytest.raises(FastcamError, match=r"b.cam.head.onnx is the head of an export; give the model, b.cam.onnx"):
        Explainer(tmp_path / "b.cam.head.onnx")


def test_at_another_layer_the_head_is_refused():
    """Activations of another layer may have the very shape that the head takes."""
    found, _ = exported(MODEL, layer=["r2", "c2"])
    at_default = found(X, targets=2, method="ablationcam").maps
    np.testing.assert_array_equal(at_default, exported(MODEL)[0](X, targets=2, method="ablationcam").maps)
    for call in (lambda: found.at("c2")(X, method="ablationcam"), lambda: found(X, method="reciprocam", layers="all")):
        with pytest.raises(FastcamError, match="has the head of its default layer r2 alone"):
            call()
    assert found.at("c2")(X, targets=2, method="scorecam").maps.any()
    excitation = export_model(MODEL, layer=["r2", "r1"], input_gradient="excitation", check=False)
    with pytest.raises(FastcamError, match="brings excitation back to its default layer r2 alone"):
        Explainer(excitation.model.SerializeToString())(X, method="excitation", layers="all")


@pytest.mark.parametrize(
    "options,message", [({"emit": "cam"}, "--emit cam leaves out"), ({"targets": "cotangent"}, "--head")]
)
def test_exports_without_a_head_are_refused(tmp_path, options, message):
    with pytest.raises(FastcamError, match=message):
        export_model(MODEL, tmp_path / "m.onnx", head=True, **options)
    assert not list(tmp_path.iterdir())


def test_a_wrong_head_fails_the_check(monkeypatch):
    """The check compares scores: one that answers with others is refused."""
    from fastcam_export.artifacts import classifier_head

    right = classifier_head.per_class
    monkeypatch.setattr(classifier_head, "per_class", lambda op, score: op.Mul(right(op, score), 1.01))
    with pytest.raises(FastcamError, match=r"scores of the head differ from the model's by 1\.0e-02"):
        export_model(MODEL, head=True)


@pytest.mark.parametrize("front,behind", [(1, 0), (0, 2), (2, 1)])
def test_tokens_on_both_sides_stay(front, behind):
    """image -> 4 x 4 patches as tokens between learned ones -> tanh of a matrix -> mean of all tokens -> logits."""
    rng = np.random.default_rng(4)
    sizes = {"conv": (6, 3, 4, 4), "mix": (6, 6), "fc": (6, 5), "cls": (1, front, 6), "reg": (1, behind, 6)}
    arrays = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    ints = {"rows": [0, 6, -1], "first": [0], "one": [1], "rest": [1, 1]}
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items() if array.size]
    tensors += [numpy_helper.from_array(np.array(value), name) for name, value in ints.items()]
    make, nodes = helper.make_node, []
    nodes += [make("Conv", ["image", "conv"], ["c"], strides=[4, 4]), make("Reshape", ["c", "rows"], ["s"])]
    nodes += [make("Transpose", ["s"], ["p"], perm=[0, 2, 1]), make("Shape", ["image"], ["n"], start=0, end=1)]
    nodes += [make("Concat", ["n", "rest"], ["times"], axis=0)]
    parts = []
    for name, count in (("cls", front), ("positions", 1), ("reg", behind)):
        if name == "positions":
            parts.append("p")
        elif count:
            nodes.append(make("Tile", [name, "times"], [f"{name}s"]))
            parts.append(f"{name}s")
    nodes += [make("Concat", parts, ["t"], axis=1), make("MatMul", ["t", "mix"], ["m"]), make("Tanh", ["m"], ["h"])]
    nodes += [make("ReduceMean", ["h"], ["mean"], axes=[1], keepdims=0), make("MatMul", ["mean", "fc"], ["logits"])]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(nodes, "net", [image], [logits], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    found, made = exported(model, layer="t")
    assert made.metadata.head.kept == (schema.TOKENS,) and made.metadata.layer.prefix_tokens == front
    w = {name: torch.tensor(array) for name, array in arrays.items()}
    maps = torch.nn.functional.conv2d(torch.tensor(X[:1]), w["conv"], stride=4)

    def run(a):
        tokens = torch.cat([w["cls"], a.flatten(2).transpose(1, 2), w["reg"]], 1)
        return torch.tanh(tokens @ w["mix"]).mean(1) @ w["fc"]

    e = found(X[:1], targets=3, method="ablationcam")
    close(e.maps[0, 0], np.maximum(np.einsum("k,khw->hw", ablated(maps, run, {3: 1.0}), maps[0].numpy()), 0))
    close(found(X[:1], targets=3, method="vit-reciprocam").maps[0, 0], alone(maps, run, 3, gaussian=True))
