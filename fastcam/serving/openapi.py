"""What the server's routes take and give, as an OpenAPI 3.1 document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastcam.schema import __version__
from fastcam.serving.bodies.tensors import DATATYPES
from fastcam.serving.parameters import NAMES


def document(models: Sequence[str]) -> dict[str, Any]:
    """Of ``GET /openapi.json``; ``models`` are the names that are served."""
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": [*models]}}
    version = {"name": "version", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}}
    said = [
        {"name": each, "in": "query", "schema": {"type": "string"}}
        for each in ("model", "version", "image", *NAMES)
    ]  # fmt: skip
    one = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    of_kept = [each for each in said if each["name"] not in ("model", "version")]
    anything: dict[str, Any] = {"type": "object"}
    tensors = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": anything,
            "inputs": {"type": "array", "items": _tensor(["name", "shape", "datatype"])},
            "outputs": {"type": "array", "items": _tensor(["name"])},
        },
    }
    instances = {
        "type": "object",
        "required": ["instances"],
        "properties": {
            "instances": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "required": ["b64"], "properties": {"b64": {"type": "string"}}},
            },
            "parameters": anything,
        },
    }
    paths: dict[str, Any] = {
        "/v1/explain": {"post": _route("Explain a picture.", said, _picture(), ("application/json", "image/png"))},
        "/v1/explain/{id}": {
            "get": _route(
                "Explain a prediction of the last minutes, by its id.",
                [one, *of_kept],
                None,
                ("application/json", "image/png"),
            )
        },
        "/v1/models": {"get": _route("Names of the models.")},
        "/v1/models/{model}": {"get": _route("Whether a model is ready.", [name])},
        "/v1/models/{model}:predict": {"post": _route("Classes of pictures.", [name], _json(instances))},
        "/v1/models/{model}:explain": {"post": _route("Explanations of pictures.", [name], _json(instances))},
        "/v2": {"get": _route("The server.")},
        "/v2/health/live": {"get": _route("Whether the server runs.")},
        "/v2/health/ready": {"get": _route("Whether the server answers.")},
        "/v2/models/stats": {"get": _route("Counts and times of all models.")},
        "/metrics": {"get": _route("What Prometheus reads.", (), None, ("text/plain",))},
    }
    for prefix, parameters in (
        ("/v2/models/{model}", [name]),
        ("/v2/models/{model}/versions/{version}", [name, version]),
    ):
        paths[prefix] = {"get": _route("Inputs and outputs of a model.", parameters)}
        paths[f"{prefix}/ready"] = {"get": _route("Whether a model is ready.", parameters)}
        paths[f"{prefix}/config"] = {"get": _route("A model's configuration, as Triton says it.", parameters)}
        paths[f"{prefix}/stats"] = {"get": _route("Counts and times of a model.", parameters)}
        paths[f"{prefix}/infer"] = {"post": _route("Tensors in, tensors out.", parameters, _json(tensors))}
    errors = (
        'Errors are JSON, {"error": "what is wrong, and what to do"}, unknown paths (404) and methods (405) among them.'
    )
    about = {"title": "FastCAM", "version": __version__, "description": errors}
    return {"openapi": "3.1.0", "info": about, "paths": paths}


def _tensor(required: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [*required],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"enum": [*DATATYPES, "BYTES"]},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "parameters": {"type": "object"},
            "data": {"type": "array"},
        },
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _picture() -> dict[str, Any]:
    form = {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}, "required": ["image"]}
    return {"required": True, "content": {"image/*": {}, "multipart/form-data": {"schema": form}}}


def _route(
    summary: str,
    parameters: Sequence[dict[str, Any]] = (),
    body: dict[str, Any] | None = None,
    kinds: Sequence[str] = ("application/json",),
) -> dict[str, Any]:
    error = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    failed = {"description": "What is wrong.", "content": {"application/json": {"schema": error}}}
    codes = ("400", "401", "404", "413", "429", "503", "504")
    responses = {"200": {"description": summary, "content": {kind: {} for kind in kinds}}}
    return {
        "summary": summary,
        "parameters": [*parameters],
        **({"requestBody": body} if body is not None else {}),
        "responses": responses | dict.fromkeys(codes, failed),
    }
