"""Gradient rules, one module per operator family; importing this package fills the registry."""

from fastcam_export.autodiff.rules import (
    activation,
    convolution,
    elementwise,
    linear,
    normalization,
    pooling,
    reduction,
    shape,
)

__all__ = ["activation", "convolution", "elementwise", "linear", "normalization", "pooling", "reduction", "shape"]
