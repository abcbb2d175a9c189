"""README and the documents: every code block runs, every link leads somewhere, every generated table is fresh."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import doc_blocks
import pytest
from doc_blocks import CODE, OTHERS, ROOT, Block, blocks

import fastcam
from fastcam.cli import GROUPS, PANELS
from fastcam.methods import METHODS
from fastcam.targets.spec_kinds import KINDS
from fastcam_bench.report import pages as report
from fastcam_export.autodiff import reverse  # noqa: F401  (fills the table of rules)
from fastcam_export.autodiff.core.rule import RULES

PAGES = report.pages()
BLOCKS = [block for page in PAGES for block in blocks(page)]
DEVICES = ("cuda", "tensorrt")
DATA = Path(fastcam.__file__).parent / "data"
VERBS = [verb for verbs in (*PANELS.values(), *(inner for _, _, inner in GROUPS.values())) for verb in verbs]
GIVEN = {"scenes.onnx": "model.onnx", "scenes.labels.txt": "classes.txt", "scene.jpg": "photo.jpg"}
"""What pages other than tutorials find in the folder where they run, under both names."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def has(device: str) -> bool:
    """Whether a device and what drives it are here."""
    from importlib.util import find_spec

    import onnxruntime

    provider = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[device]
    return provider in onnxruntime.get_available_providers() and find_spec("cupy") is not None


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language in CODE for b in blocks(page))], ids=name)
def test_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    """Tutorials begin in an empty folder, the others beside a model and a picture."""
    monkeypatch.chdir(tmp_path)
    if page.parent.name != "tutorials":
        for file, other in GIVEN.items():
            shutil.copy(DATA / file, file)
            shutil.copy(DATA / file, other)
    with ExitStack() as stack:
        for table in (METHODS, KINDS, RULES):  # an example may add to them
            stack.enter_context(patch.dict(table))
        namespace = {"__name__": "__main__"}
        for block in blocks(page):
            if block.language in CODE and not block.skipped and (not block.needs or has(block.needs)):
                doc_blocks.run(block, namespace)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.needs], ids=str)
def test_a_block_for_a_device_compiles(block):
    assert block.needs in DEVICES
    if block.language == "python":
        doc_blocks.compiled(block)
    if not has(block.needs):
        pytest.skip(f"no {block.needs} here: compiled, not run")


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_says_its_language_and_why_it_does_not_run(block):
    assert block.language in (*CODE, *OTHERS)
    assert not block.mark or block.needs or re.fullmatch(r"skip, \w.{9,}", block.mark)


def test_few_blocks_are_shown_only():
    """Those that fetch something from the network, or belong to another program."""
    assert sum(block.skipped for block in BLOCKS) <= len(BLOCKS) // 10


def test_generated_sections_are_fresh():
    assert [name(page) for page in report.outdated()] == [], f"run: {report.COMMAND}"


def test_every_generated_section_has_a_place():
    used = {section for page in PAGES for section in report.sections(page.read_text(encoding="utf-8"))}
    assert used == {*report.SECTIONS}


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_examples_of_the_help_parse(verb):
    from typer.main import get_command

    from fastcam.cli import app

    for example in sys.modules[verb.__module__].EXAMPLES:
        program, known, *words = shlex.split(example.split("|")[0])
        assert program == "fastcam"
        command = get_command(app).commands[known]
        if known in GROUPS:
            command, known, words = command.commands[words[0]], words[0], words[1:]
        command.make_context(known, words)


# --- links and sizes ------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts and MkDocs make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```|`[^`\n]+`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.is_file(), f"{name(page)}: no file {target}"
        assert not anchor or anchor in anchors(there), f"{name(page)}: no heading {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_of_the_repository_that_a_page_names_exist(page):
    named = re.findall(r"`((?:bench|csrc|docs|export|fastcam|tests)/[\w./-]*)`", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_is_read_in_three_minutes():
    text = (ROOT / "README.md").read_bytes()
    assert len(text) <= 6 * 1024
    assert len(text.split()) <= 900  # 300 words a minute


def test_the_commands_that_pages_name_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {"README.md": ("demo", "test", "docs"), "docs/benchmarks/speed.md": ("bench", "soak")}
    for page, commands in named.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        for command in commands:
            assert f"make {command}" in text
            assert f"\n{command}:" in makefile


def test_pictures_are_there_and_small():
    images = ROOT / "docs" / "images"
    assert sum(file.stat().st_size for file in images.rglob("*") if file.is_file()) < 1_500_000
    shown = {file.stem for file in (images / "methods").iterdir()}
    assert shown == {*METHODS}


def test_every_page_of_the_site_is_in_its_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT / "docs").as_posix() in menu


def test_the_site_builds_without_a_warning(tmp_path):
    mkdocs = shutil.which("mkdocs", path=str(Path(sys.executable).parent)) or shutil.which("mkdocs")
    if mkdocs is None:
        pytest.skip("mkdocs is not installed (make docs)")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [mkdocs, "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-3000:]
    outside = [
        file
        for file in (tmp_path / "site").rglob("*.html")
        if re.search(r'(src|href)="https?://[^"]+\.(js|css|woff2?)"', file.read_text(encoding="utf-8"))
    ]
    assert not outside, "a page loads something from the network"


def test_a_block_that_prints_something_else_fails(tmp_path):
    page = ROOT / "docs" / "index.md"
    block = Block(page, 1, "python", "print(1 + 1)\n", "", "3\n")
    with pytest.raises(AssertionError, match=r"prints\n2"):
        doc_blocks.run(block, {})
    doc_blocks.run(Block(page, 1, "python", "print('score 0.99')\n", "", "score ...\n"), {})
