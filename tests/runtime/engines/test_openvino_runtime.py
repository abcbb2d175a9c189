"""Files on OpenVINO's own runtime, beside the same files on ONNX Runtime."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from fastcam import Explainer, FastcamError, Settings
from fastcam.runtime.engines.openvino import native_precisions
from fastcam.runtime.session import create_session
from fastcam_export import export_model
from support.models.contract_model import random_model
from support.models.small_models import classifier

openvino = pytest.importorskip("openvino", reason="needs OpenVINO (pip install fastcam[openvino])")

FILE = random_model().file()
RUNTIME = "openvino-runtime"


def pictures(count):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "small.cam.onnx"
    export_model(classifier(), path, preprocess="unit", check=False)
    return path


def test_maps_boxes_and_metadata_are_those_of_onnx_runtime(exported):
    ours, theirs = Explainer(exported, RUNTIME, threads=1), Explainer(exported, "cpu", threads=1)
    assert ours.providers == (RUNTIME,) and ours.metadata == theirs.metadata
    for targets in (-1, [0, 1], [2]):  # the default of an input, and other values
        a, b = ours(pictures(3), targets), theirs(pictures(3), targets)
        np.testing.assert_array_equal(a.classes, b.classes)
        np.testing.assert_allclose(a.heatmaps, b.heatmaps, atol=1e-5)
        np.testing.assert_array_equal(a.boxes, b.boxes)


def test_what_a_session_says_of_values_is_what_onnx_runtimes_says():
    ours, theirs = (create_session(FILE, providers) for providers in (RUNTIME, "cpu"))
    for what in ("get_inputs", "get_outputs", "get_overridable_initializers"):
        mine, known = getattr(ours, what)(), getattr(theirs, what)()
        assert [(one.name, one.type) for one in mine] == [(one.name, one.type) for one in known]
        for a, b in zip(mine, known):
            assert all(x == y or (x is None and not isinstance(y, int)) for x, y in zip(a.shape, b.shape)), a.name
    assert ours.get_modelmeta().custom_metadata_map == theirs.get_modelmeta().custom_metadata_map


def test_any_number_of_pictures_runs_whatever_was_compiled_before(exported):
    ours, theirs = Explainer(exported, RUNTIME, threads=1), Explainer(exported, "cpu", threads=1)
    for count in (1, 2, 3, 5, 1):
        np.testing.assert_allclose(ours(pictures(count)).heatmaps, theirs(pictures(count)).heatmaps, atol=1e-5)


def test_threads_share_a_session(exported):
    explainer = Explainer(exported, RUNTIME, threads=1, settings=Settings(sessions=2))
    wanted = [explainer(picture).heatmaps for picture in pictures(4)]
    found = [None] * 4

    def explain(number):
        for _ in range(5):
            found[number] = explainer(pictures(4)[number]).heatmaps

    threads = [threading.Thread(target=explain, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(found, wanted):
        np.testing.assert_array_equal(a, b)


def test_what_a_run_gave_stays_as_long_as_any_part_of_it_is_held(exported):
    session = create_session(exported, RUNTIME, threads=1)
    (image,) = session.get_inputs()
    rng = np.random.default_rng(0)
    given = [
        {image.name: rng.standard_normal([side or 2 for side in image.shape]).astype(np.float32)} for _ in range(8)
    ]
    alone = create_session(exported, "cpu", threads=1)
    wanted = [alone.run(None, one) for one in given]
    held = [[value[..., -1:] for value in session.run(None, one)] for one in given]
    for found, known in zip(held, wanted):
        for a, b in zip(found, known):
            np.testing.assert_allclose(a, b[..., -1:], atol=1e-5)


def test_memory_of_outputs_is_used_again_when_nobody_reads_it(exported, monkeypatch):
    session = create_session(exported, RUNTIME, threads=1)
    (image,) = session.get_inputs()
    feed = {image.name: np.zeros([side or 2 for side in image.shape], np.float32)}
    made, tensor = [], openvino.Tensor

    def counted(*how, **shared):  # inputs are shared
        if not shared:
            made.append(how)
        return tensor(*how, **shared)

    monkeypatch.setattr(openvino, "Tensor", counted)
    for _ in range(5):
        session.run(None, feed)
    assert len(made) == len(session.get_outputs())
    held = [session.run(None, feed) for _ in range(5)]
    assert len(made) == len(held) * len(session.get_outputs())


def test_half_precision_moves_maps_by_little(exported):
    exact, half = (Explainer(exported, RUNTIME, settings=Settings(precision=one)) for one in ("f32", "bf16"))
    np.testing.assert_allclose(half(pictures(2)).heatmaps, exact(pictures(2)).heatmaps, atol=0.05)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: create_session(FILE, f"{RUNTIME},cpu"), "the only provider"),
        (lambda: create_session(FILE, RUNTIME, settings=Settings(arena=False)), "arena is a setting of ONNX Runtime"),
        (lambda: create_session(b"no model", RUNTIME), "OpenVINO cannot read it"),
        (lambda: create_session(FILE, RUNTIME).run(None, {"other": np.zeros(1)}), "no input 'other'"),
        (lambda: create_session(FILE, RUNTIME).run(None, {}), "is missing"),
        (lambda: Explainer(FILE, "cpu", settings=Settings(precision="bf16")), "precision is a setting of openvino"),
    ],
)
def test_what_it_does_not_take_is_refused(call, said):
    with pytest.raises(FastcamError, match=said):
        call()


def test_values_of_other_shapes_and_types_are_refused():
    session = create_session(FILE, RUNTIME)
    (image,) = session.get_inputs()
    shape = [side or 2 for side in image.shape]
    for wrong in (np.zeros(shape, np.float64), np.zeros([*shape, 1], np.float32)):
        with pytest.raises(FastcamError, match=f"input {image.name} takes"):
            session.run(None, {image.name: wrong})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_is_told_so(exported):
    explainer = Explainer(exported, RUNTIME, threads=1)
    explainer(pictures(1)[0])
    child = os.fork()
    if not child:
        try:
            explainer(pictures(1)[0])
        except FastcamError as error:
            os._exit(0 if "forked" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not os.path.isfile("/proc/cpuinfo"), reason="this system has no /proc/cpuinfo")
def test_bfloat16_is_native_where_the_processor_has_instructions_for_it():
    with open("/proc/cpuinfo") as lines:
        flags = next((line.split() for line in lines if line.startswith("flags")), None)
    if flags is None:
        pytest.skip("no x86")
    native = native_precisions()
    assert "f32" in native and ("bf16" in native) == bool({"avx512_bf16", "amx_bf16"} & {*flags})


def test_arrays_that_openvino_cannot_share_are_copied(exported):
    ours, theirs = (create_session(exported, providers) for providers in (RUNTIME, "cpu"))
    (image,) = (value.name for value in theirs.get_inputs())
    plain = np.random.default_rng(0).random((1, 3, *theirs.get_inputs()[0].shape[2:]), np.float32)
    reversed_, constant = plain[..., ::-1], plain.copy()
    constant.flags.writeable = False
    for given in (plain, reversed_, np.asfortranarray(plain), constant):
        for a, b in zip(ours.run(None, {image: given}), theirs.run(None, {image: given})):
            np.testing.assert_allclose(a, b, atol=1e-5)
    for wrong in (plain.astype(np.float64), plain[0], plain.tolist()):  # though others of its name have run
        with pytest.raises(FastcamError, match=image):
            ours.run(None, {image: wrong})
