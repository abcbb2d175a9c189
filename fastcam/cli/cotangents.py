"""``fastcam cotangents``: targets in words, beyond classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcam.cli.shared.console import print_table
from fastcam.errors import FastcamError

EXAMPLES = ("fastcam cotangents", "fastcam cotangents segmenter.cam.onnx")


def cotangents(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL.cam.onnx", help="Show what this file answers.", show_default=False),
    ] = None,
) -> None:
    """List what --target explains beyond classes: of any file, or of one."""
    from fastcam.targets.spec_kinds import KINDS, kinds_for

    if model is None:
        print_table(("target", "what it explains"), [(kind.form, kind.says) for kind in KINDS.values()])
        return
    from fastcam.runtime.session import create_session, read_metadata

    metadata = read_metadata(create_session(model), model.name)
    if not metadata.cotangents:
        raise FastcamError(
            f"{model.name} explains classes, by --target; export the model again with --targets cotangent for others"
        )
    names = len(metadata.labels) if metadata.labels is not None else None
    rows = []
    for about in metadata.cotangents:
        shape = f"{about.output} [{', '.join(map(str, about.shape))}]"
        rows += [(shape, KINDS[kind].form, KINDS[kind].says) for kind in kinds_for(about, names)]
    print_table(("output of one picture", "target", "what it explains"), rows)
