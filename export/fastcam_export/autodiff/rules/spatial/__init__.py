"""Rules of operators that look at neighbouring pixels: windows that slide, and samples at any place."""

from fastcam_export.autodiff.rules.spatial import (
    convolution,
    deform_conv,
    grid_sample,
    pooling,
    resize,
    roi,
    unpool,
)

__all__ = ["convolution", "deform_conv", "grid_sample", "pooling", "resize", "roi", "unpool"]
