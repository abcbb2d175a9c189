"""The kernels in WebAssembly beside the native ones and FastCAM's preprocessing, in Chromium."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fastcam.image import preprocess as fi
from fastcam.kernels import native
from fastcam.render import drawing
from fastcam.schema import Preprocessing, preset
from fastcam.web.site import PACKAGE_FILES, package
from support.servers.browser import Browser
from support.servers.static_site import served

pytestmark = pytest.mark.xdist_group("browser")
LIMIT = 150 * 1024
"""Bytes of the kernels, at most: what a page may cost before it shows anything."""
SHIM = """
<!doctype html><link rel="icon" href="data:,"><script type="module">
import { Kernels } from "./src/index.js";
globalThis.bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
globalThis.text = (array) => {
  const all = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let out = "";
  for (let i = 0; i < all.length; i += 8192) out += String.fromCharCode(...all.subarray(i, i + 8192));
  return btoa(out);
};
globalThis.floats = (text) => new Float32Array(bytes(text).buffer);
globalThis.kernels = await Kernels.load();
</script>
"""


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def text(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def rgba(picture):
    return np.concatenate([picture, np.full((*picture.shape[:2], 1), 255, np.uint8)], axis=2)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for name in PACKAGE_FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((package() / name).read_bytes())
    (folder / "index.html").write_text(SHIM)
    with served(folder) as address, Browser(tmp_path_factory.mktemp("chromium")) as browser:
        browser._load("Page.navigate", url=address)
        browser.until("globalThis.kernels")
        yield browser


def said(how):
    fields = ("resize", "crop_fraction", "color", "scale", "mean", "std", "layout", "pad_value")
    return json.dumps({name: getattr(how, name) for name in fields})


def prepared(page, picture, how, size):
    height, width = picture.shape[:2]
    pixels = f"{{data: bytes('{text(rgba(picture))}'), width: {width}, height: {height}}}"
    found = page.js(
        f"(() => {{ const found = kernels.prepare({pixels}, {said(how)}, {list(size)});"
        "return [text(found.tensor), [...found.geometry]]; })()"
    )
    return np.frombuffer(base64.b64decode(found[0]), np.float32), found[1]


GREY = Preprocessing(color="GRAY", scale=1 / 255, mean=(0.45,), std=(0.225,))
WAYS = {
    "imagenet": preset("imagenet"),
    "caffe": preset("caffe"),
    "channels last": preset("tf", layout="NHWC"),
    "crop": preset("imagenet", resize="crop"),
    "letterbox": preset("unit", resize="letterbox"),
    "letterbox, BGR, channels last": preset("caffe", resize="letterbox", layout="NHWC"),
}


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("shape", [(300, 401), (64, 64), (41, 90), (90, 41), (97, 50)])
def test_pictures_become_the_models_input_with_pythons_bits(page, how, shape):
    picture, size = noise(*shape), (64, 60)
    wanted, geometry = fi.prepare(picture, how, size)
    found, where = prepared(page, picture, how, size)
    np.testing.assert_array_equal(found, wanted.ravel())
    assert where == [*geometry.original, *geometry.network, *geometry.source, *geometry.target]


@pytest.mark.parametrize("shape", [(300, 401), (41, 90)])
def test_grey_pictures_are_pythons_but_for_the_last_level(page, shape):
    picture, size = noise(*shape), (64, 60)
    found, _ = prepared(page, picture, GREY, size)
    wanted = fi.prepare(picture, GREY, size)[0].ravel()
    level = 1 / 255 / 0.225
    assert np.abs(found - wanted).max() <= 1.01 * level and (found != wanted).mean() < 0.01


def test_heatmaps_and_boxes_are_the_native_kernels(page):
    random = np.random.default_rng(3)
    activations = random.normal(size=(1, 20, 9, 11)).astype(np.float32)
    weights = random.normal(size=(1, 3, 20)).astype(np.float32)
    window = np.array([[2, 0, 80, 70]], np.int32)
    wanted = native.explain_maps(activations, weights, (75, 90), 0.4, 8, windows=window)
    found = page.js(
        f"(() => {{ const found = kernels.explain({{activations: floats('{text(activations)}'),"
        f"weights: floats('{text(weights)}'), targets: 3, channels: 20, height: 9, width: 11, size: [75, 90],"
        f"threshold: {float(np.float32(0.4))}, connectivity: 8, window: Int32Array.from({window[0].tolist()})}});"
        "return Object.fromEntries(Object.entries(found).map(([name, array]) => [name, text(array)])); })()"
    )
    arrays = {name: np.frombuffer(base64.b64decode(data), np.uint8) for name, data in found.items()}
    largest = wanted.maps.max()
    np.testing.assert_allclose(arrays["maps"].view(np.float32), wanted.maps.ravel(), rtol=0, atol=1e-6 * largest)
    np.testing.assert_allclose(arrays["heatmaps"].view(np.float32), wanted.heatmaps.ravel(), rtol=0, atol=1e-6)
    assert arrays["status"].tolist() == wanted.status.ravel().tolist()
    assert arrays["largest"].view(np.int32).tolist() == np.ravel(wanted.largest).tolist()
    assert arrays["components"].view(np.int32).tolist() == np.ravel(wanted.components).tolist()
    assert len(wanted.components) > 3


def test_heatmaps_go_back_to_the_picture_and_are_drawn_on_it(page):
    for shape, how in (((50, 70), preset("unit")), ((30, 20), preset("unit", resize="letterbox")),
                       ((90, 61), preset("unit", resize="crop"))):  # fmt: skip
        picture, size = noise(*shape), (40, 48)
        geometry = fi.fit(shape, size, how)
        heat = np.random.default_rng(1).random(size, np.float32)
        numbers = [*geometry.original, *geometry.network, *geometry.source, *geometry.target]
        found = page.js(
            f"(() => {{ const placed = kernels.place(floats('{text(heat)}'), Int32Array.from({numbers}));"
            f"return [text(placed), text(kernels.overlay(bytes('{text(rgba(picture))}'), placed, .5))]; }})()"
        )
        placed = np.frombuffer(base64.b64decode(found[0]), np.float32).reshape(shape)
        np.testing.assert_allclose(placed, geometry.heatmap_to_original(heat), rtol=0, atol=2e-6)
        drawn = np.frombuffer(base64.b64decode(found[1]), np.uint8).reshape(*shape, 4)
        np.testing.assert_array_equal(drawn[..., :3], native.overlay(picture, placed, drawing.colormap("jet"), 0.5))
        assert (drawn[..., 3] == 255).all()


def test_boxes_go_back_to_the_picture_as_in_python(page):
    geometry = fi.fit((333, 500), (64, 60), preset("unit", resize="letterbox"))
    numbers = [*geometry.original, *geometry.network, *geometry.source, *geometry.target]
    box = [3, 11, 57, 48]
    found = page.js(f"kernels.toOriginal(Int32Array.from({numbers}), {box})")
    assert found == geometry.to_original(np.array(box)).tolist()


def test_the_c_api_is_there_and_refuses_as_it_says(page):
    from fastcam.schema import __version__

    code = (
        "(() => { const c = kernels.exports, memory = new Uint8Array(c.memory.buffer); let at = c.fastcam_version(),"
        "out = ''; while (memory[at]) out += String.fromCharCode(memory[at++]); return out; })()"
    )
    assert page.js(code) == __version__
    assert page.js("kernels.exports.fastcam_relu(0, -1n, 0)") == 1
    assert page.js("kernels.exports.fastcam_relu(0, 0n, 0)") == 0


def test_the_kernels_are_small_and_need_no_system(page):
    assert (package() / "kernels.wasm").stat().st_size <= LIMIT
    assert (
        page.js(
            "fetch('kernels.wasm').then(a => a.arrayBuffer()).then(b => WebAssembly.compile(b))"
            ".then(m => WebAssembly.Module.imports(m).length)"
        )
        == 0
    )


TYPESCRIPT = {
    "noEmit": True, "strict": True, "target": "es2022", "module": "es2022", "moduleResolution": "bundler",
    "lib": ["es2022", "dom", "dom.iterable"], "types": [],
}  # fmt: skip
USE = """
import { Explainer, Kernels, type Box, type Explanation } from "./src/index.js";
declare const ort: any;
export async function main(video: HTMLVideoElement, canvas: HTMLCanvasElement): Promise<Box | null> {
  const kernels: Kernels = await Kernels.load();
  const explainer = await Explainer.load(ort, "x.cam.onnx", { kernels, session: { executionProviders: ["wasm"] } });
  const e: Explanation = await explainer.explain(video, { targets: [-1, "dog"], threshold: 0.3 });
  e.again({ threshold: 0.5 }).draw(canvas, 0, { alpha: 0.4 });
  // @ts-expect-error a method that no browser serves
  await explainer.explain(video, { method: "lime" });
  return e.targets[0].box;
}
"""


def test_the_types_are_those_of_the_module(page):
    types = (package() / "src" / "index.d.ts").read_text()
    declared = re.findall(r"^export (?:class|function|const) (\w+)", types, re.MULTILINE)
    assert page.js("import('./src/index.js').then((all) => Object.keys(all).sort())") == sorted(declared)
    for name in ("Explainer", "Explanation", "Kernels"):
        body = re.search(rf"^export class {name} {{(.*?)^}}", types, re.MULTILINE | re.DOTALL)[1]
        methods = set(re.findall(r"^  (?!static|readonly)(\w+)\(", body, re.MULTILINE))
        code = f"import('./src/index.js').then((all) => Object.getOwnPropertyNames(all.{name}.prototype))"
        there = set(page.js(code)) - {"constructor", "scores"}
        assert methods <= there and methods, (name, methods, there)


def test_typescript_reads_the_types(tmp_path):
    compiler = shutil.which("tsc")
    if compiler is None:
        pytest.skip("no tsc here (npm install -g typescript): the types were not compiled")
    shutil.copytree(package() / "src", tmp_path / "src")
    (tmp_path / "use.ts").write_text(USE)
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": TYPESCRIPT, "files": ["use.ts"]}))
    done = subprocess.run([compiler, "--project", "."], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


def test_the_package_has_fastcams_version():
    from fastcam.schema import __version__

    assert json.loads((package() / "package.json").read_text())["version"] == __version__


@pytest.mark.slow
def test_the_kernels_are_built_from_these_sources(tmp_path):
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed (pip install ziglang==0.17.1): kernels.wasm was not built anew")
    made = tmp_path / "kernels.wasm"
    build = package().parent / "build.py"
    subprocess.run([sys.executable, str(build), str(made)], check=True, env=os.environ, timeout=1500)
    assert made.read_bytes() == (package() / "kernels.wasm").read_bytes(), "run: make wasm"
