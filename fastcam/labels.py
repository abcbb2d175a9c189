"""Class names: read from a file or a list, and shortened for captions. The exporter reads them by the same function."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fastcam.errors import FastcamError

WORDNET = re.compile(r"^(n\d{8})\s+(?=\S)")
"""The identifier in front of ImageNet's class names."""


def short_label(label: str) -> str:
    """The first name in a label: "n02123045 tabby, tabby cat" -> "tabby"."""
    return WORDNET.sub("", label.strip()).split(",")[0].strip()


def read_labels(source: str | Path | Sequence[str], classes: int | None) -> tuple[str, ...]:
    """Class names by index, from a file with one per line or from a sequence.

    Args:
        source: a UTF-8 file, with or without a byte order mark; empty lines at its end do not count. Or the names.
        classes: how many there must be; None where the model does not say.

    Raises:
        FastcamError: the file cannot be read, or their number is not the model's number of classes.
    """
    if isinstance(source, str | Path):
        try:
            lines = Path(source).read_text(encoding="utf-8-sig").rstrip().splitlines()
        except OSError as error:
            raise FastcamError(f"{source}: cannot be read ({error.strerror}); give one class name per line") from error
        except UnicodeDecodeError as error:
            raise FastcamError(f"{source}: not UTF-8 text; give one class name per line") from error
        labels = tuple(line.strip() for line in lines)
    else:
        labels = tuple(str(label) for label in source)
    if classes is not None and len(labels) != classes:
        raise FastcamError(f"{len(labels)} labels do not fit a model with {classes} classes; give one label per class")
    return labels
