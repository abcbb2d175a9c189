"""Options of verbs that take a data set, or pictures in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcam.cli.shared.options import picture_files
from fastcam.errors import FastcamError

if TYPE_CHECKING:
    from fastcam.evaluation.class_map import ClassMap
    from fastcam.evaluation.samples import Dataset
    from fastcam.explainer import Explainer

Data = Annotated[
    str,
    typer.Option("--data", metavar="FORMAT:PLACE", help="Pictures and what is marked in them.", show_default=False),
]
Split = Annotated[str | None, typer.Option("--split", help="Which part of the data set, such as val.")]
DataPictures = Annotated[
    Path | None, typer.Option("--pictures", help="The folder of the pictures.", show_default="where the format has it")
]
DataAnnotations = Annotated[
    Path | None,
    typer.Option("--annotations", help="The file or folder of boxes or masks.", show_default="where the format has it"),
]
MapFile = Annotated[
    Path | None,
    typer.Option(
        "--map",
        help="JSON or YAML: labels of the data to classes of the model.",
        show_default="by names, WordNet ids",
    ),
]
Offset = Annotated[
    int | None,
    typer.Option("--offset", help="Added to the map's indices: 1 where the model's class 0 is a background."),
]
DataExif = Annotated[
    bool | None,
    typer.Option("--exif/--no-exif", help="Marks lie on turned pictures, or not.", show_default="as the format has it"),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Of the data set's first pictures alone.")]
PicturesInPlace = Annotated[
    list[Path] | None,
    typer.Argument(metavar="IMAGE", help="Pictures, or folders of pictures.", show_default=False),
]
DataInPlace = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FORMAT:PLACE",
        help="An annotated data set in place of pictures: coco:DIR, scenes:200, ...",
        show_default=False,
    ),
]


def opened_data(images: Sequence[Path] | None, data: str | None, given: Mapping[str, Any]) -> Dataset:
    """The data set of --data, or the pictures given as one without annotations.

    Args:
        given: what :func:`fastcam.evaluation.data.open_data` takes beside the spec.

    Raises:
        FastcamError: neither or both were given, or one cannot be opened.
    """
    from fastcam.evaluation.data import open_data
    from fastcam.evaluation.pictures import Pictures

    if data is not None and images:
        raise FastcamError("pictures and --data were both given; a data set has pictures of its own")
    if data is not None:
        return open_data(data, **given)
    if not images:
        raise FastcamError("no pictures; give some, a folder of them, or --data FORMAT:PLACE")
    for name in ("split", "pictures", "annotations"):
        if given.get(name) is not None:
            raise FastcamError(f"--{name} is of a data set; give --data FORMAT:PLACE, or leave it out")
    name = ", ".join(str(path) for path in images[:3]) + (" ..." if len(images) > 3 else "")
    return Pictures(picture_files(images), name, given.get("exif") is not False)


def opened_model(
    file: Path,
    data: Dataset,
    opening: tuple[Any, Any, Any, Any],
    mapping: Path | None = None,
    offset: int | None = None,
    **settings: Any,
) -> tuple[Explainer, ClassMap]:
    """The Explainer of a file for the pictures of a data set, and the model's classes that its labels stand for.

    Args:
        opening, settings: see :class:`fastcam.Explainer`: providers, threads, preprocessing, labels; and further ones.
        mapping, offset: see :func:`fastcam.evaluation.class_map.class_map`.

    Returns:
        of pictures without annotations a map of nothing.

    Raises:
        FastcamError: the file cannot be opened, or no label is a class of the model.
    """
    from fastcam.evaluation.class_map import ClassMap, class_map
    from fastcam.evaluation.pictures import Pictures
    from fastcam.explainer import Explainer

    explainer = Explainer(file, *opening, exif=data.exif, **settings)
    if isinstance(data, Pictures):
        return explainer, ClassMap({}, (), "nothing is marked")
    return explainer, class_map(data.labels, explainer.metadata, mapping, offset)


def title_of(file: Path) -> str:
    """What a model is called: its file's name without endings."""
    return file.name.removesuffix(".onnx").removesuffix(".cam")
