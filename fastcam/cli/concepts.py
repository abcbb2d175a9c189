"""``fastcam concepts``: what a layer's maps are made of in some pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcam.cli.shared.console import print_table, say
from fastcam.cli.shared.options import (
    Exif,
    ExportedFile,
    Labels,
    LayerName,
    MaxPixels,
    Pictures,
    PreprocessName,
    Providers,
    Threads,
    picture_files,
)
from fastcam.image.reading import MAX_PIXELS

EXAMPLES = (
    "fastcam concepts resnet50.cam.onnx cat.jpg dog.jpg bird.jpg",
    "fastcam concepts resnet50.cam.onnx photos/ -n 8 --layer layer3 -o parts",
)


def concepts(
    model: ExportedFile,
    images: Pictures,
    count: Annotated[int, typer.Option("--count", "-n", help="How many concepts.")] = 5,
    layer: LayerName = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures and concepts.json.")] = Path(
        "fastcam-out"
    ),
    preprocess: PreprocessName = None,
    labels: Labels = None,
    threads: Threads = None,
    providers: Providers = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    exif: Exif = True,
) -> None:
    """Find the concepts that pictures share: deep feature factorisation of a layer's activations."""
    from fastcam.atomic_files import json_bytes, staged, write
    from fastcam.concepts.dff import concepts as factorise
    from fastcam.explainer import Explainer
    from fastcam.render.drawing import encode_png
    from fastcam.results.explanation import unique_stems

    files = picture_files(images)
    opened = (providers, threads, preprocess, labels)
    explainer = Explainer(model, *opened, max_pixels=max_pixels, exif=exif)
    found = factorise(explainer if layer is None else explainer.at(layer), files, count)
    with staged(output) as stage:
        for i, stem in enumerate(unique_stems(found.files)):
            write(stage / f"{stem}-concepts.png", encode_png(found.picture(i)))
        write(stage / "concepts.json", json_bytes(found.to_dict()))
    shares = found.strengths.sum(0) / (found.strengths.sum() or 1)
    rows = []
    for c in range(len(found.vectors)):
        speaks = ", ".join(f"{name} {score:.3g}" for _, name, score in found.top(c))
        rows.append((str(c + 1), f"{shares[c]:.0%}", speaks))
    print_table(("concept", "share", "speaks for"), rows)
    if found.scores is None:
        say("what they speak for is not known: the head behind the layer is not a mean and one matrix")
    if found.negative > 0.01:
        say(f"warning: {found.negative:.0%} of the squared activations are negative, and count as zero")
    say(f"relative error of the factorisation {found.error:.2f}; pictures and concepts.json are in {output}")
