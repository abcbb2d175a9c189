"""The second file of a split export: found beside its forward part, refused if it is another's."""

from __future__ import annotations

from pathlib import Path

from fastcam.errors import FastcamError
from fastcam.runtime.session import Model
from fastcam.schema import Metadata


def explanation_part(model: Model, metadata: Metadata, name: str, explanation: Model | None) -> Model | None:
    """The explanation part that belongs to ``model``; None of an export in one file."""
    pair = metadata.pair
    if pair is None:
        if explanation is not None:
            raise FastcamError(f"{name} is an export in one file; leave explanation out, or export it with on_demand")
        return None
    if pair.part != "forward":
        raise FastcamError(f"{name} is the explanation part of an export; give the forward part, {pair.other}")
    if explanation is not None:
        return explanation
    if isinstance(model, bytes) or not pair.other:
        raise FastcamError(f"{name} is the forward part of an export; give the other one as explanation")
    beside = Path(model).parent / pair.other
    if not beside.is_file():
        raise FastcamError(
            f"{name} is the forward part of an export, and the explanation part {pair.other} is not beside it; put it "
            "there, or give it as explanation"
        )
    return beside


def check_pair(ours: Metadata, theirs: Metadata, name: str, other: str) -> None:
    """Raise where two files are not parts of one export."""
    if theirs.pair is None or theirs.pair.part != "explanation":
        raise FastcamError(f"{other} is no explanation part; give the file that was written beside {name}")
    if ours.pair is None or ours.pair.sha256 != theirs.pair.sha256:
        raise FastcamError(f"{name} and {other} are parts of different exports; export again, or copy both files anew")
