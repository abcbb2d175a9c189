"""Agents that see the last frames at once: each frame is explained with those in front of it, as PyTorch does."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.runtime.inputs.stacked_frames import stacks_of
from fastcam.schema import Metadata
from fastcam_export import export_model
from support.models.torch_file import grad_cam, onnx_bytes

STACK, SIDE = 4, 16
EPISODE = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 3), dtype=np.uint8)


class Agent(nn.Module):
    """Four frames [N, 4 c, 16, 16], or with channels last, to a map [N, 6, 8, 8] and three actions."""

    def __init__(self, channels=STACK, last=False):
        super().__init__()
        torch.manual_seed(0)
        self.last = last
        self.body = nn.Sequential(nn.Conv2d(channels, 6, 3, 2, 1), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(6 * 64, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x):
        self.map = self.body(x.permute(0, 3, 1, 2) if self.last else x)
        return self.head(self.map)


def stacks(grey, last=False):
    """float32 [7, 4 c, 16, 16] in 0..1: each frame behind the three in front of it, the first repeated."""
    frames = np.stack([cv2.cvtColor(one, cv2.COLOR_RGB2GRAY)[..., None] for one in EPISODE]) if grey else EPISODE
    rows = [np.concatenate([frames[max(0, k - back)] for back in (3, 2, 1, 0)], axis=2) for k in range(len(frames))]
    tensor = np.stack(rows).astype(np.float32) / 255
    return tensor if last else np.ascontiguousarray(tensor.transpose(0, 3, 1, 2))


def agent(grey=True, last=False):
    net = Agent(STACK if grey else 3 * STACK, last)
    made = export_model(onnx_bytes(net, stacks(grey, last)[:1], (0,)), preprocess={"preset": "unit", "stack": STACK})
    return net, made


@pytest.fixture(scope="module")
def grey():
    net, made = agent()
    return net, Explainer(made.model.SerializeToString(), batch_size=3)


@pytest.mark.parametrize("colours,last", [("grey", False), ("colour", False), ("colour", True)])
def test_each_frame_is_explained_with_those_in_front_of_it(colours, last):
    net, made = agent(colours == "grey", last)
    assert made.metadata.preprocessing.color == ("GRAY" if colours == "grey" else "RGB")
    assert Metadata.from_json(made.metadata.to_json()).preprocessing.stack == STACK
    explainer = Explainer(made.model.SerializeToString(), batch_size=3)
    found, tensor = explainer(list(EPISODE), targets=[2]), stacks(colours == "grey", last)
    expected = grad_cam(net, tensor, 2)
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-3, atol=1e-4 * expected.max())
    np.testing.assert_array_equal(np.stack(found.images), EPISODE)
    given = explainer(tensor, targets=[2])
    np.testing.assert_allclose(given.maps, found.maps, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(given.image(5).astype(int), _seen(colours == "grey", 5), atol=1)


def _seen(grey, k):
    """What can be drawn of a tensor's newest frame."""
    one = cv2.cvtColor(EPISODE[k], cv2.COLOR_RGB2GRAY)[..., None].repeat(3, 2) if grey else EPISODE[k]
    return one.astype(int)


def test_an_array_of_frames_and_a_stream_are_the_same_as_a_list(grey):
    _, explainer = grey
    found = explainer(list(EPISODE), targets=[0])
    np.testing.assert_array_equal(explainer(EPISODE, targets=[0]).heatmaps, found.heatmaps)
    frames = list(explainer.stream(iter(EPISODE), targets=[0], batch_size=2, workers=2))
    assert [frame.index for frame in frames] == list(range(7))
    for frame, whole in zip(frames, found.heatmaps, strict=True):
        np.testing.assert_allclose(frame.explanation.heatmaps[0], whole, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(frame.explanation.image(0), EPISODE[frame.index])


def test_the_first_frame_stands_in_front_of_itself():
    found = [stack.frames for stack in stacks_of("abcde", 3)]
    assert found == [("a", "a", "a"), ("a", "a", "b"), ("a", "b", "c"), ("b", "c", "d"), ("c", "d", "e")]
    assert [one.frames for one in stacks_of(stacks_of("ab", 2), 2)] == [("a", "a"), ("a", "b")]


def test_a_frame_that_cannot_be_read_fails_those_that_see_it(grey):
    frames = list(grey[1].stream([*EPISODE[:2], "missing.png", *EPISODE[:4]]))
    assert [frame.error is not None for frame in frames] == [False, False, True, True, True, True, False]


def test_guided_backpropagation_is_shown_of_the_newest_frame():
    net = Agent()
    file = export_model(
        onnx_bytes(net, stacks(True)[:1], (0,)),
        preprocess={"preset": "unit", "stack": STACK},
        input_gradient="gradient",
    )
    found = Explainer(file.model.SerializeToString())(list(EPISODE[:5]), targets=[1])
    assert found.input_gradients.shape == (5, 1, STACK, SIDE, SIDE)
    other = Explainer(file.model.SerializeToString())(stacks(True)[4:5], targets=[1])
    np.testing.assert_array_equal(other.gradient_image(0), found.gradient_image(4))
    newest = found.input_gradients[4, 0, -1]
    shown = found.gradient_image(4)[..., 0].astype(float) - 127.5
    assert np.corrcoef(shown.ravel(), newest.ravel())[0, 1] > 0.99


def test_the_command_line_exports_and_streams_an_episode(tmp_path):
    net = Agent()
    (tmp_path / "agent.onnx").write_bytes(onnx_bytes(net, stacks(True)[:1], (0,)))
    folder = tmp_path / "episode"
    folder.mkdir()
    for k, frame in enumerate(EPISODE):
        cv2.imwrite(str(folder / f"{k:02}.png"), frame[..., ::-1])

    def fastcam(*arguments):
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    fastcam("export", tmp_path / "agent.onnx", "--preprocess", "unit", "--stack", 4)
    file = tmp_path / "agent.cam.onnx"
    fastcam("stream", file, folder, "-t", 2, "-o", tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    found = Explainer(file)(list(EPISODE), targets=[2])
    assert [line["file"] for line in lines] == [str(folder / f"{k:02}.png") for k in range(7)]
    np.testing.assert_allclose(
        [line["targets"][0]["score"] for line in lines], found.scores[:, 2], rtol=1e-4, atol=1e-5
    )
    twice = [line for _ in range(2) for line in lines]  # two episodes: the second begins anew
    fastcam("stream", file, folder, folder, "-t", 2, "-o", tmp_path / "two.jsonl")
    scores = [json.loads(line)["targets"][0]["score"] for line in (tmp_path / "two.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(scores, [line["targets"][0]["score"] for line in twice], rtol=1e-4, atol=1e-5)
    fastcam("explain", file, folder, "-o", tmp_path / "drawn")
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 7


def test_what_does_not_fit_is_said():
    source = onnx_bytes(Agent(), stacks(True)[:1], (0,))
    with pytest.raises(FastcamError, match="takes 4 channels, which are not those of 3 frames"):
        export_model(source, preprocess={"preset": "unit", "stack": 3})
    with pytest.raises(FastcamError, match="stack is 0; give a number of frames, 1 to 256"):
        export_model(source, preprocess={"preset": "unit", "stack": 0})
    with pytest.raises(FastcamError, match="frames are pictures that go in one by one"):
        export_model(source, preprocess={"preset": "unit", "stack": 4}, frames=True, check=False)
    made = export_model(source, preprocess={"preset": "unit", "stack": 4}, check=False).model.SerializeToString()
    with pytest.raises(FastcamError, match="said at the export"):
        Explainer(made, preprocess={"preset": "unit", "stack": 2})
    with pytest.raises(FastcamError, match="said at the export"):
        Explainer(export_model(source, check=False).model.SerializeToString(), preprocess={"stack": 4})
