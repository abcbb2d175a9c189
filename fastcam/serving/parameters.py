"""What a client asks of a picture, checked as far as it can be without the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fastcam.errors import FastcamError, listed, shown
from fastcam.serving.limits import Limits
from fastcam.targets.classes import whole_number

NAMES = ("targets", "method", "options", "threshold", "connectivity", "layers", "fuse", "style")
"""Of the parameters of a request that say what is explained, and how."""


@dataclass(frozen=True)
class Parameters:
    """What is explained of each picture of a request.

    Attributes:
        targets: classes by index or name, or ranks from -1.
        arguments: the other parameters of :meth:`fastcam.Explainer.steps`, those that were said.
    """

    targets: tuple[int | str, ...] = (-1,)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """The same for requests that one run may answer together."""
        return json.dumps(self.arguments, sort_keys=True)


def parse_parameters(parameters: Mapping[str, Any], limits: Limits) -> Parameters:
    """The parameters of a request. Nothing in them is read as a path.

    Args:
        parameters: by name, as texts (of an address) or as values (of JSON). ``targets``: a list, or a text with
            commas between, or, as names may hold commas, a list in JSON; ``options``: an object, or texts "key=value";
            ``layers``: "all" or a list.

    Raises:
        FastcamError: one that is not known, or a value that is none of these.
    """
    unknown = [name for name in parameters if name not in NAMES]
    if unknown:
        raise FastcamError(f"no parameter {shown(repr(unknown[0]))}; there are {listed(NAMES)}")
    arguments: dict[str, Any] = {}
    for name in ("method", "fuse", "style"):
        if name in parameters:
            arguments[name] = _text(name, parameters[name])
    if "threshold" in parameters:
        arguments["threshold"] = _number("threshold", parameters["threshold"])
    if "connectivity" in parameters:
        arguments["connectivity"] = _whole("connectivity", parameters["connectivity"])
    if "options" in parameters:
        arguments["options"] = _options(parameters["options"])
    if "layers" in parameters:
        layers = _list("layers", parameters["layers"])
        arguments["layers"] = "all" if layers == ["all"] else layers
    targets = _list("targets", parameters.get("targets", [-1]))
    if len(targets) > limits.targets:
        raise FastcamError(f"{len(targets)} targets; at most {limits.targets} of a picture are explained")
    return Parameters(tuple(targets), arguments)


def _list(name: str, value: Any) -> list[int | str]:
    """Numbers and names; a number that is written as text is one."""
    given: Sequence[Any] = _parts(value) if isinstance(value, str) else value if isinstance(value, list) else [value]
    found: list[int | str] = []
    for one in given:
        if isinstance(one, bool) or not isinstance(one, int | str) or one == "":
            raise FastcamError(f"{name} has {shown(repr(one))}; give names or whole numbers")
        number = whole_number(one) if isinstance(one, str) else one
        found.append(str(one).strip() if number is None else number)
    if not found:
        raise FastcamError(f"{name} is empty; give at least one, or leave it out")
    return found


def _parts(text: str) -> Sequence[Any]:
    """What a text lists: a list in JSON, as a parameter of gRPC and of an address cannot be a list, or with commas."""
    if text.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            found: list[Any] = json.loads(text)
            return found
    return text.split(",")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise FastcamError(f"{name} is {shown(repr(value))}; give a name")
    return value


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if not number.is_integer():
        raise FastcamError(f"{name} is {shown(repr(value))}; give a whole number")
    return int(number)


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise FastcamError(f"{name} is {shown(repr(value))}; give a number") from None


def _options(value: Any) -> dict[str, Any]:
    pairs: Any = value
    if isinstance(value, str):
        pairs = dict(one.partition("=")[::2] for one in value.split(","))
    plain = isinstance(pairs, Mapping) and all(isinstance(one, str | int | float | bool) for one in pairs.values())
    if not plain:
        raise FastcamError(f"options is {shown(repr(value))}; give names with numbers or words")
    return {**pairs}
