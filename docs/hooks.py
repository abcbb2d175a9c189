"""MkDocs hooks: pages link to files of the repository, as code hosts show them; the site gets the measured results.

Links to bench/results and to the C header lead to copies in the site. Links to other files of the repository, such as
tests, become plain text: the site has none of them.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
COPIED = (
    "bench/results/*/*.md",
    "bench/results/*/*.json",
    "bench/results/*/*.svg",
    "bench/results/*/*.jpg",
    "csrc/include/fastcam/cam.h",
)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the measured results, and the header as text, under their paths in the repository."""
    for pattern in COPIED:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for file in (ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        files.append(File.generated(config, file.name, abs_src_path=str(file)))
    return files


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Docstrings name other objects by Sphinx's roles, which are not for readers."""
    return re.sub(r":(?:func|class|data|mod|meth|attr):<code>~?", "<code>", html)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links that leave docs/ to the copies, and make text of those that lead to no page."""
    here = page.file.src_uri
    inside = here.startswith("bench/") or here in ("CONTRIBUTING.md", "CHANGELOG.md")
    folder = posixpath.dirname(here if inside else f"docs/{here}")

    def lead(found: re.Match[str]) -> str:
        picture, text, target, anchor = found[1], found[2], found[3], found[4] or ""
        there = posixpath.normpath(posixpath.join(folder, target))  # from the repository's root
        there = there.removeprefix("docs/")
        if files.get_file_from_path(there) is None:
            return found[0] if (ROOT / "docs" / there).exists() or picture else text
        return f"{picture}[{text}]({posixpath.relpath(there, posixpath.dirname(here) or '.')}{anchor})"

    return _LINK.sub(lead, markdown)
