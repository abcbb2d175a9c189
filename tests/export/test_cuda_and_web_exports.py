"""Files for ONNX Runtime on CUDA and in browsers."""

import numpy as np
import pytest

from fastcam import Explainer
from fastcam.schema import FastcamError
from fastcam_export import export_model
from support.models.small_models import classifier, many_classes
from support.rules.explained import execute, noise

READ_ON_THE_HOST = {"Reshape": 1, "Expand": 1, "TopK": 1, "Slice": 1, "Tile": 1, "ReduceSum": 1, "ReduceMean": 1}
"""Operators whose kernels on a GPU want an input in the host's memory, and the first such input."""


def read_on_the_host(model):
    """Added nodes that want on the host what is computed on the device: neither constants nor sizes."""
    made = {name: node for node in model.graph.node for name in node.output}
    given = {value.name for value in model.graph.input}

    def is_known(name):
        node = made.get(name)
        if node is None:
            return name in {tensor.name for tensor in model.graph.initializer} and name not in given
        return node.op_type in ("Shape", "Size", "Constant") or all(map(is_known, filter(None, node.input)))

    added = [node for node in model.graph.node if node.name.startswith("fastcam.") and node.op_type in READ_ON_THE_HOST]
    late = [(node, node.input[READ_ON_THE_HOST[node.op_type] :]) for node in added]
    return [node.op_type for node, inputs in late if not all(is_known(name) for name in inputs if name)]


@pytest.mark.parametrize("options", [{}, {"emit": "gradients"}, {"emit": "cam"}, {"input_gradient": "guided"}], ids=str)
def test_for_cuda_nothing_added_is_read_on_the_host(options):
    source = many_classes() if options == {} else classifier(size=16)
    usual = export_model(source, targets="required", check=False, **options).model
    for_cuda = export_model(source, targets="required", for_engine="cuda", check=False, **options).model
    if options == {}:
        assert read_on_the_host(usual) == ["TopK"]  # how many ranks there are depends on what is asked
    assert read_on_the_host(for_cuda) == []
    x = noise(2, 3, 16, 16)
    expected, found = execute(usual, x), execute(for_cuda, x)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-6 * np.abs(array).max(), err_msg=name)


def test_for_cuda_a_target_that_is_no_class_gives_nothing_that_looks_like_a_result():
    made = export_model(classifier(size=16), for_engine="cuda", preprocess="raw")
    assert made.metadata.engine == "cuda" and made.check["gradient_error"] < 1e-3
    assert any("ONNX Runtime on CUDA: a target that is no class" in line for line in made.summary())
    x = noise(1, 3, 16, 16)
    required = export_model(classifier(size=16), for_engine="cuda", targets="required", check=False)
    found = execute(required.model, x, [[-2, -99, 5]])
    assert found["fastcam.classes"][0, 0] >= 0 and found["fastcam.classes"][0, 1:].tolist() == [-1, -1]
    assert np.isfinite(found["fastcam.weights"][0, 0]).all() and np.isnan(found["fastcam.weights"][0, 1:]).all()
    explainer = Explainer(made.model.SerializeToString())
    assert explainer(x, targets=-2).status == (("ok",),)
    with pytest.raises(FastcamError, match="class -99 is out of range"):
        explainer(x, targets=-99)


def test_for_a_browser_the_nodes_are_onnx_runtimes_and_targets_have_no_default(tmp_path):
    usual = export_model(classifier(), targets="required", check=False).model
    made = export_model(classifier(), tmp_path / "net.cam.onnx", for_engine="web", preprocess="raw")
    assert made.model.graph == usual.graph
    assert made.metadata.engine == "web" and any("onnxruntime-web" in line for line in made.summary())
    assert (
        export_model(
            classifier(), for_engine="web", targets="constant", preprocess="raw", check=False
        ).model.graph.input[0]
        == (usual.graph.input[0])
    )
    assert Explainer(tmp_path / "net.cam.onnx")(noise(1, 3, 8, 8), [-1, 2]).maps.shape[1] == 2
