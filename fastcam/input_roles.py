"""What the metadata say of the inputs beside the explained one: the part that each plays, and the file's tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from fastcam.typed_fields import BASE_NAME, NOT_EMPTY, at_least

Role = Literal["text", "ids", "mask", "state", "value", "picture", ""]
"""What an input holds: the ids of a text's words; other ids, such as places or kinds of words; which words count; what
a network carries from step to step; numbers; a picture. "" in files of former versions, which do not say it."""
ROLES: tuple[Role, ...] = tuple(role for role in get_args(Role) if role)


@dataclass(frozen=True)
class FurtherInput:
    """An input of the model beside the one that is explained.

    Attributes:
        name: its name.
        default: its value where a caller gives none, as a flat list; None where every call has to give one.
        default_shape: the shape of that.
        read: whether anything depends on it.
        role: what it holds.
        of: of a mask or ids that follow from a text the name of the input with the text; "" of all others.
        words: how many different words or ids it can hold: the rows of the matrix in which they are looked up; None
            where the graph does not tell.
    """

    name: Annotated[str, NOT_EMPTY]
    default: tuple[float | bool, ...] | None = None
    default_shape: Annotated[tuple[int, ...], at_least(0)] = ()
    read: bool = True
    role: Role = ""
    of: str = ""
    words: Annotated[int | None, at_least(1)] = None


@dataclass(frozen=True)
class TokenizerFile:
    """How texts become ids: a ``tokenizer.json`` inside the metadata, or beside the file.

    Attributes:
        sha256: hex digest of its bytes.
        file: base name of the file beside the model; "" where there is none.
        content: the file itself, where it is small; else "".
    """

    sha256: Annotated[str, NOT_EMPTY]
    file: Annotated[str, BASE_NAME] = ""
    content: str = ""
