"""Cases of index, scatter and selection operators."""

CASES: dict = {}
