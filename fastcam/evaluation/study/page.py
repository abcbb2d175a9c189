"""The page of a study: everything in one file, which asks, counts and hands the answers over as a file."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from fastcam.evaluation.report.page import head


@cache
def asset(name: str) -> str:
    """A file of the page, as it is."""
    return (files("fastcam.evaluation.study") / "page" / name).read_text(encoding="utf-8")


def study_page(content: dict[str, Any]) -> str:
    """The whole page.

    Args:
        content: the study's name, "plan" (the trials of each rater, in order), "trials" by name, "images" by name.
    """
    script = asset("study.js")
    return (
        head("Study", asset("study.css"), script)
        + asset("body.html").replace("{count}", str(len(content["plan"])))
        + f'<script type="application/json" id="content">{embedded(content)}</script>\n'
        + f"<script>{script}</script>\n</body>\n</html>\n"
    )


def embedded(content: dict[str, Any]) -> str:
    """JSON that can stand in a script element, whatever is in it."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
