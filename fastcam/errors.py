"""The one error that FastCAM raises for bad input, and how its messages call names and paths."""

from __future__ import annotations

import functools
import inspect
import stat
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

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


def printable(text: str) -> str:
    """A text on one line, with what cannot be printed escaped: line ends, terminals' commands, no UTF-8."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shown(path: str | Path) -> str:
    """A path for a message: of sensible length, with what cannot be printed escaped."""
    text = printable(str(path))
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
    wide = types.__args__ if isinstance(types, UnionType) else (types,)
    flag = isinstance(value, bool) and not {bool, object} & {*wide}
    if flag or not isinstance(value, types):
        raise FastcamError(f"{name} is {shown(repr(value))}; give {wanted}")


class Kind(NamedTuple):
    """What arguments of one name are, in every public function that has one."""

    types: type | UnionType
    wanted: str
    good: Callable[[Any], bool] = lambda value: True


def _has_truth(value: Any) -> bool:
    try:
        return bool(value) in (True, False)
    except Exception:  # an array of several
        return False


_WHOLE = Kind(Integral, "a whole number", lambda value: -(2**31) <= value < 2**31)
_TEXT = Kind(str, "a name")
_FLAG = Kind(object, "True or False", _has_truth)
_FOLDER = Kind(str | PathLike, "a path", lambda value: "\0" not in str(value))
ARGUMENTS = {
    **dict.fromkeys(("i", "target", "batch_size", "workers", "threads", "connectivity"), _WHOLE),
    **dict.fromkeys(("min_side", "tile", "columns", "count", "width", "concept"), _WHOLE),
    **dict.fromkeys(("fuse", "style", "colors", "kernels"), _TEXT),
    **dict.fromkeys(("annotate", "cam", "heatmaps"), _FLAG),
    **dict.fromkeys(("folder", "path"), _FOLDER),
    "threshold": Kind(Real, "a number"),
    "alpha": Kind(Real, "a number"),
    "wait": Kind(Real, "seconds", lambda value: 0 <= value < 2**31),
    "method": Kind(str, "the name of a method (fastcam methods)"),
    "options": Kind(Mapping, "a dict of options by name"),
    "inputs": Kind(Mapping, "a dict of values by the names of inputs"),
    "progress": Kind(object, "a function of two numbers", callable),
    "index": Kind(Integral | slice, "a whole number or a slice"),
}
"""By name. An argument that is left out, or given as it is by default, is not looked at."""


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """A public function that refuses arguments of another kind than their names have in :data:`ARGUMENTS`."""
    parameters = inspect.signature(function).parameters.values()
    known = [
        (i, one.name, ARGUMENTS[one.name], one.default) for i, one in enumerate(parameters) if one.name in ARGUMENTS
    ]

    first = min((place for place, *_ in known), default=len(parameters))

    @functools.wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> T:
        if not named and len(given) <= first:  # none of them was given
            return function(*given, **named)
        for place, name, kind, default in known:
            value = given[place] if place < len(given) else named.get(name, default)
            if value is not default:
                typed(name, value, kind.types, kind.wanted)
                if not kind.good(value):
                    raise FastcamError(f"{name} is {shown(repr(value))}; give {kind.wanted}")
        return function(*given, **named)

    return call


def kind_of(mode: int) -> str:
    """What a path of this ``st_mode`` is, where it is no regular file."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def reason(error: OSError | ValueError) -> str:
    """Why the system refused a path. A ValueError is one with a zero byte in the name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
