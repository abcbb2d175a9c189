"""The C API (csrc/include/fastcam/cam.h): every function with arguments of all kinds, beside the header's rules.

    python -m fastcam_bench.fuzz.native --inputs 200000 [--json FILE]

runs them on a library built with AddressSanitizer and UBSan (``capi/build``); ``python -m fastcam_bench.fuzz --only
native`` on the one that is installed, with guards around each array. An input is a function, arguments that fit
together, and changes of some of them: extents that are negative, zero or overflow, pointers that are null, misaligned
or another argument's, numbers out of range. ``capi`` holds what the header asks of each call. A call that it
refuses returns FASTCAM_INVALID and leaves every byte as it was; one that it allows gives the reference's result.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import mmap
import os
import struct
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

import fastcam._native
from fastcam_bench.fuzz import WrongAnswer
from fastcam_bench.fuzz.capi import build, maps, planes, prepare, sweep, task
from fastcam_bench.fuzz.capi.call import SUCCESS, Call
from fastcam_bench.fuzz.capi.memory import Draw

NAME = "C functions"
_CLASSES: list[type[Call]] = [maps.Weigh, maps.Status, maps.Normalize, maps.Threshold, maps.Relu]
_CLASSES += [planes.Upsample, planes.Label, planes.Boxes, planes.Overlay, prepare.Prepare, task.Explain]
_CLASSES += [sweep.Sweep]
CALLS = {call.name: call for call in _CLASSES}
_LENGTH = 160


@functools.cache
def library() -> ctypes.CDLL:
    """The functions of the C API, with their argument types."""
    found = ctypes.CDLL(os.environ.get(build.LIBRARY) or fastcam._native.__file__)
    for call in CALLS.values():
        call.declare(found)
    return found


def seeds() -> list[bytes]:
    """A valid call of each function and a random one."""
    random = np.random.default_rng(0)
    return [bytes([kind]) + bytes(n) + random.bytes(64) for kind in range(len(CALLS)) for n in (1, 8)]


def attempt(data: bytes) -> str:
    """One call; WrongAnswer where it does what the header does not say."""
    draw = Draw(data)
    name = draw.choice(list(CALLS))
    call = CALLS[name](draw)
    call.spoil(draw)
    wanted = call.refusal()
    if wanted is None and not call.has_memory():
        return "refused"  # the header allows it, and this process has no such array
    before = call.memory.snapshot()
    given = call.run(library())
    if wanted is not None:
        if given == SUCCESS:
            raise WrongAnswer(f"{name} accepts {call.arguments}: {wanted}")
        if call.memory.snapshot() != before:
            raise WrongAnswer(f"{name} wrote although it refuses {call.arguments}: {wanted}")
        return "refused"
    if given != SUCCESS:
        raise WrongAnswer(f"{name} refuses {call.arguments} with {given}")
    call.memory.check_guards(name)
    if call.is_small():
        with np.errstate(all="ignore"):
            call.compare()
    return "accepted"


def run(inputs: int, seed: int = 0, progress: mmap.mmap | None = None) -> Counter[str]:
    """Random inputs, one after the other; outcomes by function. ``progress`` holds the number of the one that runs."""
    random, seen = np.random.default_rng(seed), Counter[str]()
    for i in range(inputs):
        data = random.bytes(_LENGTH)
        if progress is not None:
            progress[:8] = struct.pack("<q", i)
        seen[f"{Draw(data).choice(list(CALLS))} {attempt(data)}"] += 1
    return seen


def main() -> int:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m fastcam_bench.fuzz.native", description="the C API, with sanitizers"
    )
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the counts")
    parser.add_argument("--progress", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.progress is None:
        return build.watch(options.inputs, options.seed, options.json)
    begin = time.perf_counter()
    with options.progress.open("r+b") as file, mmap.mmap(file.fileno(), 8) as progress:
        seen = run(options.inputs, options.seed, progress)
    build.report(seen, time.perf_counter() - begin)
    return 0


if __name__ == "__main__":
    sys.exit(main())
