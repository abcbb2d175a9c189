"""What verbs print: prose, tables, counts, progress."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fastcam.errors import FastcamError, reason


class Output(io.TextIOWrapper):
    """Stdout or stderr, to which what cannot be written on a full disk is a :class:`FastcamError`.

    Names that are no UTF-8, or not in a terminal's narrower encoding, are escaped.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        encoding, lines, through = stream.encoding, stream.line_buffering, stream.write_through
        super().__init__(stream.detach(), encoding, "backslashreplace", None, lines, through)

    def write(self, text: str, /) -> int:
        """Write, or raise FastcamError; a reader that has gone stays a BrokenPipeError."""
        try:
            return 0 if text == "" else super().write(text)  # by an empty text click asks what kind of stream this is
        except OSError as error:
            self._refuse(error)

    def flush(self) -> None:
        """See :meth:`write`."""
        try:
            super().flush()
        except OSError as error:
            self._refuse(error)

    def _refuse(self, error: OSError) -> NoReturn:
        if isinstance(error, BrokenPipeError):
            raise error
        with suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)  # takes the rest, lest the interpreter tries it again at its end
            os.dup2(nothing, self.fileno())
            os.close(nothing)
        said = f"the output cannot be written ({reason(error)}); make room for it, or send it elsewhere"
        raise FastcamError(said) from error


def say(line: str) -> None:
    """A line of prose; on a terminal broken between words, with the rest indented."""
    console = _console()
    wrap = textwrap.TextWrapper(
        console.width, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False
    )
    typer.echo(wrap.fill(line) if console.is_terminal else line)


def _console() -> Console:
    """Stdout; as wide as it must be where nobody watches, so that no line of a file or a pipe is broken."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=10_000)


def coloured(title: str, words: Sequence[tuple[str, str]], hottest: Sequence[str]) -> None:
    """A title, and words over their colours ("#ff8800"); where nobody sees colours, the hottest words by name."""
    console = _console()
    if console.is_terminal and console.color_system is not None and not console.no_color:
        line = Text(" ").join(Text(word, style=f"#111111 on {colour}") for word, colour in words)
        console.print(Text(title, style="bold"))
        console.print(line)
        return
    typer.echo(f"{title}: {' '.join(word for word, _ in words)}")
    typer.echo(f"        hottest: {', '.join(hottest) or 'none'}")


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under titles, without the columns that say nothing; names of up to 40 letters are never broken."""
    used = [i for i in range(len(titles)) if any(row[i] for row in rows) or i == 0]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i in used:
        longest = max((len(row[i]) for row in rows), default=0)
        table.add_column(titles[i], overflow="fold", no_wrap=longest <= 40 and titles[i] not in ("scope", "note"))
    for row in rows:
        table.add_row(*(escape(row[i]) for i in used))
    _console().print(table)


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


@contextmanager
def progress(total: int | None, always: bool = False) -> Iterator[Progress]:
    """A progress bar on stderr, on a terminal, for many pictures (None: nobody knows how many) or ``always``."""
    console = Console(stderr=True)
    columns = (TextColumn("explaining"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    few = total is not None and total < 2 and not always
    with Progress(*columns, console=console, transient=True, disable=few or not console.is_terminal) as bar:
        bar.add_task("explaining", total=total)
        yield bar
