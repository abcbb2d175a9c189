"""Explanations that stay on the device, with stand-ins for CUDA and CuPy; kernels/test_gpu.py has a GPU."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import fastcam.explainer
from fastcam import Explainer, kernels
from fastcam.runtime import io_binding, providers
from fastcam.runtime.providers import CPU, Settings
from fastcam.schema import FastcamError
from fastcam_export import export_model
from support import cuda_host
from support.models.contract_model import random_model
from support.models.small_models import classifier

pytestmark = pytest.mark.skipif(
    not hasattr(onnxruntime.OrtValue, "from_dlpack"), reason="this onnxruntime does not speak DLPack"
)


class Kernels:
    """The native kernels on torch's CPU tensors, where :mod:`fastcam.kernels.cuda` has CuPy's."""

    cupy = torch

    def __init__(self) -> None:
        self.streams: list[Any] = []
        self.sizes: list[Any] = []

    def on_stream(self, address: Any) -> Any:
        self.streams.append(address)
        return contextlib.nullcontext()

    def explain_maps(self, activations: Any, weights: Any, size: Any, *rest: Any, **options: Any) -> Any:
        assert isinstance(activations, torch.Tensor)
        self.sizes.append(size)
        w = None if weights is None else np.asarray(weights)
        return kernels.get("native").explain_maps(np.asarray(activations), w, size, *rest, **options)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    """As if sessions ran on a GPU and torch's tensors lay there."""
    stand_in = Kernels()
    native = kernels.get()
    monkeypatch.setattr(io_binding, "on_gpu", lambda session: True)
    monkeypatch.setattr(kernels, "get", lambda name="auto": stand_in if name == "cuda" else native)
    for module in (fastcam.runtime.inputs.base, fastcam.explain.on_device):
        monkeypatch.setattr(module, "on_device", lambda value: isinstance(value, torch.Tensor))
    return stand_in


def images(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((n, 3, 32, 32), np.float32)


@pytest.mark.parametrize("emit", ["weights", "cam"])
def test_what_stays_is_what_the_explainer_returns(device: Kernels, emit: Any) -> None:
    model, x = random_model().file(emit=emit), images(3)
    wanted = Explainer(model)(x, targets=[-1, 2])
    for given in (x, torch.from_numpy(x)):
        found = Explainer(model, kernels="cuda").on_device(given, targets=[-1, 2])
        np.testing.assert_array_equal(found.classes, wanted.classes)
        np.testing.assert_array_equal(found.outputs["scores"], wanted.outputs["scores"])
        np.testing.assert_array_equal(found.explained.maps, wanted.maps)
        np.testing.assert_array_equal(found.explained.heatmaps, wanted.heatmaps)
        np.testing.assert_array_equal(found.explained.largest[..., :4], wanted.boxes)
        assert isinstance(found.classes, torch.Tensor)
    assert device.sizes[-1] == (32, 32)


def test_the_boxes_are_read_where_the_kernels_run() -> None:
    k = cuda_host.backend()
    a, w = np.random.default_rng(0).random((2, 8, 7, 7), np.float32), np.ones((2, 3, 8), np.float32)
    found = k.explain_maps(a, w, (30, 30))
    np.testing.assert_array_equal(found.boxes(), kernels.get("native").explain_maps(a, w, (30, 30)).largest)
    assert (k.cupy.reads, k.cupy.streams_entered) == (1, 1)


def test_boxes_without_heatmaps(device: Kernels) -> None:
    x = torch.from_numpy(images(2))
    explainer = Explainer(random_model().file(), kernels="cuda")
    assert explainer.on_device(x, heatmaps=False).explained.heatmaps is None
    half, most = (explainer.on_device(x, threshold=t).explained.largest[..., 4] for t in (0.5, 0.9))
    assert (half >= most).all() and (half > most).any()


def test_pictures_on_the_device_go_into_a_file_with_frames(device: Kernels) -> None:
    model = export_model(classifier(size=16), frames=True, preprocess="unit", check=False).model.SerializeToString()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 24, 20, 3), np.uint8)
    wanted = Explainer(model)(list(pictures))
    found = Explainer(model, kernels="cuda").on_device(torch.from_numpy(pictures))
    np.testing.assert_array_equal(found.explained.maps, wanted.maps)
    assert device.sizes[-1] == (16, 16)
    with pytest.raises(FastcamError, match="must be of uint8 pictures for this file, got tensor\\(float\\)"):
        Explainer(model, kernels="cuda").on_device(torch.zeros(1, 24, 20, 3))


def test_the_users_stream_is_where_the_kernels_run_and_nothing_waits(
    device: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def run(session: Any, names: Any, feed: Any, device: Any, stay: Any, same_stream: bool) -> Any:
        ran.append(same_stream)
        found = session.run_with_ort_values(
            list(names), {name: io_binding.as_value(value) for name, value in feed.items()}
        )
        return dict(zip(names, found, strict=True))

    monkeypatch.setattr(io_binding, "run", run)
    monkeypatch.setitem(providers._TAKEN_BY, "stream", (CPU,))
    x = torch.from_numpy(images(1))
    Explainer(random_model().file(), kernels="cuda", settings=Settings(stream=1234)).on_device(x)
    Explainer(random_model().file(), kernels="cuda").on_device(x)
    assert device.streams == [1234, None]
    assert ran == [True, False]


def test_inputs_of_a_device_are_waited_for() -> None:
    """The session's own stream knows nothing of the one on which a tensor is still being made."""
    calls = []

    class Binding:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: calls.append(name) or []

    class Session:
        def io_binding(self) -> Any:
            return Binding()

        def run_with_iobinding(self, _: Any, options: Any) -> None:
            calls.append(f"run {options and options.get_run_config_entry('disable_synchronize_execution_providers')}")

    given = {"image": io_binding.DeviceTensor(torch.zeros(1, 3))}
    io_binding.run(Session(), [], given, ("cuda", 0))
    assert calls == ["bind_ortvalue_input", "synchronize_inputs", "run None", "get_outputs"]
    calls.clear()
    io_binding.run(Session(), [], given, ("cuda", 0), same_stream=True)
    assert calls == ["bind_ortvalue_input", "run 1", "get_outputs"]


def test_what_cannot_stay_is_refused(device: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = random_model().file(), torch.from_numpy(images(2))
    explainer = Explainer(model, kernels="cuda")
    for given, targets, words in (
        (x, {0: 1, 1: -1}, "on_device explains classes and ranks; for combinations"),
        (x[:, :, :16].contiguous(), -1, r"takes the network's input, \['N', 3, 32, 32\].* got \[2, 3, 16, 32\]"),
        (x[0], -1, "takes the network's input"),
        (x, 99, "99"),
    ):
        with pytest.raises(FastcamError, match=words):
            explainer.on_device(given, targets=targets)
    with pytest.raises(FastcamError, match='needs kernels="cuda"; the Explainer has those of the CPU'):
        Explainer(model).on_device(x)
    monkeypatch.setattr(io_binding, "on_gpu", lambda session: False)
    with pytest.raises(FastcamError, match='runs on cpu; explaining on the device needs providers "cuda"'):
        Explainer(model, kernels="cuda").on_device(x)
