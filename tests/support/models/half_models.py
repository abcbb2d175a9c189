"""Models in half precision."""

import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT16, BFLOAT16, FLOAT = TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT


def in_half(model, kind=FLOAT16):
    """The model with ``kind`` in place of float32: weights, inputs and outputs."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for tensor in made.graph.initializer:
        if tensor.data_type == FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = kind
    return made
