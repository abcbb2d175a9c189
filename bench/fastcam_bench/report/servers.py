"""Sections about servers, from bench/results/serving."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastcam_bench.paths import RESULTS

MANY = "16 clients: "


def _read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / "serving" / name).read_text(encoding="utf-8"))
    return result


def _busy(report: dict[str, Any]) -> str:
    """What is said of latencies that were measured while the machine did other things too."""
    load, cores = report["load"], report["machine"]["cores"]
    if load < cores:
        return ""
    return f" The machine was busy (load {load:.0f} on {cores} cores): compare processor times, not latencies."


def choice() -> str:
    """Why the verb runs the server that it runs."""
    report = _read("servers.json")
    said = []
    for kind, found in report["requests"].items():
        spent = " and ".join(f"{one[f'{MANY}processor ms a request']:.3g}" for one in found.values())
        waited = " and ".join(f"{one['one client: p50 ms']:.3g}" for one in found.values())
        said.append(f"{kind}: {spent} ms of processor time a request under 16 clients, {waited} ms for one client")
    names = [*report["requests"]["health"]]
    return (
        f"Measured for the same application in {names[0]} {report['versions'][names[0]]} and {names[1]} "
        f"{report['versions'][names[1]]} ({report['network']}, {report['threads']} thread): {'; '.join(said)} "
        f"(`{report['command']}`).{_busy(report)}"
    )


def peers() -> str:
    """FastCAM's server beside others, which explain nothing."""
    report = _read("peers.json")
    columns = ("one client: p50 ms", f"{MANY}answers a second", f"{MANY}p50 ms", f"{MANY}processor ms a request")
    lines = [f"| network | server | {' | '.join(columns)} |", f"|---|---|{'---:|' * len(columns)}"]
    for network, found in report["networks"].items():
        for name, one in found.items():
            lines.append(f"| {network} | {name} | {' | '.join(f'{one[column]:.1f}' for column in columns)} |")
    there = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines += [
        "",
        f"`{report['command']}`: {there}; {report['threads']} thread(s) each, batches of up to {report['batch']} in "
        f"FastCAM and LitServe, the same JPEG in the same JSON.{_busy(report)}",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[], str]] = {"server_choice": choice}
