"""Side-by-side measurements: interleaved timing, ratios with intervals, and the peak memory of a fresh process.

    python -m fastcam.runtime.timing MODEL.onnx BATCH THREADS      # used by peak_memory: one session, one run, its peak

Contestants take turns in random order, so that what the machine does meanwhile falls on all alike, and each round
gives one ratio to the contestant that is the yardstick.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.schema import COTANGENT, METADATA_KEY, TARGETS, Metadata

Run: TypeAlias = "Callable[[], Any]"
Samples: TypeAlias = "dict[str, list[float]]"

_DTYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_DTYPES |= {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
_FREE = (1, 3, 224, 224)  # sizes of free dimensions, where nothing else says them
_RESAMPLES = 1000


class Laps(dict[str, float]):
    """Seconds of parts of a run, by name: what a run may return, to have them recorded beside its whole."""


def interleaved(
    runs: Mapping[str, Run],
    seconds: float,
    least: int = 10,
    pause: float = 0.0,
    seed: int = 0,
    uncounted: Literal["round", "turn", "none"] = "round",
) -> Samples:
    """Time ``runs`` in rounds, each round all of them in a new random order.

    Args:
        runs: name -> a function that does the work once.
        seconds: when this has passed, the round that is under way is the last.
        least: rounds that are made in any case.
        pause: seconds of sleep before each turn, for threads of the one before that still spin.
        uncounted: what is run and not counted: the first round; a run of each turn, which wakes its threads and fetches
            its weights into the caches, as the run before does in a loop; or nothing, where all have run.

    Returns:
        name -> seconds of every round; of a part of :class:`Laps` under "name, part". All lists are equally long.
    """
    if uncounted == "round":
        for run in runs.values():
            run()
    rng, names = np.random.default_rng(seed), list(runs)
    samples: Samples = {name: [] for name in runs}
    began, rounds = time.perf_counter(), 0
    while rounds < least or time.perf_counter() - began < seconds:
        for index in rng.permutation(len(names)):
            name = names[index]
            if pause:
                time.sleep(pause)
            if uncounted == "turn":
                runs[name]()
            start = time.perf_counter()
            result = runs[name]()
            samples[name].append(time.perf_counter() - start)
            if isinstance(result, Laps):
                for part, taken in result.items():
                    samples.setdefault(f"{name}, {part}", []).append(taken)
        rounds += 1
    return samples


def summary(samples: Mapping[str, Sequence[float]], yardstick: str) -> dict[str, dict[str, Any]]:
    """Median, p99 and ratio of every contestant.

    Args:
        samples: name -> seconds of each round, in the same order of rounds.
        yardstick: the contestant that the ratios are to.

    Returns:
        name -> median_ms, p99_ms; ratio: the median of the rounds' ratios; ratio_95: its bootstrap interval, 95 %.
    """
    base = np.asarray(samples[yardstick])
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(base), (_RESAMPLES, len(base)))
    found = {}
    for name, taken in samples.items():
        times = np.asarray(taken)
        ratio = times / base
        low, high = np.quantile(np.median(ratio[rows], axis=1), (0.025, 0.975))
        found[name] = {
            "median_ms": round(float(np.median(times)) * 1e3, 3),
            "p99_ms": round(float(np.quantile(times, 0.99)) * 1e3, 3),
            "ratio": round(float(np.median(ratio)), 4),
            "ratio_95": [round(float(low), 4), round(float(high), 4)],
        }
    return found


def cpu_session(model: str | Path | bytes, threads: int) -> Any:
    """An ONNX Runtime session on the CPU whose threads sleep when they have nothing to do.

    Raises:
        FastcamError: it cannot be loaded.
    """
    from fastcam.runtime.session import CPU, one_line, onnxruntime, ort_errors

    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=[CPU])
    except ort_errors(ort) as error:
        raise FastcamError(f"ONNX Runtime cannot load the model ({one_line(error)})") from error


def random_feeds(session: Any, batch: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Random values for every input that a session requires; ``fastcam.targets`` asks for the predicted class.

    Raises:
        FastcamError: an input's batch is fixed to another number, or its type has no random values here.
    """
    rng, words = np.random.default_rng(seed), _words(session)
    feeds: dict[str, NDArray[Any]] = {}
    for value in session.get_inputs():
        if value.name == TARGETS:
            feeds[TARGETS] = np.array([[-1]])
            continue
        if value.type not in _DTYPES:
            raise FastcamError(
                f"no random values for input {value.name} of type {value.type}; measure it in your own code"
            )
        if value.shape and isinstance(value.shape[0], int) and value.shape[0] != batch:
            raise FastcamError(
                f"the batch of input {value.name} is fixed to {value.shape[0]}; give --batch {value.shape[0]}"
            )
        free = (batch, *_channels_last(value.shape)[1:], *[1] * len(value.shape))
        if value.name.startswith(COTANGENT):
            free = (batch, *[1] * len(value.shape))  # one target
        shape = [size if isinstance(size, int) else free[axis] for axis, size in enumerate(value.shape)]
        dtype = _DTYPES[value.type]
        whole = np.issubdtype(dtype, np.integer)
        made = rng.integers(0, words.get(value.name, 100), shape) if whole else rng.standard_normal(shape)
        feeds[value.name] = made.astype(dtype)
    return feeds


def _words(session: Any) -> dict[str, int]:
    """How many ids the inputs of an exported file know that hold a text's."""
    said = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if said is None:
        return {}
    about = Metadata.from_json(said)
    each = [(about.input, about.words), *((one.name, one.words) for one in about.inputs)]
    return {name: count for name, count in each if count is not None}


def _channels_last(shape: Sequence[Any]) -> tuple[int, ...]:
    last = len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)
    return (_FREE[0], _FREE[2], _FREE[3], _FREE[1]) if last else _FREE


def peak_memory(model: str | Path, batch: int, threads: int) -> dict[str, float]:
    """Memory of a fresh process that loads a model and runs it once on random values.

    Returns:
        MB (2^20 bytes): "imports" before the session was made, "peak" at the end. Their difference is the model's.

    Raises:
        FastcamError: the process failed; the message is its last line.
    """
    command = [sys.executable, "-m", __name__, str(model), str(batch), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise FastcamError(f"measuring the memory of {Path(model).name} failed: {lines[-1]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def own_peak() -> float:
    """The largest resident size of this process so far in MB.

    On Linux not by getrusage, whose figure a new process inherits from the one that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main() -> None:
    """The command; see the module's docstring."""
    from fastcam.runtime.session import onnxruntime

    model, batch, threads = sys.argv[1:]
    onnxruntime()
    imports = own_peak()
    session = cpu_session(model, int(threads))
    session.run(None, random_feeds(session, int(batch)))
    print(json.dumps({"imports": round(imports, 1), "peak": round(own_peak(), 1)}))


if __name__ == "__main__":
    main()
