"""A policy network, explained action by action (the Grad-CAM paper's future work): does the map follow the ball?

``python -m fastcam_bench.paper.control`` trains a small agent on MinAtar's Breakout by PPO, from pictures, and compares
its return with a random policy's. Then it plays episodes, explains the action of each frame, and measures the share of
the heat on the ball's cell and its neighbours, and on the paddle's. Beside it stand the share of these cells in the
picture (what a uniform map has), the maps of other frames (what a map has that knows where balls are, but not this
one), and the same network with random weights.

Needs torch and MinAtar (``pip install --no-deps MinAtar``); minutes on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastcam import Explainer
from fastcam.evaluation.statistics import Ratios, weights_of
from fastcam.render import drawing
from fastcam_bench.oracles.machine import machine, versions
from fastcam_bench.paper.control.breakout import ACTIONS, BALL, CELL, CELLS, PADDLE, STACK, Games, pictures
from fastcam_bench.paper.control.ppo import STEPS, Agent, judged, onnx_of, train
from fastcam_bench.paper.figures import interval
from fastcam_bench.paper.results import write_results
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.paper.control"
FRAMES, PLAYED, SHOWN = 600, 64, 12
METHODS = ("gradcam", "hirescam")
Kinds = npt.NDArray[np.int64]


def returns(agent: Agent | None, episodes: int, seed: int) -> list[float]:
    """The returns of whole games, of the agent's likeliest actions; of a random policy where there is no agent."""
    games, rng = Games(PLAYED, seed), np.random.default_rng(seed)
    ended: list[float] = []
    for _ in range(20_000):
        actions = rng.integers(0, len(ACTIONS), PLAYED) if agent is None else judged(agent, games.stacks)[0].argmax(1)
        ended += games.act(actions.astype(np.int64))[2]
        if len(ended) >= episodes:
            break
    return ended[:episodes]


def played(agent: Agent, frames: int, seed: int) -> list[Kinds]:
    """Episodes of a few games, at least so many frames together: the cells of each frame, int64 [frames, 10, 10]."""
    games = Games(8, seed)
    begun: list[list[Kinds]] = [[one.copy()] for one in games.kinds]
    done: list[Kinds] = []
    while sum(map(len, done)) < frames:
        actions = judged(agent, games.stacks)[0].argmax(1)
        ended = games.act(actions.astype(np.int64))[1]
        for k, over in enumerate(ended):
            if over or len(begun[k]) >= frames // 4:
                done.append(np.stack(begun[k]))
                begun[k] = []
            begun[k].append(games.kinds[k].copy())
    return done


def around(kinds: Kinds, kind: int) -> npt.NDArray[np.bool_]:
    """The cell of a kind and its neighbours, in pixels: bool [40, 40]."""
    near = np.zeros((CELLS, CELLS), bool)
    for y, x in np.argwhere(kinds == kind):
        near[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = True
    return near.repeat(CELL, 0).repeat(CELL, 1)


def measure(explainer: Explainer, episodes: list[Kinds], method: str) -> tuple[dict[str, Any], list[Any]]:
    """Shares of the heat of the action that is taken; and the explanations."""
    ratios, explained = Ratios(), [explainer(list(pictures(one)), method=method) for one in episodes]
    frames = [(cells, found.heatmaps[k, 0]) for one, found in zip(episodes, explained, strict=True)
              for k, cells in enumerate(one)]  # fmt: skip
    others = np.random.default_rng(0).permutation(len(frames))
    for i, (cells, heat) in enumerate(frames):
        weights, total = weights_of(f"{i}"), float(heat.sum())
        other = frames[int(others[i])][1]
        ratios.add("maps with heat", float(total > 0), weights)
        if total <= 0:
            continue
        for name, kind in (("ball", BALL), ("paddle", PADDLE)):
            place = around(cells, kind)
            ratios.add(f"heat at the {name}", float(heat[place].sum()) / total, weights)
            ratios.add(f"area at the {name}", float(place.mean()), weights)
            if other.sum() > 0:
                ratios.add(f"heat at the {name}, another frame's map", float(other[place].sum() / other.sum()), weights)
    return {name: figure.to_dict() for name, figure in ratios.figures().items()}, explained


def exact(agent: Agent, model: bytes, seed: int) -> float:
    """The largest difference of Grad-CAM's maps from autograd's, as a share of the maximum."""
    games, rng = Games(16, seed), np.random.default_rng(seed)
    for _ in range(20):
        games.act(rng.integers(0, len(ACTIONS), 16))
    x = torch.from_numpy(games.stacks).float() / 255
    maps = agent.features(x)
    logits = agent.policy(agent.hidden(maps))
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), maps)
    expected = torch.relu((gradient.mean((2, 3), keepdim=True) * maps).sum(1)).detach().numpy()
    found = Explainer(model)(np.asarray(x)).maps[:, 0]
    return float(np.abs(found - expected).max() / max(float(expected.max()), 1e-12))


def exported(agent: Agent) -> bytes:
    """The policy as an exported file that takes stacks of four grey frames."""
    how = {"preset": "unit", "color": "GRAY", "stack": STACK}
    made = export_model(onnx_of(agent), emit="gradients", preprocess=how, labels=list(ACTIONS))
    return bytes(made.model.SerializeToString())


def sheet(explained: list[Any], episodes: list[Kinds]) -> Any:
    """Frames of one episode at equal distances, each over its heat."""
    longest = int(np.argmax([len(one) for one in episodes]))
    found, count = explained[longest], len(episodes[longest])
    chosen = np.unique(np.linspace(0, count - 1, SHOWN).astype(int))
    shown = [(found.overlay(int(k), min_side=192, annotate=False), found.label(int(k))) for k in chosen]
    return drawing.contact_sheet(shown, 4, 192)


def run(steps: int) -> tuple[dict[str, Any], Any]:
    """The report and its picture."""
    agent, curve = train(steps)
    torch.manual_seed(1)
    untrained = Agent().eval()
    played_by = {"trained": returns(agent, 100, 50_000), "random policy": returns(None, 100, 60_000)}
    episodes = played(agent, FRAMES, 70_000)
    models = {"trained": exported(agent), "random weights": exported(untrained)}
    figures: dict[str, Any] = {}
    picture: Any = None
    for name, model in models.items():
        for method in METHODS:
            figures[f"{name}, {method}"], explained = measure(Explainer(model), episodes, method)
            picture = sheet(explained, episodes) if picture is None else picture
    about = {"command": COMMAND, "machine": machine(), "versions": versions("fastcam", "torch", "onnxruntime")}
    report = about | {
        "settings": {"steps": steps, "frames": sum(map(len, episodes)), "episodes": len(episodes)},
        "returns": {name: {"mean": round(float(np.mean(r)), 2), "n": len(r)} for name, r in played_by.items()},
        "return while training": curve,
        "maps differ from autograd by": exact(agent, models["trained"], 3),
        "figures": figures,
    }
    return report, picture


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# Control", "", f"Made by `{report['command']}`.", ""]
    lines += [f"- return, {name}: {one['mean']} (n = {one['n']})" for name, one in report["returns"].items()]
    columns = list(report["figures"])
    lines += ["", "| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name in report["figures"][columns[0]]:
        cells = [report["figures"][column].get(name) for column in columns]
        said = [interval(cell, 3) if cell else "" for cell in cells]
        lines.append(f"| {name} | " + " | ".join(said) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Train, measure, print the table, write JSON, table, picture and the agent."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="of training")
    parser.add_argument("--out", type=Path, default=RESULTS / "paper", help="folder for the results")
    options = parser.parse_args()
    report, picture = run(options.steps)
    write_results(report, options.out, "control", table, {"control": picture})
    print(table(report))


if __name__ == "__main__":
    main()
