"""How texts of SigLIP are filled up: its tokenizer.json does not say it, the file of settings beside it does.

SigLIP's text encoder takes no mask, and was trained on texts of one length, which a padding word fills up. Hugging
Face's ``tokenizer_config.json`` names that word and the length (Zhai et al., "Sigmoid loss for language image
pre-training", ICCV 2023, fills texts up to 64).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastcam import input_files
from fastcam.errors import FastcamError, shown
from fastcam.typed_fields import parse_json

CONFIG = "tokenizer_config.json"
LONGEST = 4096
"""The most words that a text is filled up to; a larger number in the settings stands for none."""


def with_rule(content: str, config: Path) -> str:
    """The text of a tokenizer.json, with SigLIP's rule for filling up where ``config`` is of SigLIP and it has none.

    Raises:
        FastcamError: the settings are SigLIP's, and name no padding word or length.
    """
    if not config.is_file():
        return content
    try:
        about, rules = parse_json(input_files.read_text(config, "give a JSON file")), parse_json(content)
    except ValueError:
        return content  # the tokenizer's own reader says what is wrong with it
    named = str(about.get("tokenizer_class", "")) if isinstance(about, dict) else ""
    if not named.lower().startswith("siglip") or not isinstance(rules, dict) or rules.get("padding") is not None:
        return content
    word, length = about.get("pad_token"), about.get("model_max_length")
    word = str(word.get("content") if isinstance(word, dict) else word)
    number = _numbers(rules).get(word)
    if number is None or not isinstance(length, int) or not 0 < length <= LONGEST:
        raise FastcamError(
            f"{shown(config)}: texts of SigLIP are filled up, and it names no padding word of the tokenizer or no "
            "length (pad_token, model_max_length); give a tokenizer.json with padding (enable_padding of tokenizers)"
        )
    return json.dumps(rules | {"padding": _padding(word, number, length)}, ensure_ascii=False)


def _numbers(rules: dict[str, Any]) -> dict[Any, int]:
    """The ids of words."""
    model = rules.get("model")
    words = model.get("vocab") if isinstance(model, dict) else None
    found: dict[Any, int] = {}
    if isinstance(words, dict):
        found |= words
    elif isinstance(words, list):  # of pieces with their probabilities
        found |= {one[0]: number for number, one in enumerate(words) if isinstance(one, list) and one}
    return found | {one["content"]: one["id"] for one in rules.get("added_tokens") or () if isinstance(one, dict)}


def _padding(word: str, number: int, length: int) -> dict[str, Any]:
    return {
        "strategy": {"Fixed": length}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": number,
        "pad_type_id": 0, "pad_token": word,
    }  # fmt: skip
