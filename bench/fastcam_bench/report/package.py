"""Sections made from the package's own tables: verbs, methods, operators, targets, names of the file contract."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args, get_origin

from fastcam import captioning, schema

PICTURES = "docs/images/methods"
Rows = Sequence[tuple[str, ...]]


def table(titles: tuple[str, ...], rows: Rows) -> str:
    """A Markdown table; bars within cells are escaped."""
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


# ---- the command line


def cli() -> str:
    """Every verb with its arguments, options and examples, from the functions that typer runs."""
    from fastcam.cli import GROUPS, PANELS, version

    parts = []
    for panel, verbs in PANELS.items():
        parts.append(f"## {panel}\n")
        parts += [_verb(verb, verb.__name__) for verb in verbs]
        for name, (of_panel, _, inner) in GROUPS.items():
            parts += [_verb(verb, f"{name} {verb.__name__}") for verb in inner if of_panel == panel]
    return "\n".join([*parts, _verb(version, "version")])


def _verb(verb: Callable[..., None], called: str) -> str:
    arguments, options = _parameters(verb)
    usage = " ".join(["fastcam", called, *(name for name, _ in arguments), *(["[OPTIONS]"] if options else [])])
    parts = [f"### fastcam {called}\n", f"{inspect.getdoc(verb)}\n", f"    {usage}\n"]
    if arguments:
        parts.append(table(("argument", "what it is"), arguments) + "\n")
    if options:
        parts.append(table(("option", "default", "what it does"), options) + "\n")
    examples = getattr(inspect.getmodule(verb), "EXAMPLES", ())
    if " " in called:  # of all that the module has
        examples = [one for one in examples if one.startswith(f"fastcam {called} ")]
    if examples:
        parts.append("\n".join(["Examples:\n", *(f"    {one}" for one in examples)]) + "\n")
    return "\n".join(parts)


def _parameters(verb: Callable[..., None]) -> tuple[list[tuple[str, str]], list[tuple[str, str, str]]]:
    """Arguments (name, help) and options (names, default, help) of a verb."""
    hints = typing.get_type_hints(verb, include_extras=True)
    arguments, options = [], []
    for name, parameter in inspect.signature(verb).parameters.items():
        kind, info = get_args(hints[name])[:2]
        if type(info).__name__ == "ArgumentInfo":
            needed = parameter.default is inspect.Parameter.empty
            arguments.append((info.metavar if needed else f"[{info.metavar}]", info.help or ""))
            continue
        given = (*([info.default] if isinstance(info.default, str) else []), *(info.param_decls or ()))
        names = ", ".join(f"`{one}`" for one in given or ("--" + name.replace("_", "-"),))
        said = " ".join([info.help or "", *_choices(kind)])
        options.append((names, _default(info, parameter.default), said))
    return arguments, options


def _choices(kind: Any) -> list[str]:
    """The words that an option takes, as a sentence; nothing of others."""
    plain = (
        [one for one in get_args(kind) if one is not type(None)] if get_origin(kind) is not typing.Literal else [kind]
    )
    words = [word for one in plain if get_origin(one) is typing.Literal for word in get_args(one)]
    return ["One of " + ", ".join(f"`{word}`" for word in words) + "."] if words else []


def _default(info: Any, default: Any) -> str:
    if isinstance(info.show_default, str):
        return info.show_default
    return "" if default in (None, False) or info.show_default is False else f"`{default}`"


# ---- methods


def methods() -> str:
    """What every method and mode needs of an export, and what it costs: a line for each way of being served."""
    from fastcam_bench.report import methods_table

    return methods_table.short()


def gallery() -> str:
    """Every method: picture, formula, cost, export, options, peers, source."""
    from fastcam.methods import METHODS
    from fastcam.methods.options import described
    from fastcam_bench.accuracy.method_evidence import ROWS
    from fastcam_bench.report.methods_table import cost, served_by

    parts = []
    for name, one in METHODS.items():
        shown = f"![{one.title} of the bundled picture]({PICTURES}/{name}.jpg)"
        facts: Rows = [
            ("cost in forward passes", cost(name)),
            ("export with", served_by(name)),
            ("options", f"`{described(one)}`" if described(one) else "none"),
            ("also in", ", ".join(ROWS[name].peers) or "none of pytorch-grad-cam, torch-cam, Captum"),
            ("source", one.source),
        ]
        parts += [f"## {one.title}: `{name}`\n", f"{shown}\n", f"    {one.formula}\n", table(("", ""), facts) + "\n"]
    return "\n".join(parts)


# ---- operators


ELSEWHERE = {"codes": "integer", "function_bodies": "ONNX's functions"}
"""Families of operators whose rules are made in the core."""


def operators() -> str:
    """Every operator with a gradient rule, by family."""
    from fastcam_export.autodiff import reverse  # noqa: F401  (fills the registry)
    from fastcam_export.autodiff.core.rule import RULES

    families: dict[str, list[str]] = {}
    for name, rule in RULES.items():
        derived = rule.within or rule.expand or rule.gradients
        module = derived.__module__.rsplit(".", 1)[-1]
        families.setdefault(ELSEWHERE.get(module, module), []).append(name)
    rows: Rows = [(family, ", ".join(sorted(names))) for family, names in sorted(families.items())]
    return f"{len(RULES)} operators have a rule:\n\n" + table(("family", "operators"), rows)


# ---- targets and the file contract


def kinds() -> str:
    """What ``--cotangent`` explains."""
    from fastcam.targets.spec_kinds import KINDS

    rows: Rows = [
        (f"`{kind.form}`", kind.says, ", ".join(map(str, kind.axes)), ", ".join(f"`{one}`" for one in kind.options))
        for kind in KINDS.values()
    ]
    return table(("written", "explains", "axes of one picture's output", "options"), rows)


def presets() -> str:
    """The named settings of ``--preprocess``."""
    plain = schema.Preprocessing()
    rows: list[tuple[str, ...]] = []
    for name, changes in schema.PRESETS.items():
        how = dataclasses.replace(plain, **changes)
        scale = "1/255" if how.scale == 1 / 255 else f"{how.scale:g}"
        numbers = (", ".join(f"{value:g}" for value in values) for values in (how.mean, how.std))
        rows.append((f"`{name}`", how.color, scale, *numbers))
    return table(("name", "channels", "scale", "mean", "std"), rows)


def metadata() -> str:
    """The JSON object in the file, class by class, from the docstrings of the schema."""
    parts = []
    for one in (
        schema.Metadata,
        schema.TargetLayer,
        schema.Score,
        schema.Preprocessing,
        schema.Cotangent,
        schema.FurtherInput,
        schema.TokenizerFile,
        schema.TextEncoderFile,
        schema.Pair,
        schema.Head,
        captioning.Captioning,
        captioning.Link,
    ):
        types = typing.get_type_hints(one)
        fields: Rows = [
            (f"`{field.name}`", _json(types[field.name]), _meaning(one, field.name))
            for field in dataclasses.fields(one)
        ]
        parts.append(f"### {one.__name__}\n\n" + table(("field", "JSON type", "meaning"), fields) + "\n")
    return "\n".join(parts)


def _json(kind: Any) -> str:
    """What a Python type becomes in JSON."""
    parts = get_args(kind)
    if get_origin(kind) is typing.Literal:
        return "string" if len(parts) > 8 else ", ".join(f"`{word}`" for word in parts)
    if get_origin(kind) is tuple:
        count = "" if parts[-1] is Ellipsis else f"{len(parts)} "
        inner = " or ".join(dict.fromkeys(_json(part) for part in parts if part is not Ellipsis))
        return f"array of {count}{inner}"
    if get_origin(kind) is dict:
        return "object"
    if parts:
        return " or ".join(map(_json, parts))
    plain = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return plain.get(kind) or f"[{kind.__name__}](#{kind.__name__.lower()})"


def _meaning(one: type, name: str) -> str:
    """What the docstring of a dataclass says of a field; of several fields in one entry the entry."""
    entries = dict(_entries(inspect.getdoc(one) or ""))
    return next((said for names, said in entries.items() if name in names.split(", ")), MEANINGS.get(name, ""))


def _entries(docstring: str) -> Iterator[tuple[str, str]]:
    """(names, text) of the Attributes section, without Sphinx's marks."""
    section = docstring.partition("Attributes:\n")[2]
    for found in re.finditer(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
        text = " ".join(found[2].split())
        plain = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
        yield found[1], re.sub(r"\bNone\b", "null", plain)


MEANINGS = {
    "schema": "version of this object's form",
    "output": "the model output that is explained",
    "value": "the value of the graph, [N, classes], whose gradient is taken",
    "kind": "`logit`: before the final softmax or sigmoid; `probability`: after it; `raw`: the output has none; "
    "`log-probability`: the logarithm of the probability",
    "classes": "how many classes there are, or null",
}
"""Of the fields whose docstring is prose."""


SECTIONS: dict[str, Callable[[], str]] = {
    "cli": cli,
    "methods": methods,
    "gallery": gallery,
    "operators": operators,
    "kinds": kinds,
    "presets": presets,
    "metadata": metadata,
}
