"""The last step of an export: metadata into the models, and files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from errno import ENOENT
from pathlib import Path
from typing import Any

import onnx

from fastcam.atomic_files import destination, refused, write_files
from fastcam.errors import FastcamError, shown
from fastcam.schema import Metadata
from fastcam.web.readable import refusal
from fastcam_export.artifacts import captions, classifier_head, on_demand, uint8_frames
from fastcam_export.graph import weights
from fastcam_export.graph.save import stamp, write_with_weights
from fastcam_export.result import Export
from fastcam_export.steps import texts
from fastcam_export.steps.attach import Attached
from fastcam_export.steps.plan import Plan

PLACES = {
    "head": classifier_head.head_path,
    "explain": on_demand.explanation_path,
    "decoder": captions.decoder_path,
    "tokenizer": texts.tokenizer_path,
}
"""Where the parts of an export lie, beside its main file."""


def package(plan: Plan, attached: Attached, check: Mapping[str, Any], output: str | Path | None) -> Export:
    """The export: its models with their metadata, written to ``output`` if that is given.

    Args:
        plan: what was planned.
        attached: the models.
        check: what the check measured.
        output: the file to write; of several the one that names the others.

    Raises:
        FastcamError: a file cannot be written, or the page of browsers, for which it is, does not explain it.
    """
    attached = attached.with_weights(plan.options.for_engine == "web")
    model, metadata, explanation = attached.whole, plan.metadata, None
    if attached.head is not None:
        metadata = classifier_head.with_head(attached.head, metadata)
    metadata = replace(metadata, check=dict(check))
    if attached.framed is not None:
        model, metadata = attached.framed, uint8_frames.described(metadata, plan.options.frames)
    if attached.parts is not None:
        model, explanation = attached.parts.forward, attached.parts.explanation
        metadata = on_demand.paired(attached.parts, metadata)
    export = Export(
        model=model,
        metadata=metadata,
        check=metadata.check,
        output=None,
        opset=(plan.loaded.opset, attached.opset),
        engine=attached.unread,
        explanation=explanation,
        head=attached.head.model if attached.head is not None else None,
        repairs=plan.loaded.repairs,
        notes=(*plan.notes, *texts.absent(metadata.text_encoder, output)),
        tokenizer=plan.tokenizer,
    )
    return finish(export, output)


def finish(export: Export, output: str | Path | None) -> Export:
    """The export with its metadata in the model, or in all parts, and written to ``output`` if that is given."""
    path = Path(output) if output is not None else None
    metadata, parts = replace(export.metadata, tokenizer=texts.named(export.tokenizer, path)), {}
    if export.head is not None:
        metadata, parts["head"] = classifier_head.named(export.head, metadata, path), export.head
    pair = metadata.pair
    if export.explanation is not None and pair is not None:
        theirs = replace(pair, part="explanation", other=path.name if path is not None else "")
        stamp(export.explanation, replace(metadata, pair=theirs))
        ours = replace(pair, other=on_demand.explanation_path(path).name if path is not None else "")
        metadata, parts["explain"] = replace(metadata, pair=ours), export.explanation
    if export.decoder is not None and metadata.captioning is not None:
        named = replace(metadata.captioning, decoder=captions.decoder_path(path).name if path is not None else "")
        metadata, parts["decoder"] = replace(metadata, captioning=named), export.decoder
    _refuse_unreadable(export.model, metadata)
    stamp(export.model, metadata)
    files: tuple[Path, ...] = ()
    if path is not None:
        beside = {PLACES[name](path): part for name, part in parts.items()}
        models = beside | {path: export.model}
        texts.write(export.tokenizer, metadata.tokenizer, path)
        if any(map(weights.size, models.values())):
            files = write_with_weights(models, path)
        else:
            contents = on_demand.files_to_write(models, path) if beside else {path: export.model.SerializeToString()}
            write_files(contents)
            files = tuple(contents)
        files += texts.files(metadata.tokenizer, path)
    return replace(export, metadata=metadata, output=path, files=files)


def _refuse_unreadable(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Raise a FastcamError for an export for browsers that our page does not explain."""
    if metadata.engine == "web":
        [image] = [value for value in model.graph.input if value.name == metadata.input]
        why = refusal(metadata, onnx.TensorProto.DataType.Name(image.type.tensor_type.elem_type).lower())
        if why:
            raise FastcamError(f"no file for browsers can be made of it: {why}")


def spare(read: Iterable[Path], output: str | Path | None) -> None:
    """Make sure that an export can be written and replaces no file that it was made of.

    Args:
        read: the model's files.
        output: the file to write; its further files lie beside it.

    Raises:
        FastcamError: it would, or there can be no file of that name.
    """
    if output is None:
        return
    path = Path(output)
    with refused(path):
        if not destination(path).parent.is_dir():
            raise FileNotFoundError(ENOENT, "there is no such folder")
        for place in (path, *(beside(path) for beside in PLACES.values())):
            target = destination(place)
            if target.exists() and any(map(target.samefile, read)):
                raise FastcamError(f"{shown(place)}: the export would overwrite the model; choose another name with -o")
