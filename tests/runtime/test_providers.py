"""Providers, their options and what is refused, with a stand-in for ONNX Runtime that records what it is given."""

from __future__ import annotations

import json
import sys
import types
import warnings

import cv2
import numpy as np
import onnxruntime
import pytest

from fastcam import Explainer, FastcamError, cli
from fastcam.runtime import io_binding, providers, session
from fastcam.runtime.providers import CPU, CUDA, OPENVINO, TENSORRT, Settings
from fastcam.runtime.session import create_session
from fastcam_export import export_model
from support.models.contract_model import random_model
from support.models.small_models import classifier

MODEL = random_model().file()
REQUIRED = random_model().file(targets="required")


class FakeRuntime(types.SimpleNamespace):
    """onnxruntime with other providers: ``working`` run (on the CPU, in truth), ``silent`` fall back without a word."""

    def __init__(self, available, working=(), silent=()):
        super().__init__(**vars(onnxruntime))
        self.made = made = []

        class InferenceSession:
            def __init__(self, model, options, providers, enable_fallback=1):
                names = [name if isinstance(name, str) else name[0] for name in providers]
                made.append((options, providers))
                assert enable_fallback == 0 or names == [CPU]
                if not {*names} <= {*working, *silent, CPU}:
                    raise RuntimeError("libcublas.so not found")
                self._real = onnxruntime.InferenceSession(model, options, providers=[CPU])
                self._names = [name for name in names if name not in silent]

            def get_providers(self):
                return [*self._names, *([] if CPU in self._names else [CPU])]

            def __getattr__(self, name):
                return getattr(self._real, name)

        self.InferenceSession = InferenceSession
        self.get_available_providers = lambda: [*available, CPU]
        self.preload_dlls = lambda: print("Failed to load libcublasLt.so.12")

    __hash__ = object.__hash__

    def options(self, name):
        """The options that the last session got for a provider."""
        return dict(p for p in self.made[-1][1] if not isinstance(p, str)).get(name, {})


@pytest.fixture
def runtime(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTCAM_CACHE", str(tmp_path / "cache"))
    session.warn_once.cache_clear()

    def install(*available, working=(), silent=()):
        fake = FakeRuntime(available, working, silent)
        monkeypatch.setattr(session, "onnxruntime", lambda: fake)
        return fake

    return install


def test_providers_are_resolved_by_name():
    available = [CUDA, OPENVINO, CPU]
    assert providers.resolve_providers("auto", available) == [CUDA, OPENVINO, CPU]
    assert providers.resolve_providers("auto", [CPU, "AzureExecutionProvider"]) == [CPU]
    assert providers.resolve_providers("cpu", available) == [CPU]
    assert providers.resolve_providers("cuda, CPU", available) == [CUDA, CPU]
    assert providers.resolve_providers([(CUDA, {"device_id": 1}), "openvino"], available) == [
        (CUDA, {"device_id": 1}),
        OPENVINO,
    ]


@pytest.mark.parametrize(
    ("providers", "words"),
    [
        ("cuda", r"which has .*cpu; pip install fastcam\[gpu\], and CUDA and cuDNN"),
        (["TensorrtExecutionProvider"], r"pip install fastcam\[gpu\], and TensorRT"),
        ("openvino", "pip install onnxruntime-openvino in place of onnxruntime"),
        ("CoreML", "install the onnxruntime distribution that has it"),
        ([], "no provider given"),
    ],
)
def test_absent_providers_are_refused(runtime, providers, words):
    runtime()
    with pytest.raises(FastcamError, match=words):
        create_session(MODEL, providers)


def test_a_provider_that_was_asked_for_and_falls_back_is_an_error(runtime):
    runtime(CUDA, silent=[CUDA])
    with pytest.raises(FastcamError, match="'cuda' is installed but does not run here; it needs an NVIDIA GPU"):
        create_session(MODEL, "cuda")
    with pytest.raises(FastcamError, match="'cuda' is installed but does not run"):
        create_session(MODEL, ["cuda", "cpu"])
    runtime(CUDA)
    with pytest.raises(FastcamError, match="libcublas"):
        create_session(MODEL, "cuda")


def test_auto_warns_once_and_goes_on(runtime):
    runtime(CUDA, OPENVINO, working=[OPENVINO], silent=[CUDA])
    with pytest.warns(UserWarning, match="'cuda' is installed but does not run here.*going on with openvino") as seen:
        made = [create_session(REQUIRED), create_session(REQUIRED)]
    assert len(seen) == 1 and seen[0].filename == __file__
    assert made[0].get_providers() == [OPENVINO, CPU]
    runtime(CUDA, working=[CUDA])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert create_session(MODEL).get_providers() == [CUDA, CPU]


def test_a_bad_model_is_not_blamed_on_the_provider(runtime):
    runtime(CUDA, working=[CUDA])
    with warnings.catch_warnings(), pytest.raises(FastcamError, match="not an ONNX file"):
        warnings.simplefilter("error")
        create_session(b"nothing")


def test_engines_that_make_constants_of_defaults_are_told_apart(runtime):
    runtime(OPENVINO, working=[OPENVINO])
    with pytest.warns(UserWarning, match="openvino makes constants.*--targets required"):
        assert create_session(MODEL).get_providers() == [CPU]
    picture = np.zeros((32, 32, 3), np.uint8)
    explainer = Explainer(MODEL, "openvino")
    assert explainer(picture).providers == (OPENVINO, CPU)
    with pytest.raises(FastcamError, match=r"constant targets on openvino, cpu; export it again with .*required"):
        explainer(picture, targets=[1])
    assert Explainer(REQUIRED, "openvino")(picture, targets=[1]).classes.tolist() == [[1]]


def test_the_result_says_what_ran():
    found = Explainer(MODEL)(np.zeros((32, 32, 3), np.uint8))
    assert found.providers == (CPU,) and found.to_dict()["providers"] == [CPU]


# --- options ----------------------------------------------------------------------------------------------------


def test_cuda_options(runtime):
    fake = runtime(CUDA, working=[CUDA])
    create_session(MODEL, "cuda", settings=Settings(device_id=2, memory_limit=2**30, stream=1234))
    assert fake.options(CUDA) == {
        "device_id": "2",
        "gpu_mem_limit": str(2**30),
        "arena_extend_strategy": "kSameAsRequested",
        "user_compute_stream": "1234",
    }
    create_session(MODEL, [("cuda", {"device_id": 3})], settings=Settings(device_id=2))
    assert fake.options(CUDA) == {"device_id": "3"}


def test_tensorrt_options_and_caches(runtime, tmp_path):
    fake = runtime(TENSORRT, CUDA, working=[TENSORRT, CUDA])
    settings = Settings(fp16=True, int8=True, calibration="table.flatbuffers", batches=(1, 4, 16), device_id=1)
    made = create_session(MODEL, "tensorrt", settings=settings)
    assert made.get_providers() == [TENSORRT, CUDA, CPU] and fake.options(CUDA) == {"device_id": "1"}
    options = fake.options(TENSORRT)
    engines = options.pop("trt_engine_cache_path")
    assert engines.startswith(str(tmp_path / "cache" / "engines"))
    assert options == {
        "device_id": "1",
        "trt_fp16_enable": "1",
        "trt_int8_enable": "1",
        "trt_int8_calibration_table_name": "table.flatbuffers",
        "trt_engine_cache_enable": "1",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path / "cache" / "timings"),
        "trt_profile_min_shapes": "image:1x3x32x32,fastcam.targets:1x1",
        "trt_profile_opt_shapes": "image:4x3x32x32,fastcam.targets:4x1",
        "trt_profile_max_shapes": "image:16x3x32x32,fastcam.targets:16x5",
    }
    create_session(MODEL, "tensorrt", settings=Settings(keep_engines=False))
    assert fake.options(TENSORRT) == {"device_id": "0"}
    for other, setting in ((random_model(1).file(), settings), (MODEL, Settings(fp16=True))):
        create_session(other, "tensorrt", settings=setting)
        assert fake.options(TENSORRT)["trt_engine_cache_path"] != engines
    create_session(MODEL, "tensorrt", settings=settings)
    assert fake.options(TENSORRT)["trt_engine_cache_path"] == engines


def test_profiles_of_free_heights_and_widths():
    inputs = {"image": ["N", 3, "H", "W"], "fixed": [1, 2]}
    made = providers.profile(Settings(batches=(1, 2, 3), size=(224, 160)), inputs)
    assert made["trt_profile_max_shapes"] == "image:3x3x224x160"
    made = providers.profile(Settings(batches=(1, 2, 3), size=(224, 160)), {"image": ["N", "H", "W", 3]})
    assert made["trt_profile_min_shapes"] == "image:1x224x160x3"
    made = providers.profile(Settings(batches=(1, 2, 3), fixed={"H": 8, "W": 6}), inputs)
    assert made["trt_profile_opt_shapes"] == "image:2x3x8x6"
    with pytest.raises(FastcamError, match="free dimension 'H' at axis 2; set size"):
        providers.profile(Settings(batches=(1, 2, 3)), inputs)


def test_openvino_options(runtime, tmp_path):
    fake = runtime(OPENVINO, working=[OPENVINO])
    create_session(REQUIRED, "openvino", threads=3)
    options = fake.options(OPENVINO)
    assert options.pop("cache_dir").startswith(str(tmp_path / "cache" / "openvino"))
    assert options == {"precision": "ACCURACY", "num_of_threads": "3"}
    create_session(REQUIRED, [("openvino", {"device_type": "GPU"})], settings=Settings(fp16=True, keep_engines=False))
    assert fake.options(OPENVINO) == {"device_type": "GPU"}


class HasPtr:
    ptr = 77


class HasCudaStream:
    cuda_stream = 78


class HasProtocol:
    def __cuda_stream__(self):
        return (0, 79)


def test_streams_of_all_kinds():
    found = [providers.stream_address(stream) for stream in (76, HasPtr(), HasCudaStream(), HasProtocol(), None)]
    assert found == [76, 77, 78, 79, None]
    with pytest.raises(FastcamError, match="default stream; make one"):
        Settings(stream=0)
    with pytest.raises(FastcamError, match="no CUDA stream \\(str\\)"):
        Settings(stream="fast")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device_id": -1}, "device_id must be at least 0"),
        ({"batches": (4, 2, 8)}, "ascending order"),
        ({"batches": (0, 2, 8)}, "ascending order"),
        ({"size": (0, 3)}, "size is"),
        ({"memory_limit": -1}, "memory_limit must be at least 1"),
        ({"inter_threads": -2}, "inter_threads must be"),
        ({"fixed": {"N": 0}}, r"fixed\['N'\] must be"),
        ({"calibration": "table"}, "set int8 too"),
        ({"cores": []}, "processor numbers"),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(FastcamError, match=words):
        Settings(**settings)


@pytest.mark.parametrize("settings", [{"fp16": True}, {"int8": True}, {"stream": 5}, {"graph": True}, {"device_id": 1}])
def test_settings_that_no_provider_takes_are_refused(runtime, settings):
    runtime()
    for choice in ("cpu", "auto"):
        with pytest.raises(FastcamError, match=f"{next(iter(settings))} is a setting of .*the session runs on cpu"):
            create_session(MODEL, choice, settings=Settings(**settings))


def test_auto_passes_over_what_does_not_take_a_setting(runtime):
    runtime(CUDA, OPENVINO, working=[CUDA, OPENVINO])
    assert create_session(REQUIRED, settings=Settings(fp16=True)).get_providers() == [OPENVINO, CPU]


def test_graphs_need_fixed_shapes(runtime):
    fake = runtime(CUDA, working=[CUDA])
    with pytest.raises(FastcamError, match=r"input image has free dimensions; set fixed=\{'N': ...\}"):
        create_session(MODEL, "cuda", settings=Settings(graph=True))
    fixed = {"N": 2, "targets_n": 1, "T": 1}
    create_session(MODEL, "cuda", settings=Settings(graph=True, fixed=fixed))
    assert fake.options(CUDA)["enable_cuda_graph"] == "1"


def test_a_free_dimension_can_be_fixed():
    model = random_model()
    explainer = Explainer(MODEL, settings=Settings(fixed={"N": 4}))
    assert explainer.batch_size == 4
    x = np.random.default_rng(0).random((6, 3, 32, 32), np.float32)  # two runs, the second filled up
    np.testing.assert_allclose(explainer(x).scores, model.scores(x), rtol=1e-4, atol=1e-5)


def test_threads_for_small_devices():
    settings = Settings(inter_threads=2, spinning=False, arena=False)
    made = create_session(MODEL, threads=1, settings=settings).get_session_options()
    assert made.intra_op_num_threads == 1 and made.inter_op_num_threads == 2 and not made.enable_cpu_mem_arena
    assert made.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert made.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    made = create_session(MODEL, threads=2, settings=Settings(spinning="run")).get_session_options()
    assert made.get_session_config_entry("session.force_spinning_stop") == "1"
    with pytest.raises(FastcamError, match="give True, False or"):
        Settings(spinning="never")
    made = create_session(MODEL, threads=2, settings=Settings(cores=[1]))
    assert made.get_session_options().get_session_config_entry("session.intra_op_thread_affinities") == "2"
    with pytest.raises(FastcamError, match=r"give 1 for 2 threads"):
        create_session(MODEL, threads=2, settings=Settings(cores=[0, 1]))
    with pytest.raises(FastcamError, match="give threads"):
        create_session(MODEL, settings=Settings(cores=[0]))


@pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="no onnxruntime-gpu here")
def test_cuda_equals_the_cpu():
    x = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)
    ours, theirs = Explainer(MODEL, "cuda")(x, targets=[-1, 2]), Explainer(MODEL, "cpu")(x, targets=[-1, 2])
    np.testing.assert_allclose(ours.maps, theirs.maps, rtol=1e-3, atol=1e-4)


def test_a_graph_replays_fixed_buffers(runtime, monkeypatch):
    """The buffers lie in the processor's memory here; on a GPU the same runs record and replay a graph."""
    runtime(CUDA, working=[CUDA])
    monkeypatch.setattr(io_binding, "device_of", lambda session: io_binding.HOST)
    fixed = {"N": 2, "targets_n": 1, "T": 2}
    explainer = Explainer(MODEL, "cuda", settings=Settings(graph=True, fixed=fixed))
    plain = Explainer(MODEL, "cpu")
    for seed in range(3):
        x = np.random.default_rng(seed).random((3, 3, 32, 32), np.float32)
        ours, theirs = explainer(x, targets=[-1, seed]), plain(x, targets=[-1, seed])
        np.testing.assert_allclose(ours.maps, theirs.maps, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)


def test_the_command_line_chooses_providers(tmp_path, monkeypatch, capsys):
    (tmp_path / "model.onnx").write_bytes(MODEL)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 32, 3), 90, np.uint8))
    command = ["fastcam", "explain", str(tmp_path / "model.onnx"), str(tmp_path / "a.png"), "--json", "--providers"]
    for choice, code in (("cpu", 0), ("cuda", 2)):
        monkeypatch.setattr(sys, "argv", [*command, choice])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == code
        said = capsys.readouterr()
        if code:
            assert (
                said.err.startswith("fastcam: provider 'cuda' is not in this ONNX Runtime")
                and said.err.count("\n") == 1
            )
        else:
            assert json.loads(said.out)["providers"] == [CPU]


@pytest.mark.skipif(OPENVINO not in onnxruntime.get_available_providers(), reason="no onnxruntime-openvino here")
@pytest.mark.parametrize(
    "options", [{}, {"frames": True}, {"emit": "gradients"}], ids=["weights", "frames", "gradients"]
)
def test_openvino_equals_the_cpu(options, tmp_path):
    export = export_model(classifier(size=16), preprocess="unit", targets="required", **options)
    model = export.model.SerializeToString()
    given = [np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8) for seed in range(3)]
    ours = Explainer(model, "openvino", settings=Settings(cache=tmp_path))(given, targets=[-1, 2])
    theirs = Explainer(model, "cpu")(given, targets=[-1, 2])
    assert ours.providers[0] == OPENVINO
    np.testing.assert_array_equal(ours.classes, theirs.classes)
    # of frames, single pixels are rounded otherwise
    np.testing.assert_allclose(ours.maps, theirs.maps, atol=(1e-2 if "frames" in options else 1e-5) * theirs.maps.max())
