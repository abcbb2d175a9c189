"""What only a GPU can show: ONNX Runtime's CUDA provider, CuPy, torch's streams and CUDA graphs, beside the CPU.

Float32 is compared without TF32, which ONNX Runtime uses on GPUs unless told otherwise.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from fastcam import Explainer
from fastcam.image import preprocess
from fastcam.kernels import cuda
from fastcam.runtime.providers import CUDA, Settings
from fastcam.runtime.session import onnxruntime
from fastcam.schema import FastcamError
from fastcam_export import export_model
from support.models.small_models import classifier, many_classes

EXACT = [("cuda", {"use_tf32": "0"})]
DATA = Path(str(files("fastcam"))) / "data"


def missing() -> str:
    """What a GPU test lacks here, or nothing."""
    if CUDA not in onnxruntime().get_available_providers():
        return "no onnxruntime with CUDA"
    try:
        cuda.get()
    except FastcamError as error:
        return str(error)
    return "" if torch.cuda.is_available() else "no torch with CUDA"


WHY = missing()
pytestmark = pytest.mark.skipif(bool(WHY), reason=f"nothing ran on a GPU: {WHY}")


def scenes(**options: Any) -> bytes:
    made = export_model(DATA / "scenes.onnx", preprocess="imagenet", check=False, **options)
    return made.model.SerializeToString()


def inputs(n: int, seed: int = 0) -> Any:
    """The bundled picture with noise, as the bundled model takes it."""
    how = Explainer(scenes(), "cpu").metadata.preprocessing
    assert how is not None
    one = preprocess.prepare(preprocess.load(DATA / "scene.jpg"), how)[0]
    noise = np.random.default_rng(seed).standard_normal((n, *one.shape[1:]), np.float32)
    return np.ascontiguousarray(one + 0.2 * noise)


def assert_same(ours: Any, theirs: Any, tolerance: float = 1e-4) -> None:
    """Maps within ``tolerance`` of their maximum, the same classes and status, boxes within a pixel."""
    np.testing.assert_array_equal(ours.classes, theirs.classes)
    assert ours.status == theirs.status
    top = float(theirs.maps.max())
    assert top > 0
    np.testing.assert_allclose(ours.maps, theirs.maps, rtol=0, atol=tolerance * top)
    if tolerance <= 1e-4:
        np.testing.assert_allclose(ours.boxes, theirs.boxes, rtol=0, atol=1)


@pytest.mark.parametrize("emit", ["weights", "gradients", "cam"])
@pytest.mark.parametrize("where", ["native", "cuda"])
def test_the_gpu_explains_as_the_cpu_does(emit: Any, where: str) -> None:
    model, x = scenes(emit=emit), inputs(5)
    ours = Explainer(model, EXACT, kernels=where, batch_size=4)(x, targets=[-1, 2])
    assert ours.providers[0] == CUDA
    assert_same(ours, Explainer(model, "cpu")(x, targets=[-1, 2]))


def test_tf32_is_near() -> None:
    model, x = scenes(), inputs(3)
    assert_same(Explainer(model, "cuda")(x), Explainer(model, "cpu")(x), 2e-2)


@pytest.mark.parametrize("layer", ["auto", "middle"])
def test_the_backward_pass_of_a_deeper_layer_and_of_the_image(layer: str) -> None:
    from fastcam_export import inspect_model

    name = layer if layer == "auto" else inspect_model(DATA / "scenes.onnx").layers[2].name
    model, x = scenes(layer=name, emit="gradients", input_gradient="guided"), inputs(3)
    ours, theirs = (Explainer(model, p)(x, targets=[-1, 3]) for p in (EXACT, "cpu"))
    assert_same(ours, theirs, 1e-3)
    assert ours.input_gradients is not None and theirs.input_gradients is not None
    scale = float(np.abs(theirs.input_gradients).max())
    np.testing.assert_allclose(ours.input_gradients, theirs.input_gradients, rtol=0, atol=1e-3 * scale)


def test_a_torch_tensor_on_the_gpu_is_not_copied_and_is_waited_for() -> None:
    model, x = scenes(), inputs(4)
    explainer, wanted = Explainer(model, EXACT, kernels="cuda"), Explainer(model, "cpu")(x)
    stream = torch.cuda.Stream()
    slow = torch.randn(6000, 6000, device="cuda")
    given = torch.empty(x.shape, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):  # the tensor is made behind tens of milliseconds of other work
        for _ in range(20):
            slow = slow @ slow / 6000
        given.copy_(torch.from_numpy(x).pin_memory(), non_blocking=True)
        found = explainer(given)
    assert_same(found, wanted)
    from fastcam.runtime.io_binding import DeviceTensor

    assert DeviceTensor(given).value.data_ptr() == given.data_ptr()


@pytest.mark.parametrize("kind", ["torch", "cupy", "none"])
def test_what_stays_on_the_device(kind: str) -> None:
    cupy = cuda.get().cupy
    model, x = scenes(), inputs(6)
    wanted = Explainer(model, "cpu")(x, targets=[-1, 1])
    stream = {"torch": torch.cuda.Stream(), "cupy": cupy.cuda.Stream(non_blocking=True), "none": None}[kind]
    explainer = Explainer(model, EXACT, kernels="cuda", settings=Settings(stream=stream))
    given = torch.from_numpy(x).cuda()
    torch.cuda.synchronize()
    for _ in range(3):
        found = explainer.on_device(given, targets=[-1, 1])
    if stream is not None:
        stream.synchronize()
    assert isinstance(found.classes, cupy.ndarray)
    assert torch.from_dlpack(found.explained.heatmaps).data_ptr() == found.explained.heatmaps.data.ptr
    np.testing.assert_array_equal(cupy.asnumpy(found.classes), wanted.classes)
    top = float(wanted.maps.max())
    np.testing.assert_allclose(cupy.asnumpy(found.explained.maps), wanted.maps, rtol=0, atol=1e-4 * top)
    np.testing.assert_allclose(cupy.asnumpy(found.explained.heatmaps), wanted.heatmaps, rtol=0, atol=1e-3)
    np.testing.assert_allclose(cupy.asnumpy(found.explained.largest)[..., :4], wanted.boxes, rtol=0, atol=1)
    assert found.explained.read().components.shape[1] == 5


def test_half_precision_stays_half_until_the_kernels() -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, 2, 1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(32, 10),
    ).eval()  # fmt: skip
    torch.manual_seed(0)
    proto = exported(module.half())
    made = export_model(proto, check=False).model.SerializeToString()
    x = np.random.default_rng(0).random((4, 3, 64, 64), np.float32).astype(np.float16)
    found = Explainer(made, "cuda", kernels="cuda").on_device(torch.from_numpy(x).cuda())
    wanted = Explainer(made, "cpu")(x)
    maps = cuda.get().cupy.asnumpy(found.explained.maps)
    np.testing.assert_allclose(maps, wanted.maps, rtol=0, atol=1e-2 * float(wanted.maps.max()))


def exported(module: Any) -> onnx.ModelProto:
    import io

    buffer, like = io.BytesIO(), torch.zeros(2, 3, 64, 64, dtype=next(module.parameters()).dtype)
    axes = {"image": {0: "N"}, "logits": {0: "N"}}
    torch.onnx.export(
        module, (like,), buffer, input_names=["image"], output_names=["logits"], dynamic_axes=axes, dynamo=False
    )
    return onnx.load_from_string(buffer.getvalue())


def test_uint8_frames_are_all_that_crosses_the_bus() -> None:
    model = scenes(frames=True)
    picture = preprocess.load(DATA / "scene.jpg")
    frames = np.stack([picture, picture[::-1]])
    wanted = Explainer(model, "cpu")(list(frames))
    explainer = Explainer(model, EXACT, kernels="cuda")
    assert_same(explainer(list(frames)), wanted)
    for given in (frames, torch.from_numpy(frames).cuda()):
        found = explainer.on_device(given)
        maps = cuda.get().cupy.asnumpy(found.explained.maps)
        np.testing.assert_allclose(maps, wanted.maps, rtol=0, atol=1e-3 * float(wanted.maps.max()))


def test_a_cuda_graph_is_recorded_and_replayed() -> None:
    model = scenes(for_engine="cuda")
    session = onnxruntime().InferenceSession(model, providers=["CPUExecutionProvider"])
    names = {str(d) for v in (*session.get_inputs(), *session.get_overridable_initializers()) for d in v.shape}
    fixed = {name: 1 for name in names if not name.isdigit()}
    graphed = Explainer(model, EXACT, settings=Settings(graph=True, fixed=fixed))
    plain = Explainer(model, "cpu")
    for seed in range(5):
        x = inputs(1, seed)
        assert_same(graphed(x, targets=seed), plain(x, targets=seed))
        assert_same(graphed(torch.from_numpy(x).cuda()), plain(x))


def test_a_file_that_reads_on_the_host_is_no_cuda_graph() -> None:
    """The depth of TopK is computed on the device where there are more classes than are ranked in any case."""
    proto = export_model(many_classes(), check=False).model
    fixed = {dim.dim_param for value in proto.graph.input for dim in value.type.tensor_type.shape.dim if dim.dim_param}
    settings = Settings(graph=True, fixed=dict.fromkeys(fixed, 1))
    with pytest.raises(FastcamError, match="export it with --for-engine cuda"):
        Explainer(proto.SerializeToString(), EXACT, settings=settings)
    proto = export_model(many_classes(), check=False, for_engine="cuda").model
    x = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    graphed = Explainer(proto.SerializeToString(), EXACT, settings=settings)
    for targets in (-1, 7):
        assert_same(graphed(x, targets=targets), Explainer(proto.SerializeToString(), "cpu")(x, targets=targets))


def test_many_threads_share_an_explainer() -> None:
    model = scenes()
    explainer, plain = Explainer(model, EXACT, kernels="cuda"), Explainer(model, "cpu")
    batches = [inputs(1 + seed % 3, seed) for seed in range(8)]
    wanted = [plain(x) for x in batches]
    barrier = threading.Barrier(8)

    def work(index: int) -> Any:
        barrier.wait()
        return [explainer(batches[(index + step) % 8]) for step in range(8)]

    with ThreadPoolExecutor(8) as pool:
        for index, found in enumerate(pool.map(work, range(8))):
            for step, one in enumerate(found):
                assert_same(one, wanted[(index + step) % 8])


def test_two_files_and_streams_of_frames() -> None:
    made = export_model(DATA / "scenes.onnx", preprocess="imagenet", on_demand=True, check=False)
    assert made.explanation is not None
    parts = made.model.SerializeToString(), made.explanation.SerializeToString()
    pair = Explainer(parts[0], EXACT, explanation=parts[1])
    x = inputs(3)
    wanted = Explainer(scenes(), "cpu")(x, targets=[-1, 4])
    assert_same(pair.explain(pair.predict(x), targets=[-1, 4]), wanted)
    picture = preprocess.load(DATA / "scene.jpg")
    frames = [np.roll(picture, 3 * i, axis=1) for i in range(9)]
    streamed = list(Explainer(scenes(), EXACT, kernels="cuda").stream(frames, batch_size=4))
    for frame, one in zip(streamed, frames, strict=True):
        assert frame.explanation is not None
        assert_same(frame.explanation, Explainer(scenes(), "cpu")(one))


def test_settings_of_cuda_are_taken(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(scenes())
    settings = Settings(memory_limit=2**31, keep_optimized=True, cache=tmp_path / "cache", device_id=0)
    x = inputs(2)
    wanted = Explainer(scenes(), "cpu")(x)
    for _ in range(2):  # the second start loads what the first kept
        assert_same(Explainer(tmp_path / "model.onnx", EXACT, settings=settings)(x), wanted)
    assert any((tmp_path / "cache").rglob("*.onnx"))
    assert Explainer(scenes()).providers[0] == CUDA  # "auto"
    with pytest.raises(FastcamError, match="device"):
        Explainer(scenes(), "cuda", settings=Settings(device_id=99))


def test_memory_on_the_device_stays_flat() -> None:
    cupy = cuda.get().cupy
    explainer, x = Explainer(scenes(), "cuda", kernels="cuda"), torch.from_numpy(inputs(8)).cuda()
    for _ in range(5):
        explainer.on_device(x).explained.read()
    cupy.cuda.Device().synchronize()
    before = cupy.cuda.Device().mem_info[0]
    for _ in range(50):
        explainer.on_device(x).explained.read()
    cupy.cuda.Device().synchronize()
    assert cupy.cuda.Device().mem_info[0] >= before - 2**20


def test_classifiers_for_tensorrt_run_on_cuda_too() -> None:
    made = export_model(classifier(size=16), for_engine="tensorrt", preprocess="unit", check=False)
    model, x = made.model.SerializeToString(), np.random.default_rng(0).random((3, 3, 16, 16), np.float32)
    assert_same(Explainer(model, EXACT)(x, targets=[-1, 1]), Explainer(model, "cpu")(x, targets=[-1, 1]))
