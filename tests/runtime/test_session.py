"""Optimised models from the cache, IO binding, and tensors that are not copied: for real on the CPU provider."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fastcam import Explainer, FastcamError, cache, kernels
from fastcam.runtime import io_binding
from fastcam.runtime.inputs import base as inputs
from fastcam.runtime.providers import Settings
from fastcam.runtime.session import create_session
from support.models import small_models
from support.models.contract_model import random_model

shares = pytest.mark.skipif(
    not hasattr(onnxruntime.OrtValue, "from_dlpack"), reason="this ONNX Runtime takes no tensors by DLPack"
)


def images(count, seed=0):
    return np.random.default_rng(seed).random((count, 3, 32, 32), np.float32)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def start(model, folder, **more):
    return create_session(model, "cpu", settings=Settings(keep_optimized=True, cache=folder, **more))


def scores(session, seed=0):
    return session.run(["scores"], {"image": images(2, seed)})[0]


def kept(folder):
    return sorted(path for path in (folder / "optimized").glob("*") if not path.name.startswith("."))


# --- the optimised model ----------------------------------------------------------------------------------------


def test_an_optimised_model_gives_the_same_bits(folder):
    plain = create_session(random_model().file(), "cpu")
    first, second = [start(random_model().file(), folder) for _ in range(2)]
    assert len(kept(folder)) == 1
    for each in (first, second):
        for ours, theirs in zip(each.run(None, {"image": images(2)}), plain.run(None, {"image": images(2)})):
            np.testing.assert_array_equal(ours, theirs)
    x = images(3)
    ours = Explainer(random_model().file(), settings=Settings(keep_optimized=True, cache=folder))(x, targets=[-1, 3])
    np.testing.assert_array_equal(ours.maps, Explainer(random_model().file())(x, targets=[-1, 3]).maps)


def test_the_second_start_loads_what_the_first_kept(folder):
    start(random_model().file(), folder)
    (path,) = kept(folder)
    path.unlink()  # a model of other weights in its place, which is noted as if it belonged there, shows what is read
    start(random_model(1).file(), folder)
    (theirs,) = kept(folder)
    os.replace(theirs, path)
    cache.note(path)
    found, wanted = start(random_model().file(), folder), create_session(random_model(1).file(), "cpu")
    np.testing.assert_array_equal(scores(found), scores(wanted))


def test_a_file_of_others_in_its_place_is_not_served(folder):
    start(random_model().file(), folder)
    (path,) = kept(folder)
    start(random_model(1).file(), folder)
    (theirs,) = [other for other in kept(folder) if other != path]
    for content in (theirs.read_bytes(), b"", b"x" * 99, path.read_bytes()[:-1]):
        path.write_bytes(content)
        found, wanted = start(random_model().file(), folder), create_session(random_model().file(), "cpu")
        np.testing.assert_array_equal(scores(found), scores(wanted))


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"file": null}', '{"sha256": 5}', "\0"])
def test_a_damaged_note_of_a_digest_is_not_believed(folder, tmp_path, monkeypatch, text):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"one")
    monkeypatch.setattr(cache, "_SETTLED", -1.0)
    wanted = cache.digest(path, folder)
    (entry,) = (folder / "digests").glob("*.json")
    entry.write_text(text)
    assert cache.digest(path, folder) == wanted == cache.digest(b"one", folder)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners on this system")
@pytest.mark.parametrize("which", [".", "optimized"])
def test_a_folder_into_which_others_may_write_is_refused(folder, which):
    start(random_model().file(), folder)
    (folder / which).chmod(0o777)
    with pytest.raises(FastcamError, match="others may write into it"):
        start(random_model().file(), folder)


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root gives a folder away")
def test_a_folder_of_another_user_is_refused(folder):
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(FastcamError, match="belongs to another user"):
        start(random_model().file(), folder)


def test_a_cache_that_cannot_be_written_to_costs_nothing_else(folder, monkeypatch):
    def refused(*path, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.tempfile, "TemporaryDirectory", refused)
    found, wanted = start(random_model().file(), folder), create_session(random_model().file(), "cpu")
    np.testing.assert_array_equal(scores(found), scores(wanted))
    assert not kept(folder)


def test_a_changed_file_is_never_served_from_the_cache(folder, tmp_path):
    path = tmp_path / "model.onnx"
    for seed in (0, 1, 0, 2):
        before = path.stat() if path.exists() else None
        path.write_bytes(random_model(seed).file())
        if before is not None:  # same length, and the time stamp set back
            assert path.stat().st_size == before.st_size
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        found = scores(start(path, folder))
        np.testing.assert_array_equal(found, scores(create_session(random_model(seed).file(), "cpu")))


def test_a_digest_is_noted_only_of_files_that_have_settled(folder, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"one")
    first = cache.digest(path, folder)
    assert not list((folder / "digests").glob("*.json")) and first == cache.digest(b"one", folder)
    monkeypatch.setattr(cache, "_SETTLED", -1.0)
    assert cache.digest(path, folder) == first and len(list((folder / "digests").glob("*.json"))) == 1
    monkeypatch.setattr(type(path), "read_bytes", lambda self: b"read again")
    assert cache.digest(path, folder) == first
    path.write_bytes(b"another length")
    assert cache.digest(path, folder) == cache.digest(b"read again", folder)


def test_other_settings_are_other_files(folder):
    start(random_model().file(), folder)
    start(random_model().file(), folder, fixed={"N": 2})
    assert len(kept(folder)) == 2


def test_a_broken_file_in_the_cache_is_made_anew(folder):
    start(random_model().file(), folder)
    (path,) = kept(folder)
    path.write_bytes(path.read_bytes()[:500])
    found, wanted = start(random_model().file(), folder), create_session(random_model().file(), "cpu")
    np.testing.assert_array_equal(scores(found), scores(wanted))
    assert kept(folder) == [path] and path.stat().st_size > 500


def test_models_with_external_data_are_not_kept(folder, tmp_path):
    model = small_models.save(small_models.classifier(), tmp_path / "external.onnx", external=True)
    session = start(model, folder)
    x = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    np.testing.assert_array_equal(
        session.run(None, {"image": x})[0], create_session(model, "cpu").run(None, {"image": x})[0]
    )
    assert not (folder / "optimized").exists()


def test_a_bad_model_fails_as_without_a_cache(folder):
    with pytest.raises(FastcamError, match="not an ONNX file"):
        start(b"nothing", folder)
    with pytest.raises(FastcamError, match=r"cache folder .* cannot be made"):
        file = folder.parent / "file"
        file.write_bytes(b"")
        start(random_model().file(), file)


def test_processes_that_start_together(folder, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(random_model().file())
    code = (
        "import sys, numpy as np; from fastcam.runtime.session import create_session\n"
        "from fastcam.runtime.providers import Settings\n"
        "for _ in range(5):\n"
        "    s = create_session(sys.argv[1], 'cpu', settings=Settings(keep_optimized=True, cache=sys.argv[2]))\n"
        "print(s.run(['scores'], {'image': np.ones((1, 3, 32, 32), np.float32)})[0].tolist())"
    )
    command = [sys.executable, "-c", code, str(path), str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert said[0] and len({*said}) == 1 and [process.returncode for process in running] == [0, 0, 0]
    assert len(kept(folder)) == 1  # and nothing half-made beside it


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTCAM_CACHE", str(tmp_path / "mine"))
    assert cache.root() == tmp_path / "mine" and cache.root("given").name == "given"
    monkeypatch.delenv("FASTCAM_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.root() == tmp_path / "xdg" / "fastcam"
    assert cache.folder(cache.root(), "engines").stat().st_mode & 0o077 == 0


# --- tensors that are not copied --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session():
    return create_session(random_model().file(), "cpu")


def names(session):
    return [value.name for value in session.get_outputs()]


@shares
def test_inputs_are_bound_where_they_lie():
    x = images(4)
    tensor = torch.from_numpy(x)
    taken = io_binding.DeviceTensor(tensor)
    assert io_binding.as_value(x).data_ptr() == x.ctypes.data
    assert taken.value.data_ptr() == tensor.data_ptr()
    assert taken[2:].value.data_ptr() == tensor[2:].data_ptr() and len(taken[2:]) == 2
    assert taken.shape == (4, 3, 32, 32) and taken.dtype == np.float32 and len(taken.rows()) == 4
    np.testing.assert_array_equal(taken, x)


@shares
def test_outputs_leave_without_a_copy(session):
    x = images(2)
    found = io_binding.run(session, names(session), {"image": x}, stay=["fastcam.activations"])
    value = found["fastcam.activations"]
    assert torch.from_dlpack(value).data_ptr() == value.data_ptr()
    assert io_binding.as_numpy(value).ctypes.data == value.data_ptr()
    kept_alive = io_binding.as_numpy(value)
    del found, value
    np.testing.assert_allclose(kept_alive, random_model().activations(x), rtol=1e-4, atol=1e-5)
    whole = Explainer(random_model().file())(torch.from_numpy(x))
    for array in (whole.maps, whole.heatmaps, whole.scores, whole.boxes):
        assert torch.from_dlpack(array).data_ptr() == array.ctypes.data


@shares
def test_bound_runs_give_the_same_bits(session):
    x, feed = images(3), {"fastcam.targets": np.array([[-1, 2]])}
    wanted = session.run(None, {"image": x, **feed})
    for given in (x, io_binding.DeviceTensor(torch.from_numpy(x))):
        found = io_binding.run(session, names(session), {"image": given, **feed})
        for name, array in zip(names(session), wanted):
            np.testing.assert_array_equal(found[name], array)


@shares
def test_tensors_on_a_device_are_explained_without_numpy(monkeypatch):
    """A CPU tensor stands for one on a GPU: the very same path through ONNX Runtime."""
    monkeypatch.setattr(inputs, "on_device", lambda value: isinstance(value, torch.Tensor))
    monkeypatch.setattr(torch.Tensor, "numpy", None)
    explainer, x = Explainer(random_model().file(), batch_size=2), images(5)
    found, wanted = explainer(torch.from_numpy(x), targets=[-1, 1]), explainer(x, targets=[-1, 1])
    np.testing.assert_array_equal(found.maps, wanted.maps)
    np.testing.assert_array_equal(found.boxes, wanted.boxes)
    np.testing.assert_array_equal(found.overlay(4), wanted.overlay(4))
    with pytest.raises(FastcamError, match="is float32, the tensor float64; cast it"):
        explainer(torch.from_numpy(x.astype(np.float64)))
    with pytest.raises(FastcamError, match="must be of floats for this file, got tensor\\(uint8\\)"):
        explainer(torch.zeros((1, 3, 32, 32), dtype=torch.uint8))
    with pytest.raises(FastcamError, match="contiguous tensor without gradient"):
        explainer(torch.from_numpy(x).requires_grad_())
    with pytest.raises(FastcamError, match="float tensor must be"):
        explainer(torch.zeros((1, 3, 16, 32)))
    fixed = Explainer(random_model(batch=4).file())
    with pytest.raises(FastcamError, match="takes 4 images per run, and 1 on a device are not filled up"):
        fixed(torch.from_numpy(x))


def test_what_lies_on_a_device():
    assert (
        not io_binding.on_device(images(1))
        and not io_binding.on_device(torch.zeros(1))
        and not io_binding.on_device("a.jpg")
    )

    class OnGpu:
        def __dlpack_device__(self):
            return (2, 0)

    assert io_binding.on_device(OnGpu())


@shares
def test_fixed_buffers_give_the_same_bits_from_many_threads(session):
    replay = io_binding.Replay(session, io_binding.HOST)
    targets = [np.array([[-1]]), np.array([[0, 1, 2]])]
    keys = [(seed, t) for seed in range(8) for t in (0, 1)]
    feeds = {key: {"image": images(2, key[0]), "fastcam.targets": targets[key[1]]} for key in keys}
    wanted = {key: session.run(None, feeds[key]) for key in keys}

    def run(key):
        image = feeds[key]["image"]
        given = io_binding.DeviceTensor(torch.from_numpy(image)) if key[0] % 2 else image
        return key, replay.run(names(session), {**feeds[key], "image": given})

    with ThreadPoolExecutor(4) as pool:
        for key, found in pool.map(run, keys * 3):
            for name, array in zip(names(session), wanted[key]):
                np.testing.assert_array_equal(found[name], array)


def test_a_file_with_other_outputs_than_tensors_still_runs():
    proto = onnx.load_from_string(random_model().file())
    proto.graph.node.append(onnx.helper.make_node("SequenceConstruct", ["scores"], ["listed"]))
    kind = onnx.helper.make_sequence_type_proto(onnx.helper.make_tensor_type_proto(1, None))
    proto.graph.output.append(onnx.helper.make_value_info("listed", kind))
    found = Explainer(proto.SerializeToString())(images(1))
    np.testing.assert_array_equal(found.outputs["listed"][0], found.scores)


@shares
@pytest.mark.parametrize("emit", ["weights", "gradients", "cam"])
def test_kernels_on_the_device_get_activations_that_stayed_there(monkeypatch, emit):
    """The native kernels and torch on the CPU stand for CUDA's and CuPy: what is bound, kept and read is the same."""
    given, native = [], kernels.get()

    class Found:
        def __init__(self, explained):
            self.read = lambda: explained

    class Kernels:
        cupy = torch

        def explain_maps(self, activations, weights, *rest, **options):
            given.append((type(activations), type(weights), activations.shape[0]))
            return Found(native.explain_maps(np.asarray(activations), weights, *rest, **options))

    monkeypatch.setattr(io_binding, "on_gpu", lambda session: True)
    monkeypatch.setattr(kernels, "get", lambda name="auto": Kernels() if name == "cuda" else native)
    model, x = random_model().file(emit=emit), images(3)
    wanted = Explainer(model)(x, targets=[-1, 2])
    explainer = Explainer(model, kernels="cuda")
    found = explainer(x, targets=[-1, 2])
    np.testing.assert_array_equal(found.maps, wanted.maps)
    np.testing.assert_array_equal(found.boxes, wanted.boxes)
    part = explainer.explain(explainer.predict(x)[1])
    np.testing.assert_array_equal(part.classes, wanted.classes[1:2, :1])
    np.testing.assert_allclose(part.maps, wanted.maps[1:2, :1], rtol=1e-5, atol=1e-7)
    assert [kind for kind, _, _ in given] == [torch.Tensor] * 2 and [rows for _, _, rows in given] == [3, 1]
    assert {kind for _, kind, _ in given} == ({type(None)} if emit == "cam" else {np.ndarray})
