"""What an explanation costs in a browser: ``python -m fastcam_bench.speed.browser --onnxruntime-web PACKAGE``.

Chromium opens a page of `fastcam web` twice; the second time its files come from the browser's cache. Measured are the
time from the start of the page to the first map, and then in turns the model alone and explained, in one
onnxruntime-web: the run of each file, and the way from a picture of 640 x 480 to scores and to boxes. SqueezeNet and
MobileNetV2 come from the assets.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from typing import Any

import cv2

from fastcam.web import onnxruntime_web
from fastcam.web.models import web_model
from fastcam.web.site import package, write_site
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS, default_assets
from fastcam_export import export_model

OUT = RESULTS / "web" / "browser.json"
NETWORKS = {"squeezenet1.1": "squeezenet1.1.onnx", "mobilenet_v2": "mobilenet_v2_1.0_224_quant.float.onnx"}
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-dev-shm-usage", "--disable-component-update")  # fmt: skip
PATIENCE = 540
PAGE = """<!doctype html><link rel="icon" href="data:,"><script type="module">
import { Explainer, Kernels, pixelsOf } from "./fastcam-web/src/index.js";
const asked = new URLSearchParams(location.search), name = asked.get("model"), rounds = Number(asked.get("rounds"));
const now = () => performance.now(), found = {};
try {
  const ort = await import("./onnxruntime-web/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("onnxruntime-web/", location.href).href;
  ort.env.wasm.numThreads = 1;
  const picture = await pixelsOf(await (await fetch("pictures/picture.png")).blob());
  found.steps_ms = { imported: now() };
  const explainer = await Explainer.load(ort, `models/${name}.cam.onnx`);
  found.steps_ms.opened = now();
  await explainer.explain(picture);
  found.first_map_ms = now();  // since the navigation began
  if (rounds) {
    const bytes = new Uint8Array(await (await fetch(`plain/${name}.onnx`)).arrayBuffer());
    const plain = await ort.InferenceSession.create(bytes), about = explainer.metadata;
    const output = about.score.output, targets = new ort.Tensor("int64", BigInt64Array.of(-1n), [1, 1]);
    const { input } = await explainer.prepare(picture);
    const ways = {
      plain_run: () => plain.run({ [about.input]: input }, [output]),
      explained_run: () => explainer.session.run({ [about.input]: input, "fastcam.targets": targets }),
      scores: async () => plain.run({ [about.input]: (await explainer.prepare(picture)).input }, [output]),
      boxes: () => explainer.explain(picture),
    };
    found.samples = Object.fromEntries(Object.keys(ways).map((way) => [way, []]));
    for (let round = -3; round < rounds; ++round) {
      const order = Object.keys(ways).map((way) => [Math.random(), way]).sort().map(([, way]) => way);
      for (const way of order) {
        const start = now();
        await ways[way]();
        if (round >= 0) found.samples[way].push(now() - start);
      }
    }
  }
} catch (error) {
  found.error = String(error?.stack ?? error);
}
await fetch("result", { method: "POST", body: JSON.stringify(found) });
</script>
"""


class _Handler(SimpleHTTPRequestHandler):
    """A folder, and what the page posts."""

    results: Queue[dict[str, Any]]

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()

    def do_POST(self) -> None:
        self.results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, Queue[dict[str, Any]]]]:
    """The folder's address, and what its pages post."""
    results: Queue[dict[str, Any]] = Queue()
    handler = type("Handler", (_Handler,), {"results": results})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", results
    finally:
        server.shutdown()
        server.server_close()


def opened(address: str, profile: Path, results: Queue[dict[str, Any]]) -> dict[str, Any]:
    """What a page posts that Chromium opens."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise SystemExit(f"no browser here ({', '.join(PROGRAMS)}); install one")
    command = [program, *FLAGS, f"--user-data-dir={profile}", address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = results.get(timeout=PATIENCE)
    finally:
        process.terminate()
        process.wait()
    if "error" in found:
        raise SystemExit(found["error"])
    return found


def site(folder: Path, assets: Path, runtime: Mapping[str, bytes]) -> None:
    """A page of `fastcam web`, and beside it the page that measures, the plain models and a picture."""
    (folder / "plain").mkdir(parents=True)
    exported = []
    for name, file in NETWORKS.items():
        source = assets / "models" / file
        made = folder / f"{name}.cam.onnx"
        export_model(source, made, preprocess="imagenet", for_engine="web", check=False)
        shutil.copyfile(source, folder / "plain" / f"{name}.onnx")
        exported.append(web_model(made))
    scene = cv2.imread(str(files("fastcam") / "data" / "scene.jpg"))
    assert scene is not None
    cv2.imwrite(str(folder / "picture.png"), cv2.resize(scene, (640, 480)))
    write_site(folder, exported, runtime, folder / "picture.png")
    (folder / "bench.html").write_text(PAGE, encoding="utf-8")


def summary(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Medians, and medians of the ratios of each round."""
    samples: dict[str, list[float]] = second["samples"]

    def ratio(way: str, other: str) -> float:
        return round(statistics.median(a / b for a, b in zip(samples[way], samples[other], strict=True)), 4)

    return {
        "first_map_cold_ms": round(first["first_map_ms"]),
        "first_map_warm_ms": round(second["first_map_ms"]),
        "steps_cold_ms": {step: round(at) for step, at in first["steps_ms"].items()},
        "steps_warm_ms": {step: round(at) for step, at in second["steps_ms"].items()},
        "median_ms": {way: round(statistics.median(values), 3) for way, values in samples.items()},
        "explained_over_plain_run": ratio("explained_run", "plain_run"),
        "boxes_over_scores": ratio("boxes", "scores"),
        "rounds": len(samples["boxes"]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.speed.browser", description=__doc__)
    parser.add_argument("--onnxruntime-web", type=Path, help="npm's package: a folder, or what npm pack wrote")
    parser.add_argument("--assets", type=Path, default=default_assets())
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    place = onnxruntime_web.package_path(options.onnxruntime_web)
    runtime, networks = onnxruntime_web.files(place), {}
    with TemporaryDirectory() as work:
        folder = Path(work)
        site(folder / "site", options.assets, runtime)
        with served(folder / "site") as (address, results):
            for name in NETWORKS:
                page, profile = f"{address}bench.html?model={name}&rounds=", folder / f"profile-{name}"
                first = opened(f"{page}0", profile, results)
                networks[name] = summary(first, opened(f"{page}{options.rounds}", profile, results))
                print(name, networks[name], flush=True)
    about = {"machine": machine(), "versions": versions("fastcam") | {"onnxruntime-web": place.name}, "threads": 1}
    about["kernel_bytes"] = (package() / "kernels.wasm").stat().st_size
    options.json.parent.mkdir(parents=True, exist_ok=True)
    command = f"python -m fastcam_bench.speed.browser --rounds {options.rounds}"
    write_report({"command": command} | about | {"networks": networks}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
