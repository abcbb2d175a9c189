"""Sections about servers, from bench/results/serving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastcam_bench.report.results import read

MANY = "16 clients: "
TITLES = {"resnet50": "ResNet-50", "mobilenet_v2": "MobileNetV2"}


def _busy(report: dict[str, Any]) -> bool:
    """Whether the machine did other things too, so that processor times are worth telling, and latencies are not."""
    return bool(report["load"] >= report["machine"]["cores"])


BUSY = " The machine was busy with other work, so this tells processor times and no latencies."


def choice() -> str:
    """Why the verb runs the server that it runs."""
    report = read("serving/servers.json")
    said = []
    for kind, found in report["requests"].items():
        spent = " and ".join(f"{one[f'{MANY}processor ms a request']:.2g}" for one in found.values())
        waited = " and ".join(f"{one['one client: p50 ms']:.2g}" for one in found.values())
        alone = "" if _busy(report) else f", and one client waits {waited} ms"
        said.append(f"{kind}: {spent} ms of processor time a request under 16 clients{alone}")
    names = [*report["requests"]["health"]]
    return (
        f"Measured for the same application in {names[0]} {report['versions'][names[0]]} and {names[1]} "
        f"{report['versions'][names[1]]} ({report['network']}, {report['threads']} thread). {'; '.join(said)} "
        f"(`{report['command']}`).{BUSY if _busy(report) else ''}"
    )


def peers() -> str:
    """FastCAM's server beside others, which explain nothing."""
    report = read("serving/peers.json")
    columns = [f"{MANY}processor ms a request"]
    if not _busy(report):
        columns = ["one client: p50 ms", f"{MANY}answers a second", f"{MANY}p50 ms", *columns]
    lines = [f"| network | server | {' | '.join(columns)} |", f"|---|---|{'---:|' * len(columns)}"]
    for network, found in report["networks"].items():
        title = TITLES[network]
        for name, one in found.items():
            lines.append(f"| {title} | {name} | {' | '.join(f'{one[column]:.1f}' for column in columns)} |")
    there = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines += [
        "",
        f"`{report['command']}`: {there}; threads of each session: {report['threads']}; batches of up to "
        f"{report['batch']} in FastCAM and LitServe; the same JPEG in the same JSON.{BUSY if _busy(report) else ''}",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[], str]] = {"server_choice": choice, "server_peers": peers}
