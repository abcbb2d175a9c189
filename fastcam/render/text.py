"""Text in pictures, in any script: Pillow draws it, with the first font that has all of its characters.

Where no font has all, each character gets the first that has it. Fonts are tried in this order: the file that the
environment variable ``FASTCAM_FONT`` names, the one that Pillow carries (English letters), and :data:`SYSTEM_FONTS`
where the system has them. A character that none of them has is drawn without its accents, or as its code, such as
U+732B, so that names stay apart. Scripts whose letters join or change places (Arabic, Devanagari) are laid out by Raqm,
which most builds of Pillow bring; without it their letters stand one by one.
"""

from __future__ import annotations

import os
import threading
import unicodedata
from functools import cache
from itertools import groupby
from types import ModuleType
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Uint8

VARIABLE = "FASTCAM_FONT"
SYSTEM_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf"),
    *("NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf", "NotoSansDevanagari-Regular.ttf"),
    *("NotoSansBengali-Regular.ttf", "NotoSansTamil-Regular.ttf", "NotoSansThai-Regular.ttf"),
    *("Arial Unicode.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc"),
    *("segoeui.ttf", "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "Nirmala.ttf", "Nirmala.ttc", "tahoma.ttf"),
)
"""File names, which Pillow looks for where Linux, macOS and Windows keep fonts."""

_CARRIED = ""  # the font in Pillow
_NOWHERE = "\uffff"  # never a character: every font draws what it draws for those that it lacks
_TRIAL = 32  # pixels
_LOCK = threading.Lock()  # fonts are shared between threads


def _unlock() -> None:
    """A forked process has none of the threads that may have drawn."""
    global _LOCK
    _LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def write(image: Uint8, text: str, at: tuple[int, int], tall: float) -> None:
    """Draw ``text`` in white into ``image`` itself.

    Args:
        image: uint8 RGB [height, width, 3].
        at: (x, y) of the baseline's left end.
        tall: pixels from the baseline to the top of a capital letter.

    Raises:
        FastcamError: Pillow is not installed, or ``FASTCAM_FONT`` names no font.
    """
    x, y = float(at[0]), at[1]
    size = _size(tall)
    top, bottom = max(0, y - 2 * size), min(len(image), y + size)
    if top >= bottom or not text:
        return
    with _LOCK:
        part = pillow().Image.fromarray(np.ascontiguousarray(image[top:bottom]))
        pen = pillow().ImageDraw.Draw(part)
        for font, run in _runs(text):
            loaded = _font(font, size)
            pen.text((x, y - top), run, (255, 255, 255), loaded, anchor="ls")
            x += loaded.getlength(run)
    image[top:bottom] = np.asarray(part)


def width(text: str, tall: float) -> int:
    """How many pixels wide :func:`write` draws ``text``."""
    with _LOCK:
        return int(np.ceil(sum(_font(font, _size(tall)).getlength(run) for font, run in _runs(text))))


def pillow() -> ModuleType:
    """The PIL module with what is used of it.

    Raises:
        FastcamError: Pillow is not installed.
    """
    try:
        import PIL.Image
        import PIL.ImageDraw
        import PIL.ImageFont
    except ImportError as error:
        raise FastcamError(f"text in pictures needs Pillow ({error}); run: pip install pillow") from error
    return PIL


def _runs(text: str) -> list[tuple[str, str]]:
    """``text`` in pieces of one font each: (font, piece)."""
    text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in unicodedata.normalize("NFC", text))
    for whole in _fonts():
        if all(_has(whole, letter) for letter in text):
            return [(whole, text)]
    letters: list[tuple[str, str]] = []
    for letter in text:
        last = letters[-1][0] if letters else None
        font = _font_of(letter, last)
        letters += [(font, letter)] if font is not None else [(_CARRIED, c) for c in _instead(letter)]
    return [(font, "".join(c for _, c in run)) for font, run in groupby(letters, key=lambda one: one[0])]


def _font_of(letter: str, last: str | None) -> str | None:
    """The first font that has ``letter``; for what belongs to the letter before it, that one's if it can."""
    joins = unicodedata.combining(letter) or letter.isspace() or unicodedata.category(letter) in ("Mc", "Cf")
    if last is not None and joins and (letter.isspace() or _has(last, letter)):
        return last
    return next((font for font in _fonts() if _has(font, letter)), None)


def _fonts() -> tuple[str, ...]:
    own = os.environ.get(VARIABLE)
    return (*([own] if own else []), _CARRIED, *SYSTEM_FONTS)


def _instead(letter: str) -> str:
    """What stands for a letter that no font has: the same without its accents, or its code."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(c))
    return plain if plain and all(_has(_CARRIED, c) for c in plain) else f"U+{ord(letter):04X}"


@cache
def _has(font: str, letter: str) -> bool:
    """Whether a font is there and draws this letter, without layout, in another way than one that it lacks."""
    loaded = _font(font, _TRIAL, layout=False)
    if loaded is None:
        return False
    return letter.isspace() or _shape(loaded, letter) != _shape(loaded, _NOWHERE)


def _shape(font: Any, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@cache
def _font(name: str, size: int, layout: bool = True) -> Any:
    """A font at a size in pixels, with the best layout there is or none; None where the system has no such font."""
    fonts = pillow().ImageFont
    if name == _CARRIED:
        return fonts.load_default(size)
    try:
        return fonts.truetype(name, size, layout_engine=None if layout else fonts.Layout.BASIC)
    except OSError as error:
        if name in SYSTEM_FONTS:
            return None
        raise FastcamError(f"{VARIABLE} is {name!r}, which is no font that Pillow can read ({error})") from error


def _size(tall: float) -> int:
    """The size at which a capital letter of the carried font is so tall."""
    return max(1, round(tall * _TRIAL / _capital()))


@cache
def _capital() -> float:
    """Pixels from baseline to top of a capital letter at the trial size, from one ten times as large."""
    return float(-_font(_CARRIED, 10 * _TRIAL).getbbox("H", anchor="ls")[1] / 10)
