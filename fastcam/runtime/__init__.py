"""ONNX Runtime: sessions, providers, IO binding, and exported files on them."""
