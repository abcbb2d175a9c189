"""Options of methods: keyword arguments of their functions, checked and, from the command line, read from text."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastcam.errors import FastcamError
from fastcam.methods.registry import Method


def parameters(method: Method) -> dict[str, Any]:
    """The options of a method with their defaults; empty of one that has none."""
    if method.per_image is None:
        return {}
    arguments = inspect.signature(method.per_image).parameters.values()
    return {one.name: one.default for one in arguments if one.kind is one.KEYWORD_ONLY}


def with_options(method: Method, values: Mapping[str, Any] | None) -> Method:
    """The method with its options set: numbers, or text as the command line has it ("50", "0.1", "32x32", "true").

    Raises:
        FastcamError: the method has no such option, or it takes another kind of value.
    """
    known = parameters(method)
    checked = {name: _checked(method, name, value, known) for name, value in (values or {}).items()}
    return replace(method, options=checked)


def described(method: Method) -> str:
    """The options for people: "steps=35 noise=2.0"."""
    return " ".join(f"{name}={_text(value)}" for name, value in parameters(method).items())


def parsed(texts: Sequence[str]) -> dict[str, str]:
    """``--option`` of the command line: "key=value" each.

    Raises:
        FastcamError: one is not.
    """
    pairs = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key.strip() or not value.strip():
            raise FastcamError(f"--option is {text!r}; give key=value, as in --option samples=50 (fastcam methods)")
        pairs[key.strip()] = value.strip()
    return pairs


def _checked(method: Method, name: str, value: Any, known: Mapping[str, Any]) -> Any:
    if name not in known:
        have = f"it has: {described(method)}" if known else "it has none"
        raise FastcamError(f"{method.title} has no option {name!r}; {have}")
    try:
        default = known[name]
        return _as(type(default), value, name, auto=isinstance(default, float) and math.isnan(default))
    except (TypeError, ValueError) as error:
        usual = _text(known[name])
        raise FastcamError(f"{method.title}: {name} is {value!r}; {error} (the default is {usual})") from None


def _as(kind: type, value: Any, name: str, auto: bool) -> Any:
    """``value`` as the kind of thing that the default is; ``auto``: the default of a number is a word."""
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() not in words:
            raise ValueError("give true or false")
        return words[str(value).lower()]
    if kind is int:
        return _count(value, 0 if name == "seed" else 1)
    if kind is float:
        if value == "auto" and auto:
            return math.nan
        number = float(value) if not isinstance(value, bool) else math.nan
        if not math.isfinite(number):
            raise ValueError("give a finite number")
        return number
    if kind is tuple:
        if value in ("auto", ()):
            return ()
        sides = re.split(r"[x,]", value) if isinstance(value, str) else value
        sides = list(sides) if isinstance(sides, Sequence) else [sides]
        if len(sides) not in (1, 2):
            raise ValueError("give rows and columns, like 32x32")
        return tuple(_count(side, 1) for side in (sides * 2)[:2])
    return str(value)


def _count(value: Any, least: int) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError("give a whole number")
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise ValueError("give a whole number") from None
    if number < least:
        raise ValueError(f"it must be at least {least}")
    return number


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return "auto"
    return ("x".join(map(str, value)) or "auto") if isinstance(value, tuple) else str(value)
