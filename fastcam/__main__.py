"""The command ``fastcam`` and ``python -m fastcam``: the verbs, or what they lack where only the library can run."""

from __future__ import annotations

import sys

LACKS = ("typer", "rich")
"""What the library does without."""


def main() -> None:
    """Console entry point."""
    try:
        from fastcam.cli import main as verbs
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] not in LACKS:
            raise
        print(f"fastcam: the command line needs typer and rich ({error}); run: pip install typer rich", file=sys.stderr)
        raise SystemExit(2) from None
    verbs()


if __name__ == "__main__":
    main()
