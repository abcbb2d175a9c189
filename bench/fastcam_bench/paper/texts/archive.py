"""Rated snippets and a lexicon of rated words, from the archive of the Python package vaderSentiment 0.5.

People rated 23,703 snippets of film reviews, product reviews, editorials and tweets from -4 to 4, and 7,517 words in
the same way. The package's archive ships both. Nothing here downloads it: see :data:`DOWNLOAD`.

Source: Hutto and Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis of social media text",
ICWSM 2014; the package has the MIT licence.
"""

from __future__ import annotations

import hashlib
import html
import io
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from fastcam.errors import FastcamError, shown

DOWNLOAD = "pip download vaderSentiment==0.5 --no-deps --no-binary :all:"
INNER = "hutto_ICWSM_2014.tar.gz"
SOURCES = {"films": "movieReview", "products": "amazonReview", "editorials": "nytEditorial", "tweets": "tweets"}
LEXICON = "vader_sentiment_lexicon.txt"
MOST = 64 * 2**20
"""Bytes that are read of a file, at most; the archive's largest has 1.4 million."""
CLASSES = ("negative", "positive")
CLEAR, STRONG = 0.5, 1.0
"""The least rating of a snippet that is used, and of a word that counts as rated strongly."""
EVERY = 5
"""One in so many texts is held out."""


@dataclass(frozen=True)
class Snippet:
    """A text, its class (0 negative, 1 positive), and what it is from, a name of :data:`SOURCES`."""

    text: str
    label: int
    source: str

    @property
    def held_out(self) -> bool:
        """Whether the text is for measuring: by a digest of its letters, so that copies of a text fall together."""
        letters = "".join(filter(str.isalnum, self.text.lower()))
        return int.from_bytes(hashlib.sha256(letters.encode()).digest()[:4], "big") % EVERY == 0


@dataclass(frozen=True)
class Archive:
    """The snippets with a clear rating, and the words with a strong one, each with its rating."""

    snippets: tuple[Snippet, ...]
    lexicon: dict[str, float]

    def split(self) -> tuple[list[Snippet], list[Snippet]]:
        """Those to train on and those held out."""
        training = [one for one in self.snippets if not one.held_out]
        return training, [one for one in self.snippets if one.held_out]


def read(path: Path) -> Archive:
    """Read the archive.

    Args:
        path: ``vaderSentiment-0.5.zip``, or the ``hutto_ICWSM_2014.tar.gz`` in it.

    Raises:
        FastcamError: it is not there, or is not that archive.
    """
    if not path.is_file():
        raise FastcamError(f"{shown(path)}: no such file; run {DOWNLOAD}, and give what it downloads")
    try:
        texts = _texts(path)
        snippets = [one for name in SOURCES for one in _snippets(texts[SOURCES[name]], name)]
        rows = [line.split("\t") for line in texts[LEXICON].splitlines() if line]
        lexicon = {row[0]: float(row[1]) for row in rows if abs(float(row[1])) >= STRONG}
    except (
        OSError,
        EOFError,
        KeyError,
        IndexError,
        ValueError,
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise FastcamError(f"{shown(path)}: not the archive of vaderSentiment 0.5 ({error}); run {DOWNLOAD}") from error
    return Archive(tuple(snippets), lexicon)


def _texts(path: Path) -> dict[str, str]:
    """The files of snippets and the lexicon as text."""
    content = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as package:
            inner = next((one for one in package.namelist() if one.endswith(INNER)), None)
            if inner is None:
                raise KeyError(INNER)
            with package.open(inner) as opened:
                content = opened.read(MOST)
    wanted = {f"{stem}{'' if stem == 'tweets' else 'Snippets'}_GroundTruth.txt": stem for stem in SOURCES.values()}
    wanted[LEXICON] = LEXICON
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        for member in tar:
            name = member.name.rsplit("/", 1)[-1]
            file = tar.extractfile(member) if name in wanted else None
            if file is not None:
                found[wanted[name]] = file.read(MOST).decode("utf-8", "replace")
    return found


def _snippets(content: str, source: str) -> list[Snippet]:
    """The snippets of a file of lines NUMBER<tab>RATING<tab>TEXT that have a clear rating."""
    found = []
    for line in content.splitlines():
        _, rating, text = line.split("\t", 2)
        if abs(float(rating)) >= CLEAR:
            found.append(Snippet(" ".join(html.unescape(text).split()), int(float(rating) > 0), source))
    return found
