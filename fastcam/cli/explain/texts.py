"""``fastcam explain`` of a model of texts: each word over its heat, in the terminal, as HTML and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcam.cli.shared.console import coloured
from fastcam.errors import FastcamError, shown

if TYPE_CHECKING:
    from fastcam.explainer import Explainer
    from fastcam.results.explanation import Explanation


def explain_texts(
    explainer: Explainer,
    files: Sequence[Path],
    texts: Sequence[str],
    targets: Any,
    stage: Path | None,
    methods: Sequence[str],
    colors: str,
    **options: Any,
) -> tuple[dict[str, Any], list[str], Explanation]:
    """Explain texts and files of texts; the report, the names of what was written, and the explanation.

    ``options``: further arguments of :meth:`fastcam.Explainer.__call__`.

    Raises:
        FastcamError: a wrong call, or a text that cannot be explained.
    """
    from fastcam.atomic_files import slug, unique_stems
    from fastcam.results.explanation import write_json
    from fastcam.runtime.inputs.text_samples import FILES

    if len(methods) > 1 or options.get("layers"):
        raise FastcamError("texts are explained by one method at one layer; give one --method, and no --layers")
    for file in files:
        if not file.is_file() or file.suffix.lower() not in FILES:
            raise FastcamError(f"{shown(file)}: not a text file; give a .txt file, or the words (--text)")
    given: list[Any] = [*files, *texts]
    if not given:
        raise FastcamError("no text given; give one (--text), or a .txt file")
    method = next(iter(methods), None)
    explanation = explainer(given, targets, method=method, **options)
    report, names = explanation.to_dict(), []
    if stage is not None:
        stems = unique_stems([*map(str, files), *(f"{slug(' '.join(text.split()[:4]))}.txt" for text in texts)])
        names = explanation.write_overlays(stage, stems, colors)
        write_json(stage, report)
    return report, names, explanation


def print_texts(explanation: Explanation, colors: str) -> None:
    """Each text and target: its name and score, and the words over their heat where the terminal has colours."""
    from fastcam.render import words as drawn

    for i in range(len(explanation)):
        for t in range(explanation.asked(i)):
            status = explanation.status[i][t]
            said = f"{explanation.label(i, t)} {explanation.score(i, t):.4g}"
            rows = explanation.word_heat(i, t)
            behind = explanation.word_colours(i, t, colors)
            line = [(word, drawn.hexadecimal(colour)) for (word, _), colour in zip(rows, behind, strict=True)]
            hottest = [word for word, heat in sorted(rows, key=lambda row: -row[1])[:3] if heat > 0]
            coloured(said if status == "ok" else f"{said} ({status})", line, hottest)
