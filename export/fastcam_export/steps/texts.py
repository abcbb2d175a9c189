"""Inputs that hold a text, and the tokenizer that goes with the exported file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from fastcam.atomic_files import write_files
from fastcam.errors import FastcamError, listed
from fastcam.input_roles import TokenizerFile
from fastcam.language.tokenizer import Tokenizer, read_tokenizer
from fastcam.schema import FurtherInput
from fastcam_export.layers import further_inputs
from fastcam_export.layers.image_input import vocabulary
from fastcam_export.steps.options import ExportOptions

SMALL = 64 << 10
"""Characters of a tokenizer that goes into the metadata."""


def described(
    graph: ir.Graph, image: ir.Value, options: ExportOptions
) -> tuple[tuple[FurtherInput, ...], Tokenizer | None]:
    """What the metadata say of the inputs beside the explained one, and the tokenizer.

    Raises:
        FastcamError: values, roles or a tokenizer that do not fit the model.
    """
    further = further_inputs.described(graph, image, options.inputs, options.roles)
    if options.tokenizer is None:
        return further, None
    tokenizer = read_tokenizer(options.tokenizer)
    own = vocabulary(graph, image)
    texts = [one for one in further if one.role == "text"]
    texts += [FurtherInput(image.name or "", role="text", words=own)] if own is not None else []
    if not texts:
        have = listed(one.name for one in further) or "none"
        raise FastcamError(
            f"the model has no input that is taken for a text, so {tokenizer.name} is of no use; its further inputs "
            f"are {have}: say which is one with --role NAME=text, or leave --tokenizer out"
        )
    for one in texts:
        if one.words is not None and tokenizer.size > one.words:
            raise FastcamError(
                f"{tokenizer.name} has {tokenizer.size} words, and input {one.name!r} is looked up among {one.words}; "
                "give the tokenizer that the model was trained with"
            )
    return further, tokenizer


def beside(path: Path) -> Path:
    """Where a copy of the tokenizer lies: x.cam.tokenizer.json of x.cam.onnx."""
    return path.with_name(f"{path.stem}.tokenizer.json")


def named(tokenizer: Tokenizer | None, output: Path | None) -> TokenizerFile | None:
    """What the metadata say of the tokenizer."""
    if tokenizer is None:
        return None
    about = TokenizerFile(tokenizer.sha256)
    if len(tokenizer.content) <= SMALL:
        return replace(about, content=tokenizer.content)
    return about if output is None else replace(about, file=beside(output).name)


def write(tokenizer: Tokenizer | None, about: TokenizerFile | None, path: Path) -> None:
    """Write the copy of the tokenizer, if the metadata name one.

    Raises:
        FastcamError: it cannot be written.
    """
    if tokenizer is not None and about is not None and about.file:
        write_files({path.with_name(about.file): tokenizer.content.encode()})


def files(about: TokenizerFile | None, path: Path) -> tuple[Path, ...]:
    """The files beside ``path`` that belong to the tokenizer."""
    return (path.with_name(about.file),) if about is not None and about.file else ()
