"""Options of protocols: the fields of their dataclasses, checked and, from the command line, read from text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastcam.errors import FastcamError, listed
from fastcam.evaluation.protocols.base import Protocol


def options(protocol: type[Protocol]) -> dict[str, Any]:
    """The options of a protocol with their defaults; empty of one that has none."""
    if not is_dataclass(protocol):
        return {}
    return {one.name: one.default for one in fields(protocol) if one.init}


def described(protocol: type[Protocol]) -> str:
    """The options for people: "baseline=blur step=0"."""
    return " ".join(f"{name}={_text(value)}" for name, value in options(protocol).items())


def _text(value: Any) -> str:
    return ",".join(f"{one:g}" for one in value) if isinstance(value, tuple) else str(value)


def chosen(known: Mapping[str, type[Protocol]], names: Sequence[str], texts: Sequence[str] = ()) -> list[Protocol]:
    """Protocols by name, each once, with options as the command line has them: "insertion.baseline=black".

    Args:
        known: all of them by name.
        texts: lists have commas, "road.percentages=10,50,90".

    Raises:
        FastcamError: no such protocol or option, an option of a protocol that was not asked for, or a value that does
            not fit.
    """
    values: dict[str, dict[str, Any]] = {name: {} for name in names}
    for name in values:
        if name not in known:
            raise FastcamError(f"no protocol {name!r}; there are {', '.join(known)}")
    for text in texts:
        left, sign, value = text.partition("=")
        name, dot, key = left.strip().partition(".")
        if not (sign and dot and name and key and value.strip()):
            raise FastcamError(f"--set is {text!r}; give PROTOCOL.OPTION=VALUE, as in --set insertion.baseline=black")
        if name not in values:
            raise FastcamError(f"--set {text}: {name} is not measured; measured are {', '.join(values)}")
        values[name][key] = _value(known[name], key, value.strip())
    return [known[name](**given) for name, given in values.items()]


def _value(protocol: type[Protocol], key: str, text: str) -> Any:
    """The value of an option, of the kind of its default."""
    have = options(protocol)
    if key not in have:
        said = f"it has {listed(have)}" if have else "it has none"
        raise FastcamError(f"{protocol.name} has no option {key!r}; {said}")
    default, hint = have[key], get_type_hints(protocol)[key]
    if get_origin(hint) is Literal and text not in get_args(hint):
        raise FastcamError(f"{protocol.name}.{key} is {text!r}; give {' or '.join(map(str, get_args(hint)))}")
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(_number(part) for part in text.split(","))
        return type(default)(text) if not isinstance(default, float) else _number(text)
    except (KeyError, ValueError):
        raise FastcamError(f"{protocol.name}.{key} is {text!r}; the default is {_text(default)}") from None


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def check(protocol: Any) -> None:
    """Raise for options of a protocol out of range.

    Raises:
        FastcamError: a count below 1 (below 0, where 0 is the default or means all), a number below 0, a share or
            percentage that is none.
    """
    for name, default in options(type(protocol)).items():
        value, bad = getattr(protocol, name), ""
        if isinstance(default, bool | str):
            continue
        if isinstance(default, tuple):
            most = 100 if name == "percentages" else 1
            bad = "" if value and all(0 < one <= most for one in value) else f"numbers above 0, up to {most}"
        elif isinstance(default, int):
            least = 0 if default == 0 or name in ("most", "depths") else 1
            bad = "" if value >= least else f"{least} or more"
        elif not value >= 0:
            bad = "0 or more"
        if bad:
            raise FastcamError(f"{protocol.name}.{name} is {value}; give {bad}")
