"""What a source is, by its name or by what lies in it."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Literal

from fastcam.batch.sources import places, shards
from fastcam.batch.sources.items import Source
from fastcam.batch.sources.parquet import Parquet
from fastcam.batch.sources.pictures import Listed, folder, manifest
from fastcam.batch.sources.places import Place
from fastcam.batch.sources.shards import Shards
from fastcam.errors import FastcamError, listed, shown
from fastcam.image.decode import is_picture

Format = Literal["auto", "pictures", "manifest", "parquet", "shards"]
LISTS = (".txt", ".lst", ".csv", ".tsv")
_LOOKED_AT = 1000
"""Files of a folder that say what it holds."""


def open_source(spec: str, form: Format = "auto", column: str | None = None, names: str | None = None) -> Source:
    """The pictures of a folder, a manifest, Parquet files or tar shards.

    Args:
        spec: path or URL of a file or folder; of files also a pattern, ``shard-{000..012}.tar`` or ``data/*.parquet``.
        form: what it is; "auto" goes by the name, of a folder by the first files in it.
        column: of a manifest or of Parquet, the one with pictures or paths.
        names: of Parquet, the one with names.

    Raises:
        FastcamError: there is nothing, or nothing of that kind.
    """
    found = _form(spec) if form == "auto" else form
    if column is not None and found not in ("manifest", "parquet"):
        raise FastcamError(f"{shown(spec)}: {found} have no columns; leave --column out")
    if names is not None and found != "parquet":
        raise FastcamError(f"{shown(spec)}: a column of names is Parquet's; leave --names out")
    if found == "pictures":
        return folder(spec) if places.is_folder(spec) else _single(spec)
    if found == "manifest":
        return manifest(spec, column)
    if found == "parquet":
        return Parquet.of(_files(spec, lambda name: name.lower().endswith(".parquet"), ".parquet"), column, names)
    return Shards(tuple(_files(spec, shards.is_shard, ".tar")))


def _form(spec: str) -> Format:
    name = spec.lower()
    if name.endswith(".parquet"):
        return "parquet"
    if shards.is_shard(name):
        return "shards"
    if name.endswith(LISTS):
        return "manifest"
    if places.is_folder(spec):
        for place in islice(places.walk(spec), _LOOKED_AT):
            if place.name.lower().endswith(".parquet"):
                return "parquet"
            if shards.is_shard(place.name):
                return "shards"
            if is_picture(Path(place.name)):
                return "pictures"
        return "pictures"
    if is_picture(Path(spec)):
        return "pictures"
    if any(sign in spec for sign in "*?[{"):
        return _form(places.expanded(spec)[0].at)
    if not places.is_url(spec) and not os.path.exists(spec):
        raise FastcamError(f"{shown(spec)}: no such file or folder; give a folder, a list, Parquet files or tar shards")
    raise FastcamError(f"{shown(spec)}: nobody knows what this is; say it by --format, with {listed(LISTS)} for a list")


def _files(spec: str, good: object, ending: str) -> list[Place]:
    """The files of a folder or pattern."""
    assert callable(good)
    if not places.is_folder(spec):
        return places.expanded(spec)
    found = [place for place in places.walk(spec) if good(place.name)]
    if not found:
        raise FastcamError(f"{shown(spec)}: no {ending} files in it; give a folder with some")
    return found


def _single(spec: str) -> Listed:
    """One picture, or those of a pattern."""
    found = places.expanded(spec)
    return Listed.of("pictures", spec, lambda: ((one.name, one.at, str(one.size)) for one in found))
