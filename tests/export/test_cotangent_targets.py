"""Files that are asked by cotangents: any output at any level, what metadata says, what is refused."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fastcam import FastcamError
from fastcam.schema import Metadata
from fastcam.targets import cotangents
from fastcam_export import export_model
from support.models.detector_files import STRIDES, Network
from support.models.half_models import in_half
from support.models.heads_model import (
    SHAPES,
    A,
    C,
    F,
    _with,
    autograd,
    detector,
    heads,
    images,
    run,
)
from support.models.small_models import classifier, save

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("batch", ["N", 1])
def test_any_output_at_any_level(name, batch):
    """Weights and maps of a random cotangent, T of 1 and 3, free and fixed batch."""
    model, rng = heads(batch), np.random.default_rng(2)
    n = 2 if batch == "N" else 1
    for level in ("weights", "cam"):
        made = export_model(
            model, layer="layer", emit=level, targets="cotangent", output_name=name, check=level == "cam"
        )
        for t in (1, 3):
            cotangent = rng.standard_normal((n, t, *SHAPES[name][1:])).astype(np.float32)
            found = run(made.model, {"image": images(n), "fastcam.cotangent": cotangent})
            layer = torch.from_numpy(run(_with(model, "layer"), {"image": images(n)})["layer"])
            c = torch.from_numpy(cotangent)
            gradient = autograd(
                layer.numpy(), lambda o, c=c: [(o[name] * one).flatten(1).sum(1) for one in c.unbind(1)]
            )
            weight = gradient.mean((3, 4))
            expected = weight
            if level == "cam":
                expected = np.maximum(np.einsum("ntk,nkhw->nthw", weight, layer.numpy()), 0)
            np.testing.assert_allclose(found[f"fastcam.{level}"], expected, atol=2e-6 * np.abs(expected).max())
            assert "fastcam.classes" not in found


def test_several_outputs_have_an_input_each():
    made = export_model(heads(), emit="gradients", targets="cotangent", output_name=["logits", "map"])
    assert [value.name for value in made.model.graph.input][1:] == ["fastcam.cotangent.logits", "fastcam.cotangent.map"]
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((2, 2, *SHAPES[name][1:])).astype(np.float32) for name in ("logits", "map"))
    found = run(made.model, {"image": images(), "fastcam.cotangent.logits": a, "fastcam.cotangent.map": b})
    pairs = [(torch.from_numpy(a[:, t]), torch.from_numpy(b[:, t])) for t in range(2)]
    expected = autograd(
        found["fastcam.activations"],
        lambda o: [(o["logits"] * x).sum(1) + (o["map"] * y).sum((1, 2, 3)) for x, y in pairs],
    )
    np.testing.assert_allclose(found["fastcam.gradients"], expected, atol=2e-6 * np.abs(expected).max())


def test_a_one_hot_cotangent_is_a_class_target():
    for level in ("weights", "gradients", "cam"):
        ours = export_model(classifier(), targets="cotangent", emit=level)
        theirs = export_model(classifier(), emit=level, check=False)
        one_hot = np.eye(C, dtype=np.float32)[None].repeat(2, 0)
        a = run(ours.model, {"image": images(), "fastcam.cotangent": one_hot})
        b = run(theirs.model, {"image": images(), "fastcam.targets": np.arange(C)[None]})
        np.testing.assert_allclose(a[f"fastcam.{level}"], b[f"fastcam.{level}"], rtol=1e-5, atol=1e-7)
        assert a["logits"].tobytes() == b["logits"].tobytes()
    assert ours.metadata.layer.value == theirs.metadata.layer.value


@pytest.mark.parametrize("name", ["logits", "map"])
@pytest.mark.parametrize("level", ["weights", "gradients"])
def test_other_types_and_engines_give_the_same(name, level):
    """A float16 file, whose cotangent stays float32, to float16's precision; TensorRT's operators to float32's."""
    options = {"layer": "layer", "emit": level, "targets": "cotangent", "output_name": name, "check": False}
    cotangent = np.random.default_rng(5).standard_normal((2, 2, *SHAPES[name][1:])).astype(np.float32)
    feeds = {"image": images(), "fastcam.cotangent": cotangent}
    expected = run(export_model(heads(), **options).model, feeds)[f"fastcam.{level}"]
    engine = run(export_model(heads(), **options, for_engine="tensorrt").model, feeds)[f"fastcam.{level}"]
    np.testing.assert_allclose(engine, expected, atol=1e-6 * np.abs(expected).max())
    half = run(export_model(in_half(heads()), **options).model, feeds | {"image": images().astype(np.float16)})
    assert half[f"fastcam.{level}"].dtype == np.float32
    np.testing.assert_allclose(half[f"fastcam.{level}"], expected, atol=5e-3 * np.abs(expected).max())


def test_metadata_says_which_outputs(tmp_path):
    path = tmp_path / "m.onnx"
    made = export_model(heads(), path, targets="cotangent", output_name=["map", "dense"])
    assert [(c.input, c.output, c.shape, c.batched) for c in made.metadata.cotangents] == [
        ("fastcam.cotangent.map", "map", (C, 8, 8), True),
        ("fastcam.cotangent.dense", "dense", (A, 4 + C), True),
    ]
    assert Metadata.from_json(made.metadata.to_json()) == made.metadata
    text = "\n".join(made.summary())
    assert "what fastcam.cotangent.dense says of dense" in text and "fastcam.classes" not in text


def test_auto_takes_the_deepest_map_on_every_path():
    """Of class scores the last map; of a map of classes, not itself; of that and a vector, what both pass."""
    chosen = {
        name: export_model(heads(), targets="cotangent", output_name=name, check=False).metadata.layer.value
        for name in ("logits", "embedding", "map")
    }
    assert set(chosen.values()) == {"layer"}
    model = heads()
    model.graph.output.append(helper.make_tensor_value_info("r1", TensorProto.FLOAT, ["N", 4, 8, 8]))
    both = export_model(model, targets="cotangent", output_name=["map", "r1"], check=False)
    assert both.metadata.layer.value == "c1"
    model.graph.output.append(helper.make_tensor_value_info("c1", TensorProto.FLOAT, ["N", 4, 8, 8]))
    with pytest.raises(FastcamError, match=r"no feature map lies on every path .*name a layer with --layer"):
        export_model(model, targets="cotangent", output_name=["map", "c1"])


def test_boxes_of_one_image_have_no_axis_of_images():
    model, arrays = detector()
    outputs = run(model, {"image": images(1)})
    box = cotangents.best_box(outputs["scores"])
    made = export_model(model, layer="layer", emit="gradients", targets="cotangent", output_name=["boxes", "scores"])
    assert [c.batched for c in made.metadata.cotangents] == [False, False]
    score = cotangents.element(outputs["scores"], box, batched=False)
    side = cotangents.coordinate(outputs["boxes"], box, "x0", "y1")
    feeds = {
        "image": images(1),
        "fastcam.cotangent.scores": cotangents.stack(score, np.zeros((1, 2, *outputs["scores"].shape))),
        "fastcam.cotangent.boxes": cotangents.stack(np.zeros((1, 1, *outputs["boxes"].shape)), side),
    }
    found = run(made.model, feeds)
    layer = torch.from_numpy(found["fastcam.activations"]).requires_grad_()
    rows = F.conv2d(layer, torch.from_numpy(arrays["w2"])).reshape(5, -1).T
    kept = rows[torch.sigmoid(rows[:, 4]) > 0.6]
    scalars = [torch.sigmoid(kept[box, 4]), kept[box, 0], kept[box, 3]]
    expected = torch.stack([torch.autograd.grad(s, layer, retain_graph=True)[0] for s in scalars], 1).numpy()
    np.testing.assert_allclose(found["fastcam.gradients"], expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "name one or more with --output-name"),
        ({"output_name": "logit"}, "no float output 'logit'; the nearest is 'logits'"),
        ({"output_name": ["map", "map"]}, "named twice"),
        ({"output_name": "map", "score": "probability"}, "leave score"),
        ({"output_name": "map", "layer": "map"}, "cannot be reached"),
        ({"output_name": ["map", "logits"], "targets": "default"}, "by cotangents only"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(FastcamError, match=words) as caught:
        export_model(heads(), **{"targets": "cotangent", **options})
    assert "\n" not in str(caught.value)


def test_an_output_that_does_not_count_the_images_is_found_out():
    model = heads()
    model.graph.node.append(helper.make_node("Concat", ["numbers", "numbers"], ["twice"], "twice", axis=0))
    model.graph.output.append(helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["M", 2]))
    with pytest.raises(FastcamError, match="its first axis does not count them"):
        export_model(model, targets="cotangent", output_name="twice")


def test_the_exported_file_keeps_the_source(tmp_path):
    path = save(classifier(), tmp_path / "m.onnx")
    made = export_model(path, targets="cotangent").model
    assert list(made.graph.node[: len(classifier().graph.node)]) == list(classifier().graph.node)
    assert {node.domain for node in made.graph.node} == {""}
    onnx.checker.check_model(made, full_check=True)


def test_outputs_of_one_name_for_different_counts():
    """Exporters call the rows of every level by one name, however many there are."""
    n = Network()
    for stride in STRIDES:
        rows = n.reshape(n.node("Transpose", n.head(stride, 8), perm=[0, 2, 3, 1]), 1, -1, 8)
        n.give(rows, f"rows_{stride}", "dim", 8)
    n.side = ("height", "width")
    made = export_model(n.model(), size=(64, 96), targets="cotangent", output_name=[f"rows_{s}" for s in STRIDES])
    assert made.check["gradient_error"] < 1e-3
    counts = {value.type.tensor_type.shape.dim[2].dim_param for value in made.model.graph.input[1:]}
    assert len(counts) == 3
