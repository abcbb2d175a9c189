"""Texts to ids: the library's own encoding, and rules counted by hand, are the oracles."""

import json

import numpy as np
import pytest

from fastcam import FastcamError
from fastcam.input_roles import TokenizerFile
from fastcam.language.tokenizer import Tokenizer, open_tokenizer, read_tokenizer
from fastcam.language.word_level import word_level, write_word_level

tokenizers = pytest.importorskip("tokenizers", reason="texts need the library tokenizers")
WORDS = ["<pad>", "<unk>", "<s>", "</s>", "what", "is", "this", "?", "a", "cat"]


def plain(**rules):
    return Tokenizer(word_level(WORDS, **rules))


def test_words_become_ids_and_a_mask():
    found = plain(length=7, start="<s>", end="</s>").encode(["What is this?", "a cat"])
    assert found.ids.tolist() == [[2, 4, 5, 6, 7, 3, 0], [2, 8, 9, 3, 0, 0, 0]]
    assert found.mask.tolist() == [[1] * 6 + [0], [1] * 4 + [0] * 3]
    assert found.types.sum() == 0 and found.unknown == () and found.cut == 0


def test_ids_and_masks_are_those_of_the_library():
    """With a rule for both lengths, the library pads and cuts by itself."""
    texts = ["what is this ?", "a", "a cat is a cat is this a cat"]
    content = json.loads(word_level(WORDS, start="<s>", end="</s>"))
    for direction in ("Right", "Left"):
        content["padding"] |= {"strategy": {"Fixed": 8}, "direction": direction}
        content["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
        theirs = tokenizers.Tokenizer.from_str(json.dumps(content)).encode_batch(texts)
        ours = Tokenizer(json.dumps(content)).encode(texts)
        assert ours.ids.tolist() == [one.ids for one in theirs]
        assert ours.mask.tolist() == [one.attention_mask for one in theirs]
        assert ours.cut == 1


def test_the_length_of_the_network_wins():
    assert plain(length=4).encode(["a"], 6).ids.shape == (1, 6)
    assert plain().encode(["a", "a cat"]).ids.tolist() == [[8, 0], [8, 9]]


def test_multiples_of_a_length():
    content = json.loads(word_level(WORDS))
    content["padding"]["pad_to_multiple_of"] = 4
    assert Tokenizer(json.dumps(content)).encode(["a cat is this cat"]).ids.shape == (1, 8)


def test_words_back_to_a_text():
    tokenizer = plain(length=5, end="</s>")
    ids = tokenizer.encode(["a cat"]).ids[0]
    assert tokenizer.decode(ids) == "a cat"
    assert tokenizer.words(ids) == ["a", "cat", "</s>", "<pad>", "<pad>"]
    assert tokenizer.pieces("A cat?") == [("a", (0, 1)), ("cat", (2, 5)), ("?", (5, 6)), ("</s>", (0, 0))]
    assert tokenizer.id_of("cat") == 9 and tokenizer.id_of("horse") is None and tokenizer.size == len(WORDS)


def test_unknown_words_are_named():
    assert plain().encode(["a horse, a cat"]).unknown == ("horse", ",")


def without(name):
    content = json.loads(word_level(WORDS))
    content[name] = None
    return Tokenizer(json.dumps(content))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: plain().encode(["a cat is this"], 3), r"has 4 tokens, and the network takes 3; shorten it"),
        (lambda: plain().encode([""]), "has no words"),
        (lambda: plain().encode([]), "no texts given"),
        (lambda: plain().encode([5]), "a text is 5; give words"),
        (lambda: without("padding").encode(["a", "a cat"], None, masked=False), "texts of 1 and 2 tokens"),
        (lambda: Tokenizer("{}", "x.json"), "x.json: not a tokenizer"),
        (lambda: Tokenizer(word_level(["<pad>", "a"])).encode(["b"]), "cannot split 'b'"),
        (lambda: word_level(["a"]), "the vocabulary has no '<pad>'"),
        (lambda: word_level(["<pad>", "a", "a"]), "words, each once"),
        (lambda: word_level({"<pad>": 0, "a": -1}), "words, each once"),
        (lambda: read_tokenizer("missing.json"), "missing.json: cannot be read"),
        (lambda: open_tokenizer(None, None, "m.onnx"), "m.onnx has no tokenizer"),
        (lambda: open_tokenizer(TokenizerFile("0", "t.json"), None, "m.onnx"), "does not lie beside it"),
    ],
)
def test_bad_input_is_one_line(make, words):
    with pytest.raises(FastcamError, match=words):
        make()


def test_a_tokenizer_beside_a_file_is_the_one_it_was_exported_with(tmp_path):
    write_word_level(tmp_path / "t.json", WORDS)
    about = TokenizerFile(read_tokenizer(tmp_path / "t.json").sha256, "t.json")
    assert open_tokenizer(about, tmp_path, "m.onnx").size == len(WORDS)
    write_word_level(tmp_path / "t.json", WORDS[::-1])
    with pytest.raises(FastcamError, match=r"not the tokenizer that m.onnx was exported with"):
        open_tokenizer(about, tmp_path, "m.onnx")
    (tmp_path / "t.json").unlink()
    with pytest.raises(FastcamError, match=r"the tokenizer of m.onnx is missing"):
        open_tokenizer(about, tmp_path, "m.onnx")


def test_a_text_without_its_own_filling_word_takes_a_known_one():
    content = json.loads(word_level(WORDS))
    content["padding"] = None
    assert Tokenizer(json.dumps(content)).encode(["a"], 3).ids.tolist() == [[8, 0, 0]]
    content["model"]["vocab"] = {"a": 0, "b": 1}
    content["added_tokens"], content["model"]["unk_token"] = [], "a"
    with pytest.raises(FastcamError, match="no rule for filling up 1 tokens to 3"):
        Tokenizer(json.dumps(content)).encode(["a"], 3)


def test_it_may_be_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(FastcamError, match=r"pip install fastcam\[language\]"):
        Tokenizer(word_level(WORDS))


def test_one_row_a_text_whatever_the_others_are():
    tokenizer = plain(length=6)
    together = tokenizer.encode(["a cat", "what is this ?"]).ids
    np.testing.assert_array_equal(together[1], tokenizer.encode(["what is this ?"]).ids[0])


def siglip(folder, **settings):
    """A tokenizer.json without a rule for filling up, and SigLIP's settings beside it."""
    content = json.loads(word_level(WORDS)) | {"padding": None}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    told = {"tokenizer_class": "SiglipTokenizer", "pad_token": "cat", "model_max_length": 7, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder / "tokenizer.json"


@pytest.mark.parametrize("pad", ["cat", {"content": "cat", "lstrip": False}])
def test_texts_of_siglip_are_filled_up_as_its_settings_say(tmp_path, pad):
    path = siglip(tmp_path, pad_token=pad)
    rules = tokenizers.Tokenizer.from_file(str(path))
    rules.enable_padding(length=7, pad_id=WORDS.index("cat"), pad_token="cat")
    for texts in (["a"], ["what is this ?", "a"]):
        found = read_tokenizer(path).encode(texts, None, masked=False)
        np.testing.assert_array_equal(found.ids, [one.ids for one in rules.encode_batch(texts)])
        np.testing.assert_array_equal(found.mask, [one.attention_mask for one in rules.encode_batch(texts)])


def test_what_has_its_own_rule_or_is_not_siglips_stays_as_it_is(tmp_path):
    for settings in ({"tokenizer_class": "CLIPTokenizer"}, {"tokenizer_class": None}):
        path = siglip(tmp_path, **settings)
        assert read_tokenizer(path).content == path.read_text()
    siglip(tmp_path)
    write_word_level(tmp_path / "tokenizer.json", WORDS, length=9)
    assert read_tokenizer(tmp_path / "tokenizer.json").encode(["a"], None, masked=False).ids.shape == (1, 9)


@pytest.mark.parametrize("settings", [{"pad_token": "none"}, {"pad_token": None}, {"model_max_length": 10**30}])
def test_siglips_settings_without_a_word_or_a_length_are_refused(tmp_path, settings):
    with pytest.raises(FastcamError, match=r"names no padding word .*; give a tokenizer.json with padding"):
        read_tokenizer(siglip(tmp_path, **settings))
