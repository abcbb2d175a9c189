"""How verbs open an exported file: the Explainer of their options, and what a profile says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fastcam.cli.shared.options import preprocess_option, sides

if TYPE_CHECKING:
    from fastcam.explainer import Explainer
    from fastcam.runtime.profile import Goal


def opened(
    model: Path,
    goal: Goal,
    pixels: tuple[str | None, str | None, str | None, str | None, str | None, str | None],
    profile: str,
    providers: str,
    batch_size: int | None,
    **further: Any,
) -> Explainer:
    """The Explainer of a verb that explains pictures or frames.

    Args:
        pixels: --preprocess, --color, --mean, --std, --scale and --size.
        goal, profile, providers, batch_size: see :func:`tuned`.
        further: other arguments of :class:`fastcam.Explainer`.

    Raises:
        FastcamError: an option says what cannot be, or the file cannot be opened.
    """
    from fastcam.explainer import Explainer

    *how, size = pixels
    preprocess = preprocess_option(*how, size=sides("size", size))
    choice = tuned(profile, model, goal, providers, batch_size, 8)
    return Explainer(model, providers, preprocess=preprocess, **choice, **further)


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
