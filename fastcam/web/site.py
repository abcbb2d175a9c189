"""The folder of static files: the page, the npm package ``fastcam-web``, onnxruntime-web, models and a picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastcam.atomic_files import all_replaced, refused, write
from fastcam.errors import FastcamError, shown
from fastcam.web.models import WebModel

PACKAGE_FILES = ("kernels.wasm", "src/explainer.js", "src/explanation.js", "src/index.js", "src/kernels.js",
                 "src/model_file.js", "src/outputs.js", "src/pixels.js", "src/targets.js")  # fmt: skip
"""What the page needs of ``fastcam-web``."""
ABOUT = "site.json"
"""What the page reads first: its models and picture."""


def package() -> Path:
    """The folder of ``fastcam-web``: in the installed package, or of the repository that an editable one is."""
    installed = Path(__file__).parent / "package"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "csrc" / "wasm" / "package"


def write_site(folder: Path, models: Sequence[WebModel], runtime: Mapping[str, bytes], picture: Path) -> list[Path]:
    """Write the page, all of its files or none.

    Args:
        folder: made where it does not exist. Files of an earlier page are replaced.
        models: the first is shown first.
        runtime: onnxruntime-web's files by name.
        picture: for a first try.

    Returns:
        The files.

    Raises:
        FastcamError: one cannot be written, two models have one name, or the folder holds a page of somebody else.
    """
    if (folder / "index.html").exists() and not (folder / ABOUT).exists():
        raise FastcamError(f"{shown(folder)}: its index.html is of another page; choose an empty folder with --out")
    listed = []
    copied = {path.name: path for path in sorted((Path(__file__).parent / "page").iterdir())}
    copied |= {f"fastcam-web/{name}": package() / name for name in PACKAGE_FILES}
    copied[f"pictures/{picture.name}"] = picture
    for model in models:
        for file in model.files:
            place = f"models/{file.name}"
            if place in copied:
                raise FastcamError(f"{shown(file)}: another model has this name; rename one and export it again")
            copied[place] = file
        listed.append({"name": model.name, "file": f"models/{model.files[0].name}"})
    about = {"models": listed, "picture": f"pictures/{picture.name}", "webgpu": "ort.webgpu.min.mjs" in runtime}
    written = {f"onnxruntime-web/{name}": content for name, content in runtime.items()}
    written[ABOUT] = (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode()
    with refused(folder, "folder"):
        for name in (*copied, *written):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with all_replaced() as made:
        for name, source in copied.items():
            with refused(folder / name):
                shutil.copyfile(source, made(folder / name))
        for name, content in written.items():
            write(made(folder / name), content, folder / name)
    return [folder / name for name in (*copied, *written)]
