"""Running a method that runs the model again: each image of a run gets a probe, and zeros beyond its own targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.methods.context import Meter, Probe, as_planes
from fastcam.methods.registry import Method, MethodResult
from fastcam.runtime.exported_model import Network
from fastcam.runtime.run import Run
from fastcam.targets.resolved import ImageTargets


def run_method(method: Method, probes: Iterable[Probe], meter: Meter) -> list[MethodResult]:
    """What a method gives for each image of a run, by a probe of it."""
    results = []
    for probe in probes:
        results.append(_own_targets_only(method(probe), probe.explained.own_count))
        meter.image_done()
    return results


def check_input(method: Method, dtype: np.dtype[Any], file: str) -> None:
    """Refuse a method that changes its input a little where that is made of whole numbers.

    Args:
        dtype: of the input.
        file: its name, for the error.

    Raises:
        FastcamError: the input is one that cannot be changed a little.
    """
    if method.runs in ("images", "gradients") and dtype.kind != "f" and not method.hides:
        raise FastcamError(
            f"{file} takes {dtype} pictures, and {method.title} changes its input by less than one of "
            "their steps; use a file with a float input, exported without --frames"
        )


def probes(
    run: Run,
    added: Mapping[str, Any],
    targets: list[ImageTargets],
    network: Network,
    layout: str,
    batch_size: int,
    of_outputs: Callable[[dict[str, Any], int], Float],
    meter: Meter,
) -> Iterator[Probe]:
    """A probe of each image of a run.

    Args:
        added: the added outputs, put together for combinations.
        targets: for each image.
        layout: the order of the axes of the model's input.
        of_outputs: the explained output, [M, classes], of the model's outputs.
    """
    tensor = np.asarray(run.batch.tensor)
    for i, target in enumerate(targets):
        x = np.ascontiguousarray(as_planes(tensor[i], layout), np.float32)
        own = {name: value[i] for name, value in added.items()}
        again = (batch_size, network, layout, tensor.dtype, of_outputs, meter, run.batch.further[i : i + 1])
        yield Probe(x, target, target.count, own, *again)


def _own_targets_only(result: MethodResult, count: int) -> MethodResult:
    """Zeros where an image has fewer targets than another."""
    parts = (result.weights, result.maps, result.attributions)
    kept = [None if part is None else np.array(part, np.float32) for part in parts]
    for part in kept:
        if part is not None:
            part[count:] = 0
    return MethodResult(*kept)
