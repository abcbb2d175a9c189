"""Bodies of requests and answers over HTTP: JSON, pictures, and both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastcam.errors import FastcamError, listed, shown
from fastcam.runtime.session import one_line
from fastcam.serving import plain


def encode(value: Any) -> bytes:
    """JSON; what is not finite becomes null."""
    import msgspec

    return msgspec.json.encode(value)


def read_json(body: bytes) -> Mapping[str, Any]:
    import msgspec

    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise FastcamError(f"the body is no JSON ({one_line(error)}); send a JSON object") from error
    if not isinstance(value, dict):
        raise FastcamError("the body is no JSON object; send one")
    return value


def respond(body: bytes, kind: str, headers: Mapping[str, str] | None = None, status: int = 200) -> Any:
    from starlette.responses import Response

    return Response(body, status, {"content-type": kind, "x-content-type-options": "nosniff", **(headers or {})})


def respond_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Any:
    return respond(encode(value), "application/json", headers, status)


def respond_mixed(about: bytes, overlays: list[bytes]) -> Any:
    """JSON and pictures in one answer, RFC 2046."""
    mark = b"fastcam-part"
    parts = [(b"application/json", about), *((b"image/png", content) for content in overlays)]
    body = b"".join(
        b"--%s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s\r\n" % (mark, kind, len(content), content)
        for kind, content in parts
    )
    return respond(body + b"--%s--\r\n" % mark, f"multipart/mixed; boundary={mark.decode()}")


def take_shown(said: dict[str, Any]) -> str:
    """What a PNG shows; of the parameters of a request it is taken out."""
    image: str = said.pop("image", "overlay")
    if image not in plain.IMAGES:
        raise FastcamError(f"image is {shown(repr(image))}; give {listed(plain.IMAGES)}")
    return image


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Parameters by name; what is said twice counts twice, as two targets do."""
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def picture_of(body: bytes, kind: str) -> tuple[bytes, dict[str, str]]:
    """The picture of a request, and the fields of a form beside it."""
    if not kind.startswith("multipart/form-data"):
        if not body:
            raise FastcamError("the body is empty; send a picture")
        return body, {}
    from fastcam.serving.bodies.form import parts

    pictures: list[bytes] = []
    fields: list[tuple[str, str]] = []
    for name, is_file, content in parts(body, kind):
        if is_file or name in ("image", "picture", "file"):
            pictures.append(content)
        else:
            fields.append((name, content.decode("utf-8", "replace")))
    if len(pictures) != 1:
        raise FastcamError(f"the form has {len(pictures)} pictures; send one, as the field image")
    return pictures[0], joined(fields)
