"""Which calls fail, and how; the library that makes them fail is compiled where it is first needed. Linux alone."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fastcam_bench.paths import CACHE

OPENS, CREATES, READS, WRITES, SYNCS, RENAMES, CLOSES, MAPS, FOLDERS = (1 << i for i in range(9))
KILL = -1
"""In place of an error: the process is ended."""


@dataclass(frozen=True)
class Fault:
    """One way in which calls fail.

    Attributes:
        name: for people.
        groups: the calls that are counted, by bits.
        error: what they answer; 0: half of the read or write is done, which is no error; or KILL.
        lasting: all calls from the n-th on, or this one alone.
    """

    name: str
    groups: int
    error: int
    lasting: bool = False


WRITING = (
    Fault("disk full", WRITES | CREATES | FOLDERS, errno.ENOSPC, lasting=True),
    Fault("one write fails", WRITES, errno.EIO),
    Fault("closing fails", CLOSES | SYNCS, errno.EIO),
    Fault("read-only", CREATES | FOLDERS, errno.EROFS, lasting=True),
    Fault("one rename fails", RENAMES, errno.EIO),
    Fault("no more open files", OPENS | CREATES, errno.EMFILE),
    Fault("no mapping", MAPS, errno.ENOMEM),
    Fault("half of a write", WRITES, 0),
    Fault("half of every write", WRITES, 0, lasting=True),
)
"""On files that are written."""
READING = (
    Fault("one read fails", READS | MAPS, errno.EIO),
    Fault("all reads fail", READS | MAPS, errno.EIO, lasting=True),
    Fault("no more open files", OPENS, errno.EMFILE, lasting=True),
    Fault("half of a read", READS, 0),
    Fault("half of every read", READS, 0, lasting=True),
)
"""On files that are read."""
KILLING = Fault("killed", CREATES | WRITES | RENAMES | CLOSES | FOLDERS, KILL)


def library() -> Path:
    """The compiled library.

    Raises:
        OSError, subprocess.CalledProcessError: there is no C compiler, or the machine is none that it is written for.
    """
    source = Path(__file__).with_name("failing_calls.c")
    out = CACHE / f"failing_calls-{source.stat().st_mtime_ns}.so"
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_suffix(f".{os.getpid()}")
        subprocess.run(
            ["cc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(partial), str(source)],
            check=True,
            capture_output=True,
        )
        os.replace(partial, out)
    return out


class Counter:
    """Numbers of calls that processes share with those that they fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 128)
        self.numbers = (ctypes.c_long * 16).from_buffer(self._memory)

    def of(self, groups: int) -> int:
        """How many calls of these groups there were."""
        return sum(self.numbers[1 + bit] for bit in range(15) if groups >> bit & 1)

    def reset(self) -> None:
        """Begin again."""
        ctypes.memset(self.numbers, 0, ctypes.sizeof(self.numbers))


def fail_calls(path: Path, folder: Path, fault: Fault, nth: int, counter: Counter) -> None:
    """From here on, in this process, the n-th call on files of the folder fails. 0: none does, but they are counted.

    Raises:
        OSError: the system does not allow it.
    """
    shim = ctypes.CDLL(str(path))
    error: int = shim.fail_calls(
        os.fsencode(folder),
        fault.groups,
        ctypes.c_long(nth),
        int(fault.lasting),
        fault.error,
        ctypes.byref(counter.numbers),
    )
    if error:
        raise OSError(error, os.strerror(error))
