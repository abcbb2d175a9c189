"""The process that tries the inputs of one class; ``watch`` starts it.

    python -m fastcam_bench.fuzz.worker MODULE RECORD FOLDER OPTIONS(JSON)

First the seeds as they are, then changed ones until the time or the number is over.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam_bench.fuzz import WrongAnswer, findings
from fastcam_bench.fuzz.mutation import changed
from fastcam_bench.fuzz.record import LARGEST, Record


def load(name: str, guided: bool) -> tuple[ModuleType, Any]:
    """The class's module, and atheris where it is installed and wanted, which then sees the lines of the product."""
    try:
        atheris = importlib.import_module("atheris") if guided else None
    except ImportError:
        atheris = None
    if atheris is None:
        return importlib.import_module(name), None
    with atheris.instrument_imports(include=["fastcam", "fastcam_export"]):
        return importlib.import_module(name), atheris


def limit_memory(bytes_more: int) -> None:
    """Let the process ask for so many bytes more than it has: an allocation that is absurd fails at once."""
    now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + bytes_more, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Trier:
    """Tries inputs, and writes down each before and how it went after."""

    def __init__(self, module: ModuleType, record: Record, folder: Path, repeat: str) -> None:
        self.attempt: Callable[[bytes], str] = module.attempt
        self.record, self.folder, self.repeat = record, folder, repeat

    def __call__(self, data: bytes) -> None:
        """One input; nothing but an interruption comes out."""
        data = data[:LARGEST]
        self.record.begin(data)
        self.record.end(self._outcome(data))

    def _outcome(self, data: bytes) -> str:
        try:
            outcome = self.attempt(data)
            if outcome in ("accepted", "refused"):
                return outcome
            raise TypeError(f"attempt returned {outcome!r}; it returns 'accepted' or 'refused'")
        except FastcamError:
            return "refused"
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # SystemExit too: whatever comes out is what is looked for
            self.record.caught()
            kind = "memory" if isinstance(error, MemoryError) else "tracebacks"
            kind = "wrong" if isinstance(error, WrongAnswer) else kind
            text = "".join(traceback.format_exception(error))
            findings.keep(self.folder, kind, findings.place_of(error), data, text, self.repeat)
            return kind


def guided(tried: Trier, module: ModuleType, atheris: Any, seeds: list[bytes], options: dict[str, Any]) -> None:
    """By libFuzzer, led by the product's lines. It ends the process itself."""
    until = options["until"]
    left = options["inputs"] - tried.record.tried

    def one(data: bytes) -> None:
        if time.monotonic() >= until:
            done(tried.record)
        tried(data)
        if tried.record.tried >= options["inputs"]:
            done(tried.record)

    corpus = tempfile.mkdtemp(prefix="corpus-", dir=os.getcwd())
    for i, seed in enumerate(seeds):
        (Path(corpus) / f"{i}").write_bytes(seed)
    flags = ["-handle_segv=0", "-handle_abrt=0", "-handle_bus=0", "-handle_fpe=0", "-handle_ill=0", "-handle_int=0"]
    flags += [
        "-handle_term=0",
        "-rss_limit_mb=0",
        "-malloc_limit_mb=0",
        "-timeout=1000000",
        "-verbosity=0",
        "-use_value_profile=1",
    ]
    flags += [f"-seed={options['seed'] % 2**31 + 1}", f"-max_len={longest(seeds)}", f"-runs={max(1, left)}", corpus]
    mutator = {}
    if hasattr(module, "mutate"):

        def mutate(data: bytes, size: int, seed: int) -> bytes:
            random = np.random.default_rng(seed)
            if random.random() < 0.4:
                return bytes(atheris.Mutate(data, size))
            return bytes(module.mutate(data, random)[:size])

        mutator = {"custom_mutator": mutate}
    atheris.Setup([sys.argv[0], *flags], one, **mutator)
    atheris.Fuzz()


def blind(tried: Trier, module: ModuleType, seeds: list[bytes], options: dict[str, Any]) -> None:
    """By changes that nothing leads."""
    random = np.random.default_rng(options["seed"])
    while tried.record.tried < options["inputs"] and time.monotonic() < options["until"]:
        data = seeds[int(random.integers(len(seeds)))]
        if hasattr(module, "mutate") and random.random() < 0.6:
            data = module.mutate(data, random)
        else:
            data = changed(data, seeds, random, longest(seeds))
        tried(data)


def longest(seeds: list[bytes]) -> int:
    """How many bytes an input may have."""
    return min(LARGEST, 4096 + 2 * max(map(len, seeds)))


def done(record: Record) -> None:
    """End the process, and say that it was meant so."""
    record.set_finished(True)
    os._exit(0)


def main(name: str, record_file: str, folder: str, options_text: str) -> None:
    """The command; see the module's docstring."""
    options = json.loads(options_text)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    record = Record(Path(record_file))
    module, atheris = load(name, options["guided"])
    tried = Trier(module, record, Path(folder), options["repeat"])
    seeds = [seed[:LARGEST] for seed in ([Path(options["input"]).read_bytes()] if options["input"] else module.seeds())]
    limit_memory(2 * options["memory"])  # what is used is watched from outside
    record.set_ready()
    options["until"] = time.monotonic() + options["seconds"]
    for seed in seeds[record.tried :]:
        if record.tried < options["inputs"] and time.monotonic() < options["until"]:
            tried(seed)
    if record.tried < options["inputs"] and time.monotonic() < options["until"]:
        if atheris is not None:
            guided(tried, module, atheris, seeds, options)
        else:
            blind(tried, module, seeds, options)
    done(record)


if __name__ == "__main__":
    main(*sys.argv[1:])
