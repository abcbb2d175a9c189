"""What the metadata say of the inputs beside the explained one: the part that each plays, and the file's tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from fastcam.typed_fields import BASE_NAME, MODERATE, NOT_EMPTY, POSITIVE, at_least

Role = Literal["text", "prompts", "ids", "mask", "state", "value", "picture", ""]
"""What an input holds: the ids of a text's words; of several texts, each of which is a class; other ids, such as places
or kinds of words; which words count; what a network carries from step to step; numbers; a picture. "" in files of
former versions, which do not say it."""
OTHER_IDS = ("position", "token_type", "segment", "type_ids")
"""In names of ids that go with a text."""
TEXTS: tuple[Role, ...] = ("text", "prompts")
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


@dataclass(frozen=True)
class TextEncoderFile:
    """The text side of a dual encoder, and what becomes of the cosine of two embeddings: scale * cosine + bias.

    Attributes:
        file: base name of the ONNX file beside this one; "" where a caller gives it.
        sha256: hex digest of it; "" of none.
        scale: 1 / temperature: CLIP's exp(logit_scale), 100 in its published files.
        bias: SigLIP's logit_bias; 0 of CLIP.
    """

    file: Annotated[str, BASE_NAME] = ""
    sha256: str = ""
    scale: Annotated[float, MODERATE, POSITIVE] = 1.0
    bias: Annotated[float, MODERATE] = 0.0


def role_of_ids(name: str) -> Role:
    """What an input of whole numbers holds by its name: "mask", "ids" beside a text, or the "text" itself."""
    low = name.lower()
    if "mask" in low:
        return "mask"
    return "ids" if any(part in low for part in OTHER_IDS) else "text"
