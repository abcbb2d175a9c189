"""What every backend of the kernels has: the signatures, what they return, and the codes of their verdicts."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from fastcam.kernels.arrays import Activations, Bytes, Floats, Ints, Mask

OK = 0
ALL_NEGATIVE = 1
ZERO_GRADIENT = 2
NON_FINITE = 3
CONSTANT = 4
STATUS_NAMES = ("ok", "all_negative", "zero_gradient", "non_finite", "constant")
"""The verdicts of :meth:`Kernels.status`, and their names by number; the last is of maps that are the same everywhere,
which no backend gives: :mod:`fastcam.explain.postprocess` does."""


class Explained(NamedTuple):
    """What :meth:`Kernels.explain_maps` finds."""

    maps: Floats
    """float32 [N, T, h, w] after ReLU, not normalised."""
    status: Bytes
    """uint8 [N, T], see :meth:`Kernels.status`."""
    heatmaps: Floats | None
    """float32 [N, T, H, W] in 0..1; None where they were not asked for."""
    counts: Ints
    """int32 [N, T]: number of components."""
    components: Ints
    """int32 [counts.sum(), 5]: rows x0, y0, x1, y1 (half-open), pixels: map by map, each map's in raster order."""
    largest: Ints
    """int32 [N, T, 5]: each map's row with most pixels, the first of them on a tie; zeros where there is none."""


class Kernels(Protocol):
    """The signatures that every backend has.

    Arrays must be NumPy arrays of the dtype named; one that is not C-contiguous is copied. Heights and widths are at
    least 1. All functions raise :class:`~fastcam.errors.FastcamError` for arguments that break these rules.
    """

    def weigh(self, activations: Activations, weights: Activations) -> Floats:
        """The signed class activation maps, ``sum_k weights[n, t, k] * activations[n, k]``, before ReLU.

        float16 is widened exactly, so the result has the bits that float32 arrays of the same values give.

        Args:
            activations: float32 or float16 [N, K, h, w].
            weights: float32 or float16 [N, T, K].

        Returns:
            float32 [N, T, h, w].
        """

    def status(self, maps: Floats) -> Bytes:
        """One verdict per map of :meth:`weigh`.

        :data:`NON_FINITE`: some value is NaN or infinite (this wins); :data:`OK`: some value is positive;
        :data:`ALL_NEGATIVE`: none is and some are negative, so that ReLU leaves nothing; :data:`ZERO_GRADIENT`: all
        values are exactly zero.

        Args:
            maps: float32 [..., h, w], signed.

        Returns:
            uint8 [...].
        """

    def relu(self, maps: Floats) -> Floats:
        """``max(maps, 0)``. NaN stays NaN.

        Args:
            maps: float32 [..., h, w].

        Returns:
            float32, the same shape.
        """

    def normalize(self, maps: Floats) -> Floats:
        """Each map divided by its peak; zeros where it has none.

        After :meth:`relu` the result lies in 0..1. It is always finite: of a signed map, a quotient below the lowest
        float32 becomes that.

        Args:
            maps: float32 [..., h, w].

        Returns:
            float32, the same shape.
        """

    def upsample(self, maps: Floats, size: tuple[int, int]) -> Floats:
        """Bilinear interpolation with half-pixel centres, enlarging or reducing (then without antialiasing).

        Output pixel i looks at input position ``(i + 0.5) * in / out - 0.5``, clamped to the map: what torch's
        ``interpolate(mode="bilinear", align_corners=False)`` and OpenCV's ``INTER_LINEAR`` compute.

        Args:
            maps: float32 [..., h, w].
            size: (H, W), each at least 1.

        Returns:
            float32 [..., H, W]; the values stay within the map's range (up to rounding; exactly within 0..1).
        """

    def threshold(self, maps: Floats, fraction: float = 0.15) -> Bytes:
        """The mask of the values that are positive and at least ``fraction`` of their map's peak.

        Zeros where the map has no peak. 0.15 is the value of the Grad-CAM paper (Selvaraju et al., section 4.1).

        Args:
            maps: float32 [..., H, W].
            fraction: in (0, 1]; it and the product are rounded to float32.

        Returns:
            uint8 [..., H, W], 0 or 1.
        """

    def label(self, mask: Mask, connectivity: int = 8) -> tuple[Ints, Ints]:
        """Connected components of the non-zero pixels, as ``scipy.ndimage.label`` numbers them.

        Args:
            mask: uint8 or bool [..., H, W], at most 2**31 - 1 pixels per mask.
            connectivity: 8 (pixels that share a corner are neighbours) or 4 (only those that share an edge).

        Returns:
            labels, int32 [..., H, W]: 0 is background, the components are 1, 2, ... in raster order of their first
            pixels; counts, int32 [...].
        """

    def boxes(self, labels: Ints, count: int) -> Ints:
        """The tight bounding box and the number of pixels of every component.

        Args:
            labels: int32 [H, W], values in 0..count.
            count: number of components.

        Returns:
            int32 [count, 5]: rows x0, y0, x1, y1 (half-open), pixels, by label; zeros for a label without pixels.
        """

    def largest(self, boxes: Ints) -> int:
        """The row of the component with most pixels, the first of them on a tie.

        Args:
            boxes: int32 [count, 5] of :meth:`boxes`, count at least 1.

        Returns:
            Index of the row (the label minus 1).
        """

    def overlay(self, image: Bytes, heatmap: Floats, lut: Bytes, alpha: float) -> Bytes:
        """The heatmap, coloured, over the picture: ``(1 - alpha) * image + alpha * lut[255 * heatmap]``.

        Both roundings are to the nearest, halves up: the index is ``floor(255 * heat + 0.5)`` in float32; the blend
        runs in integers with ``a = floor(65536 * alpha + 0.5)``, ``(image * (65536 - a) + color * a + 32768) >> 16``.

        Args:
            image: uint8 [H, W, 3].
            heatmap: float32 [H, W]; values are clipped to 0..1, NaN counts as 0.
            lut: uint8 [256, 3], in the image's order of colours.
            alpha: opacity of the heatmap, in [0, 1].

        Returns:
            uint8 [H, W, 3].
        """

    def explain_maps(
        self,
        activations: Activations,
        weights: Activations | None,
        size: tuple[int, int],
        fraction: float = 0.15,
        connectivity: int = 8,
        *,
        windows: Ints | None = None,
        want_heatmaps: bool = True,
    ) -> Explained:
        """Everything from activations to boxes: weigh, status, relu, normalize, upsample, threshold, label, boxes.

        The results are those of the separate functions, bit for bit; maps that are not finite have heatmaps of zeros
        and no components. Without heatmaps no enlarged map is built: the boxes follow exactly from the small one.

        Args:
            activations, weights: as for :meth:`weigh`; where weights is None, activations are the signed maps,
                float32 [N, T, h, w].
            size: (H, W) of the heatmaps and the boxes' coordinates, at most 2**31 - 1 pixels.
            fraction, connectivity: as for :meth:`threshold` and :meth:`label`.
            windows: int32 [N, 4], one x0, y0, x1, y1 (half-open) per image, outside of which no pixel counts for the
                components (a letterbox's bars); peaks and heatmaps do not change.
            want_heatmaps: whether the result holds them.
        """
