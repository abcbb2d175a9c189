"""The C API with arguments that it must refuse: nothing is read, nothing is written, and no call hangs."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastcam import _native
from fastcam.kernels import native as kernels
from fastcam.schema import FastcamError
from fastcam_bench.fuzz import WrongAnswer, native
from fastcam_bench.fuzz.capi import build
from fastcam_bench.fuzz.capi.call import Call
from fastcam_bench.fuzz.capi.memory import Draw

HUGE = 2**62
REFUSED: dict[str, dict[str, list[Any]]] = {
    "weigh": {"images": [-1, HUGE], "targets": [-1, HUGE], "channels": [-1, HUGE], "area": [0, -1, HUGE], "dtype": [2]},
    "status": {"maps": [-1, HUGE], "area": [0, -1, HUGE]},
    "relu": {"count": [-1, HUGE]},
    "normalize": {"maps": [-1, HUGE], "area": [0, -1, HUGE]},
    "threshold": {"maps": [-1, HUGE], "area": [0, -1], "fraction": [float("nan"), float("inf"), 0.0, -0.1, 1.01]},
    "upsample": {"maps": [-1, HUGE], "height": [0, 2**31], "width": [0, -1], "out_height": [0], "out_width": [2**31]},
    "label": {"maps": [-1, HUGE], "height": [0, 2**31 - 1], "width": [0, -1], "connectivity": [0, 6]},
    "boxes": {"height": [0, 2**31 - 1], "width": [0, -1], "count": [-1, HUGE]},
    "overlay": {"area": [-1, HUGE], "alpha": [float("nan"), float("inf"), -0.01, 1.01]},
    "prepare": {"height": [0, 2**31], "width": [0, -1], "stride": [0, -300, HUGE], "out_height": [0, 41]},
    "explain": {"struct_size": [0, 8, 2**62, -1], "images": [-1, HUGE], "targets": [-1, HUGE], "channels": [-1, HUGE],
                "height": [0, 2**31], "out_width": [0, 2**31], "fraction": [float("nan"), 0.0, 1.5], "dtype": [2],
                "connectivity": [0, 6], "workspace": [0, 3], "task": [0, 3], "newer": []},
    "sweep": {"height": [0, 2**31 - 1], "width": [0, -1], "count": [-1, HUGE], "connectivity": [0, 6],
              "workspace": [0, 3]},
}  # fmt: skip


def call(name: str) -> Call:
    """A call of that function which it accepts, all of whose arrays have elements."""
    for seed in range(200):
        one = native.CALLS[name](Draw(np.random.default_rng(seed).bytes(99)))
        if all(min(array.shape) > 0 for array in one.arrays()) and (name != "explain" or one.arguments["weights"]):
            return one
    raise AssertionError(name)


@pytest.mark.parametrize("name", REFUSED)
def test_a_function_refuses_with_every_byte_as_it_was(name: str) -> None:
    cases = [(argument, value) for argument, values in REFUSED[name].items() for value in values]
    pointers = [array.name for array in call(name).arrays()]
    cases += [(pointer, 0) for pointer in pointers if pointer != "window" and (name != "explain" or pointer == "data")]
    cases += [(array.name, 1) for array in call(name).arrays() if np.dtype(array.dtype).alignment > 1]
    for argument, value in cases:
        one = call(name)
        misaligned = argument in pointers and value == 1
        one.arguments[argument] = one.arguments[argument] + 1 if misaligned else value
        before = one.memory.snapshot()
        assert one.run(native.library()) == 1, (argument, value)
        assert one.memory.snapshot() == before, (argument, value)


@pytest.mark.parametrize("name", ["weigh", "threshold", "upsample", "label", "overlay", "prepare", "explain", "sweep"])
def test_an_output_over_an_input_is_refused(name: str) -> None:
    one = call(name)
    written = next(array.name for array in one.arrays() if array.use == "written" and array.name != "scratch")
    one.arguments[written] = one.address(one.arrays()[0])
    before = one.memory.snapshot()
    assert one.run(native.library()) == 1
    assert one.memory.snapshot() == before


@pytest.mark.parametrize("name", ["relu", "normalize"])
def test_what_may_be_in_place_is(name: str) -> None:
    one, other = call(name), call(name)
    one.arguments["out"] = one.arguments["values"]
    assert one.run(native.library()) == other.run(native.library()) == 0
    np.testing.assert_array_equal(one.value("out"), other.value("out"))


def test_random_calls_do_what_the_header_says() -> None:
    seen = native.run(1500, seed=5)
    assert {f"{name} {how}" for name in native.CALLS for how in ("accepted", "refused")} == set(seen)


def test_the_fuzzer_sees_what_a_function_writes_although_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    right = native.CALLS["relu"].run

    def wrong(self: Call, library: ctypes.CDLL) -> int:
        if self.refusal() is None:
            return right(self, library)
        for block in self.memory.blocks:
            block[-1] ^= 1
        return 1

    monkeypatch.setattr(native.CALLS["relu"], "run", wrong)
    with pytest.raises(WrongAnswer, match="relu wrote although"):
        native.run(500)


@pytest.mark.slow
def test_random_calls_under_sanitizers() -> None:
    if not (shutil.which("cmake") and shutil.which("c++")):
        pytest.skip("needs cmake and c++")
    assert build.watch(20_000, 3, None) == 0


def test_a_sanitizer_sees_one_value_too_many(tmp_path: Any) -> None:
    """That the slow test above can fail; without a build, as any library of that compiler will do."""
    source, library = tmp_path / "one.cpp", tmp_path / "one.so"
    source.write_text('extern "C" float last(const float* values, long count) { return values[count]; }')
    flags = ["-fsanitize=address,undefined", "-shared", "-fPIC", "-g"]
    if not shutil.which("c++") or subprocess.run(["c++", *flags, source, "-o", library]).returncode:
        pytest.skip("needs c++ with sanitizers")
    script = "import ctypes, numpy, sys; last = ctypes.CDLL(sys.argv[1]).last; "
    script += "last.argtypes = [ctypes.c_void_p, ctypes.c_long]; last(numpy.zeros(300, numpy.float32).ctypes.data, 300)"
    done = subprocess.run([sys.executable, "-c", script, library], env=build.environment(library), capture_output=True)
    assert b"heap-buffer-overflow" in done.stderr


# --- Python's bindings ---------------------------------------------------------------------------------------------

F, B, J = np.float32, np.uint8, np.int32
BAD: dict[str, Callable[[], Any]] = {
    "maps": lambda: _native.status(np.zeros(3, F)),
    "mask": lambda: _native.label(np.zeros(3, B), 8),
    "labels": lambda: _native.boxes(np.zeros((2, 3, 3), J), 1),
    "count": lambda: _native.boxes(np.zeros((3, 3), J), -1),
    "heatmap": lambda: _native.overlay(np.zeros((3, 3, 3), B), np.zeros((9, 9), F), np.zeros((256, 3), B), 0.5),
    "lut": lambda: _native.overlay(np.zeros((3, 3, 3), B), np.zeros((3, 3), F), np.zeros((2, 3), B), 0.5),
    "image": lambda: _native.overlay(np.zeros((3, 3), B), np.zeros((3, 3), F), np.zeros((256, 3), B), 0.5),
    "activations": lambda: _native.weigh(np.zeros((1, 2, 3, 3), np.int8), np.zeros((1, 1, 2), F)),
    "weights": lambda: _native.weigh(np.zeros((1, 2, 3, 3), F), np.zeros((1, 1, 9), F)),
    "windows": lambda: _native.explain_maps(np.zeros((1, 2, 3, 3), F), None, 3, 3, 0.5, 8, True, np.zeros((9, 4), J)),
    "size": lambda: _native.explain_maps(np.zeros((1, 2, 3, 3), F), None, -3, 3, 0.5, 8, True, None),
    "pixels": lambda: _native.prepare(np.zeros((3, 3), B), np.ones(3, F), np.ones(3, F), np.zeros((1, 1, 3), F)),
    "factor": lambda: _native.prepare(np.zeros((3, 3, 3), B), np.ones(2, F), np.ones(3, F), np.zeros((1, 1, 3), F)),
    "out": lambda: _native.prepare(np.zeros((3, 3, 3), B), np.ones(3, F), np.ones(3, F), np.zeros((1, 1, 3), ">f4")),
    "threshold": lambda: _native.threshold(np.zeros((3, 3), F), float("nan")),
    "upsample": lambda: _native.upsample(np.zeros((3, 3), F), 2**31, 1),
    "values": lambda: _native.sweep(np.zeros((1, 3, 3), F), np.zeros(1, F), 8, None),
    "cuts": lambda: _native.sweep(np.zeros((3, 3), F), np.zeros((1, 1), F), 8, None),
    "window": lambda: _native.sweep(np.zeros((3, 3), F), np.zeros(1, F), 8, np.zeros((1, 4), J)),
    "sweep": lambda: _native.sweep(np.zeros((3, 3), F), np.zeros(1, F), 5, None),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_the_bindings_refuse_by_the_arguments_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        BAD[name]()


def test_a_picture_of_one_row_repeated_is_read_within_that_row() -> None:
    row = np.arange(300, dtype=B).reshape(1, 100, 3)
    repeated, out, wanted = np.broadcast_to(row, (50, 100, 3)), np.zeros((2, 20, 20, 3), F), np.ones(3, F)
    for pixels, place in ((repeated, out[0]), (repeated.copy(), out[1])):
        kernels.prepare(pixels, wanted, wanted, place)
    np.testing.assert_array_equal(out[0], out[1])
    with pytest.raises(ValueError, match="prepare"):
        _native.prepare(repeated, wanted, wanted, out[0])


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: kernels.upsample(np.zeros((3, 3), F), (2**70, 1)), "size"),
        (lambda: kernels.upsample(np.zeros((3, 3), F), (2**40, 1)), "size"),
        (lambda: kernels.threshold(np.zeros((3, 3), F), 10**400), "fraction"),
        (lambda: kernels.overlay(np.zeros((3, 3, 3), B), np.zeros((3, 3), F), np.zeros((256, 3), B), 10**400), "alpha"),
        (lambda: kernels.boxes(np.zeros((3, 3), J), 10**400), "count"),
        (lambda: kernels.prepare(np.zeros((9, 9, 3), B), np.ones(3, F), np.ones(3, F),
                                 np.lib.stride_tricks.as_strided(np.zeros(9, F), (2, 2, 3), (4, 4, 4))), "out"),
    ],
)  # fmt: skip
def test_numbers_that_no_kernel_can_have_are_refused_by_name(refused: Callable[[], Any], message: str) -> None:
    with pytest.raises(FastcamError, match=message):
        refused()


# --- fork ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_workspace_is_usable_or_busy_after_a_fork() -> None:
    """Forked at rest it works; forked in the middle of another thread's call it works or is busy, and nothing hangs."""
    done = subprocess.run([sys.executable, __file__], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    first, *others = done.stdout.split()
    assert first == "0" and len(others) == 20 and set(others) <= {"0", "3"}


def _fork() -> None:
    from fastcam_bench.fuzz.capi.task import Task

    library, one = native.library(), call("explain")
    workspace, task = library.fastcam_workspace_new(), Task()
    for field, *_ in Task._fields_:
        if field in one.arguments and field not in ("newer", "padding"):
            setattr(task, field, one.arguments[field])

    def in_child() -> int:
        process = os.fork()
        if process == 0:
            os._exit(library.fastcam_explain(workspace, ctypes.addressof(task)))
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    print(in_child())
    going = threading.Event()

    def calls() -> None:
        while not going.is_set():
            library.fastcam_explain(workspace, ctypes.addressof(task))

    thread = threading.Thread(target=calls)
    thread.start()
    print(*[in_child() for _ in range(20)])
    going.set()
    thread.join()
    library.fastcam_workspace_free(workspace)


if __name__ == "__main__":
    _fork()
