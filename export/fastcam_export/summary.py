"""What a person is told of an exported file: the lines that ``fastcam export`` and ``fastcam inspect`` print."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from fastcam import schema
from fastcam.errors import MOST, FastcamError, typed
from fastcam.input_files import read_bytes
from fastcam.input_roles import TEXTS
from fastcam.schema import Answer, FurtherInput, Metadata, TargetLayer

SCORE = {
    "logit": "before its final activation, as in the paper",
    "probability": "a probability",
    "raw": "as it is",
    "log-probability": "the logarithm of a probability",
}
ANSWERS: dict[Answer, tuple[str, str]] = {
    "box": ("a detector", "by default the best boxes; box:NAME, box:NAME,x0, box:box=-2"),
    "region": ("a segmenter", "by default the largest region; region:NAME, element:CLASS,ROW,COLUMN"),
    "point": ("a model of key points", "by default the point with the highest score; point:NAME"),
    "words": ("a reader of texts", "by default its likeliest words; words, caption"),
    "class": ("a classifier", "by default the likeliest class; class:NAME, probability:NAME"),
    "element": ("a model of one number", "element"),
    "similarity": ("a model of embeddings", "similarity:PICTURE, pair; text:PROMPT with a text encoder"),
}
"""What a file is taken for that answers this, and what it can be asked."""


def explained_lines(meta: Metadata) -> list[str]:
    """What is explained, why, and what the file says of it."""
    scores = [f"score   what {one.input} says of {one.output}" for one in meta.cotangents]
    if meta.captioning is not None:
        scores.append("targets a caption: the whole of it, and each of its words")
    else:
        scores += [f"targets {ANSWERS[kind][1]}" for kind in target_kinds(meta)[:1]]
    if not scores:
        scores = [f"score   {meta.score.output}, {meta.score.classes or 'unknown'} classes, {SCORE[meta.score.kind]}"]
        scores += [f"        {meta.score.reason}"] if meta.score.reason else []
    return [
        f"layer   {_named(meta.layer)}",
        f"        {meta.layer.reason}",
        *(f"layer {n} {_named(meta.layers[n - 1])}, {meta.layers[n - 1].reason}" for n in meta.numbers()),
        *scores,
        *([f"names   {len(meta.labels)}, from {meta.labels_from}"] if meta.labels and meta.labels_from else []),
        *_inputs(meta),
        *_texts(meta),
        f"emits   {', '.join((*meta.emitted(), *meta.further()))}",
    ]


def target_kinds(meta: Metadata) -> list[Answer]:
    """The kinds of target that a file of cotangents says it is asked by; the one that stands for all first."""
    there = {one.answer for one in meta.cotangents}
    return [kind for kind in ANSWERS if kind in there]


def taken_for(meta: Metadata) -> str:
    """What a model was taken for whose kind nobody said, and of which outputs; "" where it answers classes."""
    kinds = [ANSWERS[kind][0] for kind in target_kinds(meta)]
    outputs = ", ".join(one.output for one in meta.cotangents)
    return f"{kinds[0]}: {outputs} {'is' if len(meta.cotangents) == 1 else 'are'} explained" if kinds else ""


def _inputs(meta: Metadata) -> list[str]:
    """The input that is explained, and what becomes of the others."""
    if not meta.inputs:
        return []
    lines = [f"input   {meta.input} is explained"]
    lines += [f"        {one.name} {_fate(one, meta)}" for one in meta.inputs[:MOST]]
    return lines + [f"        and {len(meta.inputs) - MOST} more"] * (len(meta.inputs) > MOST)


def _texts(meta: Metadata) -> list[str]:
    """The text side of a dual encoder."""
    about = meta.text_encoder
    if about is None:
        return []
    score = f"{about.scale:g} * cosine" + (f" {'-' if about.bias < 0 else '+'} {abs(about.bias):g}" * bool(about.bias))
    return [f"texts   by {about.file or 'a text encoder that is given later'}: {score}"]


def _fate(one: FurtherInput, meta: Metadata) -> str:
    """What becomes of an input, and what it holds: "wants a text, of 13 words"."""
    if not one.read:
        return "is read by nothing"
    if meta.captioning is not None and one.name == meta.captioning.words:
        return "takes the words so far"
    size = f", of {one.words} words" if one.words is not None else ""
    if one.role in TEXTS:
        several = one.role == "prompts"
        written = "texts, a class each" if several else "a text"
        if meta.tokenizer is None:
            written = f"the ids of {written} (--tokenizer takes the words themselves)"
        return f"has a default, {written}{size}" if one.default is not None else f"wants {written}{size}"
    if one.default is not None:
        return "has a default"
    known = meta.tokenizer is not None and one.of
    held = {"mask": "a mask", "ids": "ids", "state": "a state", "picture": "a picture"}.get(one.role, "a value")
    return f"follows from {one.of}" if known else f"wants {held}"


def further_options(meta: Metadata) -> list[str]:
    """What the command that explains has to say of the other inputs."""
    texts = [one.name for one in meta.inputs if one.role in TEXTS] if meta.tokenizer is not None else []
    wanted = [one for one in meta.inputs if one.read and one.default is None]
    rest = [one.name for one in wanted if one.name not in texts and one.of not in texts]
    options = [f"--input-value {name}=VALUE" for name in rest]
    asked = [one.name for one in wanted if one.name in texts]
    if any(one.role == "prompts" for one in wanted) and texts:
        return ["-t 'text: A PROMPT'", *options]
    if len(texts) == 1:
        return ["--text TEXT"] * len(asked) + options
    return [f"--input-value {name}=TEXT" for name in asked] + options


def _named(layer: TargetLayer) -> str:
    return layer.value + (f" (scope {layer.scope})" if layer.scope else "")


def exported(path: str | Path) -> list[str] | None:
    """What an exported file is; None of any other file, and of one that cannot be read.

    Raises:
        FastcamError: its metadata cannot be read.
    """
    typed("path", path, str | os.PathLike, "the path of a file")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(read_bytes(path, "give an ONNX file"))
    except (FastcamError, DecodeError):
        return None
    said = next((entry.value for entry in model.metadata_props if entry.key == schema.METADATA_KEY), None)
    if said is None:
        return None
    meta = Metadata.from_json(said)
    lines = [f"export  of {meta.source.get('file') or 'a model'}, by FastCAM {meta.version}", *explained_lines(meta)]
    if meta.head is not None and meta.head.part == "head":
        return [
            *lines[:-1],
            f"part    the head: {schema.SCORES} of {schema.ACTIVATIONS}; the model is {meta.head.other}",
        ]
    if meta.head is not None:
        lines.append(f"head    {meta.head.other}, what lies behind the layer")
        lines += _absent(path, meta.head.other)
    if meta.pair is not None:
        other = {"forward": "explanation", "explanation": "forward"}[meta.pair.part]
        lines.append(f"part    the {meta.pair.part} part; the {other} part is {meta.pair.other}")
        lines += _absent(path, meta.pair.other)
    return lines


def _absent(path: str | Path, other: str) -> list[str]:
    """A warning if ``other`` does not lie beside ``path``."""
    return [] if Path(path).with_name(other).is_file() else ["        warning: it is not beside this file"]
