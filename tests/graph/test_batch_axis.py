"""Models of one picture without an axis of images: explained as the same network with that axis is."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam import Explainer
from fastcam_export import export_model, inspect_model
from support.models import detector_files as files
from support.models.small_models import classifier

PICTURE = np.random.default_rng(5).integers(0, 256, (12, 12, 3), dtype=np.uint8)
N = helper.make_node


def twin(opset, end):
    """The same network with an axis of images, of values 0 to 255."""
    return classifier(opset, 1, size=12, end=end)


def alone(form, opset=18, end=None, picked="Gather"):
    """The network for one picture: "chw" [3, h, w], "hwc" [h, w, 3] of bytes, "free" [3, ?, ?]; scores [5]."""
    model = twin(opset, end)
    graph = model.graph
    output = graph.output[0].name
    hwc = form == "hwc"
    shape = {"chw": [3, 12, 12], "hwc": [12, 12, 3], "free": [3, "h", "w"]}[form]
    kind = TensorProto.UINT8 if hwc else TensorProto.FLOAT
    graph.input[0].CopyFrom(helper.make_tensor_value_info("photo", kind, shape))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [5]))
    pixels = [N("Cast", ["photo"], ["f"], to=TensorProto.FLOAT), N("Transpose", ["f"], ["t"], perm=[2, 0, 1])]
    last = pixels[-1].output[0] if hwc else "photo"
    front, behind = ([last, "zero"], [output, "zero"]) if opset >= 13 else ([last], [output])
    axes = {} if opset >= 13 else {"axes": [0]}
    squeeze = N("Gather", [output, "first"], ["y"]) if picked == "Gather" else N("Squeeze", behind, ["y"], **axes)
    nodes = [*(pixels if hwc else []), N("Unsqueeze", front, ["image"], **axes), *graph.node, squeeze]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
    graph.initializer.append(numpy_helper.from_array(np.array(0), "first"))
    onnx.checker.check_model(model)
    return model


CASES = {
    "channels first": ("chw", 18, None, "Gather"),
    "channels first, squeezed": ("chw", 18, None, "Squeeze"),
    "bytes, channels last": ("hwc", 18, None, "Gather"),
    "free sides": ("free", 17, None, "Gather"),
    "axes as attributes": ("chw", 11, None, "Squeeze"),
    "a softmax in front": ("hwc", 13, "Softmax", "Gather"),
    "a softmax in front, squeezed": ("chw", 13, "Softmax", "Squeeze"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_picture_is_explained_as_a_batch_of_one(case):
    form, opset, end, picked = CASES[case]
    made = export_model(alone(form, opset, end, picked), preprocess="raw", size=(12, 12) if form == "free" else None)
    other = export_model(twin(opset, end), preprocess="raw")
    assert made.metadata.score.kind == other.metadata.score.kind
    assert made.check["output_difference"] == 0 and any("without an axis of images" in line for line in made.repairs)
    e, expected = (Explainer(each.model.SerializeToString(), "cpu")(PICTURE, targets=[-1, 2]) for each in (made, other))
    assert (e.classes == expected.classes).all() and expected.maps.any()
    np.testing.assert_allclose(e.maps, expected.maps, atol=1e-5 * expected.maps.max())
    np.testing.assert_allclose(e.scores, expected.scores, rtol=1e-5)


def test_a_list_of_boxes_keeps_its_axes(tmp_path):
    """What only a run counts stays as it is: of one picture torchvision gives boxes [n, 4] and scores [n]."""
    batched, model = files.selected(), files.selected()
    graph = model.graph
    graph.input[0].CopyFrom(helper.make_tensor_value_info("photo", TensorProto.FLOAT, [3, files.H, files.W]))
    graph.initializer.append(numpy_helper.from_array(np.array([0]), "in_front"))
    nodes = [N("Unsqueeze", ["photo", "in_front"], ["image"]), *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    made, other = (
        export_model(each, tmp_path / f"{i}.onnx", labels=files.CLASSES) for i, each in enumerate((model, batched))
    )
    assert [(one.output, one.batched) for one in made.metadata.cotangents] == [
        (one.output, one.batched) for one in other.metadata.cotangents
    ]
    e, expected = (Explainer(tmp_path / f"{i}.onnx", "cpu")(files.picture()) for i in range(2))
    assert expected.predicted_box() is not None and e.predicted_box() == expected.predicted_box()
    np.testing.assert_allclose(e.maps, expected.maps, atol=1e-5 * expected.maps.max())


def test_a_signal_of_three_channels_stays_a_signal():
    w = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32), "w")
    nodes = [N("Conv", ["x", "w"], ["c"]), N("Relu", ["c"], ["r"]), N("ReduceMax", ["r"], ["y"], axes=[2], keepdims=0)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [w],
    )
    found = inspect_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))
    assert not found.repairs and not found.blocks
