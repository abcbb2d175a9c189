"""One picture that cannot be read, or one target that a picture does not have, is a row with its error, not the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcam.errors import FastcamError

if TYPE_CHECKING:
    from fastcam.results.explanation import Explanation

Call = Callable[[Sequence[int], Sequence[Any]], "Explanation"]
"""(numbers of pictures, targets) -> their explanation."""


def attempts(
    call: Call, pictures: Sequence[int], targets: Sequence[Any]
) -> Iterator[tuple[range, Explanation | None, Mapping[str, FastcamError]]]:
    """Explain pictures together; where that fails one by one, and one that fails without the targets that it fails by.

    Yields:
        the places of the pictures among those given, their explanation, and the errors of targets that it is without;
        of a picture that could not be explained None and its error under "".
    """
    try:
        yield range(len(pictures)), call(pictures, targets), {}
        return
    except FastcamError as error:
        whole = error
    if len(pictures) > 1:
        for i in range(len(pictures)):
            for _, explanation, errors in attempts(call, pictures[i : i + 1], targets):
                yield range(i, i + 1), explanation, errors
        return
    failed: dict[str, FastcamError] = {}
    for one in targets if len(targets) > 1 else ():
        try:
            call(pictures, [one])
        except FastcamError as error:
            failed[str(one)] = error
    good = [one for one in targets if str(one) not in failed]
    if failed and good:
        yield range(1), call(pictures, good), failed
    else:
        yield range(1), None, {"": whole}


def entry(file: Path, error: FastcamError) -> dict[str, Any]:
    """What a report says of a picture that could not be explained."""
    return {"file": str(file), "targets": [], "error": str(error)}


def target_entry(target: str, error: FastcamError) -> dict[str, Any]:
    """What a report says of a target that a picture does not have."""
    return {"class": None, "label": None, "target": target, "score": None, "status": "not explained",
            "box": None, "peak": None, "components": [], "error": str(error)}  # fmt: skip


def errors_of(report: Mapping[str, Any]) -> list[str]:
    """The errors of a report's pictures and targets, one for each picture."""
    errors = []
    for image in report.get("methods", [report])[0]["images"]:
        errors += [one["error"] for one in (image, *image["targets"]) if "error" in one][:1]
    return errors


def raise_for(report: Mapping[str, Any]) -> None:
    """Raise a FastcamError where a picture or a target of the report was not explained."""
    errors = errors_of(report)
    count = len(report.get("methods", [report])[0]["images"])
    if errors:
        said = errors[0] if len(errors) == 1 else "their rows say why"
        whole = any("error" in image for image in report.get("methods", [report])[0]["images"])
        what = "could not be explained" if whole else "could not be explained whole"
        raise FastcamError(f"{len(errors)} of {count} picture{'' if count == 1 else 's'} {what}: {said}")
