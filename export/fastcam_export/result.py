"""What ``export_model`` and ``inspect_model`` return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from fastcam import schema
from fastcam.errors import listed
from fastcam.language.tokenizer import Tokenizer
from fastcam.schema import Metadata, Score
from fastcam_export.artifacts import classifier_head, engines
from fastcam_export.summary import explained_lines, further_options, taken_for, target_kinds
from fastcam_export.verify import check, image_gradient


@dataclass(frozen=True)
class Export:
    """The result of an export.

    Attributes:
        model: the exported model; of an export on demand its forward part. Of weights too large for one file it says
            where they lie: in the file beside ``output``, without an output in the source's.
        metadata: what it carries under the key "fastcam".
        check: result of the check; empty if it was skipped.
        output: the file written, or None; of an export on demand the forward part's.
        opset: (source's, exported's) opset of the default domain.
        engine: lines on what the engine that the file is for does not read of the model itself; empty if nothing.
        explanation: the explanation part of an export on demand, or None.
        head: the part of the model behind the layer, where that was wanted.
        decoder: of a captioner in two files the decoder with its gradient, or None.
        files: all files written.
        repairs: what was repaired or rewritten to read the source.
        notes: lines on what was found out about the input: its size, numbers for grey.
        tokenizer: of the inputs that hold a text, if the user gave one.
    """

    model: onnx.ModelProto
    metadata: Metadata
    check: dict[str, Any]
    output: Path | None
    opset: tuple[int, int]
    engine: tuple[str, ...] = ()
    explanation: onnx.ModelProto | None = None
    head: onnx.ModelProto | None = None
    decoder: onnx.ModelProto | None = None
    files: tuple[Path, ...] = ()
    repairs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tokenizer: Tokenizer | None = None

    def summary(self) -> list[str]:
        """Lines that tell a person what was done and why."""
        meta = self.metadata
        lines = explained_lines(meta)
        if meta.frames:
            height, width = meta.input_shape[1:3]
            size = f"{height} x {width}" if isinstance(height, int) else "of any size"
            lines.append(f"input   {meta.input}, uint8 RGB pictures {size}, which the file prepares itself")
        lines += read_lines(self.repairs)
        lines += self.notes
        if self.opset[0] != self.opset[1]:
            lines.append(f"opset   converted from {self.opset[0]} to {self.opset[1]}")
        if meta.engine != "onnxruntime":
            free = any(value.name == schema.TARGETS for value in (self.explanation or self.model).graph.input)
            note = f": {engines.targets_note(meta.engine)}" if free else ""
            lines.append(f"engine  added nodes are for {engines.title(meta.engine)}{note}")
            lines += [f"        warning: {line}" for line in self.engine]
        if self.check:
            lines += check.summary_lines(self.check, bool(meta.layers))
            lines += image_gradient.summary_lines(meta.input_gradient, self.check)
            lines += classifier_head.summary_lines(self.check)
        if self.output is not None:
            lines += [f"wrote   {file}" for file in self.files]
            lines += self._next()
        return lines

    def taken_for(self) -> str:
        """What kind of model this is, where it is none of classes: "a detector: output0 is explained"."""
        return taken_for(self.metadata)

    def _next(self) -> list[str]:
        """What the file that was written is for: the command that explains with it, where there is one."""
        meta = self.metadata
        given = {
            "signal": "SIGNAL.npy",
            "spectrogram": "SPECTROGRAM.npy",
            "volume": "VOLUME.npy",
            "video": "CLIP.mp4",
        }.get(meta.kind, "PICTURE")
        given = '--text "..."' if meta.kind == "text" else given
        how = (
            ""
            if meta.preprocessing is not None or meta.kind == "text" or given.endswith(".npy")
            else " --preprocess NAME"
        )
        known = target_kinds(meta)
        spec = " -t TARGET" if meta.cotangents and (not known or known == ["similarity"]) else ""
        spec = " -t 'text: A PROMPT'" if meta.text_encoder is not None else spec
        values = "".join(f" {option}" for option in further_options(meta))
        if meta.captioning is not None:
            return [f"next    fastcam caption {self.output} PICTURE"]
        lines = [f"next    fastcam explain {self.output} {given}{how}{spec}{values}"]
        if meta.cotangents:
            lines.append(f"        fastcam cotangents {self.output} lists what -t takes")
        size = meta.preprocessing.size if meta.preprocessing is not None else None
        measured = meta.check.get("image_shape", []) if size is not None else []
        image = (1, *measured) if size is not None and set(size) <= set(measured) else (1,)
        sizes = [one.output for one in meta.cotangents if meta.size_of(one, image) is None]
        if sizes and meta.pair is None:
            lines.append(f"        only a run tells the size of {listed(sizes)}: words need an export --on-demand")
        return lines


def read_lines(repairs: Sequence[str]) -> list[str]:
    """What a summary says of repairs."""
    return [f"{'read' if i == 0 else '':8}{text}" for i, text in enumerate(repairs)]


@dataclass(frozen=True)
class InspectedLayer:
    """One line of :func:`fastcam_export.inspect_model`: a layer that can be explained.

    ``chosen``: it is what "auto" takes; ``in_all``: it is among those that "all" takes.
    """

    name: str
    scope: str
    op_type: str
    shape: tuple[int | str, ...]
    chosen: bool
    note: str
    layout: schema.LayoutName = "NCHW"
    in_all: bool = False


@dataclass(frozen=True)
class InspectedValue:
    """An input or output of a model.

    Attributes:
        name: its name.
        dtype: as ONNX calls it, "float", "int64"; "" where the file does not say it; "sequence", "map" or "optional".
        shape: free dimensions by name, or "?"; empty where it is unknown.
        taken_for: what it holds, and how that was found out, for people.
        explained: whether it is what an export explains.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    taken_for: str
    explained: bool


@dataclass(frozen=True)
class Inspection:
    """What :func:`fastcam_export.inspect_model` found.

    Attributes:
        layers: values with spatial axes that every path from image to score passes through, first to last; of a
            detector also the maps in front of the heads of each resolution.
        reason: why the chosen one is chosen; "" where none is.
        score: the explained score; of a detector, segmenter or text the first output; None where nothing can be
            explained.
        missing: (operator, number of nodes) between image and score that have no gradient rule.
        engine: lines on what the engine asked for does not read of the model; empty if nothing.
        repairs: what was repaired or rewritten to read the model.
        inputs, outputs: those of the model, and what they are taken for.
        blocks: why the plain export does not work; empty where it does.
        command: the command that exports the model; "" where none does.
        notes: what was found out about the size of the input.
        taken_for: what a model is that answers no classes: "a detector: output0 is explained".
    """

    layers: list[InspectedLayer]
    reason: str
    score: Score | None
    missing: list[tuple[str, int]]
    engine: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    inputs: tuple[InspectedValue, ...] = ()
    outputs: tuple[InspectedValue, ...] = ()
    blocks: tuple[str, ...] = ()
    command: str = ""
    notes: tuple[str, ...] = ()
    taken_for: str = ""
