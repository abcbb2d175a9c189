"""Errors that nobody foresaw, told in one line: whether the model is at fault, or FastCAM."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir

from fastcam.schema import FastcamError
from fastcam_export.graph.load import Source
from fastcam_export.graph.reading.soundness import refuse_unsound
from fastcam_export.layers.target_layer import NoLayer
from fastcam_export.verify.session import quiet_session, said


@contextmanager
def as_fastcam_error(source: Source, what: str) -> Iterator[None]:
    """Turn what libraries raise within into a FastcamError, which has that as its cause.

    Args:
        source: the model that is worked on. One that ONNX Runtime does not load explains everything.
        what: what is done with it, as a clause with the model as its object: "exported".

    Raises:
        FastcamError: anything was raised.
    """
    try:
        yield
    except NoLayer as error:
        why = _refused(source)
        if why:
            raise FastcamError(why) from error
        raise
    except FastcamError:
        raise
    except MemoryError as error:
        raise FastcamError(
            f"the model cannot be {what}: there is not enough memory ({said(error)}); choose a smaller input (--size)"
        ) from error
    except Exception as error:
        raise FastcamError(_no_graph(error, what) or _refused(source) or _defect(error, what)) from error


def _no_graph(error: Exception, what: str) -> str:
    """That the model is no graph, or has sizes beyond ONNX's numbers; "" where it is something else."""
    if isinstance(error, OverflowError | onnx.shape_inference.InferenceError) and "overflow" in str(error):
        return f"the model cannot be {what}: sizes in it overflow ({said(error)}); repair the model"
    if not isinstance(error, ir.serde.SerdeError):
        return ""
    inner: BaseException = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    return f"the model cannot be {what}: it is no valid graph ({said(inner)}); export it again"


def _refused(source: Source) -> str:
    """Why ONNX Runtime does not load the model; "" where it does."""
    try:
        if isinstance(source, bytes):
            source = onnx.load_model_from_string(source)
        whole = source if isinstance(source, onnx.ModelProto) else onnx.load(source, load_external_data=False)
        refuse_unsound(whole, "the model")
    except Exception as error:  # protobuf's
        return str(error) if isinstance(error, FastcamError) else f"the model cannot be read ({said(error)})"
    try:
        quiet_session(source, plain=True)  # nothing is computed
    except FastcamError:  # there is no runtime to ask
        return ""
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        return f"ONNX Runtime cannot load the model itself ({said(error)}); repair the model"
    return ""


def _defect(error: Exception, what: str) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "fastcam" in Path(frame.filename).parent.as_posix()] or frames
    where = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
    return (
        f"the model cannot be {what} ({type(error).__name__} at {where}: {said(error)}); this is a defect of FastCAM: "
        "please report it with the model's operators (fastcam inspect)"
    )
