"""What a profile says for a verb that opens a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from fastcam.runtime.profile import Goal


def tuned(profile: str, model: Path, goal: Goal, providers: str, batch_size: int | None, usual: int) -> dict[str, Any]:
    """Arguments of an Explainer: its profile, which is said on stderr, and pictures of a run.

    Args:
        profile: as --profile has it.
        batch_size: as an option has it.
        usual: where neither says anything.

    Raises:
        FastcamError: a profile that was named does not hold.
    """
    from fastcam.runtime.profile import chosen

    choice = chosen(profile, model, goal, providers)
    if choice is not None:
        typer.echo(f"profile: {choice.title}", err=True)
    size = usual if batch_size is None and choice is None else batch_size
    return {"profile": choice, "goal": goal, "batch_size": size}
