"""Metadata into an exported model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from fastcam import schema
from fastcam.atomic_files import all_replaced, refused, write
from fastcam.schema import Metadata
from fastcam_export.graph import weights


def stamp(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Put ``metadata`` into ``model``, in place of what was there."""
    others = [entry for entry in model.metadata_props if entry.key != schema.METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    entry = model.metadata_props.add()
    entry.key, entry.value = schema.METADATA_KEY, metadata.to_json()


def write_with_weights(models: Mapping[Path, onnx.ModelProto], output: Path) -> tuple[Path, ...]:
    """Write models too large for one file, all or none: their weights, piece by piece, lie beside ``output``.

    Args:
        models: they take their weights from there afterwards.
        output: the file that the weights are named after, and after what is in them.

    Returns:
        What was written, the weights first.

    Raises:
        FastcamError: one cannot be written.
    """
    copier = weights.Copier(list(models.values()))
    with all_replaced() as made:
        with refused(output):
            data = output.with_name(f"{output.stem}.{copier.digest()}.data")
        partial = made(data)
        with refused(data), open(partial, "wb") as file:
            copier.copy(file)
        for path, model in models.items():
            copier.point_to(model, data.name)
            write(made(path), model.SerializeToString(), path)
    return (data, *models)
