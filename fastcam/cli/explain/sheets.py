"""Several methods in one call of ``fastcam explain``: a sheet per picture in place of overlays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcam.cli.shared import failures
from fastcam.cli.shared.console import progress
from fastcam.errors import FastcamError

if TYPE_CHECKING:
    from fastcam.explainer import Explainer


def method_names(text: str) -> list[str]:
    """The names of --method, which commas separate.

    Raises:
        FastcamError: a name twice, or none.
    """
    names = [part.strip().lower() for part in text.split(",")]
    if "" in names or len(set(names)) != len(names):
        raise FastcamError(f"--method {text!r}: give each method once, with commas between them (fastcam methods)")
    return names


def split_options(methods: Sequence[str], given: Mapping[str, str]) -> list[dict[str, str]]:
    """The options of each method among those of all.

    Raises:
        FastcamError: an option that none of them has.
    """
    from fastcam.methods import method
    from fastcam.methods.options import parameters

    known = [parameters(method(name)) for name in methods]
    for key in given:
        if not any(key in one for one in known):
            raise FastcamError(f"none of {', '.join(methods)} has an option {key!r}; fastcam methods lists them")
    return [{key: value for key, value in given.items() if key in one} for one in known]


def explain_methods(
    explainer: Explainer,
    files: Sequence[Path],
    targets: Any,
    stage: Path | None,
    methods: Sequence[str],
    colors: str = "jet",
    texts: Sequence[str] | None = None,
    **options: Any,
) -> tuple[dict[str, Any], list[str]]:
    """Explain ``files`` by each method: a report with one entry per method, and the names of the sheets.

    A picture that cannot be explained has its error in the report.

    ``texts``: of a model that takes one, that of each picture. ``options``: further arguments of
    :meth:`fastcam.Explainer.__call__`; each method gets those of its own that it has.
    """
    from fastcam.atomic_files import write
    from fastcam.render import drawing
    from fastcam.results.explanation import unique_stems, write_json
    from fastcam.results.method_sheet import methods_sheet

    of_methods = split_options(methods, options.pop("options", None) or {})
    stems = unique_stems([str(file) for file in files])
    rows: list[list[list[dict[str, Any]]]] = []
    wholes: list[dict[str, Any]] = []
    names: list[str] = []
    with progress(len(files)) as bar:
        for i, (file, stem) in enumerate(zip(files, stems, strict=True)):
            said: dict[str, Any] = {"text": texts[i]} if texts is not None else {}
            try:
                explanations = [
                    explainer(file, targets=targets, method=name, options=own, **said, **options)
                    for name, own in zip(methods, of_methods, strict=True)
                ]
            except FastcamError as error:
                rows.append([[failures.entry(file, error) | said]] * len(methods))
                continue
            wholes = [e.to_dict() for e in explanations]
            rows.append([[image | said for image in whole["images"]] for whole in wholes])
            if stage is not None:
                names.append(f"{stem}-methods.png")
                write(stage / names[-1], drawing.encode_png(methods_sheet(explanations, colors=colors)))
            bar.advance(bar.task_ids[0])
    if not wholes:  # not one was explained
        raise FastcamError(rows[0][0][0]["error"])
    for whole, own in zip(wholes, zip(*rows, strict=True), strict=True):
        whole["images"] = [image for images in own for image in images]
    report = {"methods": wholes}
    if stage is not None:
        write_json(stage, report)
    return report, names
