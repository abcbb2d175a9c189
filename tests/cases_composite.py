"""Cases of operators made of others, and control flow."""

CASES: dict = {}
