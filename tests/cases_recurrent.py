"""Cases of recurrent operators."""

CASES: dict = {}
