"""Models: inspected, exported, and the export explained. An export that is accepted gives its source's own scores."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from fastcam import Explainer, FastcamError
from fastcam.schema import METADATA_KEY
from fastcam_bench.fuzz import WrongAnswer
from fastcam_bench.fuzz.graphs.mutations import bytes_changed, mutated
from fastcam_bench.fuzz.graphs.seeds import every
from fastcam_export import export_model, inspect_model
from fastcam_export.graph.reading.soundness import refuse_unsound
from fastcam_export.verify.session import quiet_session

NAME = "Models"
LONGEST = 1500
"""Of an error's one line."""
DEFECT = re.compile(r"this is a defect|Traceback")
"""Of messages that say that FastCAM, not the model, is at fault."""


def seeds() -> list[bytes]:
    """Sound models, and an export of one in each form."""
    sound = every()
    forms: tuple[tuple[str, dict[str, Any]], ...] = (
        ("classifier", {}), ("detector", {}), ("free", {"emit": "gradients", "targets": "required"}),
    )  # fmt: skip
    exported = [export_model(sound[name], preprocess="unit", check=False, **how).model for name, how in forms]
    return [model.SerializeToString() for model in (*sound.values(), *exported)]


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """A model that is wrong in its structure, or in its bytes."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return bytes_changed(data, random)
    try:
        return mutated(model, random)
    except (ValueError, TypeError):  # protobuf holds no such number
        return bytes_changed(data, random)


def attempt(data: bytes) -> str:
    """Inspect and export a model, or explain a picture by one that is exported.

    Raises:
        AssertionError: an error has more than a line or is told as a defect of FastCAM, a refused export left a file,
            or an export gives other scores than its source.
        Exception: any that is not a FastcamError.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "m.onnx", Path(folder) / "out.onnx"
        source.write_bytes(data)
        refused(lambda: inspect_model(source))
        if METADATA_KEY.encode() in data and not refused(lambda: _sound(data)):
            refused(lambda: _explained(source))
        if refused(lambda: export_model(source, output, preprocess="unit")):
            left = sorted(path.name for path in Path(folder).iterdir() if path != source)
            assert not left, f"a refused export left {left}"
            return "refused"
        _same_scores(source, output)
        return "refused" if refused(lambda: _explained(output)) else "accepted"


def refused(call: Any) -> bool:
    """Whether the call raises a FastcamError, which is looked at."""
    try:
        call()
    except FastcamError as error:
        text = str(error)
        assert "\n" not in text and len(text) < LONGEST, f"no single line: {text!r}"
        assert not DEFECT.search(text), text
        return True
    return False


def _sound(data: bytes) -> None:
    """ONNX Runtime is spared what it does not survive; whoever runs a file trusts it as far as that."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return
    refuse_unsound(model, "the model")


def _explained(path: Path) -> None:
    explainer = Explainer(path)
    explainer(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))


def _same_scores(source: Path, output: Path) -> None:
    """The export's own outputs are the source's, bit for bit.

    Raises:
        AssertionError: they are not.
    """
    try:
        before = quiet_session(source)
    except Exception:  # a file that only its repairs let run
        return
    after = quiet_session(output)
    own = [value.name for value in before.get_outputs()]
    rng = np.random.default_rng(5)
    feeds = {}
    for value in before.get_inputs():
        kind = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
        whole = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(bool)": bool}
        shape = [side if isinstance(side, int) else 2 if axis == 0 else 8 for axis, side in enumerate(value.shape)]
        if np.prod(shape, dtype=np.float64) > 1e6 or value.type not in {**kind, **whole}:
            return
        feeds[value.name] = rng.standard_normal(shape).astype({**kind, **whole}[value.type])
    taken = {value.name: value for value in after.get_inputs()}
    more = {
        name: np.zeros([side if isinstance(side, int) else 1 for side in value.shape], np.float32)
        for name, value in taken.items() if name not in feeds
    }  # fmt: skip
    if any(value.type != "tensor(float)" for name, value in taken.items() if name in more):
        return
    try:
        expected = before.run(own, feeds)
    except Exception:  # this size is none that the model takes
        return
    found = after.run(own, {**{name: feeds[name] for name in feeds if name in taken}, **more})
    for name, a, b in zip(own, expected, found):
        if isinstance(a, np.ndarray) and not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            raise WrongAnswer(f"output {name} of the export is not its source's")
