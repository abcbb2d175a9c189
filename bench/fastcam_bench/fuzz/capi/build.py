"""The C API's library with sanitizers: built, and tried in a process that its findings end."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import ROOT

LIBRARY = "FASTCAM_NATIVE_LIBRARY"
"""The environment variable that names another library than the installed one."""


def build(folder: Path) -> Path:
    """libfastcam with AddressSanitizer and UBSan, in ``folder``."""
    settings = ["-DFASTCAM_PYTHON=OFF", "-DFASTCAM_SANITIZE=address", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    for command in (["-S", str(ROOT), "-B", str(folder), *settings], ["--build", str(folder), "--parallel", "2"]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"cmake failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return next(iter(sorted(folder.glob("libfastcam.so*"))))


def environment(library: Path) -> dict[str, str]:
    """For a Python that loads it: the sanitizer comes first, and every allocation is malloc's, so that it sees each."""
    compiler = shutil.which(os.environ.get("CXX", "c++")) or "c++"
    names = [
        subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")  # without the second, what throws ends in the sanitizer
    ]
    options = {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    own = {"LD_PRELOAD": ":".join(names), "PYTHONMALLOC": "malloc", LIBRARY: str(library)}
    return {**os.environ, **options, **own, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def watch(inputs: int, seed: int, json_file: Path | None) -> int:
    """Build, run, and say how it went; the exit status."""
    library = build(ROOT / "build" / "fuzz" / "native-sanitized")
    with tempfile.NamedTemporaryFile() as progress:
        progress.write(bytes(8))
        progress.flush()
        arguments = ["--inputs", str(inputs), "--seed", str(seed), "--progress", progress.name]
        command = [sys.executable, "-m", "fastcam_bench.fuzz.native", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(library))
        last = struct.unpack("<q", Path(progress.name).read_bytes()[:8])[0]
    if done.returncode:
        print(f"input {last} of seed {seed}:\n{done.stderr[-6000:]}")
        return 1
    result = json.loads(done.stdout)
    print(f"{inputs} inputs, {result['accepted']} accepted, {result['refused']} refused, nothing found")
    if json_file:
        about = {
            "command": f"python -m fastcam_bench.fuzz.native --inputs {inputs} --seed {seed} --json {json_file}",
            "machine": machine(),
            "versions": versions("fastcam", "numpy"),
            "sanitizers": "address, undefined",
        }
        write_report(about | result | {"findings": 0}, json_file)
    return 0


def report(seen: Counter[str], seconds: float) -> None:
    """The counts as JSON, for the process that watches."""
    outcomes = {kind: sum(n for key, n in seen.items() if key.endswith(kind)) for kind in ("accepted", "refused")}
    print(json.dumps({**outcomes, "seconds": round(seconds, 1), "by function": dict(sorted(seen.items()))}))
