"""Parts of models in float64, of which ONNX Runtime lacks many kernels: they are said with operators that have one."""
