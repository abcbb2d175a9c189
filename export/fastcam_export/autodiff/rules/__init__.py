"""Gradient rules, one module per operator family; importing this package fills the registry."""

from fastcam_export.autodiff.rules import (
    activation,
    convolution,
    elementwise,
    linear,
    normalization,
    pooling,
    quantization,
    reduction,
    resize,
    shape,
    standardization,
)

__all__ = [
    "activation",
    "convolution",
    "elementwise",
    "linear",
    "normalization",
    "pooling",
    "quantization",
    "reduction",
    "resize",
    "shape",
    "standardization",
]
