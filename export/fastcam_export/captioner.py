"""``export_captioner``: a captioner, in one file or in two, that explains the words it says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

import onnx

from fastcam.captioning import Captioning
from fastcam.errors import FastcamError, typed
from fastcam.labels import Labels, read_labels
from fastcam.language.tokenizer import read_tokenizer
from fastcam.schema import METADATA_KEY
from fastcam_export.artifacts import captions
from fastcam_export.exporter import export_model
from fastcam_export.graph.load import Source, load
from fastcam_export.result import Export
from fastcam_export.steps.package import finish
from fastcam_export.verify.unexpected import as_fastcam_error
from fastcam_export.vjp import vjp


def export_captioner(
    model: Source,
    output: str | Path | None = None,
    *,
    start: int,
    end: int,
    pad: int | None = None,
    decoder: Source | None = None,
    vocabulary: Labels | None = None,
    tokenizer: str | Path | None = None,
    words: str | None = None,
    scores: str | None = None,
    state: Mapping[str, str] | None = None,
    **options: Any,
) -> Export:
    """Export a captioner as :class:`fastcam.captions.Captioner` runs it.

    In one file it takes pictures and the words so far, int64 [N, L], and gives the scores of the next word behind each
    of them, [N, L, V]. In two files the encoder takes pictures, and the decoder what that gives: with all words so far,
    or with one word and a state, which it gives anew. Words are scored before a softmax.

    Args:
        model: path, bytes or ModelProto: the captioner, or its encoder.
        output: file to write; None only returns the models. The decoder lies beside it, ``x.cam.decoder.onnx``.
        start, end: the numbers of the words that begin and end a caption.
        pad: the number of what fills up a sequence of fixed length.
        decoder: path, bytes or ModelProto of the decoder, where there is one.
        vocabulary: the words by number in any form of :mod:`fastcam.labels`; or
        tokenizer: path of the ``tokenizer.json`` that makes texts of numbers; it stays with the file.
        words, scores: the input of words and the output of their scores; by default the graph's names tell.
        state: of a decoder that takes one word at a time, input -> the output that it takes of the word before; by
            default their names tell. A state that the encoder does not give begins as zeros.
        **options: of :func:`fastcam_export.export_model`. A captioner in one file is exported ``on_demand`` unless this
            says otherwise: it then says a caption at the price of the model.

    Returns:
        The export; of two files that of the encoder, with the decoder and its gradient as ``decoder``.

    Raises:
        FastcamError: as :func:`fastcam_export.export_model`; or a graph that is no captioner, or does not tell what its
            inputs take.
    """
    for name, value in (("start", start), ("end", end), ("pad", pad)):
        typed(name, value, int | NoneType if name == "pad" else int, "the number of a word")
    if vocabulary is not None and tokenizer is not None:
        raise FastcamError("words and a tokenizer were both given; give one of them")
    pieces = None if tokenizer is None else read_tokenizer(tokenizer)
    names = () if vocabulary is None else read_labels(vocabulary, None)
    about = _special_words(start, end, pad, names)
    for name in ("targets", "output_name", "labels"):
        if name in options:
            raise FastcamError(f"export_captioner sets {name} itself; leave it out")
    if decoder is None:
        export = _in_one_file(model, words, scores, about, options)
    else:
        export = _in_two_files(model, decoder, words, scores, state, about, options)
    return finish(replace(export, tokenizer=pieces), output)


def _special_words(start: int, end: int, pad: int | None, names: tuple[str, ...]) -> dict[str, Any]:
    """The numbers of special words, and the words, as :class:`fastcam.captioning.Captioning` has them.

    Raises:
        FastcamError: there is no word with such a number.
    """
    numbers = {"start": start, "end": end, "pad": pad}
    for name, number in numbers.items():
        if number is not None and (number < 0 or (names and number >= len(names))):
            raise FastcamError(
                f"{name} is word {number}; words are numbers from 0{f' to {len(names) - 1}' if names else ''}"
            )
    return {**numbers, "vocabulary": names}


def _in_one_file(
    model: Source, words: str | None, scores: str | None, about: dict[str, Any], options: dict[str, Any]
) -> Export:
    """The export of a captioner that takes pictures and words; arguments as of :func:`export_captioner`.

    Args:
        about: see :func:`_special_words`.
    """
    with as_fastcam_error(model, "exported"):
        graph = load(model).model.graph
        read = captions.read_one_file(graph, words, scores)
    if options.get("layer") in (None, "auto"):
        with as_fastcam_error(model, "exported"):
            layer = captions.picture_layer(graph, read, options.get("input_name")) or "auto"
        options = {**options, "layer": layer}
    names = about["vocabulary"]
    once = {"on_demand": True, **options}
    export = export_model(model, targets="cotangent", output_name=read.scores, labels=names or None, **once)
    _refuse_no_words(export, read.words, len(names))
    said = Captioning("one file", read.words, read.scores, length=read.length, masks=read.masks, **about)
    return replace(export, metadata=replace(export.metadata, captioning=said))


def _in_two_files(
    model: Source,
    decoder: Source,
    words: str | None,
    scores: str | None,
    state: Mapping[str, str] | None,
    about: dict[str, Any],
    options: dict[str, Any],
) -> Export:
    """The export of an encoder, with its decoder and that one's gradient; arguments as of :func:`export_captioner`.

    Args:
        about: see :func:`_special_words`.
    """
    with as_fastcam_error(model, "exported"):
        graph = load(model).model.graph
        given = {value.name or "": value for value in graph.outputs if value.dtype in captions.FLOATS}
    with as_fastcam_error(decoder, "exported"):
        read = captions.read_decoder(load(decoder).model.graph, given, words, scores, state)
    taken = dict.fromkeys(one.output for one in read.encoded)
    export = export_model(model, targets="cotangent", output_name=list(taken), **options)
    wrt = dict.fromkeys(one.input for one in (*read.encoded, *read.state))
    differentiated = vjp(decoder, wrt=list(wrt), of=[read.scores, *(one.output for one in read.state)])
    said = Captioning(
        "step" if read.state else "sequence", read.words, read.scores, length=read.length, masks=read.masks,
        encoded=read.encoded, state=read.state,
        sha256=hashlib.sha256(differentiated.SerializeToString()).hexdigest(), **about,
    )  # fmt: skip
    _mark(differentiated, said)
    return replace(export, metadata=replace(export.metadata, captioning=said), decoder=differentiated)


def _refuse_no_words(export: Export, words: str, count: int) -> None:
    """Raise where a file scores no words."""
    about = export.metadata.cotangents[0]
    if words not in [one.name for one in export.metadata.inputs] or len(about.shape) != 2:
        shape = ", ".join(map(str, ("N", *about.shape)))
        raise FastcamError(f"a captioner's scores are [N, words so far, vocabulary]; {about.output!r} is [{shape}]")
    size = about.shape[-1]
    if count and isinstance(size, int) and size != count:
        raise FastcamError(f"{count} words were given, and the model scores {size}; give a word for each")


def _mark(decoder: onnx.ModelProto, about: Captioning) -> None:
    """Say in the decoder whose it is."""
    entry = decoder.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, about.decoder_mark
