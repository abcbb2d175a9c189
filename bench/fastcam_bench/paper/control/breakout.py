"""MinAtar's Breakout as pictures: the game drawn in colours, as an Atari game is seen, and several games side by side.

MinAtar (Young and Tian, "MinAtar", 2019, 1903.03176; PyPI ``MinAtar``) keeps a game as 10 x 10 cells. Here a cell is
4 x 4 pixels. The trail, by which MinAtar tells the ball's direction, is not drawn: the agent sees the last four frames
in grey, as DQN does (Mnih et al., "Human-level control", 2015), and the ball's direction is in their differences.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcam.errors import FastcamError
from fastcam.image.resampling import opencv

CELLS, CELL, STACK = 10, 4, 4
SIDE = CELLS * CELL
ACTIONS = ("stay", "left", "right")
BACKGROUND, PADDLE, BALL, BRICK = 0, 1, 2, 3  # kinds of cells; bricks have a kind for each of their rows, from 3
_COLOURS = ((18, 20, 40), (90, 200, 230), (255, 255, 255), (220, 70, 60), (230, 140, 50), (210, 200, 70))
Uint8 = npt.NDArray[np.uint8]
Kinds = npt.NDArray[np.int64]


def _tiles() -> Uint8:
    """A picture of each kind of cell, [kinds, 4, 4, 3]."""
    tiles = np.empty((len(_COLOURS), CELL, CELL, 3), np.uint8)
    tiles[:] = _COLOURS[BACKGROUND]
    tiles[PADDLE, :2] = _COLOURS[PADDLE]
    tiles[BALL] = _COLOURS[BALL]
    tiles[BALL, ::3, ::3] = _COLOURS[BACKGROUND]  # without its corners
    for row in range(BRICK, len(_COLOURS)):
        tiles[row, :3, :3] = _COLOURS[row]  # a gap between bricks
    return tiles


TILES = _tiles()
GREY_TILES: Uint8 = np.stack([opencv().cvtColor(tile, opencv().COLOR_RGB2GRAY) for tile in TILES])


def pictures(kinds: Kinds) -> Uint8:
    """Games of cells [..., 10, 10] as pictures, uint8 RGB [..., 40, 40, 3]."""
    tiled = np.moveaxis(TILES[kinds], -3, -4)  # [..., 10, 4, 10, 4, 3]
    return np.ascontiguousarray(tiled.reshape(*kinds.shape[:-2], SIDE, SIDE, 3))


def grey(kinds: Kinds) -> Uint8:
    """The same in grey, uint8 [..., 40, 40]."""
    return np.ascontiguousarray(np.swapaxes(GREY_TILES[kinds], -2, -3).reshape(*kinds.shape[:-2], SIDE, SIDE))


class Games:
    """Several games of Breakout, each with a stack of frames; a game that ended begins anew.

    Args:
        count: how many.
        seed: of the first; the others follow.

    Attributes:
        kinds: the cells of each game, int64 [count, 10, 10].
        stacks: the last four frames of each in grey, the newest last, uint8 [count, 4, 40, 40].
        returns: what each game has brought so far.
    """

    def __init__(self, count: int, seed: int) -> None:
        environment = _environment()
        self._games = [environment("breakout") for _ in range(count)]
        for k, game in enumerate(self._games):
            game.seed(seed + k)
            game.reset()
        self._actions = self._games[0].minimal_action_set()
        self.kinds = np.zeros((count, CELLS, CELLS), np.int64)
        self.returns = np.zeros(count)
        self._draw(range(count))
        self.stacks = np.repeat(grey(self.kinds)[:, None], STACK, 1)

    def act(self, actions: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], list[float]]:
        """One step of each game: rewards, which ended, and the returns of those."""
        rewards, ended = np.zeros(len(actions), np.float32), np.zeros(len(actions), bool)
        finished = []
        for k, (game, action) in enumerate(zip(self._games, actions, strict=True)):
            rewards[k], ended[k] = game.act(self._actions[action])
            self.returns[k] += rewards[k]
            if ended[k]:
                finished.append(float(self.returns[k]))
                self.returns[k] = 0
                game.reset()
                game.last_action = 0
        self._draw(range(len(actions)))
        frames = grey(self.kinds)
        self.stacks = np.concatenate([self.stacks[:, 1:], frames[:, None]], 1)
        self.stacks[ended] = frames[ended, None]
        return rewards, ended, finished

    def _draw(self, which: range) -> None:
        for k in which:
            env = self._games[k].env
            kinds = self.kinds[k]
            kinds[:] = BACKGROUND
            for row in range(1, 4):
                kinds[row] = np.where(env.brick_map[row] > 0, BRICK + row - 1, BACKGROUND)
            kinds[CELLS - 1, env.pos] = PADDLE
            kinds[env.ball_y, env.ball_x] = BALL


def _environment() -> Any:
    """MinAtar's class of games.

    Raises:
        FastcamError: MinAtar is not installed.
    """
    root = logging.getLogger()
    before, root.disabled = root.disabled, True  # it warns of libraries that draw, which are not needed
    try:
        return importlib.import_module("minatar").Environment
    except ImportError as error:
        raise FastcamError(f"Breakout is MinAtar's ({error}); run: pip install --no-deps MinAtar") from error
    finally:
        root.disabled = before
