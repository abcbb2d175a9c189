"""Kernels: what turns activations and weights into heatmaps, masks, boxes and overlays, behind one set of signatures.

:class:`Kernels` is that set. Three backends implement it: ``native`` (C++, csrc/), ``cuda`` (csrc/cuda/, for arrays on
the device, see :mod:`fastcam.kernels.cuda`) and ``reference`` (NumPy only), which is the oracle: all raise the same
errors and give the same bits, except :meth:`Kernels.weigh`, whose sum over the channels runs in another order.
:func:`get` returns one of them.

A *map* is one [h, w] plane of float32; leading axes may have any extent, 0 included. The *peak* of a map is its largest
value, if all of its values are finite and that one is positive: a map without a peak explains nothing, and becomes
zeros in :meth:`~Kernels.normalize` and :meth:`~Kernels.threshold`, never a plausible picture. All functions are pure,
keep no state, and may run in any number of threads; the native ones release the GIL.
"""

from __future__ import annotations

from typing import cast

from fastcam.errors import FastcamError
from fastcam.kernels.api import (
    ALL_NEGATIVE,
    CONSTANT,
    NON_FINITE,
    OK,
    STATUS_NAMES,
    ZERO_GRADIENT,
    Explained,
    Kernels,
)
from fastcam.kernels.arrays import Activations, Bytes, Floats, Halves, Ints, Mask

__all__ = [
    "OK",
    "ALL_NEGATIVE",
    "ZERO_GRADIENT",
    "NON_FINITE",
    "CONSTANT",
    "STATUS_NAMES",
    "Explained",
    "Kernels",
    "Activations",
    "Bytes",
    "Floats",
    "Halves",
    "Ints",
    "Mask",
    "get",
]


def get(name: str = "auto") -> Kernels:
    """The backend called ``name``; "auto" is native where ``fastcam._native`` is built, else reference.

    "cuda" takes and returns CuPy arrays; :mod:`fastcam.kernels.cuda` says what else differs.

    Raises:
        FastcamError: no such backend; "native" was asked for and is not built, or it is built and does not load; "cuda"
            was asked for where CuPy or a device is missing.
    """
    if name == "reference":
        from fastcam.kernels import reference

        return reference
    if name == "cuda":
        from fastcam.kernels import cuda

        return cast(Kernels, cuda.get())
    if name not in ("auto", "native"):
        raise FastcamError(f"no kernels {name!r}; there are: auto, native, cuda, reference")
    try:
        import fastcam.kernels.native as native  # from ... import takes longer, and every call comes here
    except ImportError as error:
        if name == "auto" and isinstance(error, ModuleNotFoundError):
            return get("reference")
        raise FastcamError(
            f"the native kernels cannot be loaded ({error}); reinstall fastcam with a C++ compiler, "
            'or use kernels.get("reference")'
        ) from error
    return native
