"""``fastcam tune``: what runs an exported file fastest on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastcam.cli.shared.console import print_table, say
from fastcam.cli.shared.options import ExportedFile, PreprocessName, picture_files

if TYPE_CHECKING:
    from fastcam.tuning.measured import Row
    from fastcam.tuning.tune import Tuned

EXAMPLES = (
    "fastcam tune resnet50.cam.onnx",
    "fastcam tune resnet50.cam.onnx photos/ --seconds 300 --max-difference 0.01",
)
TITLES = (
    "for",
    "runs on",
    "ms a picture",
    "times default",
    "95 % interval",
    "map difference",
    "rank corr.",
    "box overlap",
    "scores",
    "",
)


def tune(
    model: ExportedFile,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGE",
            help="Pictures that maps are compared on; the first one is timed.",
            show_default="two bundled ones",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="About how long it takes.")] = 60.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The profile.", show_default="MODEL.cam.profile.json")
    ] = None,
    max_difference: Annotated[
        float, typer.Option(help="The largest difference of a heatmap, in [0, 1], to that of float32.")
    ] = 0.1,
    min_correlation: Annotated[float, typer.Option(help="The least rank correlation of the two.")] = 0.95,
    min_overlap: Annotated[float, typer.Option(help="The least intersection over union of their boxes.")] = 0.9,
    preprocess: PreprocessName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile, with all candidates, only.")] = False,
) -> None:
    """Measure engines, threads, runs at the same time and batches, and keep the fastest in a profile.

    A profile holds for this file, machine and these versions. explain, stream, batch, serve and bench use it.
    """
    from fastcam.atomic_files import replaced
    from fastcam.runtime.profile import profile_path
    from fastcam.runtime.session import check_file
    from fastcam.tuning.agreement import Tolerance
    from fastcam.tuning.tune import tune as measure

    tolerance = Tolerance(max_difference, min_correlation, min_overlap)
    check_file(model)
    path = profile_path(model) if output is None else output
    with replaced(path) as partial:  # one that cannot be written is refused before the measuring
        found = measure(model, picture_files(images or []), seconds, tolerance, preprocess)
        found.write(partial)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    print_table(TITLES, [_line(row, found) for row in found.rows])
    say(
        f"Picture to boxes. Reference: ONNX Runtime, CPU, float32; kept: differences up to {max_difference:g}, rank "
        f"correlations from {min_correlation:g}, boxes that overlap from {min_overlap:g}, the same class."
    )
    for goal, row in found.chosen.items():
        gain = f", {1 / row.ratio:.2f} times the default's speed" if row is not found.default(goal) else ", the default"
        say(f"{goal}: {row.choice.title}{gain}")
    say(f"wrote {path}; --profile {'none leaves it out' if output is None else f'{path} uses it'}")


def _line(row: Row, found: Tuned) -> tuple[str, ...]:
    measured = row.seconds is not None
    agreement = row.agreement
    note = "chosen" if row is found.chosen[row.goal] else row.left_out
    return (
        row.goal,
        row.choice.title,
        f"{row.seconds * 1e3:.2f}" if row.seconds is not None else "",
        f"{row.ratio:.3f}" if measured else "",
        f"{row.interval[0]:.3f} to {row.interval[1]:.3f}" if measured else "",
        f"{agreement.difference:.1e}" if agreement else "",
        f"{agreement.correlation:.4f}" if agreement else "",
        f"{agreement.overlap:.2f}" if agreement else "",
        f"{agreement.scores:.1e}" if agreement else "",
        note,
    )
