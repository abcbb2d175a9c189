"""What specs of scores, maps, embeddings and sequences mean: each becomes a function of the outputs of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float, load, prepare, resize
from fastcam.schema import Cotangent, Preprocessing
from fastcam.targets import cotangents
from fastcam.targets.classes import Terms, combined_name
from fastcam.targets.cotangents import Double
from fastcam.targets.spec_parser import File, Outputs, Spec, SpecFunction, SpecResult, index, integers, sizes, terms

KINDS = ("log_probability", "logit")


# ---- classes


def class_score(spec: Spec, file: File) -> SpecFunction:
    """s = y_c, or a combination; one target for each word."""
    about, combinations = _of_classes(spec, file)

    def made(outputs: Outputs) -> SpecResult:
        y = _array(outputs, about)
        c = cotangents.combination(y, *map(_summed, combinations))
        return SpecResult({about.output: c}, _named(y, combinations, file), _linear(c, y))

    return made


def probability(spec: Spec, file: File) -> SpecFunction:
    """s = p_c or log p_c with p = softmax(y); of an output that is one already, p = y."""
    about, combinations = _of_classes(spec, file)
    wanted = [_one(spec, each) for each in combinations]
    log = spec.kind.startswith("log")

    def made(outputs: Outputs) -> SpecResult:
        y = _array(outputs, about)
        there = cotangents.are_probabilities(y)
        log_p = np.log(np.maximum(y, 1e-30)) if there else cotangents.log_softmax(y)
        chosen = np.take_along_axis(log_p, cotangents.resolved(y, wanted), axis=1)
        if not there:
            c = cotangents.probability(y, wanted, log)
        else:
            c = cotangents.class_score(y, wanted)
            c = np.asarray(c * np.exp(-chosen)[:, :, None], np.float32) if log else c
        names = _prefixed(spec.kind.replace("-", " "), _named(y, combinations, file))
        return SpecResult({about.output: c}, names, chosen if log else np.exp(chosen))

    return made


def finer(spec: Spec, file: File) -> SpecFunction:
    """Weighted Finer-CAM, :func:`fastcam.targets.cotangents.finer`: the first class against the others."""
    about, combinations = _of_classes(spec, file, default=("-1", "-2", "-3", "-4"))
    one, *others = [_one(spec, each) for each in combinations]
    if not others:
        raise spec.wrong("against which classes? give them behind it, as in finer:-1,-2,-3")
    strength = spec.number("strength", 1.0)

    def made(outputs: Outputs) -> SpecResult:
        y = _array(outputs, about)
        c = cotangents.finer(y, one, others, strength)
        picked = np.take_along_axis(y, cotangents.resolved(y, others), axis=1)
        against = (cotangents.softmax(picked) * picked).sum(1, keepdims=True)
        value = np.take_along_axis(y, cotangents.resolved(y, one), axis=1) - strength * against
        names = _named(y, [((each, 1.0),) for each in (one, *others)], file)
        return SpecResult({about.output: c}, tuple((f"{row[0]} against {', '.join(row[1:])}",) for row in names), value)

    return made


def labels(spec: Spec, file: File) -> SpecFunction:
    """s = the sum of several labels' scores: those that are named, or those above a threshold."""
    about, combinations = _of_classes(spec, file, default=())
    wanted = [_one(spec, each) for each in combinations]
    threshold = spec.number("threshold", 0.0)

    def made(outputs: Outputs) -> SpecResult:
        y = _array(outputs, about)
        c = cotangents.multi_label(y, wanted or None, threshold)
        names = []
        for row in c[:, 0]:
            found = [file.label(int(k), y.shape[1]) for k in np.flatnonzero(row)]
            names.append((" + ".join(found[:4]) + (f" + {len(found) - 4} more" if len(found) > 4 else ""),))
        return SpecResult({about.output: c}, tuple(names), _linear(c, y))

    return made


def _of_classes(spec: Spec, file: File, default: tuple[str, ...] = ("-1",)) -> tuple[Cotangent, list[Terms]]:
    """The output with class scores, and each word as a combination of its classes."""
    about = file.output(spec, (1,))
    count = about.shape[0] if isinstance(about.shape[0], int) else None
    classes = file.classes(spec, count)
    return about, [terms(spec, word, classes) for word in spec.words or default[:count]]


def _one(spec: Spec, combination: Terms) -> int:
    if len(combination) > 1 or combination[0][1] != 1:
        raise spec.wrong(f"{spec.kind} is of single classes; combinations are class:'a - b'")
    return combination[0][0]


def _summed(combination: Terms) -> dict[int, float]:
    total: dict[int, float] = {}
    for c, a in combination:
        total[c] = total.get(c, 0.0) + a
    return total


def _named(y: Double, combinations: list[Terms], file: File) -> tuple[tuple[str, ...], ...]:
    """Per image the names of combinations, whose ranks are looked up."""
    fits = file.labels is not None and len(file.labels) == y.shape[1]
    rows = []
    for row in y:
        found = [
            tuple((int(cotangents.resolved(row[None], c)[0, 0]), a) for c, a in combination)
            for combination in combinations
        ]
        rows.append(tuple(combined_name(each, file.labels if fits else None) for each in found))
    return tuple(rows)


def _prefixed(what: str, names: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"{what} of {name}" for name in row) for row in names)


# ---- numbers and maps


def element(spec: Spec, file: File) -> SpecFunction:
    """s = y[i, j, ...] of one image's output."""
    at = tuple(integers(spec, "an index"))
    spec.none_but(1, 8, "an index, one number for each axis of one image's output")
    about = file.output(spec, (len(at),))
    for i, size in zip(at, sizes(about), strict=True):
        if i < 0 or (isinstance(size, int) and i >= size):
            raise spec.wrong(f"index {list(at)} is outside of {list(about.shape)}; numbers count from 0")

    def made(outputs: Outputs) -> SpecResult:
        y = _array(outputs, about)
        c = cotangents.element(y, at)
        name = file.label(at[0], y.shape[1]) if y.ndim == 2 else "class"
        name = f"{about.output} {list(at)}" if name.startswith("class") else name
        return SpecResult({about.output: c}, ((name,),) * len(y), _linear(c, y))

    return made


def region(spec: Spec, file: File) -> SpecFunction:
    """s = sum_ij M_ij y_cij: a class where it is predicted, or within a mask; one target for each word."""
    about = file.output(spec, (3,))
    last = spec.choice("axis", ("first", "last")) == "last"
    channels = about.shape[-1 if last else 0]
    names = file.classes(spec, channels if isinstance(channels, int) else None)
    spec.none_but(1, 1000, "a class, by name or number")
    wanted = [index(spec, word, names) for word in spec.words]
    within = spec.options.get("mask")
    mask = _mask(spec, within, file.preprocessing) if within is not None else None

    def made(outputs: Outputs) -> SpecResult:
        y = _array(outputs, about)
        y = np.moveaxis(y, -1, 1) if last else y
        if mask is None:
            _refuse_absent(spec, y, wanted, file)
        small = None if mask is None else resize(mask, (y.shape[2], y.shape[3])) >= 0.5
        c = cotangents.region(y, wanted, small)
        named = [file.label(k, y.shape[1]) for k in wanted]
        named = named if within is None else [f"{name} within {Path(within).stem}" for name in named]
        values = _linear(c, y)
        return SpecResult({about.output: np.moveaxis(c, 2, -1) if last else c}, (tuple(named),) * len(y), values)

    return made


def _mask(spec: Spec, path: str, how: Preprocessing | None) -> Float:
    """A picture of a mask at the size of the network's input: [H, W] in 0..1, brought there as the pictures are."""
    try:
        pixels = load(path)
    except FastcamError as error:
        raise spec.wrong(str(error)) from error
    size = how.size if how is not None else None
    rule = how.resize if how is not None else "stretch"
    plain = Preprocessing(size=size, resize=rule, color="GRAY", scale=1 / 255, pad_value=0)
    if how is not None:
        plain = Preprocessing(size, rule, how.crop_fraction, "GRAY", 1 / 255, pad_value=0)
    return np.ascontiguousarray(prepare(pixels, plain)[0][0, 0])


def _refuse_absent(spec: Spec, y: Double, wanted: list[int], file: File) -> None:
    """Raise where a class is predicted nowhere, and say which are."""
    best = y.argmax(1)
    for n, row in enumerate(best):
        for c in wanted:
            if not (row == c).any():
                counts = np.bincount(row.ravel(), minlength=y.shape[1])
                order = [k for k in np.argsort(-counts, kind="stable")[:5] if counts[k]]
                there = ", ".join(f"{file.label(int(k), y.shape[1])} {counts[k] / row.size:.0%}" for k in order)
                raise spec.wrong(
                    f"{file.label(c, y.shape[1])} is predicted nowhere in picture {n + 1} of its run (there are: "
                    f"{there}); give a mask=FILE"
                )


# ---- embeddings


def similarity(spec: Spec, file: File) -> SpecFunction:
    """s = the cosine (or dot product) with the embedding of a reference: a picture, or a .npy file of numbers."""
    about = file.output(spec, (1,))
    kind: Any = spec.choice("kind", ("cosine", "dot"))
    spec.none_but(1, 1000, "a reference: a picture or a .npy file")
    references = np.concatenate([_reference(spec, file, about, word) for word in spec.words])

    def made(outputs: Outputs) -> SpecResult:
        y = _array(outputs, about)
        try:
            c = cotangents.similarity(y, references, kind)
        except FastcamError as error:
            raise spec.wrong(str(error)) from error
        flat = y.reshape(len(y), -1)
        values = flat @ references.T
        if kind == "cosine":
            values /= np.linalg.norm(flat, axis=1)[:, None] * np.linalg.norm(references, axis=1)
        stems = [Path(word).stem for word in spec.words]
        names = [
            f"similarity to {stems[0] if len(stems) == 1 else stems[min(t, len(stems) - 1)]}"
            for t in range(len(references))
        ]
        return SpecResult({about.output: c}, (tuple(names),) * len(y), values)

    return made


def _reference(spec: Spec, file: File, about: Cotangent, word: str) -> Double:
    """float64 [1, D]"""
    if not Path(word).is_file():
        raise spec.wrong(f"{word}: no such file; give a picture, or a .npy file with an embedding")
    if Path(word).suffix.lower() != ".npy":
        return _array(file.outputs_of(word), about).reshape(1, -1)
    try:
        found: NDArray[Any] = np.load(word, allow_pickle=False)
        return np.asarray(found, np.float64).reshape(1, -1)
    except (ValueError, OSError, EOFError) as error:
        raise spec.wrong(f"{word}: no array of numbers ({error})") from error


def pair(spec: Spec, file: File) -> SpecFunction:
    """s = the similarity of pictures 1 and 2, of 3 and 4, ..."""
    about = file.output(spec, (1,))
    kind: Any = spec.choice("kind", ("cosine", "dot"))

    def made(outputs: Outputs) -> SpecResult:
        y = _array(outputs, about)
        if len(y) % 2:
            raise spec.wrong(
                f"{len(y)} pictures ran together, which are no pairs; give an even number of them to a file "
                "whose batch is free"
            )
        c = cotangents.pairs(y, kind)
        flat = y.reshape(len(y), -1)
        partners = flat.reshape(-1, 2, flat.shape[1])[:, ::-1].reshape(flat.shape)
        values = (flat * partners).sum(1)
        if kind == "cosine":
            values /= np.linalg.norm(flat, axis=1) * np.linalg.norm(partners, axis=1)
        return SpecResult({about.output: c}, (("similarity to its partner",),) * len(y), values[:, None])

    return made


# ---- sequences


def words(spec: Spec, file: File) -> SpecFunction:
    """s = log p of each word at its position, one target a word; of a caption their sum."""
    about = file.output(spec, (2,))
    kind: Any = spec.choice("kind", KINDS)
    length, vocabulary = sizes(about)
    tokens = _tokens(spec, file, vocabulary if isinstance(vocabulary, int) else None)
    if isinstance(length, int) and len(tokens) > length:
        raise spec.wrong(f"{len(tokens)} words were given, output {about.output} has {length} positions; give fewer")

    def made(outputs: Outputs) -> SpecResult:
        y = _array(outputs, about)
        said = y.argmax(2) if not tokens else np.full(y.shape[:2], -1)
        said[:, : len(tokens)] = tokens or said[:, :0]
        slopes = cotangents.words(y, said, kind)
        scores = cotangents.log_softmax(y) if kind == "log_probability" else y
        values = np.take_along_axis(scores, np.maximum(said, 0)[:, :, None], 2)[:, :, 0] * (said >= 0)
        spoken = [[file.label(int(k), y.shape[2]).removeprefix("class ") for k in row if k >= 0] for row in said]
        if spec.kind == "caption":
            whole = tuple((f"caption {' '.join(row)}",) for row in spoken)
            return SpecResult({about.output: slopes.sum(1, keepdims=True)}, whole, values.sum(1, keepdims=True))
        count = len(tokens) or y.shape[1]
        names = tuple(tuple(f"word {i + 1}: {word}" for i, word in enumerate(row)) for row in spoken)
        return SpecResult({about.output: slopes[:, :count]}, names, values[:, :count])

    return made


def _tokens(spec: Spec, file: File, count: int | None) -> list[int]:
    classes = file.classes(spec, count)
    return [index(spec, word, classes) for word in spec.words]


# ---- shared


def _array(outputs: Outputs, about: Cotangent) -> Double:
    """One output, [N, ...], without axes of one element at its end."""
    y = np.asarray(outputs[about.output], np.float64)
    y = y if about.batched else y[None]
    return y.reshape(y.shape[: 1 + len(sizes(about))])


def _linear(c: Float, y: Double) -> Double:
    """[N, T]: sum_i c[n, t, i] y[n, i]."""
    return np.asarray(np.einsum("nti,ni->nt", c.reshape(*c.shape[:2], -1).astype(np.float64), y.reshape(len(y), -1)))
