"""How many random examples a property is held to: few in ``make test``, thousands in ``make test-all``."""

import os

MORE = int(os.environ.get("FASTCAM_TEST_EXAMPLES", "1"))
"""Times as many as in ``make test``; the Makefile says how many for ``make test-all``."""


def examples(few: int) -> int:
    """The ``max_examples`` of a property that is held to ``few`` in every run."""
    return few * MORE
