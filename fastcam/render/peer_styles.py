"""Heatmaps as other tools make them: what each does between the weighted sum and the picture, by name.

The default, "fastcam", divides by the maximum and upsamples bilinearly. The others reproduce pytorch-grad-cam 1.5,
torch-cam 0.5 and Captum 0.9, so that a result can be compared with one that is at hand. ``Explainer`` and ``fastcam
explain`` take them by name; boxes then surround what that tool's heatmap shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.errors import FastcamError
from fastcam.image.stacks import at_times, enlarged, under_rows
from fastcam.schema import Metadata

Float = NDArray[np.float32]
Sides = tuple[int, ...]
Size = tuple[int, int]


def heatmaps(style: str, signed: Float, size: Sides) -> Float:
    """Heatmaps in the ``style`` of a tool.

    Of clips and volumes what a tool scales has one minimum and maximum for all times or slices. Between these all are
    linear, as no tool but Captum enlarges there; Captum takes the nearest.

    Args:
        style: a name from :data:`STYLES`.
        signed: float32 [..., h, w], the weighted sums before any ReLU; of clips and volumes [N, T, t, h, w].
        size: (H, W) of the network's input; (times, H, W).

    Returns:
        float32 [..., H, W] or [N, T, times, H, W]: in 0..1 for "fastcam" and "pytorch-grad-cam", within rounding of it
        for "torch-cam" (its bicubic interpolation overshoots), signed and not normalised for "captum".

    Raises:
        FastcamError: no style of this name.
    """
    check(style)
    return STYLES[style](np.ascontiguousarray(signed, np.float32), tuple(size))


def check(style: str, metadata: Metadata | None = None) -> None:
    """Refuse a style that does not exist, or for which a file holds too little.

    Raises:
        FastcamError: no style of this name, or Captum's signed map of a file that emits it after its ReLU.
    """
    if style not in STYLES:
        raise FastcamError(f"no style {style!r}; use one of: {', '.join(STYLES)}")
    if style == "captum" and metadata is not None and metadata.emit == "cam":
        raise FastcamError(
            "Captum's heatmap is signed and the file emits the map after its ReLU; "
            f"run: fastcam export {metadata.source.get('file') or 'MODEL.onnx'} --emit weights"
        )


def explain_maps(
    backend: Any,
    style: str,
    activations: Any,
    weights: Any,
    size: Size,
    fraction: float,
    connectivity: int,
    windows: NDArray[np.int32] | None = None,
    want_heatmaps: bool = True,
) -> kernels.Explained:
    """:meth:`fastcam.kernels.Kernels.explain_maps` with heatmaps in a style, and the boxes that follow from these.

    Maps that are not finite have heatmaps of zeros. Styles of other tools are made on the CPU and always have heatmaps,
    from which their boxes follow; FastCAM's own leaves them out where ``want_heatmaps`` is False.
    """
    if style == "fastcam":
        plain: kernels.Explained = backend.explain_maps(
            activations, weights, size, fraction, connectivity, windows=windows, want_heatmaps=want_heatmaps
        )
        return plain
    on_gpu = hasattr(backend, "cupy")
    k = kernels.get() if on_gpu else backend
    host = backend.cupy.asnumpy if on_gpu else np.asarray
    signed = host(activations) if weights is None else k.weigh(host(activations), host(weights))
    verdict = k.status(signed)
    made = heatmaps(style, np.where((verdict == kernels.NON_FINITE)[..., None, None], np.float32(0), signed), size)
    found = k.explain_maps(made, None, size, fraction, connectivity, windows=windows, want_heatmaps=False)
    return found._replace(maps=k.relu(signed), status=verdict, heatmaps=made)


def signed(style: str) -> bool:
    """Whether heatmaps of this style have both signs, so that they are drawn around zero."""
    return style == "captum"


def drawn(style: str, heatmap: Float) -> Float:
    """A heatmap [H, W] of a style as places in a colour map, 0..1; signed ones have 0.5 at zero, both sides alike."""
    if not signed(style):
        clipped: Float = np.clip(heatmap, 0, 1)
        return clipped
    finite = np.nan_to_num(heatmap, nan=0, posinf=0, neginf=0)
    places: Float = np.float32(0.5) + finite / (2 * (np.abs(finite).max() or np.float32(1)))
    return places


def _fastcam(signed: Float, size: Sides) -> Float:
    """ReLU, divided by the maximum, bilinear."""
    k = kernels.get()
    return enlarged(k.normalize(under_rows(k.relu(signed))).reshape(signed.shape), size)


def _pytorch_grad_cam(signed: Float, size: Sides) -> Float:
    """ReLU, scaled from minimum to maximum, bilinear, and scaled once more."""
    return _scaled(enlarged(_scaled(np.maximum(signed, 0), 1e-7), size), 1e-7)


def _torch_cam(signed: Float, size: Sides) -> Float:
    """ReLU, scaled from minimum to maximum, Pillow's bicubic."""
    rows, columns = _bicubic(signed.shape[-2], size[-2]), _bicubic(signed.shape[-1], size[-1])
    scaled = _scaled(np.maximum(signed, 0), 1e-8)
    scaled = at_times(scaled, size[0]) if len(size) == 3 else scaled
    found: Float = (rows @ scaled @ columns.T).astype(np.float32)
    return found


def _captum(signed: Float, size: Sides) -> Float:
    """The signed sum, its nearest value."""
    for axis, (have, wanted) in enumerate(zip(signed.shape[-len(size) :], size, strict=True), -len(size)):
        signed = np.take(signed, np.arange(wanted) * have // wanted, axis=axis)
    return np.ascontiguousarray(signed)


STYLES: dict[str, Callable[[Float, Sides], Float]] = {
    "fastcam": _fastcam,
    "pytorch-grad-cam": _pytorch_grad_cam,
    "torch-cam": _torch_cam,
    "captum": _captum,
}


def _scaled(maps: Float, epsilon: float) -> Float:
    """From the minimum to the maximum, which gains ``epsilon``."""
    positions = tuple(range(2, 5)) if maps.ndim == 5 else (-2, -1)
    above: Float = maps - maps.min(positions, keepdims=True)
    scaled: Float = above / (above.max(positions, keepdims=True) + np.float32(epsilon))
    return scaled


def _bicubic(size: int, wanted: int) -> NDArray[Any]:
    """[wanted, size]: Keys' cubic convolution with a = -0.5, wider when reducing, cut off and renormalised at edges."""
    scale = size / wanted
    stretch = max(scale, 1.0)
    centres = (np.arange(wanted) + 0.5) * scale
    x = np.abs((np.arange(size) + 0.5 - centres[:, None]) / stretch)
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    rows: NDArray[Any] = weights / weights.sum(1, keepdims=True)
    return rows
