"""Import directions, as ARCHITECTURE.md states them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"fastcam": ROOT / "fastcam", "fastcam_export": ROOT / "export" / "fastcam_export"}
HEAVY = ("onnx", "onnxruntime", "torch", "cv2", "cupy", "onnx_ir", "fastcam_export")

FORBIDDEN = ("fastcam_export", "fastcam_bench", "onnx", "onnx_ir", "torch")


def imports(path, top_level_only=False):
    """Modules that a file imports; with ``top_level_only``, those that importing it loads."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(package):
    return sorted(PACKAGES[package].rglob("*.py"))


def belongs(module, package):
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", files("fastcam"), ids=lambda p: p.name)
def test_run_time_never_imports_the_exporter(path):
    allowed = path.parent.name == "cli"
    for module in imports(path, top_level_only=allowed):
        assert not any(belongs(module, other) for other in FORBIDDEN), f"{path.name} imports {module}"


@pytest.mark.parametrize("path", files("fastcam_export"), ids=lambda p: p.name)
def test_exporter_imports_only_the_schema_of_the_run_time(path):
    for module in imports(path):
        if belongs(module, "fastcam"):
            assert belongs(module, "fastcam.schema"), f"{path.name} imports {module}"
        assert not belongs(module, "fastcam_bench"), f"{path.name} imports {module}"
    if path.name == "from_torch.py":  # inside its function only
        assert not any(belongs(module, "torch") for module in imports(path, top_level_only=True))
    else:
        assert not any(belongs(module, "torch") for module in imports(path)), f"{path.name} imports torch"


def test_exporter_layers():
    below = {  # module -> what it must not import
        "registry": ("driver", "rules", "head", "exporter"),
        "rules": ("driver", "head", "exporter"),
        "driver": ("head", "exporter"),
        "head": ("exporter",),
    }
    for path in files("fastcam_export"):
        key = "rules" if path.parent.name == "rules" else path.stem
        for module in imports(path):
            for forbidden in below.get(key, ()):
                assert f".{forbidden}" not in module, f"{path} imports {module}"


@pytest.mark.parametrize("module", ["fastcam", "fastcam.explainer", "fastcam.cli"])
def test_import_is_light(module):
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
