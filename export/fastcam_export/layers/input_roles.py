"""What each input beside the explained one holds: the graph's types and names tell, or the user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from fastcam.errors import FastcamError, listed, shown
from fastcam.input_roles import OTHER_IDS, ROLES, TEXTS, Role
from fastcam_export.graph.query import known_dims
from fastcam_export.layers.layout import shape_text

NAMES = ("input_ids", "text", "token", "question", "caption", "prompt", "word", "sentence", "query", "ids")
"""In names of inputs that hold the ids of a text."""
STATES = ("past", "state", "hidden", "cache", "memory", "h0", "c0", "h_0", "c_0")
"""In names of what a network carries from step to step."""
PASSED = ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Slice")
"""Operators between an input of ids and the table in which they are looked up."""
WHOLE = "int32", "int64"


def roles(
    inputs: Iterable[ir.Value], tables: Mapping[str, int | None], said: Mapping[str, str] | None
) -> dict[str, Role]:
    """The role of each input, by name.

    Args:
        inputs: those beside the explained one.
        tables: see :func:`rows_of`, of each of these.
        said: what the user says of some.

    Raises:
        FastcamError: the user names an input that there is not, or no role; or a text that is no ids of words.
    """
    values = {value.name or "": value for value in inputs}
    for name, role in (said or {}).items():
        if name not in values:
            have = listed(f"{one} {shape_text(value)}" for one, value in values.items()) or "none"
            raise FastcamError(f"the model has no input {shown(repr(name))} beside the explained one; it has {have}")
        if role not in ROLES:
            raise FastcamError(f"the role of input {name!r} is {shown(repr(role))}; give one of {', '.join(ROLES)}")
        if role in TEXTS and not _whole(values[name]):
            raise FastcamError(
                f"input {name!r} {shape_text(values[name])} holds no ids of words, which are whole numbers; give it "
                "another role"
            )
    found: dict[str, Role] = {name: _role(value, tables.get(name)) for name, value in values.items()}
    found |= {name: role for name, role in (said or {}).items() if role in ROLES}
    return found


def followed(names: Mapping[str, Role]) -> dict[str, str]:
    """The text from which each mask and other ids follow, by name; of several the one whose name begins alike."""
    texts = [name for name, role in names.items() if role in TEXTS]
    following = [name for name, role in names.items() if role in ("mask", "ids")]
    if len(texts) == 1:
        return {name: texts[0] for name in following if "pixel" not in name.lower()}
    found = {}
    for name in following:
        length, best = max(((_alike(name, text), text) for text in texts), default=(0, ""))
        if length >= 2 and [_alike(name, text) for text in texts].count(length) == 1:
            found[name] = best
    return found


def rows_of(value: ir.Value) -> int | None:
    """The rows of the matrix in which an input's ids are looked up; None where the graph does not tell."""
    todo, seen = [value], set()
    found: list[int] = []
    while todo:
        one = todo.pop()
        if one.name in seen:
            continue
        seen.add(one.name)
        for node, place in one.uses():
            if node.op_type == "Gather" and place == 1:
                table = node.inputs[0]
                dims = known_dims(table) if table is not None else None
                axis = node.attributes.get_int("axis", 0)
                if table is not None and dims and len(dims) == 2 and dims[axis] is not None and _constant(table):
                    found.append(dims[axis])  # type: ignore[arg-type]
            elif node.op_type in PASSED and place == 0:
                todo += node.outputs
    return min(found, default=None)


def _constant(table: ir.Value) -> bool:
    """Whether a table is weights, quantised ones among them, and no activations."""
    producer = table.producer()
    if producer is None:
        return table.is_initializer() or table.const_value is not None
    return all(one is None or _constant(one) for one in producer.inputs)


def _role(value: ir.Value, rows: int | None) -> Role:
    name, dims = (value.name or "").lower(), known_dims(value) or []
    kind = value.dtype.name.lower() if value.dtype is not None else ""
    if "mask" in name or kind == "bool":
        return "mask"
    if any(part in name for part in STATES):
        return "state"
    if kind.startswith(("int", "uint")) and len(dims) < 4:
        if any(part in name for part in OTHER_IDS):
            return "ids"
        named = len(dims) in (1, 2) and _whole(value) and any(part in name for part in NAMES)
        if named or (rows is not None and len(dims) == 2):
            return "text"
        return "ids" if rows is not None else "value"
    return "picture" if len(dims) == 4 and {dims[1], dims[3]} & {1, 3, 4} else "value"


def _whole(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.name.lower() in WHOLE


def _alike(one: str, other: str) -> int:
    """How many characters two names have in common in front."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
