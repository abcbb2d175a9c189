"""The correlation with occlusion by the side of its patches: ``python -m fastcam_bench.accuracy.evaluation.patches``.

The paper covers patches of 15 pixels of VGG-16's input. A cell of the last layer is 16 pixels wide in SqueezeNet and
32 in MobileNetV2, and one such patch changes their scores little. Grad-CAM on the photos of the assets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastcam.evaluation import tables
from fastcam.evaluation.protocols.faithfulness.occlusion import OcclusionCorrelation
from fastcam.evaluation.runner import evaluate
from fastcam_bench.accuracy.evaluation.__main__ import OUT, photos
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import default_assets

SIDES = {15: 15, 30: 30, 60: 30}
"""Side of a patch, and how far patches are apart, in pixels."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.accuracy.evaluation.patches", description=__doc__)
    parser.add_argument("--assets", type=Path, default=default_assets())
    parser.add_argument("--json", type=Path, default=OUT / "patches.json")
    options = parser.parse_args(arguments)
    sides: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        for subjects in photos(options.assets):
            (contestant,) = subjects.contestants(Path(folder), ["gradcam"])
            for side, stride in SIDES.items():
                found = evaluate(contestant, subjects.asked, [OcclusionCorrelation(patch=side, stride=stride)])
                report = tables.to_dict([found], subjects.data.name.rpartition("/")[2], {})
                (row,) = report["results"]
                sides.setdefault(subjects.name, {})[str(side)] = row["figures"]["occlusion-correlation"][
                    "rank correlation"
                ]
                print(subjects.name, side, found.figures, flush=True)
    about = {"command": "python -m fastcam_bench.accuracy.evaluation.patches", "machine": machine()}
    about["versions"] = versions("fastcam", "onnxruntime", "numpy")
    write_report(about | {"patches": SIDES, "rank correlation": sides}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
