"""The search for a caption against all captions there are, by a model whose probabilities are a table."""

import itertools

import numpy as np
import pytest

from fastcam.captions.search import search

START, END, WORDS = 1, 2, 6


class Table:
    """A model of captions: the next word's log-probabilities depend on the two words before, at random."""

    def __init__(self, seed):
        scores = 2 * np.random.default_rng(seed).standard_normal((WORDS, WORDS, WORDS))
        self.logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        self.rows = np.zeros((1, 1), np.int64)

    def advance(self, words, parents):
        self.rows = np.concatenate([self.rows[parents], words[:, None]], 1)
        return self.logs[self.rows[:, -2], self.rows[:, -1]]

    def score(self, tokens):
        said = [0, START, *tokens]
        return sum(self.logs[a, b, c] for a, b, c in zip(said, said[1:], said[2:]))


def every(most):
    spoken = [word for word in range(WORDS) if word not in (0, START, END)]
    for length in range(most + 1):
        for words in itertools.product(spoken, repeat=length):
            yield (*words, END)


@pytest.mark.parametrize("seed", range(12))
def test_a_beam_as_wide_as_all_captions_finds_the_likeliest(seed):
    table = Table(seed)
    found = search(table.advance, START, END, (0, START), 400, 4)
    best = max(every(4), key=table.score)
    assert found.tokens == best
    assert found.score == pytest.approx(table.score(best), abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_a_beam_of_one_takes_the_likeliest_word_at_each_step(seed):
    table = Table(seed)
    wanted, before = [], (0, START)
    while len(wanted) < 5 and (not wanted or wanted[-1] != END):
        logs = table.logs[before].copy()
        logs[[0, START]] = -np.inf
        wanted.append(int(logs.argmax()))
        before = (before[1], wanted[-1])
    found = search(table.advance, START, END, (0, START), 1, 4)
    assert found.tokens == tuple(wanted) or (wanted[-1] != END and found.tokens == tuple(wanted[:4]))
    assert found.score == pytest.approx(table.score(found.tokens), abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_a_wider_beam_keeps_to_the_most_words_and_follows_the_right_rows(seed):
    table = Table(seed)
    found = search(table.advance, START, END, (0, START), 3, 4)
    assert len([word for word in found.tokens if word != END]) <= 4
    assert not {0, START} & {*found.tokens}
    assert found.score == pytest.approx(table.score(found.tokens), abs=1e-12)
