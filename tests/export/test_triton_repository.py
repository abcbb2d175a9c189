"""``fastcam export --triton``: Triton's own messages read the repository, and its steps give what Explainer gives."""

from __future__ import annotations

import os

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

import fastcam
from fastcam import Explainer, FastcamError, schema
from fastcam.cli import app
from fastcam_export import export_model, write_triton_repository
from support.models.contract_model import noise, random_model
from support.servers.triton import Failed, Repository, configs

SIZES = ((50, 70), (33, 90), (128, 128))
PICTURES = [noise(*size, seed=seed) for seed, size in enumerate(SIZES)]
ENCODED = [cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes() for picture in PICTURES]
SCENES = os.path.join(os.path.dirname(fastcam.__file__), "data", "scenes.onnx")
LABELS = tuple(f"class {i}\tof ten" for i in range(10))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The bundled model, with letterboxed pictures, so that boxes depend on the geometry."""
    path = tmp_path_factory.mktemp("exported") / "scenes.cam.onnx"
    export_model(SCENES, path, preprocess="imagenet", resize="letterbox", labels=list(LABELS), check=False)
    return path


@pytest.fixture(scope="module")
def repository(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton") / "models"
    folders, alone = write_triton_repository(file, folder)
    assert alone == "" and [one.name for one in folders] == ["scenes", "scenes_pictures", "scenes_boxes",
                                                             "scenes_explain"]  # fmt: skip
    return folder


def encoded(*pictures):
    array = np.empty((len(pictures), 1), object)
    array[:, 0] = pictures
    return array


def test_triton_s_messages_read_every_configuration(repository):
    found = configs(repository)
    whole = found["scenes"]
    assert whole.backend == "onnxruntime" and whole.max_batch_size == 8 and whole.HasField("dynamic_batching")
    assert {one.name: one.optional for one in whole.input} == {"image": False, schema.TARGETS: True}
    (scores,) = [one for one in whole.output if one.label_filename]
    assert scores.name == "probabilities" and [*scores.dims] == [10]
    lines = (repository / "scenes" / scores.label_filename).read_text().splitlines()
    assert lines == [label.replace("\t", " ") for label in LABELS]


def test_the_configuration_is_that_of_the_file_and_the_file_is_the_exported_one(file, repository):
    whole = configs(repository)["scenes"]
    session = onnxruntime.InferenceSession(repository / "scenes" / "1" / "model.onnx")
    free = lambda shape: [side if isinstance(side, int) else -1 for side in shape[1:]]  # noqa: E731
    have = {one.name: free(one.shape) for one in (*session.get_inputs(), *session.get_overridable_initializers())}
    assert {one.name: [*one.dims] for one in whole.input} == have
    assert {one.name: [*one.dims] for one in whole.output} == {o.name: free(o.shape) for o in session.get_outputs()}
    assert (repository / "scenes" / "1" / "model.onnx").read_bytes() == file.read_bytes()


def test_steps_agree_on_every_tensor_that_passes_between_them(repository):
    """What Triton checks when it loads an ensemble: each tensor has one type and shape, and one step makes it."""
    found = configs(repository)
    ensemble = found["scenes_explain"]
    known = {one.name: (one.data_type, [*one.dims]) for one in ensemble.input}
    optional = {one.name for one in ensemble.input if one.optional}
    for step in ensemble.ensemble_scheduling.step:
        model = found[step.model_name]
        assert model.max_batch_size >= ensemble.max_batch_size
        for one in model.input:
            kind, dims = known[step.input_map[one.name]]
            assert kind == one.data_type and len(dims) == len(one.dims)
            assert all(-1 in pair or pair[0] == pair[1] for pair in zip(dims, one.dims))
            assert one.optional or step.input_map[one.name] not in optional
        for one in model.output:
            if one.name in step.output_map:
                assert step.output_map[one.name] not in known, "made twice"
                known[step.output_map[one.name]] = one.data_type, [*one.dims]
    assert all(known[one.name] == (one.data_type, [*one.dims]) for one in ensemble.output)


@pytest.mark.parametrize("targets", [None, [[-1, 3]], [[0], [4], [-2]]])
def test_pictures_give_the_boxes_of_the_explainer(file, repository, monkeypatch, targets):
    feed = {"image": encoded(*ENCODED)}
    if targets is not None:
        feed[schema.TARGETS] = np.repeat(targets, 3, 0) if len(targets) == 1 else np.array(targets)
    found = Repository(repository, monkeypatch)("scenes_explain", feed)
    asked = -1 if targets is None else [*feed[schema.TARGETS].tolist()]
    expected = Explainer(file, "cpu")(list(PICTURES), asked)
    np.testing.assert_array_equal(found[schema.CLASSES], expected.classes)
    np.testing.assert_allclose(found["probabilities"], expected.scores, rtol=1e-5)
    np.testing.assert_allclose(found["fastcam.maps"], expected.maps, atol=1e-5)
    np.testing.assert_allclose(found["fastcam.boxes"], expected.boxes, atol=0.01)
    assert found["fastcam.status"].tolist() == [[word.encode() for word in row] for row in expected.status]
    assert expected.boxes.any(), "boxes of nothing are alike anyway"


def test_the_file_alone_takes_tensors_with_and_without_targets(file, repository, monkeypatch):
    run = Repository(repository, monkeypatch)
    image = np.random.default_rng(0).random((2, 3, 128, 128), np.float32)
    predicted = run("scenes", {"image": image})
    assert (predicted[schema.CLASSES][:, 0] == predicted["probabilities"].argmax(axis=1)).all()
    asked = run("scenes", {"image": image, schema.TARGETS: np.array([[3], [5]])})
    assert asked[schema.CLASSES].tolist() == [[3], [5]]


def test_the_steps_hold_no_weights(repository):
    about = onnx.load(repository / "scenes_boxes" / "1" / schema.ABOUT)
    assert sum(numpy_helper.to_array(one).size for one in about.graph.initializer) < 100
    assert about.ByteSize() < 10_000


def test_parameters_of_the_configuration_are_heard(file, repository, tmp_path, monkeypatch):
    import shutil

    changed = tmp_path / "models"
    shutil.copytree(repository, changed)
    config = changed / "scenes_boxes" / "config.pbtxt"
    config.write_text(config.read_text().replace('"0.15"', '"0.6"'))
    found = Repository(changed, monkeypatch)("scenes_explain", {"image": encoded(*ENCODED)})
    expected = Explainer(file, "cpu")(list(PICTURES), threshold=0.6)
    np.testing.assert_allclose(found["fastcam.boxes"], expected.boxes, atol=0.01)
    assert not np.allclose(expected.boxes, Explainer(file, "cpu")(list(PICTURES)).boxes, atol=1)
    config.write_text(config.read_text().replace('"0.6"', '"high"'))
    with pytest.raises(FastcamError, match=r"parameter threshold is 'high'.*config.pbtxt"):
        Repository(changed, monkeypatch).python("scenes_boxes")


def test_a_picture_that_cannot_be_read_is_an_error_of_its_request_alone(repository, monkeypatch):
    from support.servers.triton import Request, Tensor

    run = Repository(repository, monkeypatch)
    bad, good = (Request([Tensor("image", encoded(one))]) for one in (b"no picture", ENCODED[0]))
    failed, answered = run.python("scenes_pictures").execute([bad, good])
    assert isinstance(failed.error, Failed) and "\n" not in str(failed.error)
    assert answered.error is None and len(answered.output_tensors) == 3
    assert run.python("scenes_pictures").execute([Request([Tensor("image", np.array([["a path"]], object))])])[0].error


def test_a_file_with_a_batch_of_one_has_no_batches(tmp_path, monkeypatch):
    (tmp_path / "one.cam.onnx").write_bytes(random_model(batch=1).file(emit="gradients"))
    folders, alone = write_triton_repository(tmp_path / "one.cam.onnx", tmp_path / "models")
    assert len(folders) == 4 and alone == ""
    run = Repository(tmp_path / "models", monkeypatch)
    assert {config.max_batch_size for config in run.configs.values()} == {0}
    found = run("one_explain", {"image": encoded(ENCODED[0])[0]})
    expected = Explainer(tmp_path / "one.cam.onnx", "cpu")(PICTURES[0])
    np.testing.assert_allclose(found["fastcam.boxes"], expected.boxes, atol=0.01)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"preprocessing": None}, "--preprocess"),
        ({"batch": 3}, "fixed number of pictures"),
    ],
)
def test_a_file_without_an_ensemble_says_why_and_goes_in_alone(tmp_path, made, why):
    (tmp_path / "odd.cam.onnx").write_bytes(random_model(**made).file())
    folders, alone = write_triton_repository(tmp_path / "odd.cam.onnx", tmp_path / "models")
    assert [one.name for one in folders] == ["odd"] and why in alone
    assert [one.name for one in (tmp_path / "models").iterdir()] == ["odd"]


# --- what is refused ------------------------------------------------------------------------------------------------


def left(folder):
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*"))


@pytest.mark.parametrize("there", ["scenes", "scenes_boxes", "scenes_explain"])
def test_nothing_that_is_there_is_replaced(file, tmp_path, there):
    (tmp_path / there).mkdir()
    (tmp_path / there / "config.pbtxt").write_text("somebody's")
    before = left(tmp_path)
    with pytest.raises(FastcamError, match=f"{there}: is there already") as error:
        write_triton_repository(file, tmp_path)
    assert "\n" not in str(error.value) and left(tmp_path) == before


def test_a_disk_that_fails_leaves_nothing(file, tmp_path, monkeypatch):
    from pathlib import Path

    rename, calls = Path.rename, []

    def third_fails(self, target):
        calls.append(target)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", third_fails)
    with pytest.raises(FastcamError, match="cannot be written"):
        write_triton_repository(file, tmp_path / "new" / "models")
    assert len(calls) == 3 and left(tmp_path) == []


def test_what_is_no_export_of_one_file_is_refused(file, tmp_path):
    with pytest.raises(FastcamError, match="not exported by FastCAM"):
        write_triton_repository(SCENES, tmp_path / "models")
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(FastcamError, match="no ONNX file"):
        write_triton_repository(tmp_path / "no.onnx", tmp_path / "models")
    with pytest.raises(FastcamError, match="give a folder"):
        write_triton_repository(file, tmp_path / "no.onnx")
    pair = tmp_path / "pair.cam.onnx"
    export_model(SCENES, pair, preprocess="imagenet", on_demand=True, check=False)
    with pytest.raises(FastcamError, match="--one-file"):
        write_triton_repository(pair, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_weights_beside_the_file_go_along(tmp_path):
    model = onnx.load(SCENES)
    export_model(model, tmp_path / "big.cam.onnx", preprocess="imagenet", check=False)
    big = onnx.load(tmp_path / "big.cam.onnx")
    onnx.save(big, tmp_path / "big.cam.onnx", save_as_external_data=True, location="weights.bin", size_threshold=100)
    write_triton_repository(tmp_path / "big.cam.onnx", tmp_path / "models")
    image = {"image": np.zeros((1, 3, 128, 128), np.float32)}
    moved = onnxruntime.InferenceSession(tmp_path / "models" / "big" / "1" / "model.onnx")
    expected = onnxruntime.InferenceSession(SCENES).run(["probabilities"], image)
    np.testing.assert_array_equal(moved.run(["probabilities"], image), expected)


def test_the_verb_writes_both_and_refuses_before_it_exports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["export", SCENES, "-o", "x.cam.onnx", "--preprocess", "imagenet", "--no-check", "--triton", "models"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "wrote   models/x_explain" in done.output
    assert sorted(os.listdir("models")) == ["x", "x_boxes", "x_explain", "x_pictures"]
    os.remove("x.cam.onnx")
    for more, said in (([], "is there already"), (["--on-demand"], "one file")):
        done = CliRunner().invoke(app, [*command, *more])
        assert done.exit_code == 2 and said in " ".join(done.output.split())
        assert not os.path.exists("x.cam.onnx")
