"""The experiment on texts: its archive, its split, its training, and where heat and falls are counted."""

from __future__ import annotations

import io
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from fastcam import Explainer, FastcamError
from fastcam.evaluation.statistics import Ratios, weights_of
from fastcam_bench.paper.texts.__main__ import Words, add_deletion, add_ratings, agreement, explained, measure
from fastcam_bench.paper.texts.archive import LEXICON, Snippet, read
from fastcam_bench.paper.texts.network import TextCnn
from fastcam_bench.paper.texts.training import UNKNOWN, tokenizer_of, train, write

pytest.importorskip("tokenizers", reason="needs the library tokenizers")
FILES = {
    "movieReviewSnippets_GroundTruth.txt": "1\t2.5\tA warm &amp; funny   film\r\n2\t-3.1\tdull film\r\n3\t.2\tso\n",
    "amazonReviewSnippets_GroundTruth.txt": "1_1\t-0.9\tbroken player\n",
    "nytEditorialSnippets_GroundTruth.txt": "1_1\t0.4\tThe plan.\n1_2\t1.5\tA holiday\n",
    "tweets_GroundTruth.txt": "1\t2.7\tlove   it\n",
    LEXICON: "warm\t1.5\t0.5\t[1, 2]\ndull\t-1.7\t0.6\t[-1]\nmeh\t-0.4\t0.6\t[0]\nb\xfcr\t-0.3\t0.2\t[1]\n",
    "other.pdf": "not read",
}
WORDS = {"good": ("warm", "funny", "lovely", "fine"), "bad": ("dull", "broken", "poor", "sad")}
NEUTRAL = ("the", "film", "a", "player", "is", "and", "plan", "it")


def packed(path, files=FILES):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for name, text in files.items():
            content = text.encode("latin-1")
            member = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
    path.with_suffix(".tar.gz").write_bytes(inner.getvalue())
    return path


def written(count, seed):
    """Texts of eight words, of which one says the class."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        words, label = list(rng.choice(NEUTRAL, 8)), int(rng.integers(2))
        words[rng.integers(8)] = str(rng.choice(WORDS["good" if label else "bad"]))
        found.append(Snippet(" ".join(words), label, "films"))
    return found


@pytest.fixture(scope="module")
def trained():
    texts = written(400, 0)
    tokenizer = tokenizer_of(texts)
    return train(texts, tokenizer, 6), tokenizer


@pytest.fixture(scope="module")
def explainer(trained, tmp_path_factory):
    return Explainer(write(*trained, tmp_path_factory.mktemp("texts")))


def test_the_archive_has_clear_snippets_and_strong_words(tmp_path):
    path = packed(tmp_path / "v.zip")
    found = read(path)
    assert [(one.text, one.label, one.source) for one in found.snippets] == [
        ("A warm & funny film", 1, "films"), ("dull film", 0, "films"), ("broken player", 0, "products"),
        ("A holiday", 1, "editorials"), ("love it", 1, "tweets"),
    ]  # fmt: skip
    assert found.lexicon == {"warm": 1.5, "dull": -1.7}
    assert read(path.with_suffix(".tar.gz")) == found


def test_what_is_not_that_archive_is_one_line(tmp_path):
    (tmp_path / "no.zip").write_bytes(b"PK")
    packed(tmp_path / "part.zip", {LEXICON: FILES[LEXICON]})
    packed(tmp_path / "bad.zip", FILES | {"tweets_GroundTruth.txt": "no tabs\n"})
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as package:
        package.writestr("readme", "")
    for name in ("none.zip", "no.zip", "part.zip", "bad.zip", "other.zip"):
        with pytest.raises(FastcamError, match="run pip download vaderSentiment") as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)


def test_copies_of_a_text_fall_to_one_side_of_the_split():
    texts = [f"text number {k}" for k in range(2000)]
    held = [Snippet(one, 1, "films").held_out for one in texts]
    assert [Snippet(f"  {one.upper()} !!", 0, "tweets").held_out for one in texts] == held
    assert abs(np.mean(held) - 0.2) < 0.03


def test_words_are_known_that_are_there_twice():
    tokenizer = tokenizer_of([Snippet("A dull Film", 0, "films"), Snippet("a film , a film", 1, "films")])
    assert tokenizer.words(tokenizer.encode(["A dull film"]).ids[0]) == ["a", "<unk>", "film"]


def test_training_finds_the_words_that_say_the_class_and_heat_lies_on_them(trained, explainer):
    net, tokenizer = trained
    lexicon = dict.fromkeys(WORDS["good"], 2.0) | dict.fromkeys(WORDS["bad"], -2.0)
    texts = written(60, 1)
    ids = tokenizer.encode([one.text for one in texts]).ids
    with torch.no_grad():
        right = net(torch.from_numpy(ids)).argmax(1).numpy() == [one.label for one in texts]
    assert right.mean() > 0.95
    figures = measure(explainer, tokenizer, texts, lexicon, "hirescam")
    assert figures["heat on words rated like the class"]["value"] > 0.5
    assert figures["words rated like the class (chance)"]["value"] == pytest.approx(1 / 8)
    assert "heat on words rated against the class" not in figures
    assert (
        figures["another class without the hottest words"]["value"]
        > 0.2 + (figures["another class without random words"]["value"])
    )


def test_maps_equal_autograd(trained, explainer):
    net, tokenizer = trained
    texts = written(10, 2)
    assert agreement(net, explainer, tokenizer, texts) < 1e-4
    assert agreement(TextCnn(tokenizer.size, 5).eval(), explainer, tokenizer, texts) > 0.01


def test_heat_is_counted_by_the_sign_of_the_class():
    """Three rated words and one without, by hand."""
    heat = np.array([[0.2, 0.6, 0.0, 0.2], [0.5, 0.0, 0.25, 0.25]])
    words = Words(heat, np.array([2.0, -1.5, 3.0, 0.0]), predicted=1)
    ratios = Ratios()
    add_ratings(ratios, words, weights_of("0"))
    figures = {name: one.value for name, one in ratios.figures().items()}
    assert figures == pytest.approx({
        "maps of the predicted class with heat": 1, "heat on words rated like the class": 0.75,
        "words rated like the class (chance)": 0.5, "hottest word is rated like the class": 1,
        "heat on words rated against the class": 0, "words rated against the class (chance)": 0.25,
        "either class, of the heat on rated words: on those like it": (0.6 / 0.8 + 1) / 2,
        "either class, of the rated words: those like it (chance)": (1 / 3 + 2 / 3) / 2,
    })  # fmt: skip


def test_the_fall_is_that_of_the_network_without_the_hottest_words(trained, explainer):
    net, tokenizer = trained
    text = written(1, 3)[0].text
    ids = tokenizer.encode([text]).ids[0]
    words = explained(explainer, text, {}, "gradcam")
    ratios = Ratios()
    add_deletion(ratios, explainer, ids, words, weights_of("0"), 0)
    hidden = ids.copy()
    hidden[int(words.heat[words.predicted].argmax())] = UNKNOWN  # one of eight words
    with torch.no_grad():
        before, after = net(torch.from_numpy(np.stack([ids, hidden]))).softmax(1)[:, words.predicted]
    found = ratios.figures()["fall of the probability without the hottest words"].value
    assert found == pytest.approx(float(before - after), abs=1e-5)
