"""Requests that break the server's own description: ``python -m fastcam_bench.serving.hostile [--requests 10000]``.

schemathesis makes them from the OpenAPI document, some right and most wrong, for every route; a share of pictures is
the bundled one with bytes changed. A server that answers 500 to one of them has a defect, and so has one that is not
the same afterwards. It needs ``pip install schemathesis``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS
from fastcam_bench.serving.started import bundled, scene, started

OUT = RESULTS / "serving" / "hostile.json"
KEPT = 20
"""Failures that are written down whole."""


def attack(port: int, requests: int, seed: int) -> dict[str, Any]:
    """Statuses by route, and the requests that were answered with 500 or not at all."""
    import hypothesis
    from hypothesis import strategies

    schemathesis: Any = import_module("schemathesis")
    client: Any = import_module("requests")
    schemathesis.serializer("image/*")(as_bytes)
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    shares = {operation.label: 4 if operation.method == "post" else 1 for operation in operations}
    settings = hypothesis.settings(
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=[*hypothesis.HealthCheck],
    )
    session, counts = client.Session(), {}
    failures: list[dict[str, str]] = []
    modes = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    changes = strategies.tuples(strategies.integers(0, 1 << 30), strategies.binary(min_size=1, max_size=8))

    def send(case: Any, change: tuple[int, bytes] | None, seen: Counter[str]) -> None:
        if change is not None and case.media_type == "image/*":
            case.body = changed(*change)
        try:
            answer = case.call(session=session, timeout=60)
        except client.exceptions.InvalidHeader:  # the client itself refuses to send it
            seen["not sent"] += 1
        except client.exceptions.RequestException as error:
            seen[type(error).__name__] += 1
            failures.append({"route": case.operation.label, "error": str(error)[:300]})
        else:
            seen[str(answer.status_code)] += 1
            if answer.status_code == 500:
                failures.append({"route": case.operation.label, "request": case.as_curl_command()[:2000]})

    for operation in operations:
        seen: Counter[str] = Counter()
        there = {"path_parameters": {"model": "scenes", "version": "1"}} if "{model}" in operation.label else {}
        cases = strategies.one_of(*(operation.as_strategy(mode, **how) for mode in modes for how in ({}, there)))
        sending = hypothesis.given(cases, strategies.none() | changes, strategies.just(seen))(send)
        share = -(-requests * shares[operation.label] // sum(shares.values()))
        hypothesis.seed(seed)(hypothesis.settings(settings, max_examples=share)(sending))()
        counts[operation.label] = dict(sorted(seen.items()))
        print(operation.label, counts[operation.label], flush=True)
    return {"routes": counts, "failures": failures[:KEPT], "failed": len(failures)}


def as_bytes(context: Any, value: Any) -> bytes:
    """What schemathesis sends as a picture."""
    return value if isinstance(value, bytes) else repr(value).encode()


def changed(at: int, change: bytes) -> bytes:
    """The bundled picture's file with other bytes at a place."""
    picture = scene()
    at %= len(picture)
    return picture[:at] + change + picture[at + len(change) :]


def explained(port: int) -> Any:
    """What the server says of a picture that is right."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/explain?targets=-1,-2", scene())
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.serving.hostile", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as folder, started(bundled(Path(folder)), "--max-body", "2", "--timeout", "20") as server:
        port, _, lines = server
        before, begun = explained(port), time.monotonic()
        found = attack(port, options.requests, options.seed)
        seconds = time.monotonic() - begun
        same = explained(port) == before
        logged = [line for line in lines if "Traceback" in line]
    sent = sum(sum(routes.values()) for routes in found["routes"].values())
    given = sys.argv[1:] if arguments is None else arguments
    report = {
        "command": " ".join(["python -m fastcam_bench.serving.hostile", *given]),
        "machine": machine(),
        "versions": versions("fastcam", "schemathesis", "hypothesis", "uvicorn", "starlette"),
        "requests": sent,
        "seconds": seconds,
        "answers the same afterwards": same,
        "tracebacks in the log": len(logged),
        **found,
    }
    write_report(report, options.json)
    print(f"{sent} requests in {seconds:.0f} s, {found['failed']} failed, the same afterwards: {same}")
    return int(bool(found["failed"]) or not same)


if __name__ == "__main__":
    sys.exit(main())
