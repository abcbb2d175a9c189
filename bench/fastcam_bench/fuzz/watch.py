"""Runs the process of one class of inputs, and starts the next where it dies, hangs or eats memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastcam_bench.fuzz import findings
from fastcam_bench.fuzz.record import Record

START = 300.0
"""Seconds that imports and seeds may take."""
TICK = 0.02


@dataclass(frozen=True)
class Limits:
    """How much is tried, and what one input may take.

    Attributes:
        seconds: of the class, after its imports and seeds were made.
        inputs: of the class; the earlier of the two ends it.
        per_input: seconds.
        memory: bytes beyond what the process has after its imports.
        guided: by atheris, where it is installed.
    """

    seconds: float = 1e9
    inputs: int = 2**60
    per_input: float = 30.0
    memory: int = 2 << 30
    guided: bool = True


def run_class(module: str, name: str, limits: Limits, seed: int = 0, one_input: Path | None = None) -> dict[str, Any]:
    """Try inputs of one class; what was found is under build/fuzz/NAME, which is emptied first.

    Args:
        module: the dotted name of the class's module.
        name: of the folder.
        limits: see there.
        seed: of the changes.
        one_input: try this file alone, and keep what earlier runs have found.

    Returns:
        inputs tried, accepted and refused, seconds, and the faults by kind (:data:`findings.KINDS`), each in one line.

    Raises:
        RuntimeError: the class cannot be imported or makes no seeds.
    """
    folder = findings.FOLDER / name if one_input is None else Path(tempfile.mkdtemp(prefix="repeat-"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as scratch:
        record = Record(Path(scratch) / "record", create=True)
        left = limits.seconds
        while not record.finished:
            process = _Process(module, Path(scratch), folder, record, limits, seed + record.tried, left, one_input)
            process.watch()
            left -= record.ready_for
    found = findings.faults(folder)
    text = "\n".join(path.read_text(errors="replace") for path in folder.glob("*.txt")) if one_input else ""
    if one_input is not None:
        shutil.rmtree(folder, ignore_errors=True)
    counts = {"inputs": record.tried, "accepted": record.accepted, "refused": record.refused}
    return counts | {"seconds": round(time.monotonic() - begun, 1), "found": found, "text": text}


class _Process:
    """One worker, from its start to its end."""

    def __init__(
        self,
        module: str,
        scratch: Path,
        folder: Path,
        record: Record,
        limits: Limits,
        seed: int,
        left: float,
        one_input: Path | None,
    ) -> None:
        self.record, self.limits, self.folder = record, limits, folder
        self.name = module.rpartition(".")[2]
        self.repeat = f"{Path(sys.executable).name} -m fastcam_bench.fuzz --only {module} --repeat {{}}"
        record.renew()
        options = asdict(limits) | {"seed": seed, "seconds": left, "repeat": self.repeat}
        options["input"] = str(one_input.resolve()) if one_input else None
        options["inputs"] = 1 if one_input else limits.inputs
        work = scratch / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        self.log = scratch / "log"
        path = os.pathsep.join(filter(None, sys.path))
        command = [sys.executable, "-m", "fastcam_bench.fuzz.worker", module, str(scratch / "record"), str(folder)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, json.dumps(options)],
                cwd=work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"TMPDIR": str(work), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def watch(self) -> None:
        """Until the process has ended, by itself or not; what ended it is kept."""
        begun = time.monotonic()
        base = 0
        while self.process.poll() is None:
            time.sleep(TICK)
            if not self.record.ready:
                base = self._resident()
                if time.monotonic() - begun > START:
                    self._end()
                    raise RuntimeError(f"not ready after {START:g} seconds\n{self._log()}")
            elif self.record.seconds > self.limits.per_input:
                self._lost("hangs", f"more than {self.limits.per_input:g} seconds")
            elif self.record.idle > self.limits.per_input:
                self._stalled()
            elif self.record.busy and self._resident() - base > self.limits.memory:
                self._lost("memory", f"more than {self.limits.memory >> 20} MiB")
        if self.record.finished:
            return
        if not self.record.ready:
            raise RuntimeError(f"the class does not start\n{self._log()}")
        code = self.process.returncode
        if self.record.busy:
            self._lost("crashes", signal.Signals(-code).name if code < 0 else f"exit {code}")

    def _stalled(self) -> None:
        """End a process that stands still between two inputs; the next one goes on.

        No input is at fault, so this is no finding. Seen of libFuzzer's runtime: the one thread waited for a lock.
        """
        idle = self.record.idle
        self._end()
        print(f"{self.name}: stood still between two inputs for {idle:.0f} seconds, started again", file=sys.stderr)

    def _resident(self) -> int:
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _lost(self, kind: str, what: str) -> None:
        """End the process and keep its input; how the fault is told from others is the stack that it shows.

        A process that has gone on to another input meanwhile is left alone.
        """
        number = self.record.tried
        stack = self._stack() if kind != "crashes" else self._log()
        if kind != "crashes":
            self.process.send_signal(signal.SIGSTOP)
            if self.record.tried != number or not self.record.busy:
                self.process.send_signal(signal.SIGCONT)
                return
        data = self.record.data
        self._end()
        line = next((line.strip() for line in stack.splitlines() if "fastcam" in line and "INFO" not in line), "")
        findings.keep(self.folder, kind, f"{what} {line}".strip(), data, stack, self.repeat)
        self.record.lost()

    def _stack(self) -> str:
        """Where the process is, by faulthandler, which the worker has put on SIGUSR1."""
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(0.2)
        return self._log()

    def _end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _log(self) -> str:
        return self.log.read_bytes()[-20000:].decode(errors="replace")
