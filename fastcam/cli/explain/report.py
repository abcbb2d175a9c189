"""What the verb prints of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastcam.cli.shared.console import print_table


def title(report: dict[str, Any]) -> str:
    """The method of a report, and where: "HiResCAM at P3, P4 and P5"."""
    from fastcam.methods import method as named

    *names, last = report.get("fused", [report["layer"]])
    return f"{named(report['method']).title} at {', '.join(names)}{' and ' if names else ''}{last}"


def print_report(report: dict[str, Any]) -> None:
    from fastcam.labels import short_label

    parts = report.get("methods", [report])
    rows = []
    for part, image in ((one, image) for one in parts for image in one["images"]):
        name = Path(image["file"]).name
        if "error" in image:
            why = image["error"].removeprefix(f"{image['file']}: ")
            by = part["method"] if len(parts) > 1 else ""
            rows.append((name, image.get("text", ""), by, "", "", "", "", f"not explained: {why}"))
        for target in image["targets"]:
            label = target.get("target") or f"{target['class']} {short_label(target['label'] or '')}"
            absent = "" if "error" in target else "not finite"
            score = absent if target["score"] is None else f"{target['score']:.4g}"
            box = " ".join(f"{value:.0f}" for value in target["box"] or ()) or "-"
            own = " ".join(f"{value:.0f}" for value in target.get("predicted_box", ()))
            method = part["method"] if len(parts) > 1 else ""
            status = f"not explained: {target['error']}" if "error" in target else target["status"]
            rows.append((name, image.get("text", ""), method, label, score, box, own, status))
    sizes = {key for part in parts for image in part["images"] for key in image}
    corners = "segment x0 x1" if "samples" in sizes else "box x0 y0 x1 y1"
    corners = "box x0 y0 z0 x1 y1 z1" if "depth" in sizes else corners
    print_table(("image", "text", "method", "class", "score", corners, "predicted box", "status"), rows)
