"""Generated scenes: the same bytes every time, and ground truth that says what the picture shows."""

from __future__ import annotations

import colorsys
import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
from scipy import stats

from fastcam.evaluation.scenes import CLASSES, COLORS, TEXTURES, Spec, scene, scene_seeds, scenes
from fastcam.evaluation.scenes.render import Placed, coverage
from fastcam.evaluation.scenes.shapes import OUTLINES
from fastcam.evaluation.scenes.textures import HUES
from fastcam.schema import FastcamError

pytestmark = pytest.mark.xdist_group("scenes")  # one worker makes what its fixtures hold, once


def digest(example):
    parts = [example.image.tobytes(), *(o.mask.tobytes() + repr(o).encode() for o in example.objects)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.fixture(scope="module")
def many():
    return list(scenes(500, seed=4, size=64))


def test_a_seed_gives_the_same_bytes_whatever_ran_before():
    first = digest(scene(7))
    np.random.seed(0)
    np.random.random(5)
    list(scenes(3, seed=1))
    assert digest(scene(7)) == first
    assert digest(scene(8)) != first


def test_another_process_in_another_order_gives_the_same_bytes():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from test_scenes import digest, scene\n"
        "print({s: digest(scene(s)) for s in (9, 3, 7)})"
    )
    path = [p for p in sys.path if p] + [str(__file__).rpartition("/")[0] or "."]
    out = subprocess.run([sys.executable, "-c", code, *path], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str({s: digest(scene(s)) for s in (9, 3, 7)})


def test_importing_the_scenes_loads_no_torch_and_no_onnx():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import fastcam.evaluation.scenes\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'onnx', 'onnxruntime', 'matplotlib'}))"
    )
    path = [p for p in sys.path if p]
    out = subprocess.run([sys.executable, "-c", code, *path], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_a_list_of_scenes_is_its_single_scenes_and_a_longer_list_begins_with_it():
    seeds = scene_seeds(5, seed=6)
    assert seeds == scene_seeds(9, seed=6)[:5]
    assert len(set(seeds) | set(scene_seeds(5, seed=7))) == 10
    assert [digest(s) for s in scenes(2, seed=6)] == [digest(scene(s)) for s in seeds[:2]]


@pytest.mark.parametrize("seed", [0, 4, 11])
def test_another_size_is_the_same_picture_at_another_resolution(seed):
    small, large = scene(seed, 96), scene(seed, 288)
    reduced = cv2.resize(large.image, (96, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(float) - small.image).mean() < 8
    assert [o.class_name for o in small.objects] == [o.class_name for o in large.objects]
    for a, b in zip(small.objects, large.objects, strict=True):
        assert np.allclose(np.array(a.box) * 3, b.box, atol=6)
        assert a.mask.mean() == pytest.approx(b.mask.mean(), rel=0.06)


def test_boxes_are_tight_and_half_open_and_no_pixel_has_two_owners(many):
    for example in many:
        owners = np.zeros(example.image.shape[:2], int)
        for item in example.objects:
            y, x = np.nonzero(item.mask)
            assert item.box == (x.min(), y.min(), x.max() + 1, y.max() + 1)
            assert CLASSES[item.class_index] == item.class_name
            owners += item.mask
        assert owners.max(initial=0) <= 1
        assert set(np.flatnonzero(example.present)) == {o.class_index for o in example.objects}
        assert sum(example.class_mask(i).sum() for i in range(len(CLASSES))) == owners.sum()


def test_the_pixels_of_a_mask_have_the_colour_that_its_object_claims():
    for seed in range(40):
        spec = [Spec(texture="plain", center=(0.27, 0.3)), Spec(texture="plain", center=(0.72, 0.7))]
        example = scene(seed, 160, spec)
        for item in example.objects:
            core = cv2.erode(item.mask.astype(np.uint8), np.ones((5, 5))) > 0
            hue = colorsys.rgb_to_hsv(*(np.median(example.image[core], axis=0) / 255))[0]
            distance = {name: abs((hue - center[0] + 0.5) % 1 - 0.5) for name, center in HUES.items()}
            assert min(distance, key=distance.get) == item.color


def test_an_object_in_front_hides_what_is_behind_it():
    behind = Spec("square", "blue", "plain", 0.45, (0.5, 0.5), 0)
    front = Spec("heart", "red", "plain", 0.2, (0.5, 0.5), 30)
    example = scene(1, 200, [behind, front])
    square, heart = example.objects
    whole = square.mask.sum() + heart.mask.sum()  # the heart lies wholly on the square
    assert heart.occluded == 0
    assert square.occluded == pytest.approx(heart.mask.sum() / whole)
    red, _, blue = example.image[..., 0].astype(int), None, example.image[..., 2].astype(int)
    inside = cv2.erode(heart.mask.astype(np.uint8), np.ones((3, 3))) > 0
    assert (red > blue)[inside].all()
    assert (red < blue)[cv2.erode(square.mask.astype(np.uint8), np.ones((5, 5))) > 0].all()

    heart_behind = scene(1, 200, [front, Spec("square", "blue", "plain", 0.15, (0.5, 0.5), 0)]).objects[0]
    assert heart_behind.occluded > 0.2
    assert heart_behind.mask.sum() < heart.mask.sum()


def test_objects_that_the_generator_places_stay_visible_and_inside(many):
    for item in (o for example in many for o in example.objects):
        assert item.occluded < 0.5  # 0.4 on the coarse plan, and the rounding of small pictures
        assert 0 <= item.box[0] < item.box[2] <= 64
        assert 0 <= item.box[1] < item.box[3] <= 64


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("uv", [(0.0, 0.0), (0.5, 0.9), (1.0, 1.0)])
def test_coverage_has_the_area_of_the_outline(name, uv):
    outline = OUTLINES[name](*uv)
    assert max(np.hypot(*p.T).max() for p in outline) == pytest.approx(1)
    shoelace = [abs(np.sum(p[:, 0] * np.roll(p[:, 1], -1) - p[:, 1] * np.roll(p[:, 0], -1))) / 2 for p in outline]
    area = 60**2 * (shoelace[0] - sum(shoelace[1:]))  # every further polygon is a hole
    cover = coverage(Placed(name, "red", "plain", (70.3, 71.6), 60, 0.7, uv, 0), 150, 140)
    perimeter = 60 * sum(np.hypot(*(p - np.roll(p, 1, axis=0)).T).sum() for p in outline)
    assert abs(cover.sum() - area) < 0.2 * perimeter  # the filler draws the boundary too: an eighth of a pixel
    assert 0 <= cover.min() <= cover.max() <= 1


def test_angles_turn_clockwise_and_an_arrow_points_right_at_zero():
    for angle, axis, sign in ((0, 1, 1), (90, 0, 1), (180, 1, -1), (270, 0, -1)):
        item = scene(2, 128, [Spec("arrow", radius=0.35, center=(0.5, 0.5), angle=angle)]).objects[0]
        widest = np.argmax(item.mask.sum(axis=1 - axis))  # the head's barbs
        tail, tip = sorted(np.flatnonzero(item.mask.any(axis=1 - axis))[[0, -1]], key=lambda v: sign * v)
        assert abs(tip - widest) < abs(tail - widest)
        assert item.angle == pytest.approx(angle)


def test_classes_colours_and_textures_are_balanced_and_independent(many):
    items = [o for example in many for o in example.objects]
    table = np.zeros((len(CLASSES), len(COLORS), len(TEXTURES)))
    for o in items:
        table[o.class_index, COLORS.index(o.color), TEXTURES.index(o.texture)] += 1
    for axes in ((1, 2), (0, 2), (0, 1)):
        assert stats.chisquare(table.sum(axis=axes)).pvalue > 1e-3
    for axis in (0, 1, 2):
        assert stats.chi2_contingency(table.sum(axis=axis)).pvalue > 1e-3
    counts = np.bincount([len(example.objects) for example in many], minlength=6)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3
    assert {o.size for o in items} == {"small", "medium", "large"}


def test_what_the_caller_asks_for_is_what_the_scene_holds():
    example = scene(3, (96, 160), ["ring", Spec(color="green", texture="dotted"), Spec("star", radius=0.2)])
    assert example.image.shape == (96, 160, 3)
    assert example.image.dtype == np.uint8
    assert example.objects[0].class_name == "ring"
    assert (example.objects[1].color, example.objects[1].texture) == ("green", "dotted")
    assert (example.objects[2].class_name, example.objects[2].radius) == ("star", pytest.approx(0.2))
    assert scene(3, objects=0).objects == ()
    assert len(scene(3, objects=7).objects) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 0, "size": 20}, "48 pixels"),
        ({"seed": 0, "objects": 13}, "0 to 12"),
        ({"seed": 0, "objects": -1}, "0 to 12"),
        ({"seed": 0, "objects": ["sphere"]}, "triangle"),
        ({"seed": 0, "objects": [Spec(color="mauve")]}, "purple"),
        ({"seed": 0, "objects": [Spec(texture="furry")]}, "dotted"),
        ({"seed": 0, "objects": [Spec(radius=0.7)]}, "radius"),
        ({"seed": 0, "objects": [Spec(center=(3.0, 3.0))]}, "invisible"),
        ({"seed": 0, "objects": [Spec("square", radius=0.5)] * 4}, "no room"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message):
    with pytest.raises(FastcamError, match=message) as caught:
        scene(**arguments)
    assert "\n" not in str(caught.value)
