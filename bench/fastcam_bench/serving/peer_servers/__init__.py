"""Other servers with plain ONNX Runtime, as their own documents show it; each file runs by itself, without fastcam."""
