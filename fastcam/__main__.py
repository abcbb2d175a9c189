"""``python -m fastcam`` is the command ``fastcam``."""

from __future__ import annotations

from fastcam.cli import main

if __name__ == "__main__":
    main()
