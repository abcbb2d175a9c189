"""The code blocks of a Markdown page, and a run of them from top to bottom, as a reader would.

Languages: ``python`` (one namespace a page), ``console`` (lines with ``$``; the others are output), ``cpp`` (a file
whose first line names it). A ``text`` block right behind one of them is what it prints; ``...`` stands for anything. A
comment above the fence says what is special:

    <!-- block: needs cuda -->           compiled; run where there is such a device
    <!-- block: skip, REASON -->         shown only
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
CODE = ("python", "console", "cpp")
OTHERS = ("text", "json", "yaml", "toml", "c", "cmake", "makefile", "html", "javascript")
_FENCE = re.compile(
    r"^(?:<!-- block: (?P<mark>[^>]+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, first line of code, language, code, mark, and what it prints (None: not said)."""

    page: Path
    line: int
    language: str
    code: str
    mark: str
    prints: str | None

    @property
    def needs(self) -> str:
        """The device that it needs, or ""."""
        return self.mark.removeprefix("needs ") if self.mark.startswith("needs ") else ""

    @property
    def skipped(self) -> bool:
        return self.mark.startswith("skip, ")

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order, output blocks among them."""
    text = page.read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    made = []
    for here, after in zip(found, [*found, None][1:], strict=True):
        close = after is not None and after["language"] == "text" and len(text[here.end() : after.start()].split()) < 3
        line = text.count("\n", 0, here.start("code")) + 1
        prints = after["code"] if close and after is not None else None
        made.append(Block(page, line, here["language"], here["code"], here["mark"] or "", prints))
    return made


def compiled(block: Block) -> Any:
    """A Python block as code whose lines are those of the page."""
    return compile("\n" * (block.line - 1) + block.code, str(block.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def run(block: Block, namespace: dict[str, Any]) -> None:
    """Run a block in the current folder; raise AssertionError where it fails or prints something else."""
    if block.language == "python":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compiled(block), namespace)
        expect(block, block.prints, printed.getvalue())
    elif block.language == "cpp":
        Path(block.code.splitlines()[0].removeprefix("// ")).write_text(block.code, encoding="utf-8")
    else:
        for command, output in commands(block):
            expect(block, output or None, call(block, command))


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, continued lines joined, and what is shown of their output."""
    parts = re.split(r"^\$ ", block.code.replace("\\\n", " "), flags=re.MULTILINE)
    assert not parts[0].strip(), f"{block}: a console block begins with a command"
    shown = block.prints if len(parts) == 2 else None
    for part in parts[1:]:
        command, _, output = part.partition("\n")
        yield command.strip(), output or shown or ""


def call(block: Block, command: str) -> str:
    """What a command prints: fastcam's in this process, others by a shell."""
    words = shlex.split(command, comments=True)
    if words[0] == "fastcam" and not {"|", ">"} & {*words}:
        from fastcam.cli import app

        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{block}: {command}\n{result.output}\n{result.exception!r}"
        return result.stdout
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    quick = {"CMAKE_BUILD_TYPE": "Debug"}  # what the library does is the same
    environment = {**os.environ, **quick, "PATH": path, "FASTCAM": str(ROOT)}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{block}: {command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def expect(block: Block, wanted: str | None, printed: str) -> None:
    """Raise where the output is not what the page shows, but for spaces and what ``...`` stands for."""
    if wanted is not None:
        parts = [re.escape(" ".join(part.split())) for part in wanted.split("...")]
        same = re.fullmatch(" ?.* ?".join(parts), " ".join(printed.split()))
        assert same, f"{block} prints\n{printed}\nand the page shows\n{wanted}"
