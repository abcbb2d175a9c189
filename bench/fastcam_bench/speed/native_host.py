"""What an explanation costs a C++ program: ``python -m fastcam_bench.speed.native_host [--rounds 200]``.

Builds csrc/examples/explain.cpp and runs it on SqueezeNet and MobileNetV2 of the assets, on the library that the
onnxruntime wheel holds: from the start of the program to the first box, of the exported file and of that of --slim; and
in turns from a picture of 640 x 480 to scores by the model alone, and to scores, heatmap and box by the exported file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2

from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS, ROOT, default_assets
from fastcam_export import export_model, write_slim

OUT = RESULTS / "web" / "native_host.json"
NETWORKS = {"squeezenet1.1": "squeezenet1.1.onnx", "mobilenet_v2": "mobilenet_v2_1.0_224_quant.float.onnx"}
STARTS = 5


def library() -> Path:
    """ONNX Runtime's library in its wheel."""
    found = importlib.util.find_spec("onnxruntime")
    assert found is not None and found.origin is not None
    libraries = sorted((Path(found.origin).parent / "capi").glob("libonnxruntime.so*"))
    if not libraries:
        raise SystemExit("this onnxruntime has no libonnxruntime.so; install 1.31 or later")
    return libraries[0]


def built(folder: Path) -> Path:
    """The program."""
    options = ["-DFASTCAM_PYTHON=OFF", "-DFASTCAM_EXAMPLES=ON"]
    subprocess.run(["cmake", "-S", str(ROOT), "-B", str(folder), *options], check=True, stdout=subprocess.DEVNULL)
    build = ["cmake", "--build", str(folder), "--target", "fastcam_explain_example"]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return folder / "explain"


def measured(program: Path, source: Path, folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """One network: the medians of several starts, and those of the rounds of one more."""
    model, picture = folder / f"{source.stem}.cam.onnx", folder / "picture.ppm"
    export_model(source, model, preprocess="imagenet", check=False)
    slim, _ = write_slim(model)
    options = ["--onnxruntime", library(), "--threads", threads, "--against", source]

    def once(file: Path, count: int) -> dict[str, Any]:
        command = [*map(str, (program, file, picture, *options)), "--repeat", str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    starts = [[once(file, 1)["first_box_ms"] for file in (model, slim)] for _ in range(STARTS)]
    first, first_slim = map(statistics.median, zip(*starts, strict=True))
    return once(model, rounds) | {"first_box_ms": first, "slim_first_box_ms": first_slim}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.speed.native_host", description=__doc__)
    parser.add_argument("--assets", type=Path, default=default_assets())
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    networks = {}
    with TemporaryDirectory() as work:
        folder = Path(work)
        scene = cv2.imread(str(files("fastcam") / "data" / "scene.jpg"))
        assert scene is not None
        cv2.imwrite(str(folder / "picture.ppm"), cv2.resize(scene, (640, 480)))
        program = built(folder / "build")
        for name, file in NETWORKS.items():
            source = options.assets / "models" / file
            networks[name] = measured(program, source, folder, options.rounds, options.threads)
            print(name, networks[name], flush=True)
    command = f"python -m fastcam_bench.speed.native_host --rounds {options.rounds} --threads {options.threads}"
    about = {"machine": machine(), "versions": versions("fastcam", "onnxruntime")}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    write_report({"command": command} | about | {"networks": networks}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
