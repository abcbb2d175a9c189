"""The command ``fastcam``: a verb a file. Bad input: one line on stderr and exit code 2."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer
import typer.core

from fastcam.cli import (
    batch,
    bench,
    caption,
    concepts,
    cotangents,
    demo,
    drift,
    export,
    inspect,
    methods,
    serve,
    stream,
    tune,
    web,
)
from fastcam.cli.evaluation import dissect, evaluate, report, seeds, study
from fastcam.cli.explain import explain
from fastcam.cli.shared.console import Output
from fastcam.cli.shared.verb import Verb
from fastcam.errors import FastcamError
from fastcam.schema import __version__

DISTRIBUTIONS = {"cv2": "opencv-python", "PIL": "pillow", "yaml": "pyyaml"}
"""What to install for a module, where the two have different names."""
LONGEST = 240  # letters of a word that an error names
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
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        message = f"{error.filename}: {error.strerror}; give a shorter path"
    except ImportError as error:
        module = (error.name or "fastcam").partition(".")[0]
        if module.startswith("fastcam"):
            raise
        message = f"{module} is needed for that ({error}); run: pip install {DISTRIBUTIONS.get(module, module)}"
    else:
        return
    with suppress(FastcamError):  # where errors go to the same full disk
        print(f"fastcam: {' '.join(map(_shortened, message.split()))}", file=sys.stderr, flush=True)
    raise typer.Exit(2)


def _shortened(word: str) -> str:
    """A path or name of any length as one that fits a terminal: its beginning and its end."""
    return word if len(word) <= LONGEST else f"{word[: LONGEST // 2]}...{word[-LONGEST // 2 :]}"


class _Group(typer.core.TyperGroup):
    """The verbs, with errors for people."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        with _one_line(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        with _one_line(ctx):
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return result


def _examples(*lines: str) -> str | None:
    """The end of a help text; typer sets a line for every paragraph."""
    if not lines:
        return None
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
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    for name in ("stdout", "stderr"):
        if type(getattr(sys, name)) is io.TextIOWrapper:  # and not what a test or a notebook has put there
            setattr(sys, name, Output(getattr(sys, name)))
    warnings.showwarning = _warned
    app(prog_name="fastcam")


def _warned(message: Warning | str, *about: Any, **more: Any) -> None:
    """A warning as a line, without the place in the program that it is from."""
    typer.echo(f"warning: {message}", err=True)


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


PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Every day": (export.export, explain.explain, inspect.inspect),
    "Explain more": (caption.caption, stream.stream, concepts.concepts, dissect.dissect, seeds.seeds),
    "Deploy": (serve.serve, batch.batch, drift.drift, web.web),
    "Look up": (methods.methods, cotangents.cotangents),
    "Measure": (evaluate.evaluate, report.report, bench.bench, tune.tune),
    "Try it": (demo.demo,),
}
"""The verbs as the help groups them, those of every day first."""
for _panel, _verbs in PANELS.items():
    for _verb in _verbs:
        _epilog = _examples(*sys.modules[_verb.__module__].EXAMPLES)
        app.command(cls=Verb, epilog=_epilog, rich_help_panel=_panel)(_verb)


GROUPS: dict[str, tuple[str, str, tuple[Callable[..., None], ...]]] = {
    "study": ("Measure", "Ask people what maps show, as the paper did.", (study.make, study.score)),
}
"""Verbs of verbs: the panel, what they are for, and each of them."""
for _name, (_panel, _help, _verbs) in GROUPS.items():
    _group = typer.Typer(help=_help, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    for _verb in _verbs:
        _said = f"fastcam {_name} {_verb.__name__}"
        _own = [one for one in sys.modules[_verb.__module__].EXAMPLES if one.startswith(_said)]
        _group.command(cls=Verb, epilog=_examples(*_own))(_verb)
    app.add_typer(_group, name=_name, rich_help_panel=_panel)


@app.command(rich_help_panel="Try it")
def version() -> None:
    """Print the version."""
    _print_version(True)
