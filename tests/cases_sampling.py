"""Cases of operators that sample pictures at computed positions."""

CASES: dict = {}
