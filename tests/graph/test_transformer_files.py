"""Vision transformers as they are shipped, quantised and optimised: the layer and the gradient of the float file."""

import logging

import numpy as np
import onnx
import pytest

from fastcam_export import export_model
from support.models.quantized import run_targets
from support.models.small_vit import SIZE, build, to_onnx

quantization = pytest.importorskip("onnxruntime.quantization", reason="it makes the files of these tests")
PICTURES = np.random.default_rng(0).standard_normal((6, 3, SIZE, SIZE)).astype(np.float32)


class Pictures(quantization.CalibrationDataReader):
    def __init__(self, name):
        self.rest = iter([{name: picture[None]} for picture in PICTURES])

    def get_next(self):
        return next(self.rest, None)


def qdq(source, made, name):
    types = {"activation_type": quantization.QuantType.QUInt8, "weight_type": quantization.QuantType.QInt8}
    quantization.quantize_static(source, made, Pictures(name), per_channel=True, **types)


def dynamic(source, made, name):
    quantization.quantize_dynamic(source, made)


def optimised(source, made, name):
    from onnxruntime.transformers import optimizer

    optimizer.optimize_model(str(source), "vit", num_heads=2, hidden_size=8, opt_level=1).save_model_to_file(str(made))
    assert {"SkipLayerNormalization", "LayerNormalization"} <= {node.op_type for node in onnx.load(made).graph.node}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("vit") / "float.onnx"
    onnx.save(to_onnx(build(seed=3)), path)
    exported = export_model(path, emit="gradients")
    return path, exported, explained(exported)


def explained(exported):
    feeds = {exported.metadata.input: PICTURES[:2], "fastcam.targets": np.array([[1, 3]])}
    return run_targets(exported.model, feeds)["fastcam.gradients"]


@pytest.mark.parametrize(("make", "least"), [(qdq, 0.9), (dynamic, 0.97), (optimised, 1 - 1e-6)])
def test_layer_and_gradient_are_those_of_the_float_file(plain, tmp_path, make, least):
    logging.disable(logging.WARNING)  # advice of the quantiser
    source, exported, gradient = plain
    make(source, tmp_path / "made.onnx", exported.metadata.input)
    logging.disable(logging.NOTSET)
    ours = export_model(tmp_path / "made.onnx", emit="gradients")
    assert ours.metadata.layer.value.startswith(exported.metadata.layer.value)
    assert ours.check["output_difference"] < (1e-6 if make is dynamic else 1e-9) and "unconfirmed" not in ours.check
    assert np.corrcoef(explained(ours).ravel(), gradient.ravel())[0, 1] > least
