"""What figures of faithfulness say of maps that are known to be bad.

    python -m fastcam_bench.accuracy.evaluation.faithfulness

SqueezeNet's predicted class on COCO's photos. Beside the maps of a method stand two that know nothing of the model: one
of random numbers, of the layer's resolution and enlarged like any map, and a Gaussian in the middle of the picture. A
protocol that cannot tell the method's maps from the random ones measures something else than faithfulness.

Each protocol's cost is its time for a map over that of one plain prediction of the same picture just before it, the
median over all maps of the method.

Writes ``faithfulness.json`` to ``--out``. Model and photos come from a folder that is no part of the project:
``--assets``, FASTCAM_ASSETS or ../shared/assets.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcam import Explainer, kernels
from fastcam.evaluation.protocols import PROTOCOLS
from fastcam.evaluation.protocols.base import Case, Protocol
from fastcam.evaluation.samples import Sample
from fastcam.evaluation.statistics import Figure, Tally, weights_of
from fastcam.results.explanation import Explanation
from fastcam_bench.oracles.machine import versions, write_report
from fastcam_bench.paths import RESULTS, default_assets
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.accuracy.evaluation.faithfulness"
OUT = RESULTS / "evaluation" / "faithfulness.json"
OF_MAPS: dict[str, dict[str, Any]] = {
    "occlusion-correlation": {},
    "insertion": {"step": 448},
    "deletion": {"step": 448},
    "average-drop": {},
    "road": {"percentages": (10, 30, 50)},
    "pixel-flipping": {"most": 50},
    "sensitivity-n": {"shares": (0.05, 0.2, 0.5), "samples": 30, "cell": 16},
    "infidelity": {},
}
"""Protocols of any map, with what is not their default."""
OF_METHODS: dict[str, dict[str, Any]] = {"max-sensitivity": {}, "randomisation": {}}
"""Protocols that make the map again, and so have nothing to say of maps that no method made."""

Array = npt.NDArray[Any]


def random_map(name: str, size: tuple[int, int], layer: tuple[int, int]) -> Array:
    """Random numbers at the layer's resolution, enlarged: float32 [H, W] in 0..1; the same for a name every time."""
    rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little"))
    k = kernels.get()
    return np.asarray(k.upsample(k.normalize(rng.random((1, *layer)).astype(np.float32)), size)[0])


def centre(size: tuple[int, int]) -> Array:
    """A Gaussian in the middle, with a deviation of a quarter of each side."""
    y, x = (np.exp(-0.5 * ((np.arange(side) + 0.5) / side * 4 - 2) ** 2) for side in size)
    return np.asarray(np.outer(y, x), np.float32)


def with_map(explanation: Explanation, heat: Array) -> Explanation:
    """The explanation with another map of its one target."""
    return replace(explanation, heatmaps=heat[None, None], status=(("ok",),))


def cases(explainer: Explainer, photo: Path, method: str) -> Iterator[tuple[str, Case]]:
    """The three maps of a photo."""
    explanation = explainer([photo], method=method)
    size, layer = explanation.heatmaps.shape[2:], explanation.maps.shape[2:]
    for name, shown in (
        (method, explanation),
        ("random", with_map(explanation, random_map(photo.name, size, layer))),
        ("centre", with_map(explanation, centre(size))),
    ):
        yield name, Case(Sample(photo.name, photo), (), shown, {-1: 0}, explainer, method, {})


class Table:
    """Figures of each map, and what each protocol costs."""

    def __init__(self, protocols: Sequence[Protocol]) -> None:
        self.protocols, self.costs = protocols, {one.name: list[float]() for one in protocols}
        self.tallies: dict[str, dict[str, Tally]] = {}

    def add(self, name: str, case: Case, method: str) -> None:
        """One more map."""
        tallies = self.tallies.setdefault(name, {})
        for protocol in self.protocols:
            if name != method and protocol.name in OF_METHODS:
                continue
            plain = _seconds(lambda: case.explainer.predict([case.sample.picture]))
            start = time.perf_counter()
            row = protocol.measure(case)
            if name == method:
                self.costs[protocol.name].append((time.perf_counter() - start) / plain)
            if row is not None:
                tallies.setdefault(protocol.name, protocol.tally()).add(row, weights_of(case.sample.name))

    def to_dict(self) -> dict[str, Any]:
        """By protocol its cost, and by map its figures."""
        return {
            one.name: {
                "options": repr(one),
                "cost": float(f"{np.median(self.costs[one.name]):.3g}"),
                "maps": {
                    name: {key: _short(figure) for key, figure in tallies[one.name].figures().items()}
                    for name, tallies in self.tallies.items()
                    if one.name in tallies
                },
            }
            for one in self.protocols
        }


def _seconds(run: Any) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _short(figure: Figure) -> dict[str, Any]:
    return {key: round(end, 4) if isinstance(end, float) else end for key, end in figure.to_dict().items()}


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Faithfulness of real, random and central maps.")
    parser.add_argument("--assets", type=Path, default=default_assets(), help="folder with models/ and coco/")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--photos", type=int, default=15, help="the first so many")
    parser.add_argument("--method", default="gradcam")
    options = parser.parse_args()
    photos = sorted((options.assets / "coco" / "images").glob("*.jpg"))[: options.photos]
    if not photos:
        sys.exit(f"no photos in {options.assets}; set FASTCAM_ASSETS or give --assets DIR; nothing measured")
    table = Table([PROTOCOLS[name](**how) for name, how in (OF_MAPS | OF_METHODS).items()])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "squeezenet.cam.onnx"
        export_model(options.assets / "models" / "squeezenet1.1.onnx", path, preprocess="imagenet")
        explainer = Explainer(path, "cpu", threads=1)
        for number, photo in enumerate(photos, 1):
            for name, case in cases(explainer, photo, options.method):
                table.add(name, case, options.method)
            print(f"{number} of {len(photos)}: {photo.name}", file=sys.stderr, flush=True)
            report = {
                "command": f"{COMMAND} --photos {number} --method {options.method}",
                "versions": versions("fastcam", "onnxruntime", "numpy"),
                "model": "SqueezeNet 1.1",
                "photos": number,
                "protocols": table.to_dict(),
            }
            write_report(report, options.out)  # so far
    show(report["protocols"])


def show(protocols: Any) -> None:
    """Print the figures."""
    for protocol, row in protocols.items():
        print(f"{protocol}, {row['cost']} predictions' time")
        for name, figures in row["maps"].items():
            said = ", ".join(f"{key} {one['value']} ({one['low']} to {one['high']})" for key, one in figures.items())
            print(f"  {name:8} {said}")


if __name__ == "__main__":
    main()
