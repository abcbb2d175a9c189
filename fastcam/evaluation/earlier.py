"""What earlier runs have left in a journal: the pictures that need not be measured again, and those that failed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from fastcam.evaluation.journal import Journal, Line
from fastcam.evaluation.picture_lines import FAILED


class Earlier:
    """A journal's lines, of each picture the last one. Pictures that failed are tried again: they may be mended.

    Args:
        journal: is read twice, so that no line is held.
        limit: of the data set's first pictures; None: all.

    Attributes:
        done: names that are not measured again, whether within the limit or behind it.
        count: of the pictures among them that are within the limit.
        left: how many pictures are still to be measured; None: all that are not done.
    """

    def __init__(self, journal: Journal, limit: int | None) -> None:
        self._journal = journal
        self._last: dict[str, int] = {}
        failed: dict[str, Line] = {}
        for number, line in enumerate(journal.lines()):
            name = line["name"]
            self._last[name] = number  # a picture that comes again keeps its place
            failed.pop(name, None)
            if line.get("left out") == FAILED:
                failed[name] = line
        within = set(islice(self._last, limit))
        self._failed = {name: line for name, line in failed.items() if name in within}
        self._counted = within - self._failed.keys()
        self.done = self._last.keys() - self._failed.keys()
        self.count = len(self._counted)
        self.left = None if limit is None else max(0, limit - len(self._last)) + len(self._failed)

    def lines(self) -> Iterator[Line]:
        """Those that count within the limit."""
        for number, line in enumerate(self._journal.lines()):
            if line["name"] in self._counted and self._last[line["name"]] == number:
                yield line

    def has(self, line: Line) -> bool:
        """Whether a picture that was tried again failed as before, so that its line is there."""
        return self._failed.get(line["name"]) == line
