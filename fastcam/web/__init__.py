"""A page of static files that explains in the browser: exported models, kernels and onnxruntime-web beside it."""
