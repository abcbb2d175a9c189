"""What measuring maps costs beside explaining: pictures a second of ``evaluate`` over those of ``Explainer.stream``.

    python -m fastcam_bench.speed.evaluation [--seconds 60] [--json FILE]
    python -m fastcam_bench.speed.evaluation --many 50000 [--json FILE]

Both explain the same pictures for the same targets, in turns; the pictures are in memory. With ``--many`` the bundled
model is evaluated on so many generated scenes, and the process's resident memory is written down on the way.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastcam import Explainer
from fastcam.evaluation.class_map import ClassMap, class_map
from fastcam.evaluation.data import open_data
from fastcam.evaluation.protocols import PROTOCOLS
from fastcam.evaluation.runner import Contestant, evaluate
from fastcam.runtime.timing import interleaved, summary
from fastcam_bench.oracles.in_memory import InMemory
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS, default_assets
from fastcam_export import export_model

OUT, OUT_MANY = RESULTS / "speed" / "evaluation.json", RESULTS / "speed" / "evaluation_memory.json"
DATA = Path(str(files("fastcam"))) / "data"
ASKED = ("localization", "gt-known", "pointing", "energy")
"""The protocols of one pass that ``fastcam evaluate`` asks by default."""
PHOTO_NETWORKS = (
    ("SqueezeNet 1.1", "squeezenet1.1.onnx", "imagenet"),
    ("MobileNetV2", "mobilenet_v2_1.0_224_quant.float.onnx", "tf128"),
)
"""Name, file and preprocessing; their classes are numbered, as what they predict does not matter here."""
SCENES = "scenes:96,size=224"
SMALL = 48
"""Pixels of the many scenes: memory does not depend on it, and they are drawn faster."""


def ratio(contestant: Contestant, data: InMemory, seconds: float) -> dict[str, Any]:
    """Seconds of both, and the ratio."""
    protocols = [PROTOCOLS[name]() for name in ASKED]
    classes = contestant.classes.by_label
    ranks = [-1, -2, -3, -4, -5]
    asked = [[*ranks, *(min(classes[label]) for label in sample.labels)] for sample in data.held]

    def stream() -> None:
        frames = contestant.stream([sample.picture for sample in data.held], lambda index, _: asked[index])
        assert all(frame.error is None for frame in frames)

    samples = interleaved({"stream": stream, "evaluate": lambda: evaluate(contestant, data, protocols)}, seconds, 5)
    found = summary(samples, "evaluate")
    return {"pictures": len(data), "rate of evaluate over stream": found["stream"]} | {"seconds": samples}


def memory(contestant: Contestant, many: int) -> dict[str, Any]:
    """MiB that are resident as an evaluation goes on."""
    data = open_data(f"scenes:{many},size={SMALL}")
    resident: dict[int, float] = {}

    def told(_: str, done: int) -> None:
        if done % max(1, many // 20) == 0:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            resident[done] = round(pages * 4096 / (1 << 20), 1)

    with TemporaryDirectory() as folder:
        measured = evaluate(contestant, data, [PROTOCOLS[name]() for name in ASKED], folder, told=told)
    return {"pictures": measured.pictures, "MiB by pictures": resident}


def contestants(folder: Path, labels: Sequence[str]) -> Iterator[Contestant]:
    """The bundled model, and the photo networks of the assets where they are, each with a class for every label."""
    made = folder / "scenes.cam.onnx"
    export_model(DATA / "scenes.onnx", made, labels=DATA / "scenes.labels.txt", preprocess="imagenet", check=False)
    bundled = Explainer(made, exif=False)
    yield Contestant("bundled", bundled, class_map(labels, bundled.metadata))
    for name, file, preprocess in PHOTO_NETWORKS:
        source = default_assets() / "models" / file
        if source.exists():
            export_model(source, folder / file, preprocess=preprocess, check=False)
            classes = ClassMap({label: frozenset({n}) for n, label in enumerate(labels)}, (), "by number")
            yield Contestant(name, Explainer(folder / file, exif=False), classes)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.speed.evaluation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each network")
    parser.add_argument("--many", type=int, default=0, help="measure memory instead, on so many scenes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    data = InMemory(open_data(SCENES))
    report: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        each = contestants(Path(folder), data.labels)
        if options.many:
            report["memory"] = memory(next(each), options.many)
            print(report["memory"])
        else:
            report["networks"] = {}
            for contestant in each:
                result = report["networks"][contestant.name] = ratio(contestant, data, options.seconds)
                print(contestant.name, result["rate of evaluate over stream"])
    about = {"machine": machine(), "versions": versions("fastcam", "onnxruntime", "numpy"), "protocols": ASKED}
    given = sys.argv[1:] if arguments is None else arguments
    command = " ".join(["python -m fastcam_bench.speed.evaluation", *given])
    write_report({"command": command} | about | report, options.json or (OUT_MANY if options.many else OUT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
