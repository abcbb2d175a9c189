"""A model repository of Triton's, written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from fastcam import schema
from fastcam.atomic_files import refused, slug, write
from fastcam.errors import shown, typed
from fastcam.input_files import read_bytes
from fastcam.schema import FastcamError, Metadata
from fastcam_export.artifacts.triton import config
from fastcam_export.artifacts.triton.about import about
from fastcam_export.artifacts.triton.text_format import text

STEPS = {"_pictures": "Pictures", "_boxes": "Boxes"}
"""Classes of :mod:`fastcam.serving.triton` by the end of a model's name."""
LABELS = "labels.txt"
WANTED = "give a file that fastcam export wrote"
CODE = '''"""Written by fastcam export --triton: fastcam must be installed where Triton runs."""

from fastcam.serving.triton import {step} as TritonPythonModel  # noqa: F401  (the name that Triton looks for)
'''


def model_name(path: str | Path) -> str:
    """What a file is called in a repository: ``resnet50`` of ``resnet50.cam.onnx``."""
    return slug(Path(path).name.removesuffix(".onnx").removesuffix(".cam"))


def folders(path: str | Path, repository: str | Path) -> tuple[Path, ...]:
    """The folders in a repository that an exported file may become: itself, the steps around it, the ensemble.

    Raises:
        FastcamError: one of them is there, or the repository is no folder. Nothing is ever replaced.
    """
    for given, value in (("path", path), ("repository", repository)):
        typed(given, value, str | os.PathLike, "a path")
    repository, name = Path(repository), model_name(path)
    with refused(repository, "folder"):
        if repository.exists() and not repository.is_dir():
            raise FastcamError(f"{shown(repository)}: a file lies there; give a folder for --triton")
        found = tuple(repository / f"{name}{end}" for end in ("", *STEPS, "_explain"))
        there = next((one for one in found if os.path.lexists(one)), None)
    if there is not None:
        raise FastcamError(f"{shown(there)}: is there already; remove it, or give another repository or name (-o)")
    return found


def write_repository(path: str | Path, repository: str | Path) -> tuple[tuple[Path, ...], str]:
    """Write an exported file as a model repository of Triton's.

    The file goes in as it is, as ``NAME/1/model.onnx`` for the ONNX Runtime backend, with its ``config.pbtxt``. Around
    it stands the ensemble ``NAME_explain``, which takes encoded pictures and gives boxes: two steps of the Python
    backend, which need fastcam where Triton runs, and none of the file's weights.

    Args:
        path: a file that ``fastcam export`` wrote, in one file.
        repository: the folder; made where it is not there.

    Returns:
        The folders that were written, and why there is no ensemble, or "".

    Raises:
        FastcamError: no exported file, one of two parts, a folder that is there already or cannot be written; then
            nothing is written.
    """
    whole, *_ = wanted = folders(path, repository)
    path, repository = Path(path), Path(repository)
    model, metadata = _read(path)
    labels = LABELS if metadata.labels is not None else ""
    own = config.of_model(model, metadata, whole.name, labels)
    alone = config.why_alone(model, metadata)
    around = [] if alone else config.around(own, metadata)
    with _moved_into(repository) as stage:
        _write_model(stage / own.name, own, path, model, metadata)
        for one in around:
            _write_step(stage / one.name, one, model)
    return tuple(one for one in wanted if one.name in (own.name, *(each.name for each in around))), alone


def _read(path: Path) -> tuple[onnx.ModelProto, Metadata]:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(read_bytes(path, WANTED))
    except DecodeError as error:
        raise FastcamError(f"{shown(path)}: no ONNX file; {WANTED}") from error
    said = next((entry.value for entry in model.metadata_props if entry.key == schema.METADATA_KEY), None)
    if said is None:
        raise FastcamError(f"{shown(path)}: not exported by FastCAM; run fastcam export on it")
    metadata = Metadata.from_json(said)
    if metadata.pair is not None or metadata.captioning is not None:
        raise FastcamError(f"{shown(path)}: one of two files; Triton runs one, so export with --one-file")
    return model, metadata


def _write_model(folder: Path, own: config.Config, path: Path, model: onnx.ModelProto, metadata: Metadata) -> None:
    (folder / "1").mkdir(parents=True)
    write(folder / "config.pbtxt", text(own.message()).encode())
    if metadata.labels is not None:
        write(folder / LABELS, "".join(f"{' '.join(one.split())}\n" for one in metadata.labels).encode())
    shutil.copyfile(path, folder / "1" / "model.onnx")
    for location in _locations(model):
        shutil.copyfile(path.parent / location, folder / "1" / location)


def _locations(model: onnx.ModelProto) -> Sequence[str]:
    """The files beside the model that hold its weights."""
    found = [
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if tensor.data_location == onnx.TensorProto.EXTERNAL and entry.key == "location"
    ]
    return [*dict.fromkeys(found)]


def _write_step(folder: Path, step: config.Config, model: onnx.ModelProto) -> None:
    (folder / "1").mkdir(parents=True)  # of an ensemble it stays empty
    write(folder / "config.pbtxt", text(step.message()).encode())
    made = next((name for end, name in STEPS.items() if step.name.endswith(end)), None)
    if made is None:
        return
    write(folder / "1" / "model.py", CODE.format(step=made).encode())
    write(folder / "1" / schema.ABOUT, about(model).SerializeToString())


@contextmanager
def _moved_into(repository: Path) -> Iterator[Path]:
    """A temporary folder, whose folders move into the repository at the end, the ensemble last; or none does.

    It lies beside the repository where that can be, so that a Triton that watches the repository does not see it.
    """
    made = [one for one in (repository, *repository.absolute().parents) if not one.exists()]
    with refused(repository, "folder"):
        repository.mkdir(parents=True, exist_ok=True)
    moved: list[Path] = []
    stage: Path | None = None
    try:
        with refused(repository, "folder"):
            stage = _stage(repository)
            yield stage
            for folder in sorted(stage.iterdir(), key=lambda one: (one.name.endswith("_explain"), one.name)):
                if os.path.lexists(repository / folder.name):
                    raise FastcamError(f"{shown(repository / folder.name)}: is there already; remove it")
                folder.rename(repository / folder.name)
                moved.append(repository / folder.name)
    except BaseException:
        for folder in moved:
            shutil.rmtree(folder, ignore_errors=True)
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        for one in made:
            if one.is_dir() and not any(one.iterdir()):
                one.rmdir()
        raise
    shutil.rmtree(stage, ignore_errors=True)


def _stage(repository: Path) -> Path:
    place = repository.resolve()
    same = place.parent.stat().st_dev == place.stat().st_dev and os.access(place.parent, os.W_OK)
    return Path(tempfile.mkdtemp(prefix=".fastcam-", dir=place.parent if same else place))
