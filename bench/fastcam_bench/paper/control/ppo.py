"""Proximal policy optimisation (Schulman et al. 2017, 1707.06347) of a small network that sees four grey frames."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fastcam_bench.paper.control.breakout import ACTIONS, CELL, CELLS, STACK, Games

GAMES, LENGTH, PARTS, EPOCHS = 64, 32, 4, 3
STEPS = 100_000
DISCOUNT, TRACE, CLIP, ENTROPY, RATE = 0.99, 0.95, 0.2, 0.01, 1.5e-3
Floats = npt.NDArray[np.float32]


class Agent(nn.Module):
    """Four frames [N, 4, 40, 40] in 0..1 to the logits of the actions [N, 3] and the state's value [N]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(STACK, 16, CELL, CELL), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
        )
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(16 * CELLS * CELLS, 64), nn.ReLU())
        self.policy, self.value = nn.Linear(64, len(ACTIONS)), nn.Linear(64, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(layer.weight, 0.01 if layer is self.policy else 2**0.5)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.hidden(self.features(frames))
        return self.policy(hidden), self.value(hidden)[:, 0]


class Policy(nn.Module):
    """What is exported of an agent: the logits alone."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.agent(frames)[0]
        return logits


@dataclass(frozen=True, eq=False)
class Rollout:
    """What all games did in some steps, the arrays with an axis for the steps and one for the games."""

    stacks: npt.NDArray[np.uint8]
    actions: npt.NDArray[np.int64]
    log_probabilities: Floats
    advantages: Floats
    returns: Floats


def train(steps: int = STEPS, seed: int = 0) -> tuple[Agent, list[float]]:
    """An agent, and the mean return of the games that ended in each twentieth of the steps."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    agent, games = Agent(), Games(GAMES, 1000 * (seed + 1))
    rounds = max(1, steps // (GAMES * LENGTH))
    optimiser = torch.optim.Adam(agent.parameters(), RATE, eps=1e-5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 1 - 0.95 * k / rounds)
    finished: list[list[float]] = [[] for _ in range(20)]
    for k in range(rounds):
        rollout = play(agent, games, rng, finished[20 * k // rounds])
        improve(agent, optimiser, rollout, rng)
        schedule.step()
        if (k + 1) % max(1, rounds // 20) == 0:
            ended = finished[20 * k // rounds]
            print(f"{(k + 1) * GAMES * LENGTH} steps: mean return {np.mean(ended) if ended else 0:.2f}", flush=True)
    return agent.eval(), [round(float(np.mean(ended)), 2) if ended else 0.0 for ended in finished]


def play(agent: Agent, games: Games, rng: np.random.Generator, finished: list[float]) -> Rollout:
    """Some steps of all games, with generalised advantages (Schulman et al. 2016, 1506.02438)."""
    count = len(games.kinds)
    stacks = np.empty((LENGTH, *games.stacks.shape), np.uint8)
    actions = np.empty((LENGTH, count), np.int64)
    chances, values = np.empty((LENGTH, count), np.float32), np.empty((LENGTH + 1, count), np.float32)
    rewards, going = np.empty((LENGTH, count), np.float32), np.empty((LENGTH, count), np.float32)
    for step in range(LENGTH):
        stacks[step] = games.stacks
        log_probability, values[step] = judged(agent, games.stacks)
        noise = rng.gumbel(size=log_probability.shape)
        actions[step] = (log_probability + noise).argmax(1)
        chances[step] = np.take_along_axis(log_probability, actions[step][:, None], 1)[:, 0]
        rewards[step], ended, returns = games.act(actions[step])
        going[step] = ~ended
        finished += returns
    values[LENGTH] = judged(agent, games.stacks)[1]
    advantages = np.empty_like(rewards)
    trace = np.zeros(count, np.float32)
    for step in reversed(range(LENGTH)):
        error = rewards[step] + DISCOUNT * going[step] * values[step + 1] - values[step]
        trace = error + DISCOUNT * TRACE * going[step] * trace
        advantages[step] = trace
    return Rollout(stacks, actions, chances, advantages, advantages + values[:-1])


def judged(agent: Agent, stacks: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Log-probabilities of the actions, and the values, of stacks of frames."""
    with torch.no_grad():
        logits, values = agent(torch.from_numpy(stacks).float() / 255)
    return np.asarray(logits.log_softmax(1).numpy()), np.asarray(values.numpy())


def improve(agent: Agent, optimiser: Any, rollout: Rollout, rng: np.random.Generator) -> None:
    """Some epochs of the clipped objective."""

    def flat(array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array.reshape(-1, *array.shape[2:]))

    stacks, actions, before = flat(rollout.stacks), flat(rollout.actions), flat(rollout.log_probabilities)
    advantages, returns = flat(rollout.advantages), flat(rollout.returns)
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    for _ in range(EPOCHS):
        for part in np.array_split(rng.permutation(len(stacks)), PARTS):
            logits, values = agent(stacks[part].float() / 255)
            every = logits.log_softmax(1)
            ratio = (every.gather(1, actions[part][:, None])[:, 0] - before[part]).exp()
            gain = torch.minimum(ratio * advantages[part], ratio.clamp(1 - CLIP, 1 + CLIP) * advantages[part]).mean()
            entropy = -(every.exp() * every).sum(1).mean()
            loss = 0.5 * (values - returns[part]).square().mean() - gain - ENTROPY * entropy
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimiser.step()


def onnx_of(agent: Agent) -> bytes:
    """The policy as an ONNX file, input "frames" [N, 4, 40, 40] in 0..1, output "actions" [N, 3]."""
    file = io.BytesIO()
    named: dict[str, Any] = {
        "input_names": ["frames"],
        "output_names": ["actions"],
        "dynamic_axes": {"frames": {0: "N"}},
    }
    example = torch.zeros(1, STACK, CELLS * CELL, CELLS * CELL)
    torch.onnx.export(Policy(agent).eval(), (example,), file, dynamo=False, opset_version=17, **named)  # type: ignore[arg-type]
    return file.getvalue()
