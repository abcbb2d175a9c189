"""The three forms of a captioner's decoder: scores of the next words, and the way of a gradient back to the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastcam.captioning import Captioning
from fastcam.errors import FastcamError
from fastcam.explainer import Explainer
from fastcam.image.preprocess import Float
from fastcam.runtime.session import one_line, onnxruntime, ort_errors
from fastcam.targets.arrays import Double

COTANGENT, GRADIENT = "cotangent.", "grad."
"""Prefixes of what :func:`fastcam_export.vjp` adds to a decoder."""
Ids = NDArray[np.int64]


class Decoder(Protocol):
    """A captioner's words for one picture."""

    def advance(self, words: Ids, parents: Ids) -> Double:
        """Scores [B, V] of the word behind ``words`` [B], each of which follows row ``parents`` of the call before.

        The first call begins captions: of parents it reads nothing.
        """

    def scores(self, ids: Ids) -> Double:
        """Scores [L, V] of the next word behind each of ``ids`` [L], of which the first is the start."""

    def cotangents(self, ids: Ids, slope: Float) -> dict[str, Float]:
        """float32 [1, T, ...] by output of the explained file, of scalars with these derivatives [T, L, V]."""

    def inputs(self, ids: Ids) -> dict[str, Any] | None:
        """What the explained file takes beside the picture."""


class OneFile:
    """A file that takes a picture and the words so far. Scores of the picture's own tokens may stand before them."""

    def __init__(self, explainer: Explainer, about: Captioning, picture: Any) -> None:
        self._explainer, self._about = explainer, about
        self._picture = picture
        self._tensor: Any = None
        self._before = 0  # scores that belong to no word
        self._prefix: Ids = np.zeros((1, 0), np.int64)

    def advance(self, words: Ids, parents: Ids) -> Double:
        self._prefix = np.concatenate([self._prefix[parents], words[:, None]], 1)
        return self._run(self._prefix)[:, self._prefix.shape[1] - 1]

    def scores(self, ids: Ids) -> Double:
        return self._run(ids[None])[0, : len(ids)]

    def cotangents(self, ids: Ids, slope: Float) -> dict[str, Float]:
        slope = _filled(slope, self._about.length)
        return {self._about.scores: np.pad(slope, ((0, 0), (self._before, 0), (0, 0)))[None]}

    def inputs(self, ids: Ids) -> dict[str, Any]:
        return _words(ids[None], self._about)

    def _run(self, prefixes: Ids) -> Double:
        """Scores [B, L, V], by the picture as it went into the network the first time."""
        if self._tensor is None:
            one = self._explainer.predict(self._picture, self.inputs(prefixes[0]))
            self._tensor = one.runs[0].batch.tensor
            if len(prefixes) == 1:
                return self._of_words(one.outputs, prefixes)
        pictures = np.repeat(np.asarray(self._tensor), len(prefixes), 0)
        return self._of_words(self._explainer.predict(pictures, _words(prefixes, self._about)).outputs, prefixes)

    def _of_words(self, outputs: Mapping[str, Any], prefixes: Ids) -> Double:
        """The scores that stand behind words, the last ones."""
        found = np.asarray(outputs[self._about.scores], np.float64)
        self._before = found.shape[1] - (self._about.length or prefixes.shape[1])
        if self._before < 0:
            raise FastcamError(
                f"the captioner gives {found.shape[1]} scores for {prefixes.shape[1]} words; export one that scores "
                "the next word behind each of them"
            )
        return found[:, self._before :]


class Sequence:
    """A decoder that takes all words so far, and what the encoder gave of the picture."""

    def __init__(self, session: Any, name: str, about: Captioning, encoded: Mapping[str, Float]) -> None:
        self._run, self._about = Rows(session, name), about
        self._encoded = encoded
        self._prefix: Ids = np.zeros((1, 0), np.int64)

    def advance(self, words: Ids, parents: Ids) -> Double:
        self._prefix = np.concatenate([self._prefix[parents], words[:, None]], 1)
        return self._scores(self._prefix)[:, self._prefix.shape[1] - 1]

    def scores(self, ids: Ids) -> Double:
        return self._scores(ids[None])[0, : len(ids)]

    def cotangents(self, ids: Ids, slope: Float) -> dict[str, Float]:
        rows = _words(ids[None], self._about) | dict(self._encoded)
        feed = {name: np.repeat(array, len(slope), 0) for name, array in rows.items()}
        feed[COTANGENT + self._about.scores] = _filled(slope, self._about.length)
        fed = self._about.fed
        found = self._run(feed, [GRADIENT + name for name in fed.values()])
        return {output: found[GRADIENT + name][None] for output, name in fed.items()}

    def inputs(self, ids: Ids) -> None:
        return None

    def _scores(self, prefixes: Ids) -> Double:
        encoded = {name: np.repeat(array, len(prefixes), 0) for name, array in self._encoded.items()}
        found = self._run(_words(prefixes, self._about) | encoded, [self._about.scores])
        return np.asarray(found[self._about.scores], np.float64)


class Steps:
    """A decoder that takes one word at a time, and the state that the word before left."""

    def __init__(self, session: Any, name: str, about: Captioning, encoded: Mapping[str, Float]) -> None:
        self._run, self._about = Rows(session, name), about
        self._encoded = {**encoded, **_zeros(self._run, about, encoded)}
        self._links = {one.input: one.output for one in about.state}
        self._state = dict(self._encoded)

    def advance(self, words: Ids, parents: Ids) -> Double:
        state = {name: array[parents] for name, array in self._state.items()}
        found = self._step(words, state)
        self._state = state | {name: found[output] for name, output in self._links.items()}
        return _of_step(found[self._about.scores])

    def scores(self, ids: Ids) -> Double:
        return np.concatenate([_of_step(found[self._about.scores]) for _, found in self._all(ids)])

    def cotangents(self, ids: Ids, slope: Float) -> dict[str, Float]:
        """Back through time, all targets at once: a run for each word, from the last one to the first."""
        runs, count = self._all(ids), len(slope)
        last = runs[-1][1]
        coming = {name: np.zeros((count, *last[name].shape[1:]), np.float32) for name in self._links.values()}
        total: dict[str, Float] = {}
        names = dict.fromkeys([*self._about.fed.values(), *self._links])
        for at in reversed(range(len(ids))):
            state, found = runs[at]
            own = slope[:, at].reshape(count, *found[self._about.scores].shape[1:])
            feed = {name: np.repeat(array, count, 0) for name, array in state.items()}
            feed |= {COTANGENT + output: array for output, array in coming.items()}
            feed[COTANGENT + self._about.scores] = own
            feed[self._about.words] = self._word(np.repeat(ids[at : at + 1], count))
            back = self._run(feed, [GRADIENT + name for name in names])
            for name in self._about.fed.values():
                if name not in self._links or at == 0:  # a state is the encoder's at the first word alone
                    total[name] = total.get(name, 0) + back[GRADIENT + name]
            coming = {output: back[GRADIENT + name] for name, output in self._links.items()}
        return {output: total[name][None] for output, name in self._about.fed.items()}

    def inputs(self, ids: Ids) -> None:
        return None

    def _all(self, ids: Ids) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """What went into the decoder at each word, and what came out."""
        state, runs = dict(self._encoded), []
        for word in ids:
            found = self._step(np.array([word]), state)
            runs.append((state, found))
            state = state | {name: found[output] for name, output in self._links.items()}
        return runs

    def _step(self, words: Ids, state: Mapping[str, Any]) -> dict[str, Any]:
        feed = {self._about.words: self._word(words), **state}
        return self._run(feed, [self._about.scores, *self._links.values()])

    def _word(self, words: Ids) -> Ids:
        """As the decoder takes them: [B], or [B, 1]."""
        return words if self._run.rank(self._about.words) == 1 else words[:, None]


class Rows:
    """A decoder's session; of one whose batch is fixed to one, row by row."""

    def __init__(self, session: Any, name: str) -> None:
        self._session, self._name = session, name
        self.inputs = {value.name: value for value in session.get_inputs()}
        self._outputs = {value.name: value for value in session.get_outputs()}

    def rank(self, name: str) -> int:
        """How many axes an input has."""
        return len(self.inputs[name].shape)

    def __call__(self, feed: Mapping[str, Any], wanted: list[str]) -> dict[str, Any]:
        """The outputs ``wanted`` of rows; inputs that are not fed are cotangents of zero."""
        rows = len(next(iter(feed.values())))
        feed = {name: self._cast(name, array) for name, array in feed.items()}
        feed |= {name: self._no_cotangent(name, feed) for name in self.inputs if name not in feed}
        sizes = {value.shape[0] for value in self.inputs.values() if value.shape}
        parts = [slice(i, i + 1) for i in range(rows)] if 1 in sizes and rows > 1 else [slice(0, rows)]
        try:
            found = [self._session.run(wanted, {name: array[part] for name, array in feed.items()}) for part in parts]
        except ort_errors(onnxruntime()) as error:
            raise FastcamError(f"{self._name}: ONNX Runtime could not run it ({one_line(error)})") from error
        return dict(zip(wanted, (np.concatenate(values) for values in zip(*found)), strict=True))

    def _no_cotangent(self, name: str, feed: Mapping[str, Any]) -> Any:
        """Zeros for a cotangent that a run does not need, in a size that its output has."""
        if not name.startswith(COTANGENT):
            raise FastcamError(f"{self._name} has an input {name!r} that nobody gives; export the captioner again")
        plain = {name: array for name, array in feed.items() if not name.startswith(COTANGENT)}
        named = {
            side: have
            for given, array in plain.items()
            for side, have in zip(self.inputs[given].shape, array.shape)
            if isinstance(side, str)
        }
        rows = len(next(iter(plain.values())))
        shape = [
            named.get(side, rows if axis == 0 else 1) if not isinstance(side, int) else side
            for axis, side in enumerate(self.inputs[name].shape)
        ]
        return np.zeros(shape, _dtype(self.inputs[name]))

    def _cast(self, name: str, array: Any) -> Any:
        return np.ascontiguousarray(array, _dtype(self.inputs[name]))


def _dtype(value: Any) -> Any:
    return {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}.get(
        value.type, np.int32 if value.type == "tensor(int32)" else np.int64
    )


def _zeros(run: Rows, about: Captioning, encoded: Mapping[str, Float]) -> dict[str, Float]:
    """The first state, where the encoder does not give it."""
    absent = [one.input for one in about.state if one.input not in encoded]
    shapes = {name: [1, *run.inputs[name].shape[1:]] for name in absent}
    for name, shape in shapes.items():
        if not all(isinstance(side, int) for side in shape):
            raise FastcamError(f"nothing tells the size of the decoder's state {name!r}; export it with fixed sizes")
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def _of_step(scores: Any) -> Double:
    """[B, V] of [B, V] or [B, 1, V]."""
    array = np.asarray(scores, np.float64)
    return array.reshape(len(array), array.shape[-1])


def _words(prefixes: Ids, about: Captioning) -> dict[str, Ids]:
    """The inputs of words: of a fixed length filled up, with ones where a word counts."""
    ids = prefixes
    mask = np.ones_like(ids)
    if about.length is not None:
        more = ((0, 0), (0, about.length - ids.shape[1]))
        ids, mask = np.pad(ids, more, constant_values=about.pad or 0), np.pad(mask, more)
    return {about.words: ids, **dict.fromkeys(about.masks, mask)}


def _filled(slope: Float, length: int | None) -> Float:
    """Cotangents [T, L, V], with zeros behind the words of a caption."""
    return slope if length is None else np.pad(slope, ((0, 0), (0, length - slope.shape[1]), (0, 0)))
