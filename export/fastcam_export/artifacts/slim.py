"""An exported file in ONNX Runtime's own format, for small devices, and the operators that a reduced build of it needs.

ONNX Runtime writes both, by its session and its tools. The graph is optimised once, here, except for what fits one
kind of processor alone (the blocked layout of x86), so that the device neither parses nor optimises it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastcam.atomic_files import write_files
from fastcam.errors import FastcamError, shown, typed
from fastcam_export.verify.session import save_optimised

MACHINES_OWN = ["NchwcTransformer"]
"""Optimisers whose result runs on some processors alone; ONNX Runtime's own conversion leaves them out too."""


def places(path: str | Path) -> tuple[Path, Path]:
    """Beside ``x.cam.onnx`` the files ``x.cam.ort`` and ``x.cam.required_operators.config``."""
    return Path(path).with_suffix(".ort"), Path(path).with_suffix(".required_operators.config")


def write_slim(path: str | Path) -> tuple[Path, Path]:
    """Write a file in ONNX Runtime's format beside an exported one, and the list of the operators that it needs.

    Args:
        path: what :func:`fastcam_export.export_model` wrote, in one file. Float16 and int8 stay as they are.

    Returns:
        The file, which an Explainer opens as it opens the other, and the list, as ONNX Runtime's build takes it by
        ``--include_ops_by_config``.

    Raises:
        FastcamError: ONNX Runtime cannot convert it, or the files cannot be written.
    """
    typed("path", path, str | os.PathLike, "the path of an exported ONNX file")
    model, operators = places(path)
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / model.name
        _convert(Path(path), converted)
        listed = _required(converted)
        content = converted.read_bytes()
    lines = [f"# Operators of {model.name}, for ONNX Runtime's build.py --include_ops_by_config"]
    for domain, opsets in sorted(listed.items()):
        lines += [f"{domain};{opset};{','.join(sorted(names))}" for opset, names in sorted(opsets.items())]
    write_files({model: content, operators: ("\n".join(lines) + "\n").encode()})
    return model, operators


def _convert(path: Path, converted: Path) -> None:
    try:
        save_optimised(path, converted, MACHINES_OWN)
    except FastcamError:
        raise
    except Exception as error:  # those of ONNX Runtime have nothing in common
        why = " ".join(str(error).split())[-300:]
        raise FastcamError(f"{shown(path)}: ONNX Runtime cannot write it in its own format ({why})") from error


def _required(converted: Path) -> Mapping[str, Mapping[int, set[str]]]:
    """Operators by domain and opset."""
    try:
        from onnxruntime.tools.ort_format_model import OrtFormatModelProcessor
    except ImportError as error:
        raise FastcamError(
            f"listing the operators needs flatbuffers ({error}); run: pip install flatbuffers"
        ) from error
    required: dict[str, Any] = {}
    OrtFormatModelProcessor(str(converted), required, None).process()
    return required
