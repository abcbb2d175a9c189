"""The models that are served, from files and from folders that are watched."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastcam.errors import FastcamError, listed, shown
from fastcam.serving.errors import NotServed
from fastcam.serving.model import ServedModel

SUFFIX = ".cam.onnx"
NUMBER = re.compile(r"[0-9]{1,9}")
ROUTES = re.compile(r"|\.|\.\.|stats|.*:predict|.*:explain")
"""Names of models that a route has: nobody could ask for such a model."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a version of a model lies.

    Attributes:
        name: the file's without its ending (``.cam.onnx``, ``.cam.ort``), or that of the folder with its versions.
        version: the number of the folder in that, "1" of a single file.
        path: of the file.
    """

    name: str
    version: str
    path: Path


def places(source: Path) -> Iterator[Place]:
    """The models of a file or folder: ``NAME.cam.onnx``, or ``NAME/VERSION/*.cam.onnx`` with a number as VERSION.

    Raises:
        FastcamError: there is no such file.
    """
    if source.is_file():
        yield Place(_name(source), "1", source)
        return
    if not source.is_dir():
        raise FastcamError(f"{shown(source)}: no such file or folder; give an exported file, or a folder of them")
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name.endswith(SUFFIX):
            yield Place(_name(path), "1", path)
        elif path.is_dir() and not path.name.startswith("."):
            for version in sorted(path.iterdir()):
                files = sorted(version.glob(f"*{SUFFIX}")) if NUMBER.fullmatch(version.name) else []
                if files:
                    yield Place(path.name, version.name, files[0])


def _name(path: Path) -> str:
    return path.name.removesuffix(".onnx").removesuffix(".ort").removesuffix(".cam")


class Repository:
    """Models by name and version; the highest version is what a client gets who names none.

    A file that changes is loaded beside the old one and takes over when it is ready. One that cannot be loaded is told
    of, and the old one stays. So it is at the start with the files of a folder: one that was broken while the server
    ran keeps none of the others from a server that starts again.

    Args:
        sources: exported files, and folders of them.
        load: opens a file.
        told: is told in a line what was loaded, or could not be.

    Raises:
        FastcamError: no such file, one that was named cannot be loaded, no model at all, or two of one name and
            version.
    """

    def __init__(
        self,
        sources: Sequence[Path],
        load: Callable[[Place], ServedModel],
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._sources, self._load, self._told = [*sources], load, told
        self._models: dict[str, dict[str, ServedModel]] = {}
        self._seen: dict[Place, tuple[int, ...]] = {}
        self._lock = threading.Lock()
        found = self._found()
        if not found:
            raise FastcamError(f"no model in {listed(map(shown, sources))}; give files that fastcam export has written")
        for place in found:
            self._seen[place] = _state(place.path)
            try:
                self._serve(place)
            except Exception as error:
                if place.path in self._sources:  # who names a file wants that one
                    raise
                self._told(f"{shown(place.path)}: not loaded: {error}")
        if not self._models:
            raise FastcamError(f"no model of {listed(map(shown, sources))} can be loaded; export them again")

    @property
    def models(self) -> Mapping[str, Mapping[str, ServedModel]]:
        """By name and version."""
        with self._lock:
            return {name: dict(versions) for name, versions in self._models.items()}

    def get(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """A model; without a name the only one, without a version the highest.

        Raises:
            NotServed: there is none such, or several.
        """
        with self._lock:
            if name is None:
                if len(self._models) > 1:
                    raise NotServed(f"several models are served; say which: {listed(sorted(self._models))}")
                name = next(iter(self._models), "")
            versions = self._models.get(name, {})
            if not versions:
                raise NotServed(f"no model {shown(repr(name))}; served are {listed(sorted(self._models)) or 'none'}")
            if version is None:
                version = max(versions, key=int)
            if version not in versions:
                raise NotServed(f"no version {shown(repr(version))} of {name}; served are {listed(sorted(versions))}")
            return versions[version]

    def look(self) -> None:
        """Look at the folders and files once more, and load what is new or has changed, and drop what is gone."""
        found = self._found()
        for place in found:
            state = _state(place.path)
            if self._seen.get(place) == state or _state(place.path) != state:  # it is being written
                continue
            self._seen[place] = state
            try:
                self._serve(place)
            except Exception as error:  # whatever a broken file does
                self._told(f"{shown(place.path)}: not loaded, the old one stays: {error}")
        for gone in [place for place in self._seen if place not in found]:
            del self._seen[gone]
            self._drop(gone)

    def _found(self) -> list[Place]:
        found = [place for source in self._sources for place in places(source)]
        names = [(place.name, place.version) for place in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise FastcamError(f"two files are version {twice[1]} of model {twice[0]!r}; rename one")
        return found

    def _serve(self, place: Place) -> None:
        """Load a file, which then takes over from an older one.

        Raises:
            FastcamError: it cannot be loaded, or its name is a route's.
        """
        if ROUTES.fullmatch(place.name):
            raise FastcamError(f"{shown(place.path)}: the server has a route called {place.name!r}; rename the model")
        model = self._load(place)
        with self._lock:
            versions = self._models.setdefault(place.name, {})
            old, versions[place.version] = versions.get(place.version), model
        self._told(f"serving {shown(place.name)}, version {place.version}, of {shown(place.path)}")
        if old is not None:
            old.close()

    def _drop(self, place: Place) -> None:
        with self._lock:
            versions = self._models.get(place.name, {})
            old = versions.pop(place.version, None)
            if not versions:
                self._models.pop(place.name, None)
        if old is not None:
            self._told(f"no longer serving {shown(place.name)}, version {place.version}: {shown(place.path)} is gone")
            old.close()

    def close(self) -> None:
        """Answer what waits, then end all threads."""
        with self._lock:
            every = [model for versions in self._models.values() for model in versions.values()]
            self._models = {}
        for model in every:
            model.close()


def _state(path: Path) -> tuple[int, ...]:
    """What changes with a file; -1 of one that is gone."""
    try:
        about = path.stat()
    except OSError:
        return (-1,)
    return about.st_mtime_ns, about.st_size, about.st_ino
