"""Exported files on the disk: metadata into the model, and all of the files or none of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from errno import EISDIR
from pathlib import Path

import onnx

from fastcam import schema
from fastcam.schema import FastcamError, Metadata


def stamp(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Put ``metadata`` into ``model``, in place of what was there."""
    others = [entry for entry in model.metadata_props if entry.key != schema.METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    entry = model.metadata_props.add()
    entry.key, entry.value = schema.METADATA_KEY, metadata.to_json()


def write(files: Mapping[Path, bytes]) -> None:
    """Write all files under other names first, so that each is complete or untouched."""
    complete: dict[Path, Path] = {}
    output = Path()
    try:
        for output, content in files.items():
            if output.is_dir():
                raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
            with tempfile.NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}.", delete=False) as file:
                complete[output] = Path(file.name)
                file.write(content)
            os.chmod(complete[output], 0o644)
        for output, temporary in complete.items():
            os.replace(temporary, output)
    except OSError as error:
        for temporary in complete.values():
            temporary.unlink(missing_ok=True)
        why = error.strerror or str(error)
        raise FastcamError(f"cannot write {output} ({why}); give a file in a folder that exists with -o") from error
