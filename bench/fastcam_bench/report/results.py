"""What the measurements have written, for every section."""

from __future__ import annotations

import json
from typing import Any

from fastcam_bench.paths import RESULTS


def read(name: str) -> Any:
    """A file of ``bench/results``, such as "speed/speed.json"."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))
