"""What runs a file beside a plain session of ONNX Runtime, and which of all that a profile names."""
