"""What boxes at a hundred thresholds cost beside the explanation that they are of.

    python -m fastcam_bench.speed.threshold_sweep [--seconds 20] [--out FILE]

Of one picture: the explanation; one sweep over its heatmap's pixels, of which MaxBoxAcc and its kin are made; the
kernels' boxes at each of the thresholds, one after the other; and the enlarged map thresholded and labelled by OpenCV
as often. In turn, in random order.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fastcam import Explainer, kernels
from fastcam.evaluation.protocols.sweep import swept
from fastcam.image.resampling import opencv
from fastcam.runtime.timing import interleaved, summary
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS, ROOT, default_assets
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.speed.threshold_sweep"
LEVELS = (np.floor(np.arange(100)[::-1] * 0.01 * 255) + 1) / 255


def contest(model: Path, preprocess: str, seconds: float) -> dict[str, Any]:
    """One network's figures."""
    cv2 = opencv()
    explainer = Explainer(export_model(model, preprocess=preprocess, check=False).model.SerializeToString())
    picture = np.ascontiguousarray(cv2.imread(str(ROOT / "fastcam" / "data" / "scene.jpg"))[..., ::-1])
    found = explainer(picture)
    heatmap, size = found.heatmaps[0, 0], found.geometry[0].network
    small, backend = found.maps[:1, :1], kernels.get()

    def one_by_one() -> None:
        for level in LEVELS:
            backend.explain_maps(small, None, size, float(level), want_heatmaps=False)

    def opencv_labels() -> None:
        for level in LEVELS:
            cv2.connectedComponentsWithStats((heatmap >= level * heatmap.max()).astype(np.uint8), connectivity=8)

    runs = {
        "explanation": lambda: explainer(picture),
        "sweep": lambda: swept(heatmap, LEVELS),
        "boxes at each threshold": one_by_one,
        "OpenCV at each threshold": opencv_labels,
    }
    return {"model": model.name, "map": list(small.shape[2:]), "heatmap": list(size)} | {
        "figures": summary(interleaved(runs, seconds), "explanation")
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--assets", type=Path, default=default_assets(), help="folder with models/")
    parser.add_argument("--seconds", type=float, default=20, help="for each network")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed" / "threshold_sweep.json")
    options = parser.parse_args()
    models = [(ROOT / "fastcam" / "data" / "scenes.onnx", "imagenet")]
    more = [("squeezenet1.1.onnx", "imagenet"), ("mobilenet_v2_1.0_224_quant.float.onnx", "tf128")]
    models += [(options.assets / "models" / name, preset) for name, preset in more]
    rows = [contest(model, preset, options.seconds) for model, preset in models if model.is_file()]
    report = {"command": COMMAND, "machine": machine(), "versions": versions("fastcam", "onnxruntime", "opencv-python")}
    write_report(report | {"rows": rows}, options.out)
    for row in rows:
        print(row["model"], {name: figure["ratio"] for name, figure in row["figures"].items()})


if __name__ == "__main__":
    main()
