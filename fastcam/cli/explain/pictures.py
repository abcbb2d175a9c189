"""Pictures run by run: overlays and the report of each, and the errors of those that cannot be explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcam.cli.shared import failures
from fastcam.cli.shared.console import progress
from fastcam.errors import FastcamError

if TYPE_CHECKING:
    from rich.progress import Progress

    from fastcam.explainer import Explainer
    from fastcam.results.explanation import Explanation


def explain_all(
    explainer: Explainer,
    files: Sequence[Path],
    targets: Any,
    stage: Path | None,
    method: str | None = None,
    colors: str = "jet",
    texts: Sequence[str] | None = None,
    **options: Any,
) -> tuple[dict[str, Any], list[str]]:
    """Explain ``files`` run by run, with one run's pictures in memory; the report and the overlays' names.

    A picture or a target that cannot be explained has its error in the report.

    ``texts``: of a model that takes one, that of each picture. ``options``: further arguments of
    :meth:`fastcam.Explainer.__call__`.

    Raises:
        FastcamError: a wrong call, or no picture could be explained.
    """
    from fastcam.methods import method as named
    from fastcam.results.explanation import unique_stems, write_json
    from fastcam.results.layer_sheet import write_strips

    preprocessing = explainer.metadata.preprocessing
    # pictures that keep their own size cannot share a run
    step = 1 if preprocessing is not None and preprocessing.size is None else explainer.batch_size
    stems = unique_stems([str(file) for file in files])
    report: dict[str, Any] = {"images": []}
    names: list[str] = []
    call = asker(explainer, files, texts, targets, method, options)
    asked = options["cotangent"] if options.get("cotangent") else targets if isinstance(targets, list) else [targets]
    again = method is not None and named(method).runs is not None
    with progress(len(files), again) as bar:
        for start, part in _runs(files, step):
            meter = partial(_advance, bar, start / len(part), len(files) / len(part))
            rows = range(start, start + len(part))
            for numbers, explanation, errors in failures.attempts(partial(call, meter), rows, asked):
                said = [{"text": texts[start + i]} for i in numbers] if texts is not None else [{}] * len(numbers)
                if explanation is None:
                    report["images"].append(failures.entry(part[numbers.start], errors[""]) | said[0])
                    continue
                if stage is not None:
                    own = by_row([stems[start + i] for i in numbers], len(explanation))
                    names += explanation.write_overlays(stage, own, colors)
                    names += write_strips(explanation, stage, own, colors)
                add(report, with_texts(explanation.to_dict(), said), errors)
            if not again:
                bar.advance(bar.task_ids[0], len(part))
    if "method" not in report:  # not one was explained
        raise FastcamError(report["images"][0]["error"])
    if stage is not None:
        write_json(stage, report)
    return report, names


def _runs(files: Sequence[Path], step: int) -> Iterator[tuple[int, list[Path]]]:
    """Pictures that run together, ``step`` of them or fewer large ones, and the number of the first.

    All pictures of a run are in memory until their overlays are drawn.
    """
    from fastcam.explain.streaming import HELD
    from fastcam.image.decode import weight

    start = 0
    while start < len(files):
        part, held = [files[start]], weight(files[start])
        for file in files[start + 1 : start + step]:
            held += weight(file)
            if held > HELD:
                break
            part.append(file)
        yield start, part
        start += len(part)


def with_texts(report: dict[str, Any], said: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """A report whose images say their text; of clips, each frame that of its clip."""
    images = report["images"]
    frames = len(images) // len(said)
    report["images"] = [{**image, **said[i // frames]} for i, image in enumerate(images)]
    return report


def asker(
    explainer: Explainer,
    files: Sequence[Path],
    texts: Sequence[str] | None,
    targets: Any,
    method: str | None,
    options: Mapping[str, Any],
) -> Any:
    """(progress, numbers of pictures, targets) -> their explanation.

    Raises:
        FastcamError: the call is wrong whatever the pictures are.
    """
    others = {name: value for name, value in options.items() if name != "cotangent"}
    cotangent = options.get("cotangent")
    bound = explainer.question(cotangent) if cotangent else None
    explainer.stream((), targets, method=method, cotangent=bound, **others)

    def call(progress: Any, rows: Sequence[int], asked: Sequence[Any]) -> Explanation:
        own: dict[str, Any] = {"targets": asked}
        if cotangent:
            own = {"targets": targets, "cotangent": bound if asked is cotangent else explainer.question(list(asked))}
        if texts is not None:
            own["text"] = [texts[row] for row in rows]
        return explainer([files[row] for row in rows], method=method, progress=progress, **own, **others)

    return call


def by_row(stems: Sequence[str], rows: int) -> list[str]:
    """One stem for each row of an explanation: of clips, a row for each frame, with its number."""
    frames = rows // len(stems)
    return [f"{stem}-{k:03}" for stem in stems for k in range(frames)] if frames > 1 else list(stems)


def _advance(bar: Progress, before: float, parts: float, done: int, total: int) -> None:
    """``done`` of ``total`` runs, behind ``before`` of all ``parts`` of as many runs."""
    bar.update(bar.task_ids[0], completed=before * total + done, total=parts * total)


def add(report: dict[str, Any], entry: dict[str, Any], errors: Mapping[str, FastcamError]) -> None:
    """Add what :meth:`fastcam.Explanation.to_dict` says of one run to that of all; of several layers to each.

    ``errors``: of targets that the run is without.
    """
    for image in entry["images"]:
        image["targets"] += [failures.target_entry(target, error) for target, error in errors.items()]
    if "method" not in report:
        report.update({**entry, "images": report["images"] + entry["images"]})
        return
    report["images"] += entry["images"]
    for layer, more in zip(report.get("layers", ()), entry.get("layers", ()), strict=True):
        add(layer, more, {})
