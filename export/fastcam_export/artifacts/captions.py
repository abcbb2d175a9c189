"""What a captioner's graphs say of themselves: which input takes words, which output scores them, what is a state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from fastcam.captioning import Link
from fastcam.errors import FastcamError, listed
from fastcam_export.graph.query import known_dims, reads
from fastcam_export.layers import target_layer
from fastcam_export.layers.image_input import find_image

INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
WORDS = ("id", "token", "word", "caption")
"""What the names of inputs of words hold."""


def decoder_path(output: Path) -> Path:
    """Where the decoder lies: ``x.cam.decoder.onnx`` beside ``x.cam.onnx``."""
    return output.with_name(f"{output.stem}.decoder.onnx")


@dataclass(frozen=True)
class Read:
    """The inputs and outputs of a decoder, or of a captioner in one file, by what they are.

    Attributes:
        words, masks: inputs of words, and of a one for each word.
        scores: the output of the next word's scores.
        length: how many words it takes; None where that is free.
        encoded: the inputs that take an output of the encoder.
        state: inputs that take what an output gave at the word before.
    """

    words: str
    masks: tuple[str, ...]
    scores: str
    length: int | None
    encoded: tuple[Link, ...] = ()
    state: tuple[Link, ...] = ()


def read_one_file(graph: ir.Graph, words: str | None, scores: str | None) -> Read:
    """Of a captioner in one file.

    Raises:
        FastcamError: it takes no words, or several inputs may be meant.
    """
    given = _open(graph)
    chosen, masks = _words(given, words)
    return Read(chosen, masks, _scores(graph, scores), _length(given[chosen]))


def picture_layer(graph: ir.Graph, read: Read, image_name: str | None = None) -> str | None:
    """The last layer of a captioner in one file in which no words are, or None where the usual one has none.

    GIT, for one, puts the picture's tokens and those of the words so far into one sequence. The last map is then of
    both; the words' scores depend on the words' part of it alone.

    Args:
        image_name: the picture's input, where the user says it.
    """
    image, score = find_image(graph, image_name), next(value for value in graph.outputs if value.name == read.scores)
    layers = target_layer.find_layers(target_layer.Maps.of(graph, image, score), None)
    spoken = _follow(graph, (read.words, *read.masks))
    chosen, _ = target_layer.choose(layers)
    silent = [layer for layer in layers if layer.value not in spoken]
    if chosen.value not in spoken or not silent:
        return None
    return target_layer.choose(silent)[0].value.name


def _follow(graph: ir.Graph, names: Sequence[str]) -> set[ir.Value]:
    """What is computed of inputs, other than of their sizes."""
    found = {value for value in graph.inputs if value.name in names}
    for node in graph:
        if node.op_type not in ("Shape", "Size") and any(value in found for value in reads(node)):
            found.update(node.outputs)
    return found


def read_decoder(
    graph: ir.Graph,
    encoder: Mapping[str, ir.Value],
    words: str | None,
    scores: str | None,
    state: Mapping[str, str] | None,
) -> Read:
    """Of a decoder.

    Args:
        graph: the decoder's.
        encoder: the encoder's float outputs by name.
        words, scores: names, where the user says them.
        state: input -> output of the word before, where the user says it.

    Raises:
        FastcamError: what an input takes does not follow; the message says how to say it.
    """
    given = _open(graph)
    chosen, masks = _words(given, words)
    scored = _scores(graph, scores)
    floats = [name for name, value in given.items() if value.dtype in FLOATS]
    made = [value.name or "" for value in graph.outputs if value.dtype in FLOATS and value.name != scored]
    links = _state(floats, made, encoder, state)
    carried = {one.input for one in links}
    taken = {name: given[name] for name in floats if name not in carried or name in encoder}
    encoded = _encoded(taken, encoder)
    known = {chosen, *masks, *(one.input for one in (*links, *encoded))}
    unknown = [name for name in given if name not in known]
    if unknown:
        have = listed(encoder)
        raise FastcamError(
            f"nothing tells what the decoder's input {unknown[0]!r} takes; the encoder gives {have}: give inputs and "
            "outputs that belong together the same name, or say which output a state is"
        )
    if not encoded:
        raise FastcamError(f"the decoder takes nothing of the encoder, which gives {listed(encoder)}")
    return Read(chosen, masks, scored, None if links else _length(given[chosen]), encoded, links)


def _open(graph: ir.Graph) -> dict[str, ir.Value]:
    """The inputs that a run is given."""
    return {value.name or "": value for value in graph.inputs if value.name not in graph.initializers}


def _words(given: Mapping[str, ir.Value], named: str | None) -> tuple[str, tuple[str, ...]]:
    """The input of words, and those of masks."""
    integers = {name: value for name, value in given.items() if value.dtype in INTEGERS}
    if named is not None:
        if named not in integers:
            raise FastcamError(
                f"the model has no whole numbers as input {named!r}; it has {listed(integers) or 'none'}"
            )
        chosen = named
    else:
        plain = [name for name in integers if "mask" not in name.lower()]
        likely = [name for name in plain if any(part in name.lower() for part in WORDS)] or plain
        if len(likely) != 1:
            have = listed(f"{name}" for name in plain) or "none"
            raise FastcamError(
                f"a captioner takes the words so far as one input of whole numbers; this has {have}: name it with words"
            )
        chosen = likely[0]
    return chosen, tuple(name for name in integers if name != chosen and "mask" in name.lower())


def _scores(graph: ir.Graph, named: str | None) -> str:
    floats = [value.name or "" for value in graph.outputs if value.dtype in FLOATS]
    if named is not None and named not in floats:
        raise FastcamError(f"the model has no float output {named!r}; it has {listed(floats) or 'none'}")
    likely = [name for name in floats if "logit" in name.lower() or "score" in name.lower()] or floats[:1]
    if not likely:
        raise FastcamError("the model has no float output, and so no scores of words")
    return named or likely[0]


def _length(value: ir.Value) -> int | None:
    side = value.shape[1] if value.shape is not None and len(value.shape) > 1 else None
    return side if isinstance(side, int) else None


def _state(
    floats: Sequence[str], made: Sequence[str], encoder: Iterable[str], said: Mapping[str, str] | None
) -> tuple[Link, ...]:
    """Which input is the state that which output leaves: as the user says, by their names, or in order."""
    if said is not None:
        for one, other in said.items():
            if one not in floats or other not in made:
                raise FastcamError(
                    f"the decoder has no state {one!r} with the output {other!r}; it has the inputs "
                    f"{listed(floats)} and the outputs {listed(made)}"
                )
        return tuple(Link(one, other) for one, other in said.items())
    found: dict[str, str] = {}
    for output in made:
        inside = [name for name in floats if name not in found and _alike(name, output)]
        if inside:
            found[max(inside, key=len)] = output
    left = [name for name in floats if name not in found and name not in encoder]
    others = [output for output in made if output not in found.values()]
    if others and len(left) >= len(others):
        found |= dict(zip(left[-len(others) :], others, strict=True))
    return tuple(Link(name, output) for name, output in found.items())


def _alike(name: str, output: str) -> bool:
    """Whether an output is called as an input is: h and h_out, h0 and hn, hidden_in and hidden_out."""

    def stem(text: str) -> str:
        return re.sub(r"([._]?(in|out|new|next|prev|previous|n|t)|[._]?[0-9]+)+$", "", text.lower())

    return bool(stem(name)) and stem(name) == stem(output)


def _encoded(taken: Mapping[str, ir.Value], encoder: Mapping[str, ir.Value]) -> tuple[Link, ...]:
    """What takes which of the encoder's outputs: by name; of one input that is left the only output that fits it."""
    found = {name: name for name in taken if name in encoder}
    left = [name for name in taken if name not in found]
    if len(left) == 1:
        others = [name for name, value in encoder.items() if name not in found and _fits(value, taken[left[0]])]
        if len(others) == 1:
            found[left[0]] = others[0]
    return tuple(Link(name, output) for name, output in found.items())


def _fits(output: ir.Value, given: ir.Value) -> bool:
    """Whether an input may take an output, as far as their shapes tell."""
    have, want = known_dims(output), known_dims(given)
    if have is None or want is None:
        return True
    return len(have) == len(want) and all(None in (a, b) or a == b for a, b in zip(have, want))
