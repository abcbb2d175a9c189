"""Heatmaps of signals and volumes as files: arrays, and NIfTI beside a NIfTI volume, in its space."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.atomic_files import write
from fastcam.image.preprocess import Float
from fastcam.runtime.sample_inputs import VOLUMES


def save(heatmap: Float, source: str | None, path: Path) -> list[str]:
    """Write a heatmap beside its picture; the name of the file.

    Args:
        heatmap: [L] or [D, H, W].
        source: the file that was explained, or None.
        path: of the picture, without its ending.
    """
    nifti = source is not None and source.lower().endswith(VOLUMES)
    name = f"{path.name}.nii.gz" if nifti else f"{path.name}.npy"
    write(path.with_name(name), _as_nifti(heatmap, source) if nifti else _as_npy(heatmap))
    return [name]


def _as_npy(heatmap: Float) -> bytes:
    file = BytesIO()
    np.save(file, heatmap)
    return file.getvalue()


def _as_nifti(heatmap: Float, source: Any) -> bytes:
    import gzip

    import nibabel

    made = nibabel.Nifti1Image(heatmap, nibabel.load(source).affine)
    return gzip.compress(made.to_bytes())
