"""onnxruntime-web's files, which FastCAM does not bring: from an npm package, as a folder or packed."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from fastcam.errors import FastcamError, reason, shown

REQUIRED = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What runs models on the processor."""
WEBGPU = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
"""What runs them on a GPU, where the package has it."""
ADVICE = "run: npm pack onnxruntime-web"
LARGEST = 1 << 28
"""Bytes of a file."""


def package_path(given: Path | None) -> Path:
    """The package: ``given``, or what npm has put into this folder or into ``node_modules`` here.

    Raises:
        FastcamError: there is none.
    """
    if given is not None:
        if not given.exists():
            raise FastcamError(f"{shown(given)}: there is no such file or folder; {ADVICE}, and give what it writes")
        return given
    for place in _places():
        if place.exists():
            return place
    raise FastcamError(
        "onnxruntime-web, which runs the model in the browser, is not here (looked for onnxruntime-web-*.tgz and "
        f"node_modules/onnxruntime-web); {ADVICE}, or say where it is with --onnxruntime-web"
    )


def _places() -> Iterator[Path]:
    here = Path()
    yield here / "node_modules" / "onnxruntime-web"
    yield from sorted(here.glob("onnxruntime-web-*.tgz"), reverse=True)


def files(package: Path) -> dict[str, bytes]:
    """The files of the package that the page needs, by name; those for WebGPU too, if it has them.

    Args:
        package: a folder (the package's, or its ``dist``), or a .tgz that ``npm pack`` wrote.

    Raises:
        FastcamError: it is no such package, or lacks one.
    """
    read = _of_folder(package) if package.is_dir() else _of_archive(package)
    missing = [name for name in REQUIRED if name not in read]
    if missing:
        raise FastcamError(
            f"{shown(package)}: has no dist/{missing[0]}, so it is not onnxruntime-web 1.20 or later; {ADVICE}"
        )
    if not all(name in read for name in WEBGPU):
        return {name: read[name] for name in REQUIRED}
    return read


def _of_folder(folder: Path) -> dict[str, bytes]:
    inner = folder / "dist" if (folder / "dist").is_dir() else folder
    try:
        return {name: (inner / name).read_bytes() for name in (*REQUIRED, *WEBGPU) if (inner / name).is_file()}
    except OSError as error:
        raise FastcamError(f"{shown(folder)}: cannot be read ({reason(error)}); {ADVICE}") from error


def _of_archive(path: Path) -> dict[str, bytes]:
    wanted, read = {*REQUIRED, *WEBGPU}, {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                if name not in wanted or folder != "package/dist" or not member.isfile() or member.size > LARGEST:
                    continue
                stream = archive.extractfile(member)
                assert stream is not None
                read[name] = stream.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise FastcamError(f"{shown(path)}: is no package of npm that can be read; {ADVICE}") from error
    return read
