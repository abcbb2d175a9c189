"""The arrays of the kernels by what they hold."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int32]
Mask: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.bool_]
Halves: TypeAlias = npt.NDArray[np.float16]
Activations: TypeAlias = Floats | Halves
