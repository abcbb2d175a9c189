"""Random cases, hostile ones among them, on which every kernel backend must equal the reference.

    python tests/support/kernel_cases.py --cases 10000 --json bench/results/kernels/kernel_cases.json

A case is one function with arguments that hypothesis draws: shapes with single pixels, single rows and columns, rows of
more than a thousand pixels and empty leading axes; values that are random, all zero, all equal, NaN, infinite, huge,
subnormal, or all of it; arrays with gaps, in reverse, transposed or unaligned. :func:`compare` says what equal means:
the same bits, except for the sum over the channels. tests/kernels/test_kernel_cases.py runs fewer of them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fastcam import kernels
from fastcam.kernels import reference as REFERENCE
from fastcam_bench.oracles.machine import machine, write_report
from support import cuda_host

Case = tuple[str, tuple[Any, ...], dict[str, Any]]
INF, NAN = np.float32(np.inf), np.float32(np.nan)
TINY = np.float32(1e-45)

# --- values -------------------------------------------------------------------------------------------------------


def _sprinkled(random: np.random.Generator, shape: tuple[int, ...], values: list[Any]) -> kernels.Floats:
    """Random values, one in eight of them replaced."""
    array = random.standard_normal(shape).astype(np.float32)
    return np.where(random.random(shape) < 0.125, random.choice(np.array(values, np.float32), shape), array)


Fill = Callable[[np.random.Generator, tuple[int, ...]], kernels.Floats]
FLOATS: dict[str, Fill] = {
    "signed": lambda random, shape: random.standard_normal(shape).astype(np.float32),
    "positive": lambda random, shape: random.random(shape, np.float32),
    "all zero": lambda random, shape: np.zeros(shape, np.float32),
    "negative zero": lambda random, shape: np.full(shape, -0.0, np.float32),
    "all equal": lambda random, shape: np.full(shape, random.standard_normal(), np.float32),
    "negative": lambda random, shape: -random.random(shape, np.float32),
    "few values": lambda random, shape: random.integers(-1, 3, shape).astype(np.float32) / np.float32(2),
    "NaN": lambda random, shape: _sprinkled(random, shape, [NAN]),
    "infinite": lambda random, shape: _sprinkled(random, shape, [INF, -INF]),
    "huge": lambda random, shape: _sprinkled(random, shape, [3.4e38, -3.4e38, 1e38, 1e-38]),
    "subnormal": lambda random, shape: random.integers(-9, 99, shape).astype(np.float32) * TINY,
    "all kinds": lambda random, shape: _sprinkled(random, shape, [NAN, INF, -INF, 0, -0.0, 1, 3.4e38, TINY]),
}


def mask_of(random: np.random.Generator, shape: tuple[int, ...]) -> kernels.Bytes:
    """Random pixels of any density, in half of the masks over vertical lines."""
    mask = random.random(shape) < random.random()
    if random.random() < 0.5:
        mask = (random.random((*shape[:-2], 1, shape[-1])) < random.random()) ^ (mask & (random.random(shape) < 0.02))
    return mask * np.uint8(random.choice([1, 2, 255]))


LAYOUTS = ("plain", "gaps", "reversed", "transposed", "unaligned", "read only")


def laid_out(array: np.ndarray, how: str) -> np.ndarray:
    """The same values in memory of another order."""
    if how == "gaps":
        wide = np.repeat(array, 3, axis=-1)
        return wide[..., ::3] if array.ndim else array
    if how == "reversed":
        return np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    if how == "transposed":
        return np.asfortranarray(array)
    if how == "unaligned":
        return np.frombuffer(b"x" + array.tobytes(), array.dtype, offset=1).reshape(array.shape)
    if how == "read only":
        array.setflags(write=False)
    return array


# --- cases --------------------------------------------------------------------------------------------------------

SIDE = st.one_of(st.just(1), st.integers(1, 9), st.integers(1, 40), st.sampled_from([63, 64, 65, 128, 130]))
PLANE = st.one_of(
    st.tuples(SIDE, SIDE),
    st.tuples(st.just(1), st.integers(1, 1500)),
    st.tuples(st.integers(1, 1500), st.just(1)),
)
LEADING = st.sampled_from([(), (1,), (2,), (1, 1), (2, 3), (0, 2), (1, 0)])
FRACTION = st.one_of(st.sampled_from([0.15, 1.0, 1e-30, 0.5]), st.floats(0, 1, exclude_min=True))
CONNECTIVITY = st.sampled_from([4, 8])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A function's name and its arguments."""
    name = draw(st.sampled_from(list(ARGUMENTS)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layout = draw(st.sampled_from(LAYOUTS))

    def floats(*shape: int) -> kernels.Floats:
        return laid_out(FLOATS[draw(st.sampled_from(list(FLOATS)))](random, shape), layout)

    arguments, options = ARGUMENTS[name](draw, random, floats)
    return name, tuple(laid_out(x, layout) if isinstance(x, np.ndarray) else x for x in arguments), options


def _maps(draw: st.DrawFn, random: np.random.Generator, floats: Any) -> tuple[Any, dict[str, Any]]:
    return (floats(*draw(LEADING), *draw(PLANE)),), {}


def _upsample(draw: st.DrawFn, random: np.random.Generator, floats: Any) -> tuple[Any, dict[str, Any]]:
    return (floats(*draw(LEADING), *draw(st.tuples(SIDE, SIDE))), draw(PLANE)), {}


def _threshold(draw: st.DrawFn, random: np.random.Generator, floats: Any) -> tuple[Any, dict[str, Any]]:
    return (floats(*draw(LEADING), *draw(PLANE)), draw(FRACTION)), {}


def _label(draw: st.DrawFn, random: np.random.Generator, floats: Any) -> tuple[Any, dict[str, Any]]:
    return (mask_of(random, (*draw(LEADING), *draw(PLANE))), draw(CONNECTIVITY)), {}


def _boxes(draw: st.DrawFn, random: np.random.Generator, floats: Any) -> tuple[Any, dict[str, Any]]:
    size = draw(PLANE)
    count = draw(st.integers(0, min(9, size[0] * size[1])))
    return (random.integers(0, count + 1, size, dtype=np.int32), count), {}


def _weigh(draw: st.DrawFn, random: np.random.Generator, floats: Any) -> tuple[Any, dict[str, Any]]:
    n, t, channels = draw(st.integers(0, 2)), draw(st.integers(0, 3)), draw(st.integers(0, 40))
    return (floats(n, channels, *draw(st.tuples(SIDE, SIDE))), floats(n, t, channels)), {}


def _overlay(draw: st.DrawFn, random: np.random.Generator, floats: Any) -> tuple[Any, dict[str, Any]]:
    size = draw(PLANE)
    image, lut = random.integers(0, 256, (*size, 3), np.uint8), random.integers(0, 256, (256, 3), np.uint8)
    return (image, floats(*size), lut, draw(st.floats(0, 1))), {}


def _explain_maps(draw: st.DrawFn, random: np.random.Generator, floats: Any) -> tuple[Any, dict[str, Any]]:
    n, size = draw(st.integers(0, 2)), draw(PLANE)
    maps = floats(n, draw(st.integers(0, 2)), *draw(st.tuples(st.integers(1, 9), st.integers(1, 9))))
    options: dict[str, Any] = {"want_heatmaps": draw(st.booleans())}
    if draw(st.booleans()):
        options["windows"] = random.integers(-3, max(size) + 3, (n, 4), dtype=np.int32)
    return (maps, None, size, draw(FRACTION), draw(CONNECTIVITY)), options


def _fused(draw: st.DrawFn, random: np.random.Generator, floats: Any) -> tuple[Any, dict[str, Any]]:
    (_, _, *others), options = _explain_maps(draw, random, floats)
    (activations, weights), _ = _weigh(draw, random, floats)
    options.pop("windows", None)
    return (activations, weights, *others), options


ARGUMENTS: dict[str, Callable[..., tuple[Any, dict[str, Any]]]] = {
    "status": _maps,
    "relu": _maps,
    "normalize": _maps,
    "upsample": _upsample,
    "threshold": _threshold,
    "label": _label,
    "boxes": _boxes,
    "weigh": _weigh,
    "overlay": _overlay,
    "explain_maps": _explain_maps,
    "explain_maps, weighed": _fused,
}


# --- comparing ----------------------------------------------------------------------------------------------------


def compare(backend: kernels.Kernels, case: Case) -> None:
    """Raises AssertionError where ``backend`` and the reference differ."""
    name, arguments, options = case
    if name == "explain_maps, weighed":  # in one call what weigh and explain_maps give, which have cases of their own
        got = backend.explain_maps(*arguments, **options)
        wanted = backend.explain_maps(backend.weigh(*arguments[:2]), None, *arguments[2:], **options)
    else:
        got, wanted = (getattr(k, name)(*arguments, **options) for k in (backend, REFERENCE))
    if name == "weigh":
        compare_sums(got, wanted, *arguments)
    else:
        pairs = zip(got, wanted, strict=True) if isinstance(wanted, tuple) else [(got, wanted)]
        for ours, theirs in pairs:
            assert (ours is None) == (theirs is None), name
            if theirs is not None:
                np.testing.assert_array_equal(ours, theirs, strict=True)


def compare_sums(got: kernels.Floats, wanted: kernels.Floats, a: kernels.Floats, weights: kernels.Floats) -> None:
    """Within 1e-6 of the sum of the magnitudes, and what underflows in float32; where those overflow, either may."""
    with np.errstate(all="ignore"):
        scale = np.einsum("nchw,ntc->nthw", np.abs(a).astype(np.float64), np.abs(weights).astype(np.float64))
        near = np.abs(got.astype(np.float64) - wanted) <= 1e-6 * scale + 2e-45 * (a.shape[1] + 1)
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    finite = np.isfinite(scale)
    assert np.all(near | ~(scale <= 1e38)), "the sums differ"
    assert not np.isfinite(got[~finite]).any(), "a value that is not finite was lost"


def run(backend: kernels.Kernels, examples: int) -> Counter[str]:
    """``examples`` cases; how many there were of each function."""
    seen: Counter[str] = Counter()
    phases = (Phase.explicit, Phase.generate, Phase.shrink)
    how = settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, phases=phases,
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip

    @how
    @given(cases())
    def check(case: Case) -> None:
        seen[case[0]] += 1
        compare(backend, case)

    check()
    return seen


def main() -> int:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="every kernel backend beside the reference, on random cases")
    parser.add_argument("--cases", type=int, default=10_000, help="for each backend")
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    results = {}
    for name in [backend for backend in cuda_host.BACKENDS if backend != "reference"]:
        begin = time.perf_counter()
        seen = run(cuda_host.get(name), options.cases)
        seconds = round(time.perf_counter() - begin, 1)
        results[name] = {"cases": sum(seen.values()), "differences": 0, "seconds": seconds, "by function": dict(seen)}
        print(f"{name}: {sum(seen.values())} cases equal the reference ({seconds} s)", flush=True)
    if options.json:
        versions = {name: importlib.metadata.version(name) for name in ("numpy", "hypothesis")}
        command = f"python tests/support/kernel_cases.py --cases {options.cases} --json {options.json}"
        write_report(
            {"command": command, "machine": machine(), "versions": versions, "backends": results}, options.json
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
