"""The command line called in this process, and what it leaves in a folder."""

from __future__ import annotations

from typer.testing import CliRunner

from fastcam.cli import app


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
