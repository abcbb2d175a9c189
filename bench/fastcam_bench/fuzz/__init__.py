"""Inputs that nobody would write, by the million: whatever comes in is accepted or refused in one line.

    python -m fastcam_bench.fuzz [--seconds 60] [--inputs N] [--only CLASS] [--seed S] [--json FILE]
    python -m fastcam_bench.fuzz --repeat build/fuzz/CLASS/FINDING.bin

Each class of inputs is a module of this package:

    NAME: str                                  what the table calls it
    seeds() -> list[bytes]                     good inputs, from which others are made
    attempt(data: bytes) -> str                "accepted" or "refused"
    mutate(data, random) -> bytes              optional: a change that knows the format

A ``FastcamError`` out of ``attempt`` is a refusal. Any other exception is a finding: a traceback, or a wrong answer
where it is :class:`WrongAnswer`, which ``attempt`` raises where an accepted input gives what an oracle does not. Each
class runs in a process of its own (``worker``), which the runner watches (``watch``): a process that dies, an input
that takes too long or too much memory are findings too, and the next process goes on. Findings are kept under
build/fuzz. Inputs are changed by libFuzzer, led by the lines that they reach, where atheris is installed, and blindly
where it is not.
"""

from __future__ import annotations


class WrongAnswer(Exception):
    """An input that was accepted, with a result that is not what it must be."""
