"""Scenes and their ground truth: what is where, drawn from a seed, arranged, rendered and measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fastcam.evaluation.scenes.background import background
from fastcam.evaluation.scenes.render import Placed, coverage, paint
from fastcam.evaluation.scenes.shapes import OUTLINES
from fastcam.evaluation.scenes.textures import HUES, PATTERNS, Float
from fastcam.schema import FastcamError

CLASSES: tuple[str, ...] = tuple(OUTLINES)
COLORS: tuple[str, ...] = tuple(HUES)
TEXTURES: tuple[str, ...] = tuple(PATTERNS)

MIN_SIZE, MAX_OBJECTS = 48, 12
RADII = (0.10, 0.23)  # of the circle around an object, as a fraction of the picture's shorter side
MAX_OCCLUDED = (0.08, 0.4)  # of any object that the generator places itself: tidy scenes and crowded ones
_PLAN = 96  # shorter side of the coarse picture on which objects are arranged

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Spec:
    """What an object must be; every field that is None is drawn from the scene's seed.

    Attributes:
        class_name, color, texture: one of :data:`CLASSES`, :data:`COLORS`, :data:`TEXTURES`.
        radius: of the circle around it, as a fraction of the picture's shorter side.
        center: (x, y) as fractions of width and height. An object with a given centre is put there whatever it hides.
        angle: rotation in degrees, clockwise.
    """

    class_name: str | None = None
    color: str | None = None
    texture: str | None = None
    radius: float | None = None
    center: tuple[float, float] | None = None
    angle: float | None = None


@dataclass(frozen=True)
class Object:
    """One object as the picture shows it.

    Attributes:
        class_index, class_name: index into :data:`CLASSES`, and the name there.
        color, texture: its attributes, independent of the class.
        box: tight half-open [x0, y0, x1, y1) of the visible pixels.
        mask: bool [H, W], its visible pixels. No pixel belongs to two objects.
        occluded: fraction of its pixels inside the picture that objects in front hide, 0..1.
        radius: of the circle around it, as a fraction of the picture's shorter side.
        center: (x, y) of that circle in pixels.
        angle: rotation in degrees, clockwise.
    """

    class_index: int
    class_name: str
    color: str
    texture: str
    box: tuple[int, int, int, int]
    mask: Bool = field(repr=False, compare=False)
    occluded: float
    radius: float
    center: tuple[float, float]
    angle: float

    @property
    def size(self) -> str:
        """ "small", "medium" or "large": thirds of the range of radii."""
        low, high = RADII
        third = int(3 * (self.radius - low) / (high - low))
        return ("small", "medium", "large")[min(max(third, 0), 2)]


@dataclass(frozen=True)
class Scene:
    """A picture and its ground truth; ``objects`` go from the back to the front.

    ``image`` is uint8 [H, W, 3], RGB. ``seed`` is the one that :func:`scene` was called with.
    """

    image: npt.NDArray[np.uint8] = field(repr=False, compare=False)
    objects: tuple[Object, ...]
    seed: int

    @property
    def present(self) -> Bool:
        """Which classes occur: bool [len(CLASSES)]."""
        found = np.zeros(len(CLASSES), np.bool_)
        found[[o.class_index for o in self.objects]] = True
        return found

    def class_mask(self, class_index: int) -> Bool:
        """Visible pixels of every object of a class: bool [H, W]."""
        masks = [o.mask for o in self.objects if o.class_index == class_index]
        empty = np.zeros(self.image.shape[:2], np.bool_)
        return np.asarray(np.logical_or.reduce([empty, *masks]), np.bool_)


def _rng(seed: int, stage: int) -> np.random.Generator:
    """A generator of its own for every stage, so that what one stage draws never shifts the next one's numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stage])))


def _check_spec(spec: Spec) -> Spec:
    for value, known, what in (
        (spec.class_name, CLASSES, "class"),
        (spec.color, COLORS, "color"),
        (spec.texture, TEXTURES, "texture"),
    ):
        if value is not None and value not in known:
            raise FastcamError(f"no {what} {value!r} in the scenes; there are: {', '.join(known)}")
    if spec.radius is not None and not 0 < spec.radius <= 0.5:
        raise FastcamError(f"an object's radius is a fraction of the shorter side in (0, 0.5], not {spec.radius}")
    return spec


def _draw(spec: Spec, rng: np.random.Generator) -> Placed:
    """Fill what the spec leaves open. Lengths are fractions here; every call draws the same amount of numbers."""
    name, color, texture = (str(rng.choice(names)) for names in (CLASSES, COLORS, TEXTURES))
    radius, angle = float(rng.uniform(*RADII)), float(rng.uniform(0, 2 * np.pi))
    u, v = (float(value) for value in rng.random(2))
    seed = int(rng.integers(2**32))
    return Placed(
        class_name=spec.class_name or name,
        color=spec.color or color,
        texture=spec.texture or texture,
        center=spec.center or (0.5, 0.5),
        radius=spec.radius or radius,
        angle=angle if spec.angle is None else float(np.deg2rad(spec.angle)),
        proportions=(u, v),
        seed=seed,
    )


def _in_pixels(item: Placed, height: int, width: int) -> Placed:
    center = (item.center[0] * width, item.center[1] * height)
    return replace(item, center=center, radius=item.radius * min(height, width))


def _arrange(specs: Sequence[Spec], aspect: float, rng: np.random.Generator) -> list[Placed]:
    """Give every object a centre: inside the picture, and nobody hidden by more than a bound drawn once.

    Works on a coarse picture of the same aspect ratio, so that the arrangement does not depend on the resolution.
    An object that finds no room is made smaller, unless its radius was asked for.
    """
    height, width = (_PLAN, round(_PLAN * aspect)) if aspect >= 1 else (round(_PLAN / aspect), _PLAN)
    bound = float(rng.choice(MAX_OCCLUDED))
    items: list[Placed] = []
    full: list[Bool] = []
    seen: list[Bool] = []
    for spec in specs:
        item = _draw(spec, rng)
        for attempt in range(400):
            if spec.center is None:
                margin = item.radius * _PLAN / np.array([width, height])
                low, high = np.minimum(margin, 0.5), np.maximum(1 - margin, 0.5)
                x, y = rng.uniform(low, high)
                item = replace(item, center=(float(x), float(y)))
            mask = coverage(_in_pixels(item, height, width), height, width) >= 0.5
            left = [s & ~mask for s in seen]
            if spec.center is not None or all(
                after.sum() >= (1 - bound) * whole.sum() for after, whole in zip(left, full, strict=True)
            ):
                break
            if attempt % 20 == 19 and spec.radius is None:
                item = replace(item, radius=max(0.9 * item.radius, RADII[0]))
        else:
            raise FastcamError(f"no room for {len(specs)} objects in one scene; ask for fewer or smaller ones")
        items, full, seen = [*items, item], [*full, mask], [*left, mask]
    return items


def _finish(image: Float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Exposure, a little vignette and sensor noise; then 8 bits."""
    height, width = image.shape[:2]
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    vignette = 1 - rng.uniform(0, 0.12) * (x**2 + y**2)
    gain, offset, noise = rng.uniform(0.85, 1.12), rng.uniform(-0.04, 0.04), rng.uniform(0, 0.02)
    result = image * (gain * vignette)[..., None].astype(np.float32) + np.float32(offset)
    result += np.float32(noise) * rng.standard_normal(image.shape, np.float32)
    return np.asarray(np.clip(np.rint(result * 255), 0, 255), np.uint8)


def _measure(items: Sequence[Placed], covers: Sequence[Float]) -> tuple[Object, ...]:
    """Ground truth of objects listed from back to front."""
    height, width = covers[0].shape if covers else (0, 0)
    in_front = np.zeros((height, width), np.bool_)
    found: list[Object] = []
    for item, cover in zip(reversed(items), reversed(covers), strict=True):
        whole = cover >= 0.5
        mask = whole & ~in_front
        in_front |= whole
        if not mask.any():
            raise FastcamError(f"the {item.color} {item.class_name} would be invisible; move it or what hides it")
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        mask.setflags(write=False)
        found.append(
            Object(
                class_index=CLASSES.index(item.class_name),
                class_name=item.class_name,
                color=item.color,
                texture=item.texture,
                box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
                mask=mask,
                occluded=float(1 - mask.sum() / whole.sum()),
                radius=item.radius / min(height, width),
                center=item.center,
                angle=float(np.rad2deg(item.angle)),
            )
        )
    return tuple(reversed(found))


def scene(seed: int, size: int | tuple[int, int] = 128, objects: int | Sequence[Spec | str] | None = None) -> Scene:
    """The scene of a seed.

    Args:
        seed: any integer >= 0.
        size: pixels of the square picture, or (height, width); at least 48 on each side.
        objects: how many (None: one to five, drawn), or what they must be, from back to front: :class:`Spec` or
            class names. A class may occur more than once unless the caller decides otherwise.

    Raises:
        FastcamError: bad size, unknown name, too many objects, or one that would be invisible.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < MIN_SIZE:
        raise FastcamError(f"a scene has at least {MIN_SIZE} pixels a side, not {height}x{width}")
    if seed < 0:
        raise FastcamError(f"a scene's seed is an integer >= 0, not {seed}")
    rng = _rng(seed, 0)
    count = int(rng.integers(1, 6))
    wanted = count if objects is None else objects
    specs = [Spec()] * wanted if isinstance(wanted, int) else [Spec(s) if isinstance(s, str) else s for s in wanted]
    if (isinstance(wanted, int) and wanted < 0) or len(specs) > MAX_OBJECTS:
        number = wanted if isinstance(wanted, int) else len(specs)
        raise FastcamError(f"a scene has 0 to {MAX_OBJECTS} objects, not {number}")
    plan = _arrange([_check_spec(spec) for spec in specs], width / height, rng)
    items = [_in_pixels(item, height, width) for item in plan]
    image = background(height, width, _rng(seed, 1))
    light = float(_rng(seed, 2).uniform(0, 2 * np.pi))
    covers = [coverage(item, height, width) for item in items]
    for item, cover in zip(items, covers, strict=True):
        paint(image, item, cover, light)
    pixels = _finish(image, _rng(seed, 3))
    pixels.setflags(write=False)
    return Scene(pixels, _measure(items, covers), seed)


def scene_seeds(n: int, seed: int) -> list[int]:
    """``n`` scene seeds (53 bits each); a longer list from the same seed begins with the shorter one."""
    words = np.random.SeedSequence(seed).generate_state(n, np.uint64)
    return [int(word >> np.uint64(11)) for word in words]


def scenes(
    n: int, seed: int, size: int | tuple[int, int] = 128, objects: int | Sequence[Spec | str] | None = None
) -> Iterator[Scene]:
    """``n`` scenes, one after the other; the i-th is ``scene(scene_seeds(n, seed)[i], size, objects)``."""
    for each in scene_seeds(n, seed):
        yield scene(each, size, objects)
