"""The server's page in Chromium: a picture is chosen, its maps are the server's, and the sliders move them."""

from __future__ import annotations

import base64
import json

import cv2
import pytest

from fastcam import Explainer
from support.models.contract_model import noise, random_model
from support.servers.browser import Browser
from support.servers.live_server import listening

pytest.importorskip("starlette", reason="the extra serve is not installed: nothing was served")
from fastcam.serving.http import Server
from fastcam.serving.limits import Limits
from fastcam.serving.model import ServedModel
from fastcam.serving.repository import Repository
from fastcam.serving.watching.metrics import Metrics

pytestmark = pytest.mark.xdist_group("browser")
LABELS = ("cat", "dog", "<img src=x onerror='window.hit=1'>", "ship", "tree")
PICTURE = noise(60, 90, seed=5)


def test_a_picture_is_explained_as_the_sliders_say(tmp_path):
    path = tmp_path / "tiny.cam.onnx"
    path.write_bytes(random_model(labels=LABELS).file(emit="gradients"))
    explainer = Explainer(path)
    limits = Limits()
    repository = Repository([path], lambda place: ServedModel(place.name, "1", explainer, limits))
    wanted = explainer(PICTURE, [-1, "dog"])
    content = base64.b64encode(cv2.imencode(".png", PICTURE[:, :, ::-1])[1].tobytes()).decode()
    with listening(Server(repository, limits, Metrics()).app) as client, Browser(tmp_path) as browser:
        browser._load("Page.navigate", url=f"http://127.0.0.1:{client.port}/")
        browser.until("document.getElementById('model').value === 'tiny'")
        browser.until("document.getElementById('method').options.length > 1")
        names = browser.js("[...document.getElementById('method').options].map(one => one.value)")
        assert "hirescam" in names and "guided" not in names
        browser.js(
            f"const bytes = Uint8Array.from(atob({json.dumps(content)}), c => c.charCodeAt(0));"
            "take(new File([bytes], 'p.png', {type: 'image/png'})); 1"
        )
        browser.until("document.querySelectorAll('#classes button').length === 5 && document.querySelector('rect')")
        assert browser.js("document.querySelector('#classes [aria-pressed=true]').textContent") == wanted.label()
        box = browser.js("['x', 'y', 'width', 'height'].map(n => +document.querySelector('rect').getAttribute(n))")
        x0, y0, x1, y1 = wanted.boxes[0, 0]
        assert box == pytest.approx([x0, y0, x1 - x0, y1 - y0])
        browser.js("const o = document.getElementById('target'); o.value = 'dog'; o.onchange(); 1")
        browser.until("document.querySelector('#classes [aria-pressed=true]').textContent === 'dog'")
        browser.js("const t = document.getElementById('threshold'); t.value = 60; t.oninput(); 1")
        narrow = explainer(PICTURE, ["dog"], 0.6).boxes[0, 0]
        side = "+document.querySelector('rect').getAttribute"
        x, height = float(narrow[0]), float(narrow[3] - narrow[1])
        browser.until(f"{side}('x') === {x} && {side}('height') === {height}")
        browser.js("const a = document.getElementById('alpha'); a.value = 80; a.oninput(); 1")
        assert browser.js("getComputedStyle(document.getElementById('heat')).opacity") == "0.8"
        browser.js("const p = document.getElementById('target'); p.value = 'unicorn'; p.onchange(); 1")
        browser.until("document.getElementById('said').className === 'bad'")
        assert browser.js("window.hit") is None
        asked = [one["params"] for one in browser.events if one.get("method") == "Network.requestWillBeSent"]
        own = f"http://127.0.0.1:{client.port}/", "blob:"
        assert all(one["request"]["url"].startswith(own) for one in asked)
        browser.screenshot(tmp_path / "page.png")
    repository.close()
