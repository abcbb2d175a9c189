"""The module paths that nodes lie in, as frameworks write them into a file."""

from __future__ import annotations

import onnx_ir as ir

SCOPES = "pkg.torch.onnx.name_scopes"


def scopes(node: ir.Node) -> list[str]:
    """The module paths that ``node`` lies in, outermost first: "layer4", "layer4.2", ...

    Read from what torch writes: the dynamo exporter's metadata, or the older exporter's node names
    ("/layer4/layer4.2/conv1/Conv"); else from the name as other exporters build it ("layer4.2/conv1").
    """
    recorded = node.metadata_props.get(SCOPES)
    if recorded:
        parts = [part.strip().strip("'\"") for part in recorded.strip("[]").split(",")]
        return [part for part in parts[:-1] if part]
    name = node.name or ""
    if not name.startswith("/"):
        return [name[:end] for end, letter in enumerate(name) if letter in "./" and end]
    parts = name.strip("/").split("/")[:-1]
    paths: list[str] = []
    for part in parts:
        outer = paths[-1] if paths else ""
        last = outer.rsplit(".", 1)[-1]
        nested = not outer or part == outer or part.startswith(outer + ".")
        if nested:
            paths.append(part)
        elif part.startswith(last + "."):
            paths.append(outer[: len(outer) - len(last)] + part)
        else:
            paths.append(f"{outer}.{part}")
    return list(dict.fromkeys(paths))
