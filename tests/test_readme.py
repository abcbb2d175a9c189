"""The README's tables say what the results and the registry say."""

from pathlib import Path

from fastcam_bench.readme import filled

README = Path(__file__).parent.parent / "README.md"


def test_tables_are_generated_from_results_and_registry():
    text = README.read_text(encoding="utf-8")
    assert filled(text) == text, "run: python -m fastcam_bench.readme"


def test_the_commands_it_names_exist():
    text = README.read_text(encoding="utf-8")
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for command in ("demo", "test", "bench"):
        assert f"make {command}" in text
        assert f"\n{command}:" in makefile
