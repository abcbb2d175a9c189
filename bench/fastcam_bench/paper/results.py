"""How every experiment ends: JSON, the table of it, and pictures, in a folder of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.image.resampling import opencv
from fastcam_bench.oracles.machine import write_report

QUALITY = 88
"""Of the JPEGs."""


def write_results(
    report: dict[str, Any],
    out: Path,
    name: str,
    table: Callable[[dict[str, Any]], str],
    pictures: Mapping[str, Any],
) -> None:
    """Write ``name.json``, ``name.md`` and a JPEG of each picture into the folder ``name``.

    Args:
        out: where that folder lies, or is made.
        pictures: by name, uint8 RGB [height, width, 3].
    """
    out = out / name
    out.mkdir(parents=True, exist_ok=True)
    write_report(report, out / f"{name}.json", table)
    cv2 = opencv()
    for own, picture in pictures.items():
        turned = np.ascontiguousarray(picture[..., ::-1])
        cv2.imwrite(str(out / f"{own}.jpg"), turned, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
