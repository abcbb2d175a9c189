"""The page that `fastcam web` writes, in Chromium: it explains what Python explains, and asks nobody else."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import fastcam
from fastcam import Explainer
from fastcam_export import export_model
from support.models.contract_model import noise, random_model
from support.servers.browser import WEBGPU, Browser
from support.servers.static_site import ISOLATED, onnxruntime_web, served

pytestmark = pytest.mark.xdist_group("browser")
DATA = Path(fastcam.__file__).parent / "data"
TOLERANCE = 1e-4
"""Of a heatmap, whose maximum is 1: two builds of ONNX Runtime add in different orders."""


def run(*arguments):
    from fastcam.cli import app

    return CliRunner().invoke(app, ["web", *map(str, arguments)])


def export(path, **options):
    export_model(DATA / "scenes.onnx", path, preprocess="imagenet", labels=DATA / "scenes.labels.txt", **options)
    return path


def png(picture):
    return base64.b64encode(cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()).decode()


def give(page, content, name, kind):
    """Drop a file on the page, and wait until it was taken; the page's line."""
    page.js(f"globalThis.given = Uint8Array.from(atob({json.dumps(content)}), (c) => c.charCodeAt(0)); 1")
    page.js(
        f"(async () => {{ const all = new DataTransfer(); all.items.add(new File([given], {json.dumps(name)},"
        f"{{type: {json.dumps(kind)}}})); const input ="
        "document.getElementById('file'); input.files = all.files; await input.onchange(); return 1; })()"
    )
    return page.js("document.getElementById('said').textContent")


def explained(page, target=0):
    """What the page shows: class, status, box, map of the picture's size, name."""
    code = (
        f"(() => {{ const e = fastcam.explanation, one = e.targets[{target}], heat = e.heatmap({target});"
        "const all = new Uint8Array(heat.buffer, heat.byteOffset, heat.byteLength); let out = '';"
        "for (let i = 0; i < all.length; i += 8192) out += String.fromCharCode(...all.subarray(i, i + 8192));"
        "return {class: one.class, status: one.status, box: one.box, score: one.score, heat: btoa(out),"
        "size: [e.image.height, e.image.width], components: one.components.length}; })()"
    )
    found = page.js(code)
    found["heat"] = np.frombuffer(base64.b64decode(found["heat"]), np.float32).reshape(found["size"])
    return found


def agrees(found, wanted, target=0):
    """Whether the page shows an explanation of Python's."""
    heat = wanted.geometry[0].heatmap_to_original(wanted.heatmaps[0, target])
    np.testing.assert_allclose(found["heat"], heat, rtol=0, atol=TOLERANCE)
    assert (found["class"], found["status"]) == (wanted.classes[0, target], wanted.status[0][target])
    np.testing.assert_allclose(found["box"], wanted.boxes[0, target], rtol=0, atol=0.01)
    assert found["components"] == len(wanted.components[0][target])
    assert found["score"] == pytest.approx(float(wanted.scores[0, found["class"]]), rel=1e-4)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    models = [
        export(folder / "weights.cam.onnx", for_engine="web"),
        export(folder / "gradients.cam.onnx", for_engine="web", emit="gradients"),
        export(folder / "maps.cam.onnx", for_engine="web", emit="cam"),
        export(folder / "default.cam.onnx"),
    ]
    done = run("--out", folder / "site", *models, "--onnxruntime-web", onnxruntime_web())
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def page(site, tmp_path_factory):
    with served(site / "site") as address, Browser(tmp_path_factory.mktemp("chromium")) as browser:
        browser._load("Page.navigate", url=address)
        browser.until("globalThis.fastcam?.ready")
        yield browser
        assert all(url.startswith((address, "blob:")) for url in browser.fetched()), "the page asked another host"
        # Chromium itself says so where there is no GPU
        assert [one for one in browser.complaints() if "No available adapters" not in one] == []


def turn(page, control, value, event="onchange"):
    """Set a control of the page, and wait for what it does."""
    page.js(
        f"(async () => {{ const one = document.getElementById({json.dumps(control)}); one.value = {json.dumps(value)};"
        f"await one.{event}(); return 1; }})()"
    )


def choose(page, model):
    """Another model of the page, and the threshold that the page begins with."""
    turn(page, "model", model)
    turn(page, "threshold", 15, "oninput")


@pytest.mark.parametrize("model", ["weights", "gradients", "maps", "default"])
@pytest.mark.parametrize("shape", [(300, 220), (100, 140)], ids=["shrunk", "enlarged"])
def test_a_dropped_picture_has_pythons_maps(page, site, model, shape):
    picture = cv2.resize(cv2.imread(str(DATA / "scene.jpg"))[:, :, ::-1].copy(), shape[::-1])
    choose(page, model)
    said = give(page, png(picture), "p.png", "image/png")
    wanted = Explainer(site / f"{model}.cam.onnx")(picture)
    assert said.startswith(f"{wanted.label()}: "), said
    agrees(explained(page), wanted)


def test_other_classes_thresholds_and_methods(page, site):
    picture = cv2.imread(str(DATA / "scene.jpg"))[:, :, ::-1].copy()
    choose(page, "gradients")
    give(page, png(picture), "p.png", "image/png")
    python = Explainer(site / "gradients.cam.onnx")
    label = python.metadata.labels[3]
    turn(page, "target", label)
    page.until("fastcam.explanation.targets[0].class === 3")
    agrees(explained(page), python(picture, 3))
    turn(page, "threshold", 60, "oninput")
    agrees(explained(page), python(picture, 3, threshold=0.6))
    methods = page.js("[...document.getElementById('method').options].map((one) => one.value)")
    assert set(methods) == {"gradcam", "gradcam++", "xgradcam", "hirescam", "elementwise", "layercam"}
    for method in methods:
        turn(page, "method", method)
        agrees(explained(page), python(picture, 3, threshold=0.6, method=method))


def test_the_bundled_picture_is_drawn(page, tmp_path):
    choose(page, "weights")
    page.js("document.getElementById('example').onclick()")
    assert page.js("document.getElementById('said').textContent").endswith(" ms")
    devices = page.js("[...document.getElementById('device').options].map((one) => one.value)")
    gpu = page.js("navigator.gpu ? navigator.gpu.requestAdapter().then((one) => !!one) : false")
    assert devices == (["wasm", "webgpu"] if gpu else ["wasm"])
    size = page.js("[document.getElementById('canvas').width, document.getElementById('canvas').height]")
    assert size == [512, 512]
    page.screenshot(tmp_path / "page.png")
    assert cv2.imread(str(tmp_path / "page.png")).std() > 20


def test_a_model_that_is_dropped_is_explained_too(page, site):
    model = random_model(labels=("cat", "dog", "bird", "ship", "tree"))
    content = base64.b64encode(model.file(emit="weights", targets="required")).decode()
    give(page, content, "mine.cam.onnx", "")
    assert page.js("document.getElementById('model').value") == "mine"
    turn(page, "threshold", 15, "oninput")
    picture = noise(60, 90, seed=5)
    give(page, png(picture), "p.png", "image/png")
    agrees(explained(page), Explainer(model.file())(picture))


def test_what_cannot_be_explained_is_said(page):
    plain = base64.b64encode((DATA / "scenes.onnx").read_bytes()).decode()
    assert "fastcam export" in give(page, plain, "plain.onnx", "")
    nonsense = base64.b64encode(b"\x00\xffno model at all").decode()
    assert "no ONNX file" in give(page, nonsense, "broken.cam.onnx", "")
    assert "neither a picture nor" in give(page, nonsense, "notes.txt", "text/plain")
    page.until("document.getElementById('said').className === 'bad'")
    choose(page, "weights")
    assert give(page, nonsense, "cut.jpg", "image/jpeg").startswith("cut.jpg: this browser cannot decode it")
    give(page, png(noise(40, 40)), "p.png", "image/png")
    turn(page, "target", "nothing of the kind")
    page.until("document.getElementById('said').textContent.startsWith('no class')")


def test_a_page_with_threads_explains_the_same(site, tmp_path):
    picture = cv2.imread(str(DATA / "scene.jpg"))[:, :, ::-1].copy()
    with served(site / "site", ISOLATED) as address, Browser(tmp_path) as browser:
        browser._load("Page.navigate", url=address)
        browser.until("globalThis.fastcam?.ready")
        assert browser.js("crossOriginIsolated")
        give(browser, png(picture), "p.png", "image/png")
        agrees(explained(browser), Explainer(site / "weights.cam.onnx")(picture))


@pytest.mark.slow  # minutes: the GPU is a program here
def test_webgpu_gives_the_same_maps(site, tmp_path):
    picture = cv2.imread(str(DATA / "scene.jpg"))[:, :, ::-1].copy()
    with served(site / "site") as address, Browser(tmp_path, flags=WEBGPU) as browser:
        browser._load("Page.navigate", url=address)
        browser.until("globalThis.fastcam?.ready")
        if not browser.js("navigator.gpu ? navigator.gpu.requestAdapter().then((one) => !!one) : false"):
            pytest.skip("this browser has no WebGPU")
        turn(browser, "device", "webgpu")
        give(browser, png(picture), "p.png", "image/png")
        assert browser.js("document.getElementById('device').value") == "webgpu"
        agrees(explained(browser), Explainer(site / "weights.cam.onnx")(picture))


def test_a_camera_is_explained_frame_by_frame(site, tmp_path):
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # Chromium's own test picture
    with served(site / "site") as address, Browser(tmp_path, flags=flags) as browser:
        browser._load("Page.navigate", url=address)
        browser.until("globalThis.fastcam?.ready")
        browser.js("document.getElementById('camera').click()")
        browser.until("fastcam.explanation && document.getElementById('camera').ariaPressed === 'true'")
        first = explained(browser)
        browser.js("globalThis.earlier = fastcam.explanation; 1")
        browser.until("fastcam.explanation !== earlier")
        browser.js("document.getElementById('camera').click()")
        browser.until("!fastcam.stream && document.getElementById('camera').ariaPressed === 'false'")
        browser.js("globalThis.last = fastcam.explanation; new Promise((next) => setTimeout(next, 500))")
        assert browser.js("last === fastcam.explanation"), "the camera goes on"
        code = "(() => { const at = fastcam.explanation.image; return [at.height, at.width]; })()"
        height, width = browser.js(code)
        assert (height, width) == first["heat"].shape
        pixels = "String.fromCharCode(...fastcam.explanation.image.data.subarray(i, i + 8192))"
        data = browser.js(
            "(() => { let out = ''; for (let i = 0; i < fastcam.explanation.image.data.length; i += 8192) "
            f"out += {pixels}; return btoa(out); }})()"
        )
        picture = np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, -1)[:, :, :3]
        assert picture.std() > 20
        agrees(explained(browser), Explainer(site / "weights.cam.onnx")(np.ascontiguousarray(picture)))
