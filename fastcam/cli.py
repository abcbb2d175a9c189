"""The command ``fastcam``: export, inspect, explain, demo. Bad input: one line on stderr and exit code 2."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import typer.core
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fastcam.schema import PRESETS, Emit, Engine, FastcamError, LayoutName, Resize, __version__

if TYPE_CHECKING:
    from fastcam.explainer import Explainer

_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # click's UsageError, wherever this typer keeps it


@contextmanager
def _one_line(ctx: typer.Context) -> Iterator[None]:
    """Bad input and wrong calls become one line on stderr and exit code 2; the rest is a defect: a traceback."""
    try:
        yield
    except FastcamError as error:
        message = str(error)
    except _USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        verb = f" {ctx.invoked_subcommand}" if ctx.invoked_subcommand else ""
        said = error.format_message().replace("Value error, ", "")  # type: ignore[attr-defined]
        message = f"{said} (see: fastcam{verb} --help)"
    else:
        return
    print(f"fastcam: {' '.join(message.split())}", file=sys.stderr)
    raise typer.Exit(2)


class _Group(typer.core.TyperGroup):
    """The verbs, with errors for people."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        with _one_line(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        with _one_line(ctx):
            return super().invoke(ctx)


def _examples(*lines: str) -> str:
    """The end of a help text; typer sets a line for every paragraph."""
    return "\n\n".join(["Examples:" if len(lines) > 1 else "Example:", *lines])


app = typer.Typer(
    cls=_Group,
    help="Explain any vision model in ONNX: Grad-CAM heatmaps and boxes at the price of inference.",
    epilog=_examples(
        "fastcam demo",
        "fastcam export resnet50.onnx --preprocess imagenet --labels classes.txt",
        "fastcam explain resnet50.cam.onnx photo.jpg",
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Console entry point."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what it cannot decode is reported once, by us
    app(prog_name="fastcam")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastcam {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def version() -> None:
    """Print the version."""
    _print_version(True)


OnnxFile = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file.", show_default=False)]
ExportedFile = Annotated[
    Path, typer.Argument(metavar="MODEL.cam.onnx", help="A file that fastcam export wrote.", show_default=False)
]
Pictures = Annotated[
    list[Path], typer.Argument(metavar="IMAGE", help="Pictures, or folders of pictures.", show_default=False)
]
Labels = Annotated[Path | None, typer.Option("--labels", help="Class names, one per line.", show_default=False)]
OutputName = Annotated[
    str | None, typer.Option("--output-name", help="The model output to explain.", show_default="the first that fits")
]
ScoreKind = Annotated[
    Literal["logit", "probability"], typer.Option("--score", help="What is explained: before or after a final softmax.")
]
PreprocessName = Annotated[
    str | None,
    typer.Option("--preprocess", help=f"How pictures become the input: {', '.join(PRESETS)}.", show_default=False),
]
ForEngine = Annotated[Engine, typer.Option("--for-engine", help="Whose operators the file may add.")]


@app.command(
    epilog=_examples(
        "fastcam export resnet50.onnx --preprocess imagenet --labels classes.txt",
        "fastcam export resnet50.onnx -o middle.onnx --layer layer3",
    )
)
def export(
    model: OnnxFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Exported file.", show_default="MODEL.cam.onnx")
    ] = None,
    layer: Annotated[str, typer.Option(help="Value, node or scope to explain; auto chooses.")] = "auto",
    layout: Annotated[
        LayoutName | None, typer.Option(help="How the layer lies in the graph.", show_default="as the graph tells")
    ] = None,
    prefix_tokens: Annotated[
        int | None, typer.Option(help="Tokens before the image's, of a sequence.", show_default="as the graph tells")
    ] = None,
    grid: Annotated[
        str | None, typer.Option(help="Rows and columns of a sequence: 14x14.", show_default="as the graph tells")
    ] = None,
    emit: Annotated[Emit, typer.Option(help="What the file adds: pooled gradients, gradients, or maps.")] = "weights",
    preprocess: PreprocessName = None,
    resize: Annotated[Resize, typer.Option(help="How a picture is brought to the input's size.")] = "stretch",
    labels: Labels = None,
    score: ScoreKind = "logit",
    output_name: OutputName = None,
    targets: Annotated[
        Literal["default", "required", "constant"],
        typer.Option(help="The targets input: optional, without a default, or fixed to the predicted class."),
    ] = "default",
    for_engine: ForEngine = "onnxruntime",
) -> None:
    """Rewrite an ONNX model once, so that it explains itself wherever ONNX runs."""
    output = output or model.with_name(f"{model.stem}.cam.onnx")
    if output.exists() and model.exists() and output.samefile(model):
        raise FastcamError(f"{output}: the export would overwrite the model; choose another name with -o")
    result = _exporter().export_model(
        model,
        output,
        layer=layer,
        layout=layout,
        prefix_tokens=prefix_tokens,
        grid=_grid(grid),
        emit=emit,
        targets=targets,
        score=score,
        output_name=output_name,
        preprocess=preprocess,
        resize=resize,
        labels=labels,
        for_engine=for_engine,
    )
    for line in result.summary():
        _say(line)


@app.command(epilog=_examples("fastcam inspect resnet50.onnx"))
def inspect(
    model: OnnxFile, output_name: OutputName = None, score: ScoreKind = "logit", for_engine: ForEngine = "onnxruntime"
) -> None:
    """Show the layers that can be explained, the one chosen and why, and operators without a gradient rule."""
    found = _exporter().inspect_model(model, output_name=output_name, score=score, for_engine=for_engine)
    rows = []
    for layer in found.layers:
        shape = " x ".join(str(side) for side in layer.shape)
        mark = "*" if layer.chosen else ""
        rows.append((mark, layer.name, layer.op_type, shape, layer.layout, layer.scope, layer.note))
    _print_table(("", "layer", "operator", "shape", "layout", "scope", "note"), rows)
    _say(f"* chosen: {found.reason}")
    classes = "" if found.score.classes is None else f", {found.score.classes} classes"
    typer.echo(f"explained score: {found.score.kind} of output {found.score.output}{classes}")
    missing = ", ".join(f"{op_type} ({count})" for op_type, count in found.missing)
    typer.echo(f"operators without a gradient rule: {missing or 'none'}")
    everything = [] if for_engine == "onnxruntime" else [f"{for_engine} reads every operator of the model"]
    for line in found.engine or everything:
        _say(line)


@app.command(
    epilog=_examples(
        "fastcam explain resnet50.cam.onnx photo.jpg",
        "fastcam explain resnet50.cam.onnx photos/ -t -1 -t tabby -o heatmaps",
        "fastcam explain resnet50.cam.onnx photo.jpg --json",
    )
)
def explain(
    model: ExportedFile,
    images: Pictures,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="Class index, rank (-1 is the predicted class) or name; repeatable.",
            show_default="-1",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for overlays and explanation.json.", show_default="fastcam-out"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only; files are written only with -o.")] = False,
    threshold: Annotated[float, typer.Option(help="Boxes surround what reaches this share of the maximum.")] = 0.15,
    batch_size: Annotated[int, typer.Option(help="Pictures per run where the model's batch is free.")] = 8,
    preprocess: PreprocessName = None,
    labels: Labels = None,
    threads: Annotated[int | None, typer.Option(help="Threads of ONNX Runtime.", show_default="its choice")] = None,
) -> None:
    """Explain pictures: heatmap overlays, boxes, classes and scores."""
    from fastcam.explainer import Explainer
    from fastcam.output import staged

    files = _pictures(images)
    explainer = Explainer(model, threads=threads, preprocess=preprocess, labels=labels, batch_size=batch_size)
    folder = output or (None if as_json else Path("fastcam-out"))
    with ExitStack() as stack:
        stage = stack.enter_context(staged(folder)) if folder else None
        report, names = _explain_all(explainer, files, _targets(target), threshold, stage)
    if as_json:
        typer.echo(json.dumps(report, indent=1, ensure_ascii=False))
        return
    _print_report(report)
    typer.echo(f"{_counted(len(names), 'overlay')} and explanation.json are in {folder}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what is written.")] = Path("demo"),
) -> None:
    """Export the bundled model, explain the bundled picture, and say where the heatmap is."""
    from fastcam.explainer import Explainer
    from fastcam.image import SUFFIXES
    from fastcam.output import staged

    data = Path(__file__).parent / "data"
    picture = next((path for path in sorted(data.glob("scene.*")) if path.suffix in SUFFIXES), None)
    if picture is None or not (data / "scenes.onnx").exists():
        raise FastcamError(f"{data}: the bundled model is missing; reinstall fastcam")
    with staged(output) as stage:
        exported = stage / "scenes.cam.onnx"
        labels = data / "scenes.labels.txt"
        _exporter().export_model(data / "scenes.onnx", exported, preprocess="imagenet", labels=labels)
        explainer = Explainer(exported)
        report, names = _explain_all(explainer, [picture], [-1, -2, -3], 0.15, stage)
    _print_report(report)
    typer.echo(f"exported model: {output / 'scenes.cam.onnx'}")
    for name in names:
        typer.echo(f"heatmap: {output / name}")


def _explain_all(
    explainer: Explainer, files: Sequence[Path], targets: list[int | str], threshold: float, stage: Path | None
) -> tuple[dict[str, Any], list[str]]:
    """Explain ``files`` run by run, with one run's pictures in memory; the report and the overlays' names."""
    from fastcam.explanation import unique_stems, write_json

    how = explainer.metadata.preprocessing
    # pictures that keep their own size cannot share a run
    step = 1 if how is not None and how.size is None else explainer.batch_size
    stems = unique_stems([str(file) for file in files])
    report: dict[str, Any] = {}
    names: list[str] = []
    with _progress(len(files)) as progress:
        for start in range(0, len(files), step):
            part = list(files[start : start + step])
            found = explainer(part, targets=targets, threshold=threshold)
            if stage is not None:
                names += found.write_overlays(stage, stems[start : start + step])
            entry = found.to_dict()
            report = report or {**entry, "images": []}
            report["images"] += entry["images"]
            progress.advance(progress.task_ids[0], len(part))
    if stage is not None:
        write_json(stage, report)
    return report, names


@contextmanager
def _progress(total: int) -> Iterator[Progress]:
    """A progress bar on stderr, for many pictures on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("explaining"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=total < 2 or not console.is_terminal) as progress:
        progress.add_task("explaining", total=total)
        yield progress


def _print_report(report: dict[str, Any]) -> None:
    from fastcam.targets import short_label

    rows = []
    for image in report["images"]:
        for target in image["targets"]:
            label = f"{target['class']} {short_label(target['label'] or '')}"
            score = "not finite" if target["score"] is None else f"{target['score']:.4g}"
            box = " ".join(f"{value:.0f}" for value in target["box"] or ()) or "-"
            rows.append((Path(image["file"]).name, label, score, box, target["status"]))
    _print_table(("image", "class", "score", "box x0 y0 x1 y1", "status"), rows)


def _say(line: str) -> None:
    """A line of prose; on a terminal broken between words, with the rest indented."""
    console = _console()
    wrap = textwrap.TextWrapper(
        console.width, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False
    )
    typer.echo(wrap.fill(line) if console.is_terminal else line)


def _console() -> Console:
    """Stdout; as wide as it must be where nobody watches, so that no line of a file or a pipe is broken."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=10_000)


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under titles, without the columns that say nothing; names of up to 40 letters are never broken."""
    used = [i for i in range(len(titles)) if any(row[i] for row in rows) or i == 0]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i in used:
        longest = max((len(row[i]) for row in rows), default=0)
        table.add_column(titles[i], overflow="fold", no_wrap=longest <= 40 and titles[i] not in ("scope", "note"))
    for row in rows:
        table.add_row(*(escape(row[i]) for i in used))
    _console().print(table)


def _grid(text: str | None) -> tuple[int, ...] | None:
    """The --grid option: "14x14"; of a video "8x7x7"."""
    if text is None:
        return None
    if not re.fullmatch(r"\d+(x\d+){1,2}", text):
        raise FastcamError(f"--grid is {text!r}; give rows and columns, like 14x14")
    return tuple(int(side) for side in text.split("x"))


def _targets(given: Sequence[str] | None) -> list[int | str]:
    """The --target options: what looks like a number is one, the rest are class names."""
    return [int(text) if re.fullmatch(r"[+-]?\d+", text.strip()) else text for text in given or ["-1"]]


def _pictures(paths: Sequence[Path]) -> list[Path]:
    """Files as given; of a folder its pictures, sorted by name."""
    from fastcam.image import SUFFIXES

    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FastcamError(f"{path}: no such file; give pictures or folders of pictures")
        found = [path]
        if path.is_dir():
            found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
            if not found:
                raise FastcamError(f"{path}: no pictures in this folder ({', '.join(SUFFIXES)})")
        files += found
    return files


def _exporter() -> Any:
    """The module fastcam_export, which needs onnx."""
    try:
        import fastcam_export
    except ImportError as error:
        if (error.name or "").startswith("fastcam_export."):
            raise  # a defect of ours, not something that is missing
        raise FastcamError(f"exporting needs onnx and onnx-ir ({error}); run: pip install fastcam[export]") from error
    return fastcam_export


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
