"""The control experiment: the game as pictures, stacks of frames, learning, and where heat is counted."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from fastcam import Explainer
from fastcam_bench.paper.control import ppo
from fastcam_bench.paper.control.__main__ import around, exact, exported, measure, played
from fastcam_bench.paper.control.breakout import BALL, BRICK, CELL, GREY_TILES, PADDLE, STACK, Games, grey, pictures

pytest.importorskip("minatar", reason="Breakout is MinAtar's: pip install --no-deps MinAtar")


@pytest.fixture(scope="module")
def agent():
    torch.manual_seed(0)
    return ppo.Agent().eval()


def test_cells_are_those_of_the_game():
    games, rng = Games(3, 0), np.random.default_rng(0)
    for _ in range(40):
        games.act(rng.integers(0, 3, 3))
        for kinds, game in zip(games.kinds, games._games, strict=True):
            state = game.state()
            np.testing.assert_array_equal(kinds == BALL, state[..., 1])
            np.testing.assert_array_equal((kinds == PADDLE) & ~state[..., 1], state[..., 0] & ~state[..., 1])
            np.testing.assert_array_equal((kinds >= BRICK) & ~state[..., 1], state[..., 3] & ~state[..., 1])
    assert len({round(float(tile.mean())) for tile in GREY_TILES}) == len(GREY_TILES)  # told apart without colours


def test_the_newest_frame_is_the_last_and_an_episode_begins_with_its_first():
    games, rng = Games(4, 3), np.random.default_rng(1)
    ended_once = False
    for _ in range(60):
        before = games.stacks.copy()
        _, ended, _ = games.act(rng.integers(0, 3, 4))
        frames = grey(games.kinds)
        np.testing.assert_array_equal(games.stacks[:, -1], frames)
        for k in range(4):
            earlier = np.repeat(frames[k][None], STACK - 1, 0) if ended[k] else before[k, 1:]
            np.testing.assert_array_equal(games.stacks[k, :-1], earlier)
        ended_once |= bool(ended.any())
    assert ended_once


def test_the_file_sees_what_the_agent_saw(agent):
    """FastCAM's grey stacks of the coloured frames, beside those that the agent was trained on."""
    explainer = Explainer(exported(agent))
    games = Games(1, 5)
    kinds, stacks = [games.kinds[0].copy()], [games.stacks[0].copy()]
    for _ in range(5):
        _, ended, _ = games.act(np.array([1]))
        assert not ended[0]
        kinds.append(games.kinds[0].copy())
        stacks.append(games.stacks[0].copy())
    scores = explainer(list(pictures(np.stack(kinds)))).scores
    with torch.no_grad():
        expected = agent(torch.from_numpy(np.stack(stacks)).float() / 255)[0].numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_maps_equal_autograd(agent):
    assert exact(agent, exported(agent), 0) < 1e-4


def test_an_action_with_an_advantage_becomes_likelier(agent):
    trained, rng = copy.deepcopy(agent), np.random.default_rng(0)
    stacks = rng.integers(0, 256, (8, 16, STACK, 10 * CELL, 10 * CELL), dtype=np.uint8)
    actions = rng.integers(0, 3, (8, 16))
    log, values = ppo.judged(agent, stacks.reshape(-1, *stacks.shape[2:]))
    chances = np.take_along_axis(log, actions.reshape(-1, 1), 1).reshape(8, 16)
    advantages = np.where(actions == 2, 1.0, -1.0).astype(np.float32)
    rollout = ppo.Rollout(stacks, actions, chances, advantages, values.reshape(8, 16))
    ppo.improve(trained, torch.optim.Adam(trained.parameters(), 1e-3), rollout, rng)
    after = ppo.judged(trained, stacks.reshape(-1, *stacks.shape[2:]))[0]
    assert np.exp(after[:, 2]).mean() > np.exp(log[:, 2]).mean() + 0.01


def test_heat_is_counted_at_the_ball_and_beside_chance(agent):
    cells = np.zeros((10, 10), int)
    cells[0, 4], cells[9, 0] = BALL, PADDLE
    ball, paddle = around(cells, BALL), around(cells, PADDLE)
    assert ball.sum() == 2 * 3 * CELL**2 and ball[: 2 * CELL, 3 * CELL : 6 * CELL].all()
    assert paddle.sum() == 2 * 2 * CELL**2
    episodes = played(agent, 40, 0)
    assert sum(map(len, episodes)) >= 40 and all((one == BALL).sum((1, 2)).max() == 1 for one in episodes)
    figures, _ = measure(Explainer(exported(agent)), episodes, "gradcam")
    areas = [around(one, BALL).mean() for episode in episodes for one in episode]
    if figures["maps with heat"]["value"] == 1:
        np.testing.assert_allclose(figures["area at the ball"]["value"], np.mean(areas), rtol=1e-6)
    assert 0 <= figures["heat at the ball"]["value"] <= 1
