"""Layers that are outputs, maps of one position, embeddings, transposed scores, clips: closed forms and autograd."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastcam
from fastcam_export import export_model, inspect_model
from fastcam_export.verify.session import quiet_session
from support.models.small_models import classifier, weights_of

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
nn = torch.nn
F = nn.functional
NODE, VALUE = helper.make_node, helper.make_tensor_value_info
IMAGES = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)


def run(model, **feeds):
    session = quiet_session(model)
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds)))


def model_of(nodes, tensors, outputs, image=("N", 3, 8, 8), opset=18):
    """image -> convolution -> ReLU "feat" [N, 4, 8, 8] -> ``nodes``."""
    constants = {"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32) / 2, **tensors}
    body = [NODE("Conv", ["image", "w"], ["c"], pads=[1] * 4), NODE("Relu", ["c"], ["feat"])]
    graph = helper.make_graph(
        [*body, *nodes],
        "small",
        [VALUE("image", TensorProto.FLOAT, list(image))],
        [VALUE(name, TensorProto.FLOAT, dims) for name, dims in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def random(*shape, seed=3):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- a layer that is an output of the model

FORMS = {
    "plain": {},
    "gradients": {"emit": "gradients"},
    "two files": {"on_demand": True},
    "with its head": {"head": True},
    "named": {"layer": "r2"},
    "several": {"layer": ["r2", "r1"]},
    "required": {"targets": "required"},
}


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("form", FORMS)
def test_a_layer_may_be_an_output(form, first, tmp_path):
    """The weights are the row of fc over the number of positions; the model's own outputs stay in their order."""
    model = classifier()
    model.graph.output.insert(0 if first else 1, VALUE("r2", TensorProto.FLOAT, ["N", 6, 8, 8]))
    names = [value.name for value in model.graph.output]
    how = {"output_name": "logits"} | FORMS[form]
    export_model(model, tmp_path / "x.cam.onnx", **how)
    found = fastcam.Explainer(tmp_path / "x.cam.onnx", "cpu")(IMAGES, targets=[1])
    feat = run(model, image=IMAGES)["r2"]
    expected = np.maximum(np.einsum("nkhw,k->nhw", feat, weights_of(model)["fc"][:, 1] / 64), 0)
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-4, atol=1e-6)
    session = quiet_session(tmp_path / "x.cam.onnx")
    assert [value.name for value in session.get_outputs()][:2] == names


def test_cotangents_of_a_model_whose_layer_is_an_output():
    model = classifier()
    model.graph.output.append(VALUE("r2", TensorProto.FLOAT, ["N", 6, 8, 8]))
    exported = export_model(model, targets="cotangent", output_name="logits")
    assert exported.metadata.layer.value == "r2" and exported.check["gradient_error"] < 1e-5


# ---- what is not taken

DEPTH = {
    "w2": random(1, 4, 3, 3),
    "sc": np.array([1, 1, 2, 2], np.float32),
    "one": np.array([1]),
    "gain": np.float32(3),
}


def test_the_output_in_another_form_is_no_layer():
    """A depth map [N, h, w]: its map before it is enlarged, scaled and cut out is the output itself."""
    nodes = [
        NODE("Conv", ["feat", "w2"], ["d"], pads=[1] * 4),
        NODE("Resize", ["d", "", "sc"], ["u"], mode="linear"),
        NODE("Mul", ["u", "gain"], ["g"]),
        NODE("Squeeze", ["g", "one"], ["y"]),
    ]
    exported = export_model(model_of(nodes, DEPTH, [("y", ["N", 16, 16])]), targets="cotangent", layer="auto")
    assert exported.metadata.layer.value == "feat"


@pytest.mark.parametrize("end", ["Identity", "Softmax", "LogSoftmax"])
def test_a_captioners_vocabulary_is_no_layer(end):
    nodes = [
        NODE("Reshape", ["feat", "rows"], ["a"]),
        NODE("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
        NODE("MatMul", ["b", "v"], ["l"]),
        NODE(end, ["l"], ["y"]),
    ]
    tensors = {"rows": np.array([0, 32, 8]), "v": random(32, 11)}
    exported = export_model(model_of(nodes, tensors, [("y", ["N", 8, 11])]), targets="cotangent")
    assert exported.metadata.layer.value == "feat"


def test_a_last_map_of_as_many_channels_as_the_embedding_has_numbers_is_taken():
    nodes = [
        NODE("Conv", ["feat", "w2"], ["g"], pads=[1] * 4),
        NODE("Relu", ["g"], ["last"]),
        NODE("GlobalAveragePool", ["last"], ["p"]),
        NODE("Flatten", ["p"], ["f"]),
        NODE("MatMul", ["f", "e"], ["y"]),
    ]
    model = model_of(nodes, {"w2": random(5, 4, 3, 3), "e": random(5, 5)}, [("y", ["N", 5])])
    assert export_model(model, output_name="y").metadata.layer.value == "last"
    classes = model_of([*nodes[:-2], NODE("Flatten", ["p"], ["y"])], {"w2": random(5, 4, 3, 3)}, [("y", ["N", 5])])
    assert export_model(classes, output_name="y").metadata.layer.value == "feat"  # here they are classes


COMPUTED = [
    NODE("Shape", ["image"], ["s0"], start=2, end=4),
    NODE("Cast", ["s0"], ["s1"], to=1),
    NODE("Div", ["s1", "two"], ["s2"]),
    NODE("Sub", ["s2", "four"], ["s3"]),
    NODE("Cast", ["s3"], ["more"], to=7),
    NODE("Concat", ["none", "more", "none", "more"], ["pads"], axis=0),
    NODE("Pad", ["feat", "pads"], ["map"]),
]
"""Pads that only a run tells, here zero, so that the file does not say the sizes behind."""
CONSTANTS = {"two": np.float32(2), "four": np.float32(4), "none": np.array([0, 0])}


@pytest.mark.parametrize("height", [8, "H"], ids=["fixed", "free"])
def test_a_map_that_turns_out_to_have_one_position_is_passed_over(height):
    """A convolution as large as the map, as MATLAB writes a fully connected layer."""
    nodes = [
        *COMPUTED,
        NODE("Relu", ["map"], ["before"]),
        NODE("Conv", ["before", "k"], ["fc"]),
        NODE("Relu", ["fc"], ["r"]),
        NODE("Flatten", ["r"], ["f"]),
        NODE("MatMul", ["f", "e"], ["y"]),
    ]
    tensors = CONSTANTS | {"k": random(6, 4, 8, 8), "e": random(6, 5)}
    model = model_of(nodes, tensors, [("y", ["N", 5])], ("N", 3, height, 8))
    exported = export_model(model)
    assert exported.metadata.layer.value == "before"
    assert height == 8 or "one position" in exported.metadata.layer.reason  # the fixed size follows without a run
    assert next(line.name for line in inspect_model(model).layers if line.chosen) == "before"
    named = "\n".join(export_model(model, layer="fc").summary())
    assert "warning: layer fc has one position only" in named


# ---- several outputs

TOKENS = [
    NODE("Conv", ["feat", "w2"], ["g"], pads=[1] * 4),
    NODE("Reshape", ["g", "rows"], ["t"]),
    NODE("Transpose", ["t"], ["tokens"], perm=[0, 2, 1]),
    NODE("Concat", ["head", "tokens"], ["whole"], axis=1),
    NODE("MatMul", ["whole", "v"], ["q"]),
    NODE("Softmax", ["q"], ["mixed"], axis=1),
    NODE("Mul", ["mixed", "whole"], ["last"]),
]
"""From a map to rows that are mixed: a class token and the positions."""


@pytest.mark.parametrize("names", [["cls", "mask"], ["mask", "cls"]])
def test_a_layer_is_live_for_each_of_several_outputs_in_any_order(names):
    """Behind the slice of the first row "cls" reads nothing else; the mask still reads all."""
    nodes = [
        *TOKENS,
        NODE("Gather", ["last", "zero"], ["cls"], axis=1),
        NODE("Slice", ["last", "from", "to", "axis"], ["mask"]),
    ]
    tensors = {
        "w2": random(5, 4, 3, 3),
        "rows": np.array([1, 5, 64]),
        "head": random(1, 1, 5),
        "v": random(5, 5),
        "zero": np.array(0),
        "from": np.array([1]),
        "to": np.array([65]),
        "axis": np.array([1]),
    }
    model = model_of(nodes, tensors, [("cls", [1, 5]), ("mask", [1, 64, 5])], (1, 3, 8, 8))
    exported = export_model(model, targets="cotangent", output_name=names)
    assert exported.check["gradient_error"] < 1e-4 and exported.metadata.layer.value != "last"


@pytest.mark.parametrize(("names", "chosen"), [(["cls"], "whole"), (["cls", "map"], "whole"), (["map"], "last")])
@pytest.mark.parametrize("empty", [False, True])
def test_the_map_in_front_of_heads_is_live_for_each_of_them(names, chosen, empty):
    """The maps of the queries' rows are no use to the first head; a Gather of no rows is none either."""
    nodes = [
        *TOKENS,
        NODE("Gather", ["last", "none" if empty else "two"], ["row"], axis=1),
        *([NODE("Gather", ["last", "two"], ["some"], axis=1)] if empty else []),
        NODE("Concat", ["row", "some"] if empty else ["row"], ["picked"], axis=1),
        NODE("MatMul", ["picked", "classes"], ["cls"]),
        NODE("Slice", ["last", "from", "to", "axis"], ["positions"]),
        NODE("Transpose", ["positions"], ["flat"], perm=[0, 2, 1]),
        NODE("Reshape", ["flat", "grid"], ["plane"]),
        NODE("Conv", ["plane", "w3"], ["map"]),
    ]
    tensors = {
        "w2": random(5, 4, 3, 3),
        "rows": np.array([1, 5, 64]),
        "head": random(1, 2, 5),
        "v": random(5, 5),
        "none": np.array([], np.int64),
        "two": np.array([0, 1]),
        "classes": random(5, 3),
        "from": np.array([2]),
        "to": np.array([66]),
        "axis": np.array([1]),
        "grid": np.array([1, 5, 8, 8]),
        "w3": random(2, 5, 1, 1),
    }
    model = model_of(nodes, tensors, [("cls", [1, 2, 3]), ("map", [1, 2, 8, 8])], (1, 3, 8, 8))
    exported = export_model(model, targets="cotangent", output_name=names)
    assert exported.metadata.layer.value == chosen and exported.check["gradient_error"] < 1e-4


# ---- scores whose images are not on the first axis


class Pair(nn.Module):
    """A picture's embedding beside four texts', as CLIP and its kin compare them."""

    def __init__(self, per_image):
        super().__init__()
        self.conv, self.project, self.per_image = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 7), per_image
        self.texts = nn.Parameter(torch.randn(4, 7))

    def forward(self, image):
        seen = F.normalize(self.project(torch.tanh(self.conv(image)).mean((2, 3))), dim=-1)
        scores = 3 * F.normalize(self.texts, dim=-1) @ seen.t()
        return scores.t() if self.per_image else scores


def exported_by_torch(module, image, tmp_path, axis=0):
    path = tmp_path / "model.onnx"
    axes = {"image": {0: "N"}, "scores": {axis: "N"}}
    names = {"input_names": ["image"], "output_names": ["scores"], "dynamic_axes": axes}
    torch.onnx.export(module, (image,), path, dynamo=False, opset_version=18, **names)
    return path


@pytest.mark.parametrize("per_image", [True, False], ids=["transposed", "a row for each text"])
@pytest.mark.parametrize("emit", ["weights", "gradients"])
def test_scores_of_texts_and_images(per_image, emit, tmp_path):
    torch.manual_seed(0)
    module = Pair(per_image).eval()
    path = exported_by_torch(module, torch.tensor(IMAGES), tmp_path, 0 if per_image else 1)
    exported = export_model(path, tmp_path / "x.cam.onnx", emit=emit, output_name="scores")
    assert exported.check["gradient_error"] < 1e-5
    found = fastcam.Explainer(tmp_path / "x.cam.onnx", "cpu")(IMAGES, targets=[2, 0])
    features = torch.tanh(module.conv(torch.tensor(IMAGES))).detach().requires_grad_()
    seen = F.normalize(module.project(features.mean((2, 3))), dim=-1)
    scores = 3 * seen @ F.normalize(module.texts, dim=-1).t()
    for column, target in enumerate((2, 0)):
        (gradient,) = torch.autograd.grad(scores[:, target].sum(), features, retain_graph=True)
        expected = F.relu((gradient.mean((2, 3), keepdim=True) * features).sum(1))
        np.testing.assert_allclose(found.maps[:, column], expected.detach().numpy(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.scores, scores.detach().numpy(), rtol=1e-4, atol=1e-5)


# ---- clips with the frames in front of the channels


class Clip(nn.Module):
    """Frames as Transformers' video models take them: tubes of two frames, tokens in the order that is asked for."""

    def __init__(self, order):
        super().__init__()
        self.tube, self.head, self.order = nn.Conv3d(3, 6, (2, 4, 4), (2, 4, 4)), nn.Linear(6, 5), order

    def forward(self, clip):
        maps = self.tube(clip.transpose(1, 2))  # [N, K, t, h, w]
        tokens = maps.permute(0, *(2 + "thw".index(letter) for letter in self.order), 1).flatten(1, 3)
        return self.head(torch.tanh(tokens).mean(1))


@pytest.mark.parametrize("order", ["thw", "hwt"])
def test_frames_in_front_of_the_channels(order, tmp_path):
    torch.manual_seed(0)
    module = Clip(order).eval()
    clips = random(2, 6, 3, 8, 8)
    path = exported_by_torch(module, torch.tensor(clips), tmp_path)
    exported = export_model(path, tmp_path / "x.cam.onnx", emit="gradients", head=True)
    assert exported.check["gradient_error"] < 1e-5
    found = run(tmp_path / "x.cam.onnx", image=clips)
    maps = torch.tanh(module.tube(torch.tensor(clips).transpose(1, 2))).detach()
    np.testing.assert_allclose(found["fastcam.activations"], maps.numpy(), rtol=1e-4, atol=1e-5)
    explained = fastcam.Explainer(tmp_path / "x.cam.onnx", "cpu")(clips, targets=[3])
    expected = F.relu(torch.einsum("nkthw,k->nthw", maps, module.head.weight[3]) / 12).detach().numpy()
    at = np.repeat(expected, 2, axis=1)[:, [0, 2, 4]]
    assert explained.maps.shape == (12, 1, 2, 2)  # a row for each frame
    middle = explained.maps.reshape(2, 6, 2, 2)
    np.testing.assert_allclose((middle[:, ::2] + middle[:, 1::2]).sum(1), 2 * at.sum(1), rtol=1e-3, atol=1e-5)
