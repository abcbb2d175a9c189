"""An Explanation in a notebook: pictures, names, scores, and no more than a cell bears."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastcam import Explainer
from fastcam.render.web import escaped, jpeg, thumbnail
from fastcam.schema import preset
from support.html_tree import Tree, picture_in
from support.models.contract_model import brightness_model, noise, random_model

HOSTILE = ("<script>alert(1)</script>", 'a" onerror="alert(2)', "\u202e&\x00")


@pytest.fixture(scope="module")
def explainer():
    return Explainer(random_model(end="Softmax", labels=(*HOSTILE, "d", "e")).file())


def test_it_shows_overlay_box_name_score_and_status():
    how = preset("unit", size=(64, 64))
    image = np.zeros((400, 600, 3), np.uint8)
    image[150:250, 200:400] = 255
    found = Explainer(brightness_model((64, 64), how).file())(image, targets=[0, 1])
    tree = Tree(found._repr_html_())
    shown = picture_in(tree.all("img")[0]["src"]).astype(float)
    assert shown.shape == (171, 256, 3)
    wanted = cv2.resize(found.overlay(annotate=False), (256, 171), interpolation=cv2.INTER_AREA)
    x0, y0, x1, y1 = np.rint(found.boxes[0, 0] * (256 / 600)).astype(int)
    inner = np.s_[y0 + 6 : y1 - 6, x0 + 6 : x1 - 6]
    assert np.abs(shown - wanted)[inner].mean() < 6  # a JPEG's loss
    assert shown[(y0 + y1) // 2, x0 - 2 : x0 + 3].min(1).max() > 200  # the box's white edge
    assert f"{found.score(0, 0):.3g}" in tree.text and found.label(0, 0) in tree.text
    assert f"({found.status[0][1]})" in tree.text and found.status[0][1] != "ok"
    assert all("heatmap of" in img["alt"] for img in tree.all("img"))


def test_names_are_texts_whatever_is_in_them(explainer, tmp_path):
    file = tmp_path / "<img src=x onerror=alert(3)>.png"
    cv2.imwrite(str(file), noise(seed=1))
    tree = Tree(explainer(str(file), targets=[0, 1, 2])._repr_html_())
    assert {tag for tag, _ in tree.elements} == {"div", "p", "figure", "img", "figcaption", "b", "br", "small"}
    assert not [name for _, attributes in tree.elements for name in attributes if name.startswith("on")]
    assert HOSTILE[0] in tree.text and file.name in tree.text
    tree.text.encode()


def test_many_pictures_stay_a_cell_and_what_is_left_out_is_said(explainer):
    rng = np.random.default_rng(0)
    found = explainer(list(rng.integers(0, 256, (40, 500, 500, 3), np.uint8)), targets=[0, 1, 2, -1, -2])
    page = found._repr_html_()
    tree = Tree(page)
    assert len(tree.all("img")) == 18 and len(page) < 18 * 24_000 * 4 / 3 + 20_000
    assert "34 more images and 12 more targets of these images" in tree.text


def test_one_picture_has_nothing_left_out(explainer):
    assert "Not shown" not in explainer(noise())._repr_html_()


def test_a_jpeg_keeps_to_its_bytes_and_a_thumbnail_to_its_side():
    rough = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert len(jpeg(rough, 20_000)) <= 20_000 < len(jpeg(rough, 10**6))
    assert thumbnail(np.zeros((4096, 1, 3), np.uint8), 256).shape == (256, 1, 3)
    assert thumbnail(np.zeros((9, 7, 3), np.uint8), 256).shape == (9, 7, 3)


def test_escapes():
    assert escaped("<a href='x'>&\"") == "&lt;a href=&#x27;x&#x27;&gt;&amp;&quot;"
    assert escaped("\u202eevil\n\ud800") == "\\u202eevil\\n\\ud800"
