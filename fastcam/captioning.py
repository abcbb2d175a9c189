"""What an exported captioner says of itself: how words come out of it, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastcam.typed_fields import BASE_NAME, NOT_EMPTY, Unfit, at_least

Form = Literal["one file", "sequence", "step"]


@dataclass(frozen=True)
class Link:
    """An input of the decoder that takes what an output gave.

    Attributes:
        input: name of the input.
        output: name of the output.
    """

    input: Annotated[str, NOT_EMPTY]
    output: Annotated[str, NOT_EMPTY]


@dataclass(frozen=True)
class Captioning:
    """How a file, or an encoder and its decoder, say a caption.

    Attributes:
        form: "one file" takes a picture and the words so far, and gives the scores of the next word behind each of
            them. Of two files the decoder does that with what the encoder gave of the picture: for a "sequence" of
            words, or one "step" at a time, with a state.
        words: the input of words, int64 [N, L]; of a step [N, 1] or [N].
        scores: the output of the words' scores, before a softmax: [N, L, V]; of a step [N, V] or [N, 1, V].
        start, end: the word that begins and the one that ends a caption, as numbers.
        pad: what fills up a sequence of fixed length, and is never said; None where nothing does.
        length: how many words a sequence has; None where that is free.
        vocabulary: the words by number; empty where the file does not say them.
        masks: inputs that are 1 for each word, int64 [N, L].
        encoded: of two files, what the decoder takes of the encoder's outputs.
        state: of steps, what a step takes of the outputs of the one before. The first takes what ``encoded`` says,
            else zeros.
        decoder: of two files, base name of the decoder with its gradient, which lies beside the encoder; "" where they
            were not written to files.
        sha256: hex digest of the decoder that both files name.
    """

    form: Form
    words: Annotated[str, NOT_EMPTY]
    scores: Annotated[str, NOT_EMPTY]
    start: Annotated[int, at_least(0)]
    end: Annotated[int, at_least(0)]
    pad: Annotated[int | None, at_least(0)] = None
    length: Annotated[int | None, at_least(1)] = None
    vocabulary: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    encoded: tuple[Link, ...] = ()
    state: tuple[Link, ...] = ()
    decoder: Annotated[str, BASE_NAME] = ""
    sha256: str = ""

    @property
    def two_files(self) -> bool:
        """Whether a decoder goes with the file."""
        return self.form != "one file"

    @property
    def decoder_mark(self) -> str:
        """What a decoder's metadata say of it: whose it is."""
        return f'{{"decoder": "{self.sha256}"}}'

    @property
    def fed(self) -> dict[str, str]:
        """Of two files, the decoder's input for each of the encoder's outputs that it takes."""
        return {one.output: one.input for one in self.encoded}

    def check(self) -> None:
        """Raise where fields contradict each other.

        Raises:
            Unfit: they do.
        """
        if self.two_files and not self.encoded:
            raise Unfit("captioning.encoded", self.encoded, "what the decoder takes of the encoder")
        for name in ("start", "end", "pad"):
            number = getattr(self, name)
            if self.vocabulary and number is not None and number >= len(self.vocabulary):
                raise Unfit(f"captioning.{name}", number, f"the number of one of the {len(self.vocabulary)} words")
