"""Cotangents: exported files and the helpers that build them, against PyTorch autograd of the very scalar."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam import Explainer, FastcamError
from fastcam.schema import Metadata
from fastcam.targets import cotangents
from fastcam_export import export_model
from support.half_models import in_half
from support.heads_model import MASK, SHAPES, A, C, D, F, _with, autograd, finer, heads, images, pick, rank, run
from support.small_models import classifier, save

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")


@pytest.fixture(scope="module")
def exported():
    """name of an output -> the file with its cotangent and the whole gradient, and the outputs of two images."""
    model = heads()
    outputs = run(model, {"image": images()})
    made = {}

    def of(name):
        if name not in made:
            made[name] = export_model(model, layer="layer", emit="gradients", targets="cotangent", output_name=name)
        return made[name], outputs[name]

    return of


CAPTION = np.array([[3, 0, 2], [1, 1, -1]])
REFERENCES = np.random.default_rng(4).standard_normal((2, D))


def log_p(o):
    return torch.log_softmax(o["words"], 2)


def spoken(o, kind):
    """[N, L] of the caption's words."""
    y = log_p(o) if kind == "log" else o["words"]
    return y.gather(2, torch.from_numpy(np.maximum(CAPTION, 0))[..., None])[..., 0] * torch.from_numpy(CAPTION >= 0)


def best(o):
    return [o["dense"][:, :, 4 + 2].max(1).values]


def with_objectness(o):
    score = o["dense"][:, :, 5:] * o["dense"][:, :, 4:5]
    return [score[:, :, 1].max(1).values, score[:, 3, 0]]


def sides(o):
    x, y, w, h = o["dense"][torch.arange(2), torch.tensor([1, 4]), :4].T
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def partners(o):
    a, b = o["embedding"]
    cosine = F.cosine_similarity(a[None], b[None])
    return [cosine]  # of both images: the gradient at each is with respect to its own maps


HELPERS = {
    "class": ("logits", lambda y: cotangents.class_score(y, [2, -1]),
              lambda o: [o["logits"][:, 2], o["logits"].max(1).values]),
    "difference": ("logits", lambda y: cotangents.difference(y, -1, 3, 0.5),
                   lambda o: [o["logits"].max(1).values - 0.5 * o["logits"][:, 3]]),
    "combination": ("logits", lambda y: cotangents.combination(y, {0: 2, -2: -1}, {4: -1}),
                    lambda o: [2 * o["logits"][:, 0] - pick(o["logits"], rank(o["logits"], 2)), -o["logits"][:, 4]]),
    "finer": ("logits", lambda y: cotangents.finer(y, -1, [-2, -3, -4], 0.6),
              lambda o: finer(o["logits"], (2, 3, 4), False)),
    "finer, fixed": ("logits", lambda y: cotangents.finer(y, -1, [-2, -3], 0.6, fixed_weights=True),
                     lambda o: finer(o["logits"], (2, 3), True)),
    "probability": ("logits", lambda y: cotangents.probability(y, [1, -1]),
                    lambda o: [torch.softmax(o["logits"], 1)[:, 1], torch.softmax(o["logits"], 1).max(1).values]),
    "log probability": ("logits", lambda y: cotangents.probability(y, 1, log=True),
                        lambda o: [torch.log_softmax(o["logits"], 1)[:, 1]]),
    "multi-label": ("logits", lambda y: cotangents.multi_label(y, [0, 3]), lambda o: [o["logits"][:, [0, 3]].sum(1)]),
    "multi-label, present": ("logits", lambda y: cotangents.multi_label(y, threshold=-1.0),
                             lambda o: [(o["logits"] * (o["logits"].detach() > -1)).sum(1)]),
    "regression": ("numbers", lambda y: cotangents.element(y, 1, (0,)), lambda o: list(o["numbers"].flip(1).T)),
    "region": ("map", lambda y: cotangents.region(y, [1, 3], MASK),
               lambda o: [o["map"][:, c, MASK].sum(1) for c in (1, 3)]),
    "region, predicted": ("map", lambda y: cotangents.region(y, 3),
                          lambda o: [(o["map"][:, 3] * (o["map"].argmax(1) == 3)).sum((1, 2))]),
    "best box": ("dense", lambda y: cotangents.dense(y, 2), best),
    "objectness": ("dense", lambda y: cotangents.stack(*(
        cotangents.dense(y, c, box=box, objectness=True) for c, box in [(1, None), (0, 3)])), with_objectness),
    "sides": ("dense", lambda y: cotangents.dense(y, "x0", "y0", "x1", "y1", box=[1, 4]), sides),
    "transposed": ("dense", lambda y: cotangents.dense(y.swapaxes(1, 2), 2, axis=1).swapaxes(2, 3), best),
    "corner": ("dense", lambda y: np.pad(
        cotangents.coordinate(y[..., :4], 5, "y1", batched=True), ((0, 0),) * 3 + ((0, C),)),
               lambda o: [o["dense"][:, 5, 3]]),
    "cosine": ("embedding", lambda y: cotangents.similarity(y, REFERENCES),
               lambda o: [F.cosine_similarity(o["embedding"], torch.from_numpy(r)[None].float()) for r in REFERENCES]),
    "dot": ("embedding", lambda y: cotangents.similarity(y, REFERENCES[0], "dot"),
            lambda o: [o["embedding"] @ torch.from_numpy(REFERENCES[0]).float()]),
    "pair": ("embedding", cotangents.pairs, partners),
    "caption": ("words", lambda y: cotangents.caption(y, CAPTION), lambda o: [spoken(o, "log").sum(1)]),
    "caption, logits": ("words", lambda y: cotangents.caption(y, CAPTION, "logit"), lambda o: [spoken(o, "").sum(1)]),
    "words": ("words", lambda y: cotangents.words(y, CAPTION), lambda o: list(spoken(o, "log").T)),
}  # fmt: skip


@pytest.mark.parametrize("case", HELPERS)
def test_helper_equals_autograd_of_its_scalar(case, exported):
    name, helper_, scalars = HELPERS[case]
    made, output = exported(name)
    cotangent = helper_(output)
    assert cotangent.dtype == np.float32
    assert cotangent.shape[2:] == output.shape[1:]
    found = run(made.model, {"image": images(), "fastcam.cotangent": cotangent})
    expected = autograd(found["fastcam.activations"], scalars)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found["fastcam.gradients"], expected, atol=2e-6 * np.abs(expected).max())


# ---- the file


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


def detector():
    """One image's boxes [n, 4] and scores [n]: the k best of a grid, as many as reach a threshold."""
    node = helper.make_node
    rng = np.random.default_rng(6)
    nodes = [
        node("Conv", ["image", "w1"], ["c1"], "conv1", pads=[1] * 4),
        node("Relu", ["c1"], ["layer"], "relu1"),
        node("Conv", ["layer", "w2"], ["c2"], "conv2"),
        node("Reshape", ["c2", "s"], ["flat"], "reshape"),
        node("Transpose", ["flat"], ["rows"], "transpose", perm=[1, 0]),
        node("Slice", ["rows", "i4", "i5", "i1"], ["logit"], "scores_"),
        node("Sigmoid", ["logit"], ["p"], "sigmoid"),
        node("Squeeze", ["p", "i1"], ["each"], "squeeze"),
        node("Greater", ["each", "threshold"], ["over"], "over"),
        node("NonZero", ["over"], ["which"], "nonzero"),
        node("Squeeze", ["which", "i0"], ["index"], "squeeze_index"),
        node("Gather", ["each", "index"], ["scores"], "gather_scores"),
        node("Slice", ["rows", "i0", "i4", "i1"], ["raw"], "boxes_"),
        node("Gather", ["raw", "index"], ["boxes"], "gather_boxes", axis=0),
    ]
    arrays = {
        "w1": rng.standard_normal((6, 3, 3, 3)).astype(np.float32),
        "w2": rng.standard_normal((5, 6, 1, 1)).astype(np.float32) / 4,
        "s": np.array([5, -1]), "i0": np.array([0]), "i1": np.array([1]), "i4": np.array([4]), "i5": np.array([5]),
        "threshold": np.float32(0.6),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n"]),
        ],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    return model, arrays


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


# ---- the run time


def test_the_explainer_takes_outputs_of_any_kind():
    """A segmentation map of several images, and the boxes and scores of one."""
    made = export_model(heads(), layer="layer", targets="cotangent", output_name="map", check=False)
    explainer = Explainer(made.model.SerializeToString(), batch_size=2)
    e = explainer(images(3), cotangent=lambda outputs: cotangents.region(outputs["map"], [0, 1], MASK))
    layer = torch.from_numpy(run(_with(heads(), "layer"), {"image": images(3)})["layer"])
    gradient = autograd(layer.numpy(), lambda o: [o["map"][:, c, MASK].sum(1) for c in (0, 1)])
    expected = np.maximum(np.einsum("ntk,nkhw->nthw", gradient.mean((3, 4)), layer), 0)
    np.testing.assert_allclose(e.maps, expected, atol=1e-5 * expected.max())
    np.testing.assert_allclose(e.scores, e.outputs["map"][:, :2, MASK].sum(2), rtol=1e-4)
    prediction = explainer.predict(images(3))
    assert (prediction.scores.shape, prediction.classes.tolist()) == ((3, 0), [-1, -1, -1])


@pytest.mark.parametrize("on_demand", [False, True])
def test_the_explainer_takes_the_boxes_of_one_image(on_demand):
    model, arrays = detector()
    made = export_model(
        model, layer="layer", targets="cotangent", output_name=["boxes", "scores"], on_demand=on_demand, check=True
    )
    explanation = made.explanation.SerializeToString() if on_demand else None
    explainer = Explainer(made.model.SerializeToString(), explanation=explanation)

    def best(outputs):
        box = cotangents.best_box(outputs["scores"])
        side = cotangents.coordinate(outputs["boxes"], box, "x0")
        return {"boxes": side, "scores": np.zeros((1, 1, *outputs["scores"].shape), np.float32)}

    if not on_demand:  # how many boxes there are has to be known before
        with pytest.raises(FastcamError, match=r"only a run tells the size of output boxes.*--on-demand"):
            explainer.predict(images(2))
        outputs = run(model, {"image": images(1)})
        assert explainer(images(1), cotangent=best(outputs)).status == (("ok",),)
        return
    e = explainer(images(2), cotangent=best)
    for i in range(2):
        plain = run(_with(model, "layer"), {"image": images(2)[i : i + 1]})
        layer = torch.from_numpy(plain["layer"]).requires_grad_()
        rows = F.conv2d(layer, torch.from_numpy(arrays["w2"])).reshape(5, -1).T
        side = rows[rows[:, 4].argmax(), 0]
        (gradient,) = torch.autograd.grad(side, layer)
        expected = (gradient.mean((2, 3), keepdim=True) * layer).sum(1).relu()[0].detach().numpy()
        np.testing.assert_allclose(e.maps[i, 0], expected, atol=1e-5 * max(expected.max(), 1e-6))
        assert e.score(i) == pytest.approx(side.item(), rel=1e-4)


# ---- refusals


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


Y = np.array([[2.0, 1.0, -1.0]])
BAD = {
    "class 3": lambda: cotangents.class_score(Y, 3),
    "rank -4": lambda: cotangents.class_score(Y, -4),
    "no class": lambda: cotangents.combination(Y, {}),
    "shape": lambda: cotangents.class_score(Y[0], 1),
    "probabilities": lambda: cotangents.probability([[0.2, 0.8]], 0),
    "no label": lambda: cotangents.multi_label(Y, threshold=5),
    "outside": lambda: cotangents.element(Y, (0, 1)),
    "mask": lambda: cotangents.region(np.zeros((1, 2, 4, 4)), 0, np.ones((3, 3))),
    "nowhere": lambda: cotangents.region(np.zeros((1, 2, 4, 4)), 1),
    "no box": lambda: cotangents.best_box([0.5, 0.4], [1, 1], 2),
    "which box": lambda: cotangents.dense(np.zeros((1, 5, 9)), "x0"),
    "transposed": lambda: cotangents.dense(np.zeros((1, 9, 3)), 0),
    "side": lambda: cotangents.coordinate(np.zeros((2, 4)), 0, "left"),
    "length": lambda: cotangents.similarity(Y, [1.0, 2.0]),
    "zeros": lambda: cotangents.similarity(Y * 0, Y[0]),
    "odd": lambda: cotangents.pairs(Y),
    "tokens": lambda: cotangents.caption(np.zeros((1, 2, 3)), [0, 3]),
    "stack": lambda: cotangents.stack(np.zeros((1, 1, 3)), np.zeros((1, 1, 4))),
}


@pytest.mark.parametrize("case", BAD)
def test_helpers_refuse_in_one_line(case):
    with pytest.raises(FastcamError) as caught:
        BAD[case]()
    assert "\n" not in str(caught.value)


def test_the_exported_file_keeps_the_source(tmp_path):
    path = save(classifier(), tmp_path / "m.onnx")
    made = export_model(path, targets="cotangent").model
    assert list(made.graph.node[: len(classifier().graph.node)]) == list(classifier().graph.node)
    assert {node.domain for node in made.graph.node} == {""}
    onnx.checker.check_model(made, full_check=True)
