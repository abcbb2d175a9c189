"""Dataclasses whose fields are checked against their annotations, whether they come from JSON or from a caller.

An annotation says the type; with ``Annotated`` it also says rules: ``Annotated[int, at_least(1)]``. Needs the standard
library only.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
import types
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

LONGEST = 32 << 20
"""Of a text of JSON, in characters: what it becomes in memory is many times as long."""
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


class Unfit(ValueError):
    """A value that its field cannot have: ``mean[2] is 'x'; give a number``."""

    def __init__(self, where: str, value: object, wanted: str) -> None:
        shown = _REPR.repr(value)
        super().__init__(f"{where} is {''.join(c if c.isprintable() else '?' for c in shown)}; give {wanted}")


class Rule(NamedTuple):
    """What holds for a value, and the same in words: "a number above 0"."""

    holds: Callable[[Any], bool]
    wanted: str


def at_least(least: int) -> Rule:
    """A number, or each of several."""
    return Rule(lambda value: all(one >= least for one in _each(value)), f"numbers of {least} or more")


def at_most(most: int) -> Rule:
    """A number, or each of several."""
    return Rule(lambda value: all(one <= most for one in _each(value)), f"numbers of {most} or less")


MODERATE = Rule(lambda value: all(abs(one) <= 1e12 for one in _each(value)), "finite numbers, none beyond 1e12")
NOT_ZERO = Rule(lambda value: all(abs(one) >= 1e-12 for one in _each(value)), "numbers other than 0")
POSITIVE = Rule(lambda value: all(one > 0 for one in _each(value)), "numbers above 0")
NOT_EMPTY = Rule(bool, "at least one")


def _are_sides(shape: Any) -> bool:
    numbers = [side for side in shape if not isinstance(side, str)]
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in numbers)
    return whole and math.prod(numbers) <= 2**31


SIDES = Rule(_are_sides, "sizes above 0, of an array that memory can hold")
"""Of the axes of a shape; words name those that are free."""
BASE_NAME = Rule(
    lambda name: not name or (Path(name).name == name != ".." and "\0" not in name), "the name of a file in its folder"
)
"""Nothing that leads out of the folder."""


def parse_json(text: str) -> Any:
    """What a text of JSON says.

    Raises:
        ValueError: it is none, is too long, or nested too deeply.
    """
    if len(text) > LONGEST:
        raise ValueError(f"longer than {LONGEST >> 20} million letters")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def built(kind: type[Any], raw: object, where: str = "it") -> Any:
    """A dataclass from its JSON form. Lists become tuples; fields that it does not have are passed over.

    Raises:
        Unfit: a field is missing, or has a value of another type or against its rules.
    """
    if not isinstance(raw, Mapping):
        raise Unfit(where, raw, "an object")
    prefix = "" if where == "it" else f"{where}."
    values = {}
    for field in dataclasses.fields(kind):
        if field.name in raw:
            values[field.name] = fitted(raw[field.name], _hints(kind)[field.name], prefix + field.name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise Unfit(prefix + field.name, None, "a value")
    return kind(**values)


def check_fields(instance: Any) -> None:
    """Check the fields of a frozen dataclass, in its ``__post_init__``; sequences become tuples.

    Raises:
        Unfit: a value of another type, or against the rules.
    """
    for field in dataclasses.fields(instance):
        value = fitted(getattr(instance, field.name), _hints(type(instance))[field.name], field.name)
        object.__setattr__(instance, field.name, value)


def said(instance: Any) -> dict[str, Any]:
    """Fields that say something: what most files do not need stays out of them."""
    unsaid = {one.name: one.default for one in dataclasses.fields(instance) if one.default is not dataclasses.MISSING}
    values = dataclasses.asdict(instance)
    return {name: value for name, value in values.items() if name not in unsaid or value != unsaid[name]}


def fitted(value: Any, hint: Any, where: str) -> Any:
    """A value as an annotation has it.

    Raises:
        Unfit: it cannot be had so.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        found = fitted(value, parts[0], where)
        for rule in parts[1:]:
            if found is not None and not rule.holds(found):
                raise Unfit(where, value, rule.wanted)
        return found
    if origin in (Union, types.UnionType):
        return _of_union(value, parts, where)
    if origin is Literal:
        if not isinstance(value, str) or value not in parts:
            raise Unfit(where, value, " or ".join(map(repr, parts)))
        return value
    if origin is tuple:
        return _of_tuple(value, parts, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise Unfit(where, value, "an object")
        return {fitted(key, parts[0], where): fitted(one, parts[1], f"{where}.{key}") for key, one in value.items()}
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else built(hint, value, where)  # type: ignore[arg-type]
    return value if hint is Any else _plain(value, hint, where)


def _of_union(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    *others, last = (kind for kind in kinds if kind is not type(None))
    for kind in others:
        try:
            return fitted(value, kind, where)
        except Unfit:
            continue
    return fitted(value, last, where)


def _of_tuple(value: Any, kinds: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, list | tuple):
        raise Unfit(where, value, "a list")
    each = (kinds[0],) * len(value) if kinds[-1] is Ellipsis else kinds
    if len(each) != len(value):
        raise Unfit(where, value, f"{len(each)} values")
    return tuple(fitted(one, kind, f"{where}[{i}]") for i, (one, kind) in enumerate(zip(value, each, strict=True)))


def _plain(value: Any, kind: type[Any], where: str) -> Any:
    """A text, flag or number; numbers of other libraries as Python's."""
    flag = isinstance(value, bool)
    if kind is int and isinstance(value, Integral) and not flag and abs(int(value)) < 2**63:
        return int(value)
    if kind is float and isinstance(value, Real) and not flag:
        number = value if isinstance(value, int | float) else float(value)
        if isinstance(number, float) or abs(number) < 2**64:
            return number
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise Unfit(where, value, {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind])


def _each(value: Any) -> tuple[Any, ...]:
    """The numbers of a value; the words among them, which name what is free, are passed over."""
    values = value if isinstance(value, tuple) else (value,)
    return tuple(one for one in values if not isinstance(one, str))


def _hints(kind: type[Any]) -> dict[str, Any]:
    if kind not in _KNOWN:
        _KNOWN[kind] = get_type_hints(kind, include_extras=True)
    return _KNOWN[kind]


_KNOWN: dict[type[Any], dict[str, Any]] = {}
