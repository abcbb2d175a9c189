"""What is run on disks that fail: every verb and writer, on small files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.image.resampling import opencv
from fastcam_bench.paths import ROOT

DATA = ROOT / "fastcam" / "data"


@dataclass(frozen=True)
class Case:
    """One call that reads or writes files.

    Attributes:
        name: for people.
        arguments: of the command line, in a folder that holds ``in`` and ``out``; or a function to call.
        before: called first in the same process.
        partial: whether a part of the result may be there after an input that cannot be read.
        cache: whether ``out`` is a cache, without which all works as well.
    """

    name: str
    arguments: str | Callable[[], Any]
    before: Callable[[], Any] = lambda: None
    partial: bool = False
    cache: bool = False


def _weights_apart() -> None:
    """Files of more than 2 GB keep their weights beside them; here those of any size do."""
    from fastcam_export.graph import load, weights

    weights.APART = weights.MANY = weights.FULL = 1
    load.LARGE = 0


def _report() -> None:
    """The Python interface: an explanation of two pictures, saved."""
    from fastcam import Explainer

    Explainer("in/scenes.cam.onnx", threads=1)(["in/a.png", "in/b.png"], targets=[-1, 0]).save("out")


def _with_cache() -> None:
    """A start from the cache of optimised models."""
    from fastcam import Explainer
    from fastcam.runtime.providers import Settings

    settings = Settings(keep_optimized=True, cache="out")
    e = Explainer("in/scenes.cam.onnx", threads=1, settings=settings)("in/a.png")
    if e.classes.shape != (1, 1):
        raise AssertionError(e.classes.shape)


SCENES = "in/scenes.cam.onnx --threads 1"
CASES = (
    Case("export", "export in/small.onnx -o out/s.onnx --labels in/labels.json"),
    Case("export, head", "export in/small.onnx -o out/s.onnx --head"),
    Case("export, on demand", "export in/small.onnx -o out/s.onnx --on-demand"),
    Case("export, data file", "export in/small.onnx -o out/s.onnx", _weights_apart),
    Case("export, data files, on demand", "export in/apart.onnx -o out/s.onnx --on-demand", _weights_apart),
    Case("export, several layers", "export in/small.onnx -o out/s.onnx --layer all --emit gradients"),
    Case("explain", f"explain {SCENES} in/a.png in/b.png -o out", partial=True),
    Case("explain, new folder", f"explain {SCENES} in/a.png -o out/deep/new", partial=True),
    Case("explain, methods", f"explain {SCENES} in/a.png -o out --method gradcam,eigencam", partial=True),
    Case("explain, layers", "explain in/layers.cam.onnx in/a.png -o out --layers all --threads 1", partial=True),
    Case("explain, on demand", "explain in/pair.onnx in/a.png -o out --threads 1", partial=True),
    Case("explain, signal", "explain in/signal.cam.onnx in/signal.csv -o out --threads 1", partial=True),
    Case("explain, volume", "explain in/volume.cam.onnx in/volume.nii.gz -o out --threads 1", partial=True),
    Case("save", _report),
    Case("stream, lines", f"stream {SCENES} in/a.png in/b.png -o out/s.jsonl --workers 1", partial=True),
    Case("stream, avi", f"stream {SCENES} in/clip.avi -o out/s.avi --workers 1", partial=True),
    Case("stream, mp4", f"stream {SCENES} in/clip.avi -o out/s.mp4 --workers 1", partial=True),
    Case("concepts", f"concepts {SCENES} in/a.png in/b.png -n 2 -o out"),
    Case("cache", _with_cache, cache=True),
)


def make_inputs(folder: Path) -> int:
    """Models, pictures, a video, a signal and a volume, for all cases; 0."""
    import onnx

    from fastcam_export import export_model

    cv2: Any = opencv()
    random = np.random.default_rng(0)
    small = _small()
    onnx.save(small, folder / "small.onnx")
    onnx.save(small, folder / "apart.onnx", save_as_external_data=True, location="apart.data", size_threshold=0)
    (folder / "labels.json").write_text(json.dumps([f"class {i}" for i in range(5)]))
    how: dict[str, Any] = {"preprocess": "imagenet", "check": False}
    scenes = DATA / "scenes.onnx"
    export_model(scenes, folder / "scenes.cam.onnx", labels=DATA / "scenes.labels.txt", **how)
    export_model(scenes, folder / "layers.cam.onnx", layer="all", **how)
    export_model(scenes, folder / "pair.onnx", on_demand=True, **how)
    export_model(_samples([1, 64]), folder / "signal.cam.onnx", check=False)
    export_model(_samples([1, 8, 8, 8]), folder / "volume.cam.onnx", check=False)
    pictures = random.integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)
    for name, picture in zip("ab", pictures):
        cv2.imwrite(str(folder / f"{name}.png"), picture)
    video = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (64, 48))
    for picture in pictures:
        video.write(picture)
    video.release()
    np.savetxt(folder / "signal.csv", random.normal(size=64))
    _nifti(folder / "volume.nii.gz", random.normal(size=(8, 8, 8)).astype(np.float32))
    return 0


def _small() -> Any:
    """image [N, 3, 8, 8] -> Conv, Relu, Conv, Relu, mean -> Gemm -> logits [N, 5]."""
    return _network([3, 8, 8], [4, 6], 5, ["N"])


def _samples(shape: list[int]) -> Any:
    """The same of signals or volumes [N, C, ...]."""
    return _network(shape, [4, 4], 3, ["N"])


def _network(shape: list[int], widths: list[int], classes: int, batch: list[Any]) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(1)
    rank, channels, value = len(shape) - 1, shape[0], "x"
    nodes, tensors = [], []

    def tensor(name: str, *sides: int) -> str:
        tensors.append(numpy_helper.from_array(random.normal(size=sides).astype(np.float32), name))
        return name

    for i, width in enumerate(widths):
        weight = tensor(f"w{i}", width, channels, *[3] * rank)
        nodes.append(helper.make_node("Conv", [value, weight], [f"c{i}"], pads=[1] * (2 * rank)))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        value, channels = f"r{i}", width
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", tensor("fc", channels, classes)], ["y"]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*batch, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*batch, classes])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _nifti(path: Path, volume: Any) -> None:
    """A NIfTI-1 file of float32: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h."""
    import gzip
    import struct

    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *volume.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 16, 32)
    struct.pack_into("<8f", head, 76, *[1.0] * 8)
    struct.pack_into("<3f", head, 108, 352.0, 1.0, 0.0)
    head[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(head) + volume.tobytes(), mtime=0))


def run(case: Case) -> int:
    """The case in this process, in the present folder; its exit status."""
    import sys

    from fastcam import cli
    from fastcam.errors import FastcamError

    os.environ["FASTCAM_CACHE"] = os.path.abspath("cache")
    case.before()
    try:
        if callable(case.arguments):
            case.arguments()
            return 0
        sys.argv = ["fastcam", *case.arguments.split()]
        cli.main()
    except FastcamError as error:
        print(f"fastcam: {error}", file=sys.stderr)
        return 2
    except SystemExit as end:
        return int(end.code or 0)
    return 0
