"""``fastcam explain --words``: what the verb adds to its report and folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastcam.evaluation.dissection.neuron_names import Name
    from fastcam.explainer import Explainer


def add_words(
    explainer: Explainer,
    files: Sequence[Path],
    targets: Sequence[Any],
    stage: Path | None,
    report: dict[str, Any],
    names: Mapping[int, Name],
    colors: str,
    inputs: Mapping[str, Any],
    texts: Sequence[str] | None,
) -> list[str]:
    """Add the words of each picture and target to its report, and write ``STEM-words.png``; the pictures' names.

    Pictures and targets that could not be explained keep their errors alone.
    """
    from fastcam.atomic_files import unique_stems, write
    from fastcam.evaluation.dissection.words import sheet, words_of
    from fastcam.render.drawing import encode_png

    stems = unique_stems([str(file) for file in files])
    written = []
    for i, (stem, file, image) in enumerate(zip(stems, files, report["images"], strict=True)):
        explained = [entry for entry in image["targets"] if "error" not in entry]
        if "error" in image or not explained:
            continue
        failed = [entry["target"] for entry in image["targets"] if "error" in entry]
        asked = [target for target in targets if str(target) not in failed]
        spoken, explanation, activations = words_of(
            explainer, file, asked, names, inputs=inputs, text=texts[i] if texts is not None else None
        )
        for entry, words in zip(explained, spoken, strict=True):
            entry["words"] = words.to_dict()
        if stage is not None:
            written.append(f"{stem}-words.png")
            write(stage / written[-1], encode_png(sheet(explanation, spoken, activations, colors=colors)))
    return written


def sentences(report: Mapping[str, Any]) -> list[str]:
    """The words of all pictures, a line each; with the file's name where there are several."""
    images = report["images"]
    before = [f"{Path(image['file']).name}: " if len(images) > 1 else "" for image in images]
    return [
        f"{name}{target['words']['sentence']}"
        for name, image in zip(before, images, strict=True)
        for target in image["targets"]
        if "words" in target
    ]
