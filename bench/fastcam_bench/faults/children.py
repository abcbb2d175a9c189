"""Runs a case in a process that is forked after all imports, so that hundreds of runs take seconds."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastcam_bench.faults import cases
from fastcam_bench.faults.injection import Counter, Fault, fail_calls

PATIENCE = 60.0
"""Seconds until a run counts as hanging."""
Files = dict[str, tuple[int, bytes | None]]
"""Mode and content by path; a folder has no content."""


@dataclass(frozen=True)
class Run:
    """How a run ended: its exit status (below 0: the signal), what it printed, its files after it."""

    status: int
    said: str
    files: Files
    left: tuple[str, ...]


def warm() -> None:
    """Import all that the cases import, before the forks; nothing here may start a thread."""
    import cv2
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    import fastcam.cli
    import fastcam.concepts.dff
    import fastcam.explain.streaming
    import fastcam.explainer
    import fastcam.results.layer_sheet
    import fastcam.results.method_sheet  # noqa: F401
    import fastcam_export  # noqa: F401
    from fastcam import cache

    cache.machine()
    cv2.setNumThreads(1)


class Place:
    """A folder with ``in`` and ``out``, in which cases run again and again."""

    def __init__(self, root: Path, library: Path) -> None:
        self.root, self.library, self.counter = root, library, Counter()
        (root / "in").mkdir()
        self._fork(lambda: cases.make_inputs(root / "in"))

    def prepare(self, files: Files) -> None:
        """``out`` holds these files and nothing else."""
        for name in ("out", "tmp", "cache"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir()
        for name, (mode, content) in files.items():
            path = self.root / "out" / name
            if content is None:
                path.mkdir()
            else:
                path.write_bytes(content)
            path.chmod(mode)

    def run(self, case: cases.Case, fault: Fault, nth: int, folder: str, kill_after: float | None = None) -> Run:
        """One run with what ``out`` holds.

        Args:
            case: what.
            fault: how calls fail.
            nth: which of them; 0: none.
            folder: whose files' calls: "in" or "out".
            kill_after: seconds after which the process is killed.
        """
        self.counter.reset()

        def work() -> int:
            os.chdir(self.root)
            os.environ["TMPDIR"] = str(self.root / "tmp")
            fail_calls(self.library, self.root / folder, fault, nth, self.counter)
            return cases.run(case)

        status, said = self._fork(work, kill_after)
        left = tuple(path.name for path in (self.root / "tmp").iterdir())
        return Run(status, said, read(self.root / "out"), left)

    def _fork(self, work: Callable[[], int], kill_after: float | None = None) -> tuple[int, str]:
        log = self.root / "log"
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            _child(work, log)
        handle = os.pidfd_open(pid)
        try:
            ready, _, _ = select.select([handle], [], [], PATIENCE if kill_after is None else kill_after)
            if not ready:
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        finally:
            os.close(handle)
        said = log.read_text(errors="replace")
        if not ready and kill_after is None:
            said += f"\nhangs for {PATIENCE:g} seconds"
        return os.waitstatus_to_exitcode(status), said


def _child(work: Callable[[], int], log: Path) -> None:
    """The forked process, from its begin to its end."""
    code = 70
    try:
        out = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
        nothing = os.open(log.with_name("stdout"), os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
        os.dup2(out, 2)
        os.dup2(nothing, 1)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def read(folder: Path) -> Files:
    """All files and folders under one."""
    found: Files = {}
    for path in sorted(folder.rglob("*")):
        mode = path.stat().st_mode & 0o7777
        found[str(path.relative_to(folder))] = (mode, None if path.is_dir() else path.read_bytes())
    return found


def timed(place: Place, case: cases.Case, fault: Fault) -> tuple[Run, float]:
    """An undisturbed run and its seconds."""
    begun = time.monotonic()
    return place.run(case, fault, 0, "out"), time.monotonic() - begun
