"""Heatmaps of signals and volumes as files: arrays, and NIfTI beside a NIfTI volume, in its space."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from fastcam.atomic_files import write
from fastcam.image import nifti
from fastcam.image.preprocess import Float
from fastcam.runtime.inputs.sample_inputs import VOLUMES


def save(heatmap: Float, source: str | None, path: Path) -> list[str]:
    """Write a heatmap beside its picture; the name of the file.

    Args:
        heatmap: [L] or [D, H, W].
        source: the file that was explained, or None.
        path: of the picture, without its ending.
    """
    if source is not None and source.lower().endswith(VOLUMES):
        name, content = f"{path.name}.nii.gz", nifti.in_space_of(heatmap, source)
    else:
        name, content = f"{path.name}.npy", _as_npy(heatmap)
    write(path.with_name(name), content)
    return [name]


def _as_npy(heatmap: Float) -> bytes:
    file = BytesIO()
    np.save(file, heatmap)
    return file.getvalue()
