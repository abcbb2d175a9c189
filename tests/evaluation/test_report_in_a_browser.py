"""The report in Chromium: maps as FastCAM draws them, filters, keys; nothing is fetched, names run no script."""

from __future__ import annotations

import numpy as np
import pytest

from fastcam import Explainer
from fastcam.evaluation.report import write_report
from fastcam.evaluation.samples import Annotation, Sample
from support.models.contract_model import noise, random_model
from support.sample_data import Samples
from support.servers.browser import Browser

LABELS = ("cat", "dog", "crane", "ship", "tree")
HOSTILE = '"><img src=x onerror="window.hit=1"><script>window.hit=2</script>\' onfocus=\'window.hit=3'
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def explainer():
    return Explainer(random_model(labels=LABELS).file())


@pytest.fixture(scope="module")
def browser(explainer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    samples = []
    for i in range(30):
        predicted = explainer(noise(100, 90, seed=i)).label()
        label = predicted if i % 5 else next(name for name in LABELS if name != predicted)
        marks = (Annotation(label, (10.0 + i, 20.0, 60.0 + i, 80.0)),)
        samples.append(Sample(f"picture {i}", noise(100, 90, seed=i), marks))
    samples.append(Sample(HOSTILE, noise(100, 90, seed=99), (Annotation(HOSTILE, (0, 0, 9, 9)),)))
    known = {name: frozenset([i]) for i, name in enumerate(LABELS)} | {HOSTILE: frozenset([0])}
    write_report(explainer, Samples(samples), folder / "report.html", known, title=HOSTILE)
    with Browser(folder) as opened:
        opened.open(folder / "report.html")
        yield opened


@pytest.fixture(autouse=True)
def as_at_first(request):
    """Every test finds the page without filters."""
    browser = request.getfixturevalue("browser")
    for name, value in (("text", ""), ("class", ""), ("verdict", ""), ("sort", "n")):
        choose(browser, name, value)


def choose(browser, name, value):
    browser.js(
        f"{{const e = document.getElementById('{name}'); e.value = '{value}'; e.dispatchEvent(new Event('input'))}}"
    )


def shown(browser):
    return browser.js("[...document.querySelectorAll('.card')].filter(c => c.offsetParent).map(c => c.dataset.name)")


def test_nothing_is_fetched_nothing_is_refused_and_names_run_no_script(browser):
    assert browser.fetched() == [] and browser.complaints() == []
    assert browser.js("window.hit") is None and browser.js("document.scripts.length") == 1
    assert HOSTILE in browser.js("document.title") and HOSTILE in shown(browser)
    assert browser.js("[...document.images].every(i => i.alt && i.src.startsWith('data:'))")


def test_a_map_is_drawn_as_the_heatmap_in_colours(browser, explainer):
    name = "picture 7"
    card = f"[...document.querySelectorAll('.card')].find(c => c.dataset.name === '{name}')"
    browser.js(f"{card}.scrollIntoView()")
    browser.until(f"{card}.querySelector('canvas').drawn")
    canvas = f"{card}.querySelector('canvas')"
    width, height = browser.js(f"[{canvas}.width, {canvas}.height]")
    pixels = browser.js(f"[...{canvas}.getContext('2d').getImageData(0, 0, {width}, {height}).data]")
    drawn = np.array(pixels).reshape(height, width, 4)
    found = explainer(noise(100, 90, seed=7))
    assert found.status == (("ok",),) and drawn.shape[:2] == found.geometry[0].original and (drawn[..., 3] == 255).all()
    wanted = found.heatmap_image().astype(int)
    assert np.abs(drawn[..., :3] - wanted).mean() < 3  # bytes at the layer's cells, then as there


def test_failures_come_first_and_lists_filter_and_sort(browser):
    names = shown(browser)
    wrong = {f"picture {i}" for i in range(0, 30, 5)}
    assert len(names) == 31 and wrong <= set(names[:7])
    choose(browser, "verdict", "wrong")
    assert wrong <= set(shown(browser)) <= wrong | {HOSTILE}
    choose(browser, "class", LABELS[0])
    classes = browser.js("[...document.querySelectorAll('.card')].filter(c => !c.hidden).map(c => c.dataset.class)")
    assert set(classes) <= {LABELS[0]}
    choose(browser, "class", "")
    choose(browser, "verdict", "")
    choose(browser, "sort", "share")
    shares = browser.js("[...document.querySelectorAll('.card')].map(c => +c.dataset.share)")
    assert shares == sorted(shares) and len(shares) == 31
    choose(browser, "sort", "-score")
    scores = browser.js("[...document.querySelectorAll('.card')].map(c => +c.dataset.score)")
    assert scores == sorted(scores, reverse=True)


def test_a_class_shows_its_pictures_alone(browser):
    label = browser.js("{const b = document.querySelector('.only'); b.click(); b.dataset.class}")
    classes = browser.js("[...document.querySelectorAll('.card')].filter(c => !c.hidden).map(c => c.dataset.class)")
    assert classes and set(classes) == {label}


def test_keys_lead_to_the_filter_and_from_picture_to_picture(browser):
    browser.js("document.activeElement.blur()")
    browser.key("/")
    browser.type("picture 1")
    assert len(shown(browser)) == 11 and browser.js("document.getElementById('count').textContent") == "11 of 31"
    browser.key("Escape")
    names, focused = shown(browser), "document.activeElement.dataset.name"
    browser.key("ArrowRight")
    assert browser.js(focused) == names[0]
    for key, wanted in (("ArrowRight", 1), ("End", 10), ("ArrowRight", 10), ("Home", 0), ("ArrowLeft", 0)):
        browser.key(key)
        assert browser.js(focused) == names[wanted], key
    place = "document.activeElement.getBoundingClientRect()"
    top, left = browser.js(f"[{place}.top + scrollY, {place}.left]")
    browser.key("ArrowDown")
    below = browser.js(f"[{place}.top + scrollY, {place}.left]")
    assert below[0] > top and below[1] == pytest.approx(left, abs=2)
    browser.key("ArrowUp")
    assert browser.js(focused) == names[0]


def test_sliders_lead_from_picture_to_map(browser):
    card = "document.querySelector('.card')"
    browser.js("scrollTo(0, 0)")
    browser.js(f"{card}.scrollIntoView()")
    browser.until(f"{card}.querySelector('.slider')")
    clip = f"getComputedStyle({card}.querySelector('canvas')).clipPath"
    browser.js(f"{{const s = {card}.querySelector('.slider'); s.value = 25; s.dispatchEvent(new Event('input'))}}")
    assert browser.js(clip).replace("calc(75%)", "75%").startswith("inset(0px 75%")
    browser.js("{const s = document.getElementById('cut'); s.value = 0; s.dispatchEvent(new Event('input'))}")
    assert "100%" in browser.js(clip) and browser.js(f"{card}.querySelector('.slider').value") == "0"
    assert browser.js(f"{card}.querySelector('.slider').ariaLabel").startswith("from picture to map")


def test_without_scripts_the_pictures_are_a_plain_list(browser):
    source = browser.js("location.pathname")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.reload()
        assert browser.js("location.pathname") == source
        assert browser.js("document.querySelectorAll('.card img').length") >= 31
        assert browser.js("getComputedStyle(document.querySelector('.toolbar')).display") == "none"
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
        browser.reload()
