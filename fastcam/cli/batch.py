"""``fastcam batch``: millions of pictures into a table, from where an earlier run has stopped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fastcam.cli.shared.console import counted, say
from fastcam.cli.shared.opening import tuned
from fastcam.cli.shared.options import (
    Exif,
    ExportedFile,
    Labels,
    MaxPixels,
    MethodName,
    MethodOptions,
    PreprocessName,
    ProfileName,
    PromptsPath,
    Providers,
    TargetNames,
    Threads,
    Threshold,
    class_targets,
)
from fastcam.errors import FastcamError
from fastcam.image.reading import MAX_PIXELS

if TYPE_CHECKING:
    from fastcam.batch.run import Progress

EXAMPLES = (
    "fastcam batch resnet50.cam.onnx photos/ --out table",
    "fastcam batch resnet50.cam.onnx s3://bucket/train-{000..099}.tar --out table --workers 4",
    "fastcam batch resnet50.cam.onnx gs://bucket/photos --out table --ray auto --workers 16",
    "fastcam batch resnet50.cam.onnx photos.parquet --column image --out table --maps",
)
EVERY = 30.0
"""Seconds between two lines where nobody watches."""


def batch(
    model: ExportedFile,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of pictures, a list of them (.txt, .csv), Parquet files or tar shards; a path, a URL "
            "(s3://, gs://), or a pattern.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the table; one that is there is gone on with.")],
    target: TargetNames = None,
    form: Annotated[
        Literal["auto", "pictures", "manifest", "parquet", "shards"],
        typer.Option("--format", help="What the source is."),
    ] = "auto",
    column: Annotated[
        str | None,
        typer.Option(help="Of a list or Parquet, the column of pictures or paths.", show_default="image, path, ..."),
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Of Parquet, the column of names.", show_default="name, key, id, ...")
    ] = None,
    maps: Annotated[bool, typer.Option("--maps", help="Keep the maps, as float16 over their maximum.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes, or with --ray actors.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|local",
            help="A Ray cluster that does the work; local: one of this machine. Each actor takes --threads cores.",
            show_default=False,
        ),
    ] = None,
    threshold: Threshold = 0.15,
    method: MethodName = None,
    option: MethodOptions = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Pictures per run where the model's batch is free.", show_default="the profile's, or 16"
        ),
    ] = None,
    part: Annotated[int, typer.Option(min=1, help="Pictures in a file of the table; what a kill can cost.")] = 1024,
    decoders: Annotated[int, typer.Option(min=1, help="Threads of a process that decode pictures.")] = 2,
    threads: Threads = None,
    preprocess: PreprocessName = None,
    labels: Labels = None,
    prompts: PromptsPath = None,
    providers: Providers = "auto",
    profile: ProfileName = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    max_bytes: Annotated[float, typer.Option(min=0.001, help="MiB of a picture's file, at most.")] = 64.0,
    exif: Exif = True,
) -> None:
    """Explain a whole collection into a table of Parquet files: boxes, scores, status, and maps where asked for.

    Killed at any moment and called again, it goes on: each picture is explained once. A picture that cannot be
    explained is a row with its error.
    """
    from fastcam.batch.job import Job
    from fastcam.batch.on_ray import run_on_ray
    from fastcam.batch.run import run
    from fastcam.batch.sources.opened import open_source
    from fastcam.batch.sources.parquet import arrow
    from fastcam.batch.workers import run_in_processes
    from fastcam.methods.options import parsed

    arrow()
    targets = class_targets(target, None)
    opening: dict[str, Any] = {"providers": providers, "threads": threads, "preprocess": preprocess, "labels": labels}
    opening |= tuned(profile, model, "throughput", providers, batch_size, 16)
    opening |= {"max_pixels": max_pixels, "exif": exif, "prompts": prompts}
    how = {"threshold": threshold, "method": method, "options": parsed(option or ())}
    asked = tuple(targets) if isinstance(targets, list) else (targets,)
    job = Job(model, asked, opening, how, maps, part, int(max_bytes * (1 << 20)), decoders)
    opened = open_source(source, form, column, names)
    begun = time.monotonic()
    with _shown() as told:
        if ray is not None:
            done = run_on_ray(job, opened, out, ray, workers, told)
        elif workers > 1:
            done = run_in_processes(job, opened, out, workers, told)
        else:
            done = run(job, opened, out, told)
    _summary(done, out, time.monotonic() - begun)


def _summary(done: Progress, out: Path, seconds: float) -> None:
    """What a run has done.

    Raises:
        FastcamError: no picture could be explained.
    """
    rate = f", {done.done / seconds:.1f} a second" if done.done else ""
    before = f"; {done.before} were there already" if done.before else ""
    say(f"{counted(done.done, 'picture')}{rate}, written to {out}{before}")
    if done.failed and done.failed == done.done and not done.before:
        raise FastcamError(f"no picture could be explained; the first says: {done.first}")
    if done.failed:
        say(f"{counted(done.failed, 'picture')} with an error in the table, as: {done.first}")


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    """How far it is, on stderr: a line that changes on a terminal, else one now and then."""
    watched = sys.stderr is not None and sys.stderr.isatty()
    begun: list[float] = []
    last = time.monotonic()

    def told(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if not begun:
            begun.extend((now, progress.share, progress.done))
        if now - last >= (0.2 if watched else EVERY):
            last = now
            line = _line(progress, now - begun[0], progress.share - begun[1], progress.done - begun[2])
            typer.echo(f"\r\033[K{line}" if watched else line, nl=not watched, err=True)

    try:
        yield told
    finally:
        if watched:
            typer.echo("\r\033[K", nl=False, err=True)


def _line(progress: Progress, seconds: float, share: float, count: float) -> str:
    """As "12000 pictures, 30 %, 95.1 a second, 2:10:05 left".

    Args:
        seconds, share, count: since the first that was told: time, share of the source, pictures.
    """
    said = f"{counted(progress.before + progress.done, 'picture')}, {100 * progress.share:.0f} %"
    if seconds > 0 and share > 0:
        left = round((1 - progress.share) * seconds / share)
        said += f", {count / seconds:.1f} a second, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
    return said + (f", {progress.failed} with an error" if progress.failed else "")
