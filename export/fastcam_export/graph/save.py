"""Metadata into an exported model."""

from __future__ import annotations

import onnx

from fastcam import schema
from fastcam.schema import Metadata


def stamp(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Put ``metadata`` into ``model``, in place of what was there."""
    others = [entry for entry in model.metadata_props if entry.key != schema.METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    entry = model.metadata_props.add()
    entry.key, entry.value = schema.METADATA_KEY, metadata.to_json()
