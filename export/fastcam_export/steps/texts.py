"""Inputs that hold a text, and the tokenizer that goes with the exported file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from fastcam.atomic_files import write_files
from fastcam.errors import FastcamError, listed
from fastcam.input_files import read_bytes
from fastcam.input_roles import TEXTS, Role, TextEncoderFile, TokenizerFile
from fastcam.language.tokenizer import Tokenizer, read_tokenizer
from fastcam.schema import FurtherInput, Score
from fastcam_export.graph.query import readable_dims
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
    texts = [one for one in further if one.role in TEXTS]
    texts += [FurtherInput(image.name or "", role="text", words=own)] if own is not None else []
    if not texts and options.text_encoder is None:
        have = listed(one.name for one in further) or "none"
        raise FastcamError(
            f"the model has no input that is taken for a text, so {tokenizer.name} is of no use; its further inputs "
            f"are {have}: say which is one with --role NAME=text, or give the --text-encoder that it belongs to"
        )
    for one in texts:
        if one.words is not None and tokenizer.size > one.words:
            raise FastcamError(
                f"{tokenizer.name} has {tokenizer.size} words, and input {one.name!r} is looked up among {one.words}; "
                "give the tokenizer that the model was trained with"
            )
    return further, tokenizer


def with_classes(
    further: tuple[FurtherInput, ...],
    graph: ir.Graph,
    image: ir.Value,
    score: Score | None,
    said: Mapping[str, str] | None,
) -> tuple[FurtherInput, ...]:
    """The inputs, of which a text is "prompts" where each of several texts is a class, as of CLIP.

    The number of classes is then that of the texts, which is not that of the pictures.

    Args:
        score: the explained scores; None of cotangents.
        said: roles that the user says, which stay.
    """
    if score is None:
        return further
    values = {value.name: value for value in graph.inputs}
    first = _first(image)

    def role(one: FurtherInput) -> Role:
        count = _first(values[one.name])
        asked = one.role == "text" and one.name not in (said or {}) and count != first
        fits = count == score.classes if isinstance(count, int) else score.classes is None
        return "prompts" if asked and fits else one.role

    return tuple(replace(one, role=role(one)) for one in further)


def _first(value: ir.Value) -> int | str | None:
    """The first axis of a value: its size, or its name."""
    dims = readable_dims(value) if value.shape is not None else ()
    return dims[0] if dims else None


def encoder(options: ExportOptions, further: tuple[FurtherInput, ...], cotangents: bool) -> TextEncoderFile | None:
    """What the metadata say of the text encoder.

    Raises:
        FastcamError: it cannot be read, or the export explains no embedding.
    """
    about = TextEncoderFile(scale=float(options.logit_scale), bias=float(options.logit_bias))
    if options.text_encoder is None and about == TextEncoderFile():
        return None
    if not cotangents:
        raise FastcamError(
            "a text encoder (--text-encoder, --logit-scale, --logit-bias) is for the embedding of a picture; add "
            "--targets cotangent --output-name of the embedding"
        )
    if options.text_encoder is None:
        return about
    path = Path(options.text_encoder)
    data = read_bytes(path, "give the ONNX file of the text encoder")
    return replace(about, file=path.name, sha256=hashlib.sha256(data).hexdigest())


def absent(about: TextEncoderFile | None, output: str | Path | None) -> list[str]:
    """A warning where the text encoder does not lie beside the exported file."""
    if about is None or not about.file or output is None or Path(output).with_name(about.file).is_file():
        return []
    return [f"warning: {about.file} does not lie beside {Path(output).name}; copy it there, or give --text-encoder"]


def tokenizer_path(path: Path) -> Path:
    """Where a copy of the tokenizer lies: x.cam.tokenizer.json of x.cam.onnx."""
    return path.with_name(f"{path.stem}.tokenizer.json")


def named(tokenizer: Tokenizer | None, output: Path | None) -> TokenizerFile | None:
    """What the metadata say of the tokenizer."""
    if tokenizer is None:
        return None
    about = TokenizerFile(tokenizer.sha256)
    if len(tokenizer.content) <= SMALL:
        return replace(about, content=tokenizer.content)
    return about if output is None else replace(about, file=tokenizer_path(output).name)


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
