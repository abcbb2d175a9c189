"""Files out: complete or untouched, never in place of a device, of the model itself, or with another mode."""

import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcam import atomic_files
from fastcam.errors import FastcamError
from fastcam_export import export_model
from support.models.small_models import classifier, save


def verb(*arguments: str, size: int | None = None) -> subprocess.CompletedProcess:
    """A call of the command line; ``size``: as on a full disk, no file grows beyond so many bytes."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    command = [sys.executable, "-m", "fastcam", *arguments]
    if size is None:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    # what measures coverage would write a file of its own, which is too large as well
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit, env=quiet)


def something(kind: str, path: Path) -> Path:
    """A device, pipe, socket or folder."""
    if kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.mkdir()
    return path


def writers(path: Path) -> dict:
    """Every way in which a file of this name is written, by what writes it."""

    def stage() -> None:
        with atomic_files.staged(path.parent) as folder:
            atomic_files.write(folder / path.name, b"new")

    def stream() -> None:
        with atomic_files.replaced(path) as partial:
            partial.write_bytes(b"new")

    export = {"check": False}
    return {
        "staged": stage,
        "replaced": stream,
        "write_files": lambda: atomic_files.write_files({path: b"new"}),
        "export": lambda: export_model(classifier(), path, **export),
        "head": lambda: export_model(classifier(), path.with_name("m.onnx"), head=True, **export),
        "on demand": lambda: export_model(classifier(), path.with_name("m.onnx"), on_demand=True, **export),
    }


NAMES = {"head": "m.head.onnx", "on demand": "m.explain.onnx"}


@pytest.mark.parametrize("kind", ["device", "pipe", "socket", "folder"])
@pytest.mark.parametrize("writer", writers(Path("x")))
def test_what_is_no_file_is_never_replaced(tmp_path, kind, writer):
    try:
        path = something(kind, tmp_path / NAMES.get(writer, "out.onnx"))
    except PermissionError:
        pytest.skip("only root makes devices")
    before = sorted(tmp_path.iterdir()), path.stat().st_mode
    with pytest.raises(FastcamError) as caught:
        writers(path)[writer]()
    assert str(caught.value) == f"{path}: cannot be written (it is a {kind}); choose another name for the file"
    assert (sorted(tmp_path.iterdir()), path.stat().st_mode) == before


@pytest.mark.parametrize("writer", writers(Path("x")))
def test_modes_follow_the_umask_and_existing_files_keep_theirs(tmp_path, writer):
    path = tmp_path / NAMES.get(writer, "out.onnx")
    former = os.umask(0o027)
    try:
        writers(path)[writer]()
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        written = path.stat().st_ino
        writers(path)[writer]()
        assert stat.S_IMODE(path.stat().st_mode) == 0o604 and path.stat().st_ino != written
    finally:
        os.umask(former)


def test_a_link_stays_one(tmp_path):
    place = tmp_path / "deep" / "real.onnx"
    place.parent.mkdir()
    place.write_bytes(b"old")
    (tmp_path / "link.onnx").symlink_to(place)
    atomic_files.write_files({tmp_path / "link.onnx": b"new"})
    assert (tmp_path / "link.onnx").is_symlink() and place.read_bytes() == b"new"


LONG = "n" * 300 + ".onnx"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\0b.onnx", r"a\\x00b.onnx: cannot be written \(.*null"),
        (LONG, r"\.\.\.n+.onnx: cannot be written"),
        ("", "."),
        ("s3://bucket/a.onnx", "writes to this machine alone"),
    ],
    ids=["zero byte", "long", "empty", "URL"],
)
def test_impossible_names_are_one_line(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FastcamError, match=said) as caught:
        export_model(classifier(), name, check=False)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert not list(tmp_path.iterdir())


def test_names_that_are_no_utf8_are_written_printed_and_reported(tmp_path):
    name, picture = os.fsdecode(b"caf\xe9.onnx"), os.fsdecode(b"gar\xe7on.png")
    Image.new("RGB", (8, 8), (200, 30, 90)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / picture)
    export_model(classifier(), tmp_path / name, preprocess="unit", check=False)
    assert b"caf\xe9.onnx" in os.listdir(os.fsencode(tmp_path))
    with pytest.raises(FastcamError) as caught:
        export_model(classifier(), tmp_path / name / "in.onnx", check=False)
    assert r"caf\udce9.onnx" in str(caught.value)
    done = verb("explain", str(tmp_path / name), str(tmp_path / picture))
    assert done.returncode == 2 and r"caf\udce9.onnx: ONNX Runtime opens no file whose name" in done.stderr
    (tmp_path / name).rename(tmp_path / "net.onnx")
    done = verb("explain", str(tmp_path / "net.onnx"), str(tmp_path / picture), "-o", str(tmp_path / "out"))
    assert done.returncode == 0 and r"gar\udce7on.png" in done.stdout, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "explanation.json").read_text("utf-8"))
    assert Path(report["images"][0]["file"]).name == picture
    done = verb("stream", str(tmp_path / "net.onnx"), str(tmp_path / picture))
    assert done.returncode == 0 and Path(json.loads(done.stdout)["file"]).name == picture


# ---- the model itself


def test_an_export_never_replaces_its_own_model(tmp_path):
    model = tmp_path / "m.onnx"
    save(classifier(), model)
    content = model.read_bytes()
    (tmp_path / "soft.onnx").symlink_to(model)
    (tmp_path / "hard.onnx").hardlink_to(model)
    for output in (model, tmp_path / "soft.onnx", tmp_path / "hard.onnx", tmp_path / "." / "m.onnx"):
        with pytest.raises(FastcamError, match=r"^[^:]*: the export would overwrite the model; choose another name"):
            export_model(model, output)
    assert model.read_bytes() == content


@pytest.mark.parametrize(("part", "options"), [("head", {"head": True}), ("explain", {"on_demand": True})])
def test_nor_by_a_file_beside_it(tmp_path, part, options):
    model = tmp_path / f"m.{part}.onnx"
    save(classifier(), model)
    content = model.read_bytes()
    with pytest.raises(FastcamError, match=rf"m\.{part}\.onnx: the export would overwrite the model"):
        export_model(model, tmp_path / "m.onnx", **options)
    assert model.read_bytes() == content and [path.name for path in tmp_path.iterdir()] == [model.name]


def test_nor_the_models_weights(tmp_path):
    save(classifier(), tmp_path / "m.onnx", external=True)
    weights = [path for path in tmp_path.iterdir() if path.name != "m.onnx"]
    assert weights
    with pytest.raises(FastcamError, match="would overwrite the model"):
        export_model(tmp_path / "m.onnx", weights[0])


# ---- full disks


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".jsonl"])
def test_a_full_disk_is_no_success(tmp_path, suffix):
    model, pictures = tmp_path / "m.cam.onnx", tmp_path / "pictures"
    export_model(classifier(), model, preprocess="unit", check=False)
    pictures.mkdir()
    for index in range(8):
        noise = np.random.default_rng(index).integers(0, 255, (240, 320, 3), np.uint8)
        Image.fromarray(noise).save(pictures / f"{index}.png")
    output = tmp_path / f"out{suffix}"
    before = sorted(tmp_path.iterdir())
    done = verb("stream", str(model), str(pictures), "-o", str(output), size=2000 if suffix == ".jsonl" else 100_000)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert f"out{suffix}: " in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_an_export_on_a_full_disk_leaves_nothing(tmp_path):
    save(classifier(), tmp_path / "m.onnx")
    done = verb("export", str(tmp_path / "m.onnx"), "--head", "--no-check", size=1000)
    assert done.returncode == 2 and "m.cam" in done.stderr and "cannot be written (File too large)" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


# ---- several files, of which one cannot take its name


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no links"])
@pytest.mark.parametrize("writer", ["write_files", "staged"])
def test_all_files_take_their_names_or_none(tmp_path, monkeypatch, writer, links):
    """The third rename fails: what the first two have replaced is back, with its mode."""
    paths = [tmp_path / "out" / name for name in "abc"]
    (tmp_path / "out").mkdir()
    paths[0].write_bytes(b"old")
    paths[0].chmod(0o604)
    rename, count = os.replace, iter(range(100))

    def third(source, target):
        if next(count) == 2:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "replace", third)
    if not links:
        monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(PermissionError(1, "no links")))
    with pytest.raises(FastcamError, match=r"cannot be written \(Input/output error\)"):
        if writer == "write_files":
            atomic_files.write_files(dict.fromkeys(paths, b"new"))
        else:
            with atomic_files.staged(tmp_path / "out") as stage:
                for path in paths:
                    atomic_files.write(stage / path.name, b"new")
    assert list((tmp_path / "out").iterdir()) == paths[:1]
    assert paths[0].read_bytes() == b"old" and stat.S_IMODE(paths[0].stat().st_mode) == 0o604


def test_folders_that_were_made_for_nothing_are_gone(tmp_path, monkeypatch):
    def refuse(*names):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(FastcamError, match="Read-only"), atomic_files.staged(tmp_path / "a" / "b") as stage:
        atomic_files.write(stage / "x", b"new")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_one_call_cannot_remove_is_removed_by_the_next(tmp_path, monkeypatch):
    close, failed = os.close, []

    def once(number):
        close(number)
        if not failed and "rmtree" in sys._getframe(1).f_code.co_name:
            failed.append(number)
            raise OSError(5, "Input/output error")

    with atomic_files.staged(tmp_path) as stage:
        atomic_files.write(stage / "x", b"new")
        (stage / "y").mkdir()
        (stage / "y").rmdir()
        monkeypatch.setattr(os, "close", once)
    assert failed and [path.name for path in tmp_path.iterdir()] == ["x"]


# ---- what is printed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["version"], ["methods"], ["--help"]], ids=" ".join)
@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_output_that_cannot_be_written_is_one_line(arguments, buffered):
    environment = os.environ | {"PYTHONUNBUFFERED": buffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fastcam", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("fastcam: the output cannot be written (No space left on device); ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_an_error_that_cannot_be_written_keeps_its_status():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "fastcam", "explain", "no.onnx", "no.jpg"]
        assert subprocess.run(command, stdout=full, stderr=full, check=False).returncode == 2
