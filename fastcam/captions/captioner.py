"""Captioner: an exported captioner, ready to say what is in pictures, and where it looked for each word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from fastcam.captioning import Captioning
from fastcam.captions import decoders
from fastcam.captions.result import Caption
from fastcam.captions.search import search
from fastcam.captions.vocabulary import Vocabulary, vocabulary_of
from fastcam.errors import FastcamError, checked, typed
from fastcam.explainer import Explainer
from fastcam.image.preprocess import Float
from fastcam.labels import Labels
from fastcam.results.explanation import Explanation
from fastcam.runtime.inputs.base import Preprocess
from fastcam.runtime.session import Model, Providers, create_session, model_name
from fastcam.schema import METADATA_KEY
from fastcam.targets.arrays import Double, log_softmax
from fastcam.targets.resolved import cotangent_names
from fastcam.targets.sequences import word_scores

MOST = 20
"""Words of a caption, where neither the caller nor the file says how many."""


class Captioner:
    """Says a caption of a picture, and explains it: the whole caption, and each of its words.

    Safe to share between threads: a call keeps nothing.

    Args:
        model: path or bytes of a captioner that ``fastcam export --caption`` wrote: of the encoder where it is in two
            files.
        decoder: path or bytes of the decoder, where it is not the file beside ``model`` that this names.
        vocabulary: the words by number in any form of :mod:`fastcam.labels`, in place of the file's.
        tokenizer: path of a ``tokenizer.json``, in place of the file's.
        providers, threads, preprocess, options: of the Explainer, see :class:`fastcam.Explainer`.

    Raises:
        FastcamError: the file is no captioner, a decoder is missing or another's, or nothing tells the words.
    """

    @checked
    def __init__(
        self,
        model: Model,
        decoder: Model | None = None,
        vocabulary: Labels | None = None,
        providers: Providers = "auto",
        threads: int | None = None,
        preprocess: Preprocess = None,
        tokenizer: str | Path | None = None,
        **options: Any,
    ) -> None:
        self._name = model_name(model)
        self.explainer = Explainer(model, providers, threads, preprocess, **options)
        about = self.explainer.metadata.captioning
        if about is None:
            raise FastcamError(
                f"{self._name} is no captioner; export one with: fastcam export MODEL.onnx --caption start=1,end=2"
            )
        self.about: Captioning = about
        self._decoder = self._open(model, decoder, providers, threads)
        folder = None if isinstance(model, bytes) else Path(model).parent
        of_file = self.explainer.metadata
        self.vocabulary: Vocabulary = vocabulary_of(of_file, vocabulary, tokenizer, folder, self._name)

    def _open(self, model: Model, decoder: Model | None, providers: Providers, threads: int | None) -> Any:
        """The session of the decoder, and how messages call it; None of one file."""
        if not self.about.two_files:
            if decoder is not None:
                raise FastcamError(f"{self._name} holds its decoder; leave out {model_name(decoder)}")
            return None
        if decoder is None:
            if isinstance(model, bytes) or not self.about.decoder:
                raise FastcamError(f"{self._name} is an encoder; give its decoder as well")
            decoder = Path(model).with_name(self.about.decoder)
            if not decoder.is_file():
                raise FastcamError(f"{decoder}: the decoder of {self._name} is missing; put it there, or give its path")
        session = create_session(decoder, providers, threads)
        of = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")
        if of != self.about.decoder_mark:
            raise FastcamError(f"{model_name(decoder)} is not the decoder that was exported with {self._name}")
        return session, model_name(decoder)

    @checked
    def __call__(
        self,
        images: Any,
        beam: int = 1,
        most: int | None = None,
        captions: str | Sequence[str] | None = None,
        words: bool = True,
        method: str = "gradcam",
        options: Mapping[str, Any] | None = None,
    ) -> list[Caption]:
        """Caption pictures, and explain their captions.

        The whole caption is explained by the gradient of its log-probability, log p(word 1) + log p(word 2 | word 1) +
        ..., each word by that of its own, given the words before it. All of them are targets of one backward pass.

        Args:
            images: a picture or a list of them, see :meth:`fastcam.Explainer.__call__`.
            beam: captions that are followed at a time; 1 takes the likeliest word at each step.
            most: words at most; by default the length of the file's sequences, else 20.
            captions: explain these in place of what the model says: one for all pictures, or one for each.
            words: False explains the whole caption alone.
            method, options: see :meth:`fastcam.Explainer.__call__`.

        Returns:
            A caption for each picture.

        Raises:
            FastcamError: a picture, a word or a setting that cannot be used.
        """
        for name, value in (("beam", beam), ("most", most)):
            typed(name, value, Integral | NoneType, "a whole number")
            if value is not None and value < 1:
                raise FastcamError(f"{name} is {value}; give a whole number from 1 on")
        pictures = images if isinstance(images, list | tuple) else [images]
        if not pictures:
            raise FastcamError("no pictures given; give at least one")
        said = [captions] * len(pictures) if isinstance(captions, str | NoneType) else list(captions)
        if len(said) != len(pictures):
            raise FastcamError(f"{len(said)} captions for {len(pictures)} pictures; give one for each, or one for all")
        given = [None if text is None else self._tokens(text) for text in said]
        room = self.about.length
        most = min(most or room or MOST, room or most or MOST)
        return [
            self._caption(picture, tokens, beam, most, words, method, options)
            for picture, tokens in zip(pictures, given, strict=True)
        ]

    def _tokens(self, text: str) -> tuple[int, ...]:
        tokens = (*self.vocabulary.tokens(text), self.about.end)
        if self.about.length is not None and len(tokens) > self.about.length:
            raise FastcamError(
                f"the caption {text!r} has {len(tokens)} words, its end included; {self._name} takes "
                f"{self.about.length}"
            )
        return tokens

    def _caption(
        self, picture: Any, given: Any, beam: int, most: int, words: bool, method: str, options: Any
    ) -> Caption:
        decoder = self._decode(picture)
        about = self.about
        tokens = self._said(decoder, beam, most) if given is None else given
        ended = tokens[-1] == about.end
        spoken = tokens[:-1] if ended else tokens
        ids = np.array([about.start, *tokens[:-1]], np.int64)
        scores = _finite(decoder.scores(ids), self._name)
        slope, values = word_scores(scores[None], np.array(tokens), "log_probability", False)
        each, logs = slope[0], values[0]
        count = len(spoken) if words else 0
        cotangents = np.concatenate([each.sum(0, keepdims=True), each[:count]])
        numbered = (f"{i}: {self.vocabulary.word(one)}" for i, one in enumerate(spoken[:count], 1))
        explanation = self.explainer(
            picture,
            cotangent=decoder.cotangents(ids, cotangents.astype(np.float32)),
            inputs=decoder.inputs(ids),
            method=method,
            options=options,
        )
        explained = _named(explanation, ("the whole caption", *numbered), np.concatenate([[logs.sum()], logs[:count]]))
        text, pieces = self.vocabulary.text(spoken), tuple(map(self.vocabulary.word, spoken))
        return Caption(text, pieces, tuple(map(int, tokens)), tuple(map(float, logs)), ended, explained)

    def _said(self, decoder: decoders.Decoder, beam: int, most: int) -> tuple[int, ...]:
        """The words that the model says, as numbers."""
        about = self.about
        never = {about.start, *(() if about.pad is None else (about.pad,))}

        def advance(words: Any, parents: Any) -> Double:
            return log_softmax(_finite(decoder.advance(words, parents), self._name))

        tokens = search(advance, about.start, about.end, never, beam, most).tokens
        if not tokens:
            raise FastcamError(f"{self._name} says nothing of the picture: it scores no word but the one that begins")
        return tokens

    def _decode(self, picture: Any) -> decoders.Decoder:
        """The decoder, for one picture."""
        about = self.about
        if self._decoder is None:
            return decoders.OneFile(self.explainer, about, picture)
        outputs = self.explainer.predict(picture).outputs
        encoded: dict[str, Float] = {name: np.asarray(outputs[output]) for output, name in about.fed.items()}
        session, name = self._decoder
        if about.form == "step":
            return decoders.Steps(session, name, about, encoded)
        return decoders.Sequence(session, name, about, encoded)


def _named(explanation: Explanation, names: Sequence[str], values: Double) -> Explanation:
    """The explanation with the names of its targets, and their log-probabilities as scores."""
    return replace(explanation, targets=cotangent_names((tuple(names),)), scores=values[None].astype(np.float32))


def _finite(scores: Double, name: str) -> Double:
    if np.isnan(scores).any():
        raise FastcamError(f"{name} gives NaN as a word's score; check the picture's preprocessing and the weights")
    return scores
