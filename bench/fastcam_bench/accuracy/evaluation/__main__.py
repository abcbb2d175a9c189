"""Every method of convolutional networks, measured: ``python -m fastcam_bench.accuracy.evaluation``.

SqueezeNet 1.1 and MobileNetV2 on the COCO photos of the assets, and the bundled model on generated scenes:
localization, both pointing games, energy, correlation with occlusion, insertion and deletion. Where it is stopped it
goes on when it is called again; what a picture gave lies in ``--rows``.

    --only photos --methods gradcam,hirescam     some of it
    --add                                        and the figures of the other methods stay as the files have them
    --scenes 2000 --asked 100                    scenes for what needs one pass, and for what asks the model again

Methods that run the model again are measured on fewer pictures: those scenes that all methods are asked again about,
and every fourth photo.

Models, photos and annotations come from a folder that is no part of the project: ``--assets``, FASTCAM_ASSETS or
../shared/assets.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastcam import Explainer, FastcamError
from fastcam.evaluation import faithfulness as formulas
from fastcam.evaluation import tables
from fastcam.evaluation.class_map import class_map
from fastcam.evaluation.data import open_data
from fastcam.evaluation.faithfulness.occlusion import patch_falls, patch_means
from fastcam.evaluation.protocols import PROTOCOLS
from fastcam.evaluation.protocols.base import Protocol
from fastcam.evaluation.protocols.faithfulness.curves import Deletion, Insertion
from fastcam.evaluation.protocols.faithfulness.occlusion import OcclusionCorrelation
from fastcam.evaluation.protocols.faithfulness.subject import Subject
from fastcam.evaluation.runner import Contestant, Measured, evaluate
from fastcam.evaluation.samples import Dataset, LeftOut
from fastcam.evaluation.statistics import Figure
from fastcam.methods import METHODS
from fastcam_bench.accuracy.photos import SUBJECTS
from fastcam_bench.oracles.in_memory import InMemory
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import CACHE, RESULTS, default_assets
from fastcam_export import export_model

OUT = RESULTS / "evaluation"
DATA = Path(str(files("fastcam"))) / "data"
ONE_PASS = ("localization", "gt-known", "pointing", "pointing-recall", "energy")
TOKENS = ("rollout", "rollout-max", "rollout-min", "legrad", "vit-reciprocam")
"""Methods of vision transformers, which these networks are not."""
PARTS = 28
"""Steps of insertion and deletion. The authors take one for each row of the picture, eight times as many at 224 pixels;
the area differs by rounding of the curve's ends."""
EVERY = 4
"""Of the photos, for methods that run the model again: the first of so many."""
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "rise": {"masks": 500},
    "smoothgrad": {"samples": 15},
    "vargrad": {"samples": 15},
    "integrated-gradients": {"steps": 15},
    "sscam": {"samples": 2},
    "iscam": {"steps": 2},
}
"""What is less than by default, for time."""
_FALLS: dict[tuple[str, str, int], Any] = {}


@dataclass(frozen=True)
class Occlusion(OcclusionCorrelation):
    """The protocol, with the falls of a picture's class computed once for all methods."""

    def values(self, subject: Subject) -> Mapping[str, float]:
        """The coefficient."""
        key = subject.case.explanation.metadata.source["sha256"], subject.case.sample.name, subject.index
        if key not in _FALLS:
            given = subject.score, subject.x, subject.baseline(self.baseline), self.patch, self.stride
            _FALLS[key] = patch_falls(*given, subject.batch_size)
        means = patch_means(subject.heat, self.patch, self.stride)
        return {"rank correlation": formulas.spearman(means.ravel(), _FALLS[key].ravel())}


@dataclass(frozen=True)
class Subjects:
    """A network, and the data that it is measured on.

    Attributes:
        name: of the network.
        source, how: what is exported, and the export's settings.
        data: pictures for what needs one pass; ``asked`` those for what asks the model again.
        few: pictures for methods that run the model again.
        mapping, offset: see :func:`fastcam.evaluation.class_map.class_map`.
    """

    name: str
    source: Path
    how: Mapping[str, Any]
    data: Dataset
    asked: Dataset
    few: Dataset
    mapping: Path | None = None
    offset: int | None = None

    def contestants(self, folder: Path, names: Sequence[str]) -> Iterator[Contestant]:
        """The network by every method; exports are made as methods need them, and kept."""
        opened: dict[str | None, Explainer] = {}
        for name in names:
            mode = METHODS[name].mode
            if mode not in opened:
                file = folder / f"{self.source.stem}-{mode or 'plain'}.cam.onnx"
                if not file.exists():
                    how: dict[str, Any] = {"emit": "gradients", "input_gradient": mode, "head": mode is None}
                    how["on_demand"] = mode is not None  # asked again, a model is the plain one, several times as fast
                    export_model(self.source, file, check=False, **how, **self.how)
                opened[mode] = Explainer(file, exif=self.data.exif, batch_size=8 if mode is None else 2)
            explainer = opened[mode]
            classes = class_map(self.data.labels, explainer.metadata, self.mapping, self.offset)
            yield Contestant(self.name, explainer, classes, name, OPTIONS.get(name, {}))


def photos(assets: Path) -> Iterator[Subjects]:
    """SqueezeNet and MobileNetV2 on COCO's photos."""
    for subject in SUBJECTS:
        data = open_data(f"coco:{assets / 'coco' / 'instances.json'}", pictures=assets / "coco" / "images")
        how = {"preprocess": subject.preprocess, "labels": assets / "models" / subject.labels}
        mapping = assets / "coco" / "coco_to_imagenet.json"
        few = InMemory(data, EVERY)
        source = assets / "models" / subject.file
        yield Subjects(subject.name, source, how, data, data, few, mapping, subject.offset)


def scenes(count: int, asked: int) -> Subjects:
    """The bundled model on generated scenes."""
    how = {"preprocess": "imagenet", "labels": DATA / "scenes.labels.txt"}
    data, few = (InMemory(open_data(f"scenes:{number},seed=2026")) for number in (count, asked))
    return Subjects("bundled", DATA / "scenes.onnx", how, data, few, few)


def measured(subjects: Subjects, names: Sequence[str], rows: Path, refused: dict[str, str]) -> Iterator[Measured]:
    """Each method's figures; what the network cannot be explained by goes to ``refused``, with the reason."""
    one_pass: list[Protocol] = [PROTOCOLS[name]() for name in ONE_PASS]
    for name, contestant in zip(names, subjects.contestants(rows, names), strict=True):
        try:
            contestant.check()
        except FastcamError as error:
            refused[contestant.title] = str(error).replace(f"{rows}/", "")
            continue
        side = contestant.explainer.input_shape[2]
        step = int(side) * int(side) // PARTS if isinstance(side, int) else 128 * 128 // PARTS
        again: list[Protocol] = [Occlusion(), Insertion(step=step), Deletion(step=step)]
        costly = METHODS[name].runs not in (None, "layer")
        data, asked = (subjects.few, subjects.few) if costly else (subjects.data, subjects.asked)
        first = evaluate(contestant, data, one_pass, rows / "one-pass" / subjects.name)
        then = evaluate(contestant, asked, again, rows / "asked" / subjects.name)
        print(contestant.title, flush=True)
        yield Measured(first.model, first.method, {**first.figures, **then.figures}, first.pictures, first.left_out)


def earlier(report: Mapping[str, Any], names: Sequence[str]) -> Iterator[Measured]:
    """What an earlier report has of other methods than ``names``."""
    for row in report["results"]:
        if row["method"] not in names:
            figures = {
                protocol: {name: _figure(one) for name, one in each.items()}
                for protocol, each in row["figures"].items()
            }
            gone = {why: one["count"] for why, one in row["left out"].items()}
            left_out = LeftOut(gone, {why: one["first"] for why, one in row["left out"].items()})
            yield Measured(row["model"], row["method"], figures, row["pictures"], left_out)


def _figure(kept: Mapping[str, Any]) -> Figure:
    low, high, value = (math.nan if kept[end] is None else float(kept[end]) for end in ("low", "high", "value"))
    return Figure(value, low, high, int(kept["n"]))


def in_order(found: Sequence[Measured]) -> list[Measured]:
    """By network, in the order in which they come, and then as the methods are listed."""
    models, methods = list(dict.fromkeys(each.model for each in found)), list(METHODS)
    return sorted(found, key=lambda each: (models.index(each.model), methods.index(each.method)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.accuracy.evaluation", description=__doc__)
    parser.add_argument("--only", choices=("photos", "scenes"))
    parser.add_argument("--methods", help="names, as a,b,c; all of convolutional networks by default")
    parser.add_argument("--add", action="store_true", help="keep what the files have of other methods")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--asked", type=int, default=100)
    parser.add_argument("--assets", type=Path, default=default_assets())
    parser.add_argument("--rows", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    known = [name for name in METHODS if name not in TOKENS]
    names = options.methods.split(",") if options.methods else known
    options.rows.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    given = sys.argv[1:] if arguments is None else arguments
    for kind in ("photos", "scenes"):
        if options.only not in (None, kind):
            continue
        asked = [scenes(options.scenes, options.asked)] if kind == "scenes" else list(photos(options.assets))
        refused: dict[str, str] = {}
        found = [each for subjects in asked for each in measured(subjects, names, options.rows, refused)]
        file = options.out / f"{kind}.json"
        commands, title = [], asked[0].data.name.rpartition("/")[2]
        if options.add and file.is_file():
            before = json.loads(file.read_text(encoding="utf-8"))
            refused = before["refused"] | refused
            found = in_order([*earlier(before, names), *found])
            commands, title = [*before.get("earlier commands", []), before["command"]], before["data"]
        about: dict[str, Any] = {
            "command": " ".join(["python -m fastcam_bench.accuracy.evaluation", *given]),
            "earlier commands": commands,
            "machine": machine(),
            "versions": versions("fastcam", "onnxruntime", "numpy"),
            "options": OPTIONS,
            "refused": refused,
        }
        report = about | tables.to_dict(found, title, {"steps of insertion and deletion": PARTS})
        write_report(report, file)
        (options.out / f"{kind}.md").write_text(tables.markdown(found, title), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
