"""ONNX's own conformance cases: the gradient of each beside central differences."""
