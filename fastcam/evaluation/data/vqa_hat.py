"""VQA-HAT: where people looked to answer questions about COCO's photos; and any folder of such maps.

A map is a grey picture ``QUESTION.png``, or ``QUESTION_1.png``, ``QUESTION_2.png`` of several people, named by the
question's number; the brighter, the more attention. The questions are VQA's JSON as it is published, the answers too,
where they are there. Pictures are COCO's, ``COCO_val2014_000000000042.jpg``, or are called by their number alone.

Source: Das et al., "Human Attention in Visual Question Answering", EMNLP 2016; Antol et al., "VQA", ICCV 2015.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.errors import FastcamError, shown
from fastcam.evaluation.data.json_index import entries, utf8
from fastcam.evaluation.data.listed import Listed, chosen_split, folder_of, picture_at
from fastcam.evaluation.samples import Annotation, Attention, LeftOut, Sample
from fastcam.image.decode import eight_bits, read

WANTED = "give a folder with maps (vqahat_val/QUESTION_1.png), VQA's questions JSON and its pictures"
_MAP = re.compile(r"(?:qid_?)?(\d+)(?:_(\d+))?\.(?:png|jpg)")
_MAPS = ("vqahat_{split}", "{split}", "maps", "attention")
_PICTURES = ("{split}2014", "images/{split}2014", "images", "pictures")
_NAMES = ("COCO_{split}2014_{number:012}.jpg", "{number:012}.jpg", "{number}.jpg", "{number}.png")
SPLITS = ("train", "val")


@dataclass(frozen=True)
class _Question:
    text: str
    picture: int
    answer: str | None


def open_vqa_hat(
    path: Path, split: str | None = None, pictures: Path | None = None, annotations: Path | None = None
) -> Listed:
    """The questions that have maps, in the order of their numbers: a sample each, named by the question's number.

    A sample has the question as its text, the maps as its attention, and its answer, where there is one, as its label.

    Args:
        path: the folder of all of them.
        split: "train" or "val", where the folder has both.
        pictures: their folder, where it is not ``val2014`` or ``images`` in it.
        annotations: the folder of the maps, where it is not ``vqahat_val`` or ``maps`` in it.

    Raises:
        FastcamError: no such folder or split, no maps, or no questions that can be read.
    """
    folder = folder_of(path, WANTED.removeprefix("give "))
    splits = [one for one in SPLITS if (folder / f"vqahat_{one}").is_dir()]
    chosen = chosen_split(split, splits, shown(folder)) if splits or split is not None else ""
    at = annotations if annotations is not None else _inner(folder, _MAPS, chosen)
    maps = _maps(folder_of(at, "the folder of the maps") if at is not None else None, folder)
    home = folder_of(pictures, "the folder of the pictures") if pictures is not None else _inner(
        folder, _PICTURES, chosen
    )  # fmt: skip
    if home is None:
        raise FastcamError(f"{shown(folder)}: no folder val2014, images or pictures in it; say where (--pictures)")
    lost = LeftOut()
    questions = _questions(folder, chosen, set(maps))
    numbers = sorted(maps)
    for number in numbers:
        if number not in questions:
            lost.add("map of a question that is not there", maps[number][0].name)
    numbers = [number for number in numbers if number in questions]
    if not numbers:
        raise FastcamError(f"{shown(folder)}: no map is of a question in its JSON; {WANTED}")

    def sample(place: int, left_out: LeftOut) -> Sample | None:
        number = numbers[place]
        asked = questions[number]
        picture = _picture(home, asked.picture, chosen, left_out)
        if picture is None:
            return None
        mark = () if asked.answer is None else (Annotation(asked.answer),)
        return Sample(str(number), picture, mark, text=asked.text, read_attention=_reader(maps[number]))

    labels = sorted({one.answer for one in questions.values() if one.answer is not None})
    return Listed(
        f"vqa-hat:{path}{f' {chosen}' if chosen else ''}", labels, list(map(str, numbers)), sample, False, lost
    )


# ---- where things lie


def _inner(folder: Path, names: tuple[str, ...], split: str) -> Path | None:
    """The first of these folders that is there; ``{split}`` in a name is the split, else val."""
    for name in dict.fromkeys(name.format(split=one) for one in ([split] if split else SPLITS) for name in names):
        if (folder / name).is_dir():
            return folder / name
    return None


def _maps(home: Path | None, folder: Path) -> dict[int, list[Path]]:
    """The maps of each question, by person."""
    found: dict[int, list[tuple[int, Path]]] = {}
    with os.scandir(home or folder) as files:
        for file in files:
            named = _MAP.fullmatch(file.name)
            if named is not None:
                found.setdefault(int(named[1]), []).append((int(named[2] or 0), Path(file.path)))
    if not found:
        raise FastcamError(f"{shown(home or folder)}: no maps QUESTION.png or QUESTION_1.png in it; {WANTED}")
    return {number: [path for _, path in sorted(each)] for number, each in found.items()}


def _picture(home: Path, number: int, split: str, left_out: LeftOut) -> Path | None:
    for one in [split] if split else SPLITS:
        for name in _NAMES:
            path = home / name.format(split=one, number=number)
            if path.is_file():
                return path
    return picture_at(home, _NAMES[0].format(split=split or "val", number=number), left_out)


def _json(folder: Path, kind: str, split: str) -> Path | None:
    """The JSON of questions or of answers; of several the one that the split names."""
    files = [file for home in (folder, folder / "annotations") for file in sorted(home.glob(f"*{kind}*.json"))]
    if split and len(files) > 1:
        files = [file for file in files if split in file.name] or files
    if len(files) > 1:
        names = f"{files[0].name} and {files[1].name}"
        raise FastcamError(f"{shown(folder)}: several files of {kind}, such as {names}; leave one there")
    return files[0] if files else None


# ---- questions and answers


def _questions(folder: Path, split: str, wanted: set[int]) -> dict[int, _Question]:
    """Of questions that have maps; of VQA's quarter of a million no others are kept."""
    file = _json(folder, "questions", split)
    if file is None:
        raise FastcamError(f"{shown(folder)}: no questions JSON in it; {WANTED}")
    answered = _json(folder, "annotations", split)
    answers = {} if answered is None else _answers(answered, wanted)
    found = {}
    for number, entry in _entries(file, "questions", wanted):
        text, picture = entry.get("question"), entry.get("image_id")
        if not isinstance(text, str) or not _whole(picture):
            raise FastcamError(f"{shown(file)}: question {number} has no text or no picture; {WANTED}")
        found[number] = _Question(utf8(text), picture, answers.get(number))
    return found


def _answers(file: Path, wanted: set[int]) -> dict[int, str]:
    found = {}
    for number, entry in _entries(file, "annotations", wanted):
        answer = entry.get("multiple_choice_answer", entry.get("answer"))
        if not isinstance(answer, str):
            raise FastcamError(f"{shown(file)}: question {number} has no multiple_choice_answer; {WANTED}")
        found[number] = utf8(answer)
    return found


def _entries(file: Path, key: str, wanted: set[int]) -> Any:
    """(number, entry) of the questions that are wanted."""
    for name, entry, _, _ in entries(file, WANTED):
        number = entry.get("question_id") if name == key and isinstance(entry, Mapping) else None
        if _whole(number) and number in wanted:
            yield number, entry


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _reader(files: list[Path]) -> Callable[[], tuple[Attention, ...]]:
    """Reads the maps of a question, float32 in 0..1."""

    def one(file: Path) -> Attention:
        pixels = eight_bits(np.asarray(read(file, "RGB")[0]))
        return np.asarray(pixels[..., :3].mean(axis=2, dtype=np.float32) / 255, np.float32)

    return lambda: tuple(map(one, files))
