"""Captions by a tokenizer: numbers to text and back, with the library tokenizers."""

import pytest

from fastcam import FastcamError
from fastcam.captioning import Captioning
from fastcam.captions.vocabulary import Pieces, Words
from fastcam.language.word_level import word_level

WORDS = ["<pad>", "<start>", "<end>", "a", "red", "star"]
ABOUT = Captioning("one file", "ids", "logits", 1, 2, 0)


@pytest.fixture
def pieces():
    pytest.importorskip("tokenizers", reason="needs the library tokenizers")
    from fastcam.language.tokenizer import Tokenizer

    return Pieces(Tokenizer(word_level(WORDS, unknown=None, start="<start>", end="<end>")), ABOUT)


def test_a_caption_goes_to_numbers_and_back_without_the_words_that_begin_and_end_it(pieces):
    assert pieces.tokens("a red star") == [3, 4, 5]
    assert pieces.text([3, 4, 5]) == "a red star"
    assert [pieces.word(one) for one in (3, 5, 2)] == ["a", "star", "<end>"]


def test_a_plain_list_of_words_says_the_same():
    words = Words(tuple(WORDS))
    assert words.tokens("a red star") == [3, 4, 5] and words.text([3, 4, 5]) == "a red star"
    assert words.word(9) == "?9"


def test_words_that_a_tokenizer_does_not_have_are_one_line(pieces):
    with pytest.raises(FastcamError, match="blue"):
        pieces.tokens("a blue star")
    with pytest.raises(FastcamError, match="the caption is empty"):
        pieces.tokens("  ")
