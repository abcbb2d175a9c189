"""The one error that FastCAM raises for bad input, and how its messages call names and paths."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from types import UnionType

MOST = 10
"""How many names an error lists."""
LONGEST = 160
"""Of a path in a message, in characters."""


WORD, LINE = 300, 1200
"""Characters of a message: of a word in it, which may be a name that somebody gave, and of all of it."""


class FastcamError(ValueError):
    """Bad input: one line that says what is wrong and what to do. The command line turns it into exit code 2.

    Whatever names are in the message: characters that cannot be printed are escaped, and what is too long is cut out in
    the middle.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(_line(one) if isinstance(one, str) else one for one in args))


def _line(text: str) -> str:
    words = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text).split(" ")
    line = " ".join(word if len(word) <= WORD else f"{word[:100]}...{word[-60:]}" for word in words)
    return line if len(line) <= LINE else f"{line[:700]} ... {line[-400:]}"


def listed(names: Iterable[object], most: int = MOST) -> str:
    """Names for an error: the first of them, and how many more there are."""
    every = [str(name) for name in names]
    rest = len(every) - most
    return ", ".join([*every[:most], f"and {rest} more"] if rest > 0 else every)


def shown(path: str | Path) -> str:
    """A path for a message: of sensible length, with what cannot be printed escaped."""
    text = str(path).encode("utf-8", "backslashreplace").decode()
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= LONGEST else f"{text[:40]}...{text[-60:]}"


def typed(name: str, value: object, types: type | UnionType, wanted: str) -> None:
    """Refuse an argument of another type, True and False among them unless they are wanted.

    Args:
        name: of the argument.
        value: what was given.
        types: what it may be.
        wanted: the same in words: "a number".

    Raises:
        FastcamError: it is something else.
    """
    flag = isinstance(value, bool) and bool not in (types.__args__ if isinstance(types, UnionType) else (types,))
    if flag or not isinstance(value, types):
        raise FastcamError(f"{name} is {shown(repr(value))}; give {wanted}")


def kind_of(mode: int) -> str:
    """What a path of this ``st_mode`` is, where it is no regular file."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def reason(error: OSError | ValueError) -> str:
    """Why the system refused a path. A ValueError is one with a zero byte in the name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
