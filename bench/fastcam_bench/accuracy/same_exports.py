"""Whether two versions of the exporter write the same files: digests of every form of an export, of the speed networks.

    python -m fastcam_bench.accuracy.same_exports sources FOLDER
    python -m fastcam_bench.accuracy.same_exports digests FOLDER --out now.json
    git worktree add ../before COMMIT
    PYTHONPATH=../before:../before/export python bench/fastcam_bench/accuracy/same_exports.py digests FOLDER \\
        --out before.json
    python -m fastcam_bench.accuracy.same_exports compare before.json now.json

Only ``export_model`` and the schema lists are used, so the script runs on versions with other modules too. The version
in the metadata is left out of the digests. A refusal counts as a result: its words are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from fastcam import schema
from fastcam.schema import FastcamError
from fastcam_export import export_model

EVERY_MODE = ("squeezenet1_1", "mobilenet_v2", "vit_b_16")
"""Networks that are exported with every mode; a mode's cost grows with the network, what it writes does not."""
VERSION = re.compile(r'"(version|fastcam)": *"[^"]*",? *')


def forms(network: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, options of ``export_model``), of every kind of export."""
    yield "checked", {"check": True, "preprocess": "imagenet"}
    for emit in schema.EMITS:
        yield f"emit {emit}", {"emit": emit}
    for targets in ("required", "constant", "cotangent"):
        yield f"targets {targets}", {"targets": targets}
    yield "cotangent gradients", {"targets": "cotangent", "emit": "gradients"}
    for score in ("probability", "log-probability"):
        yield f"score {score}", {"score": score}
    for engine in schema.ENGINES[1:]:
        yield f"engine {engine}", {"for_engine": engine}
    yield "all layers", {"layer": "all"}
    yield "head", {"head": True}
    yield "on demand", {"on_demand": True}
    yield "on demand with head", {"on_demand": True, "head": True}
    yield "frames", {"frames": True, "preprocess": "imagenet"}
    yield "frames of one size", {"frames": (320, 240), "preprocess": "imagenet"}
    modes = schema.MODES if network in EVERY_MODE or network.startswith("scenes") else ("gradient", "guided")
    for mode in modes:
        yield f"mode {mode}", {"input_gradient": mode}
    for mode in ("excitation", "lrp-epsilon"):
        for place in schema.PLACES:
            yield f"mode {mode} at {place}", {"input_gradient": mode, "input_gradient_at": place}
    yield "on demand gradient", {"on_demand": True, "input_gradient": "gradient"}


def digest(model: onnx.ModelProto | None) -> str | None:
    """Of the file's bytes, but for the version that wrote it."""
    if model is None:
        return None
    for entry in model.metadata_props:
        if entry.key == "fastcam":
            entry.value = VERSION.sub("", entry.value)
    model.producer_version = ""
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def result(source: Path, options: Mapping[str, Any]) -> list[str | None] | str:
    """Digests of the model, the explanation part and the head; or the words of a refusal."""
    try:
        made = export_model(source, **{"check": False, **options})
    except FastcamError as error:
        return f"refused: {error}"
    return [digest(made.model), digest(made.explanation), digest(made.head)]


def digests(sources: list[Path], out: Path) -> None:
    """A process for each network, since large ones leave much memory behind."""
    found: dict[str, Any] = {}
    for source in sources:
        done = subprocess.run([sys.executable, __file__, "one", str(source)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{source.name}: {done.stderr[-2000:]}")
        found[source.stem] = json.loads(done.stdout)
        print(f"{source.stem}: {len(found[source.stem])} exports", flush=True)
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def sources(folder: Path) -> None:
    """The networks of the speed benchmark as files, with their seeded weights."""
    from fastcam_bench.models import networks

    folder.mkdir(parents=True, exist_ok=True)
    for name, network in networks.NETWORKS.items():
        path = networks.onnx_file(name, networks.module(name) if network.layer else None)
        if path is not None:
            shutil.copyfile(path, folder / f"{name}.onnx")


def compare(before: Path, now: Path) -> int:
    """Prints what differs, and how many are equal."""
    a, b = (json.loads(path.read_text(encoding="utf-8")) for path in (before, now))
    rows = [(network, form, a[network][form], b.get(network, {}).get(form)) for network in a for form in a[network]]
    other = [row for row in rows if row[2] != row[3]]
    for network, form, one, two in other:
        print(f"{network}, {form}: {one} -> {two}")
    refused = sum(isinstance(row[2], str) for row in rows)
    print(f"{len(rows) - len(other)} of {len(rows)} equal, {refused} of them refused in the same words")
    return 1 if other else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("sources", "digests", "one", "compare"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("digests.json"))
    options = parser.parse_args()
    if options.verb == "sources":
        sources(options.paths[0])
    elif options.verb == "digests":
        digests(sorted(options.paths[0].glob("*.onnx")), options.out)
    elif options.verb == "one":
        source = options.paths[0]
        print(json.dumps({name: result(source, given) for name, given in forms(source.stem)}))
    else:
        sys.exit(compare(*options.paths))


if __name__ == "__main__":
    main()
