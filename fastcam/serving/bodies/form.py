"""The fields and files of a form, RFC 7578."""

from __future__ import annotations

from fastcam.errors import FastcamError
from fastcam.runtime.session import one_line

MOST = 32
"""Parts of a form."""


def parts(body: bytes, kind: str) -> list[tuple[str, bool, bytes]]:
    """Of each part its name, whether it is a file, and its content.

    Args:
        kind: the Content-Type of the request, which says where a part ends.

    Raises:
        FastcamError: it is no form, or has too many parts.
    """
    from python_multipart.exceptions import MultipartParseError
    from python_multipart.multipart import MultipartParser, parse_options_header

    _, options = parse_options_header(kind)
    found: list[tuple[str, bool, bytes]] = []
    headers: dict[bytes, bytes] = {}
    field, value, content = bytearray(), bytearray(), bytearray()

    def ended_header() -> None:
        headers[bytes(field).lower()] = bytes(value)
        field.clear()
        value.clear()

    def ended_part() -> None:
        _, about = parse_options_header(headers.get(b"content-disposition", b""))
        if len(found) == MOST:
            raise FastcamError(f"the form has more than {MOST} parts; send fewer")
        name = about.get(b"name", b"").decode("utf-8", "replace")
        found.append((name, b"filename" in about, bytes(content)))
        headers.clear()
        content.clear()

    try:
        parser = MultipartParser(
            options.get(b"boundary", b""),
            {
                "on_header_field": lambda data, start, end: field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: value.extend(data[start:end]),
                "on_header_end": ended_header,
                "on_part_data": lambda data, start, end: content.extend(data[start:end]),
                "on_part_end": ended_part,
            },
        )
        parser.write(body)
        parser.finalize()
    except FastcamError:
        raise
    except (MultipartParseError, ValueError) as error:
        raise FastcamError(f"the form cannot be read ({one_line(error)}); send multipart/form-data") from error
    if headers or content:
        raise FastcamError("the form is cut short; send all of it")
    return found
