"""Rewrites the generated parts of README.md and docs/.

python -m fastcam_bench.report            # rewrite them
python -m fastcam_bench.report --check    # exit 1 if one is out of date
"""

from __future__ import annotations

import sys

from fastcam_bench.paths import ROOT
from fastcam_bench.report.pages import COMMAND, outdated


def main() -> int:
    """The command; see the module's docstring."""
    found = outdated()
    for page, text in found.items():
        if "--check" in sys.argv[1:]:
            print(f"{page.relative_to(ROOT)} is out of date: {COMMAND}")
        else:
            page.write_text(text, encoding="utf-8")
            print(f"wrote {page.relative_to(ROOT)}")
    return int(bool(found) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
