"""Inputs beside the image that is explained: a second picture, numbers, a mask, a state; their values for each run."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam import input_files
from fastcam.errors import FastcamError, listed, shown, typed
from fastcam.image import preprocess as images_
from fastcam.image.preprocess import CHANNELS, Size
from fastcam.image.reading import DEFAULT, Reading
from fastcam.input_roles import FurtherInput
from fastcam.preprocessing import fitted, named
from fastcam.runtime.inputs.text_inputs import ARRAYS, TextInputs, is_text
from fastcam.schema import Preprocessing
from fastcam.typed_fields import parse_json

Array: TypeAlias = NDArray[Any]
Values: TypeAlias = Mapping[str, Any]
"""What a caller gives, by the name of the input: numbers, arrays, texts, pictures, or files of those."""
FORMS = "give .npy, .json, .csv or .txt"
COLOURS: dict[int, Any] = {3: "RGB", 4: "RGBA"}
"""Of a picture beside one of other channels."""
TYPES: dict[str, Any] = {
    **{f"tensor({name})": np.dtype(name) for name in ("float16", "double", "uint8", "int8", "uint16", "int16")},
    **{f"tensor({name})": np.dtype(name) for name in ("uint32", "int32", "uint64", "int64", "bool")},
    "tensor(float)": np.dtype(np.float32),
}


@dataclass(frozen=True, eq=False)
class FurtherValues:
    """Values of further inputs for some images.

    Attributes:
        rows: by name, [images, ...]: a row for each image.
        shared: by name, what is the same for all images.
    """

    rows: Mapping[str, Array] = field(default_factory=dict)
    shared: Mapping[str, Array] = field(default_factory=dict)

    def __getitem__(self, rows: slice) -> FurtherValues:
        """The values for the images from ``rows.start`` to ``rows.stop``."""
        if not self.rows:
            return self
        return FurtherValues({name: array[rows] for name, array in self.rows.items()}, self.shared)

    def repeated(self, count: int) -> FurtherValues:
        """Those of one image for ``count`` copies of it."""
        return FurtherValues({name: np.repeat(array, count, 0) for name, array in self.rows.items()}, self.shared)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By name, the shape of an image's row; rows of one shape can run together."""
        return {name: array.shape[1:] for name, array in self.rows.items()}

    def feeds(self, fill: Callable[[Array], Array]) -> dict[str, Array]:
        """What a session takes; ``fill`` fills rows up to the images that run."""
        return {name: fill(array) for name, array in self.rows.items()} | dict(self.shared)


NONE = FurtherValues()


def join_values(parts: Sequence[FurtherValues]) -> FurtherValues:
    """Values of several groups of images as those of all."""
    first = parts[0]
    return FurtherValues(
        {name: np.concatenate([part.rows[name] for part in parts]) for name in first.rows}, first.shared
    )


@dataclass(frozen=True, eq=False)
class FurtherInputs:
    """The inputs of a file that are neither explained nor FastCAM's own.

    Args:
        file: how messages call it.
        values: these inputs by name, as ONNX Runtime describes them.
        image: the explained input, as ONNX Runtime describes it.
        about: what the metadata says of them.
        given: values for every call, by name.
        preprocessing, reading: of pictures.
        texts: those that hold a text.

    Raises:
        FastcamError: ``given`` names no such input, or has a value that does not fit.
    """

    file: str
    values: Mapping[str, Any]
    image: Any
    about: tuple[FurtherInput, ...]
    given: Values
    preprocessing: Preprocessing | None
    texts: TextInputs
    reading: Reading = DEFAULT

    def __post_init__(self) -> None:
        self._refuse_unknown(self.given)

    def of(self, given: Values | None, images: int) -> FurtherValues:
        """The values for a call of ``images`` images.

        Args:
            given: by name; what is not among them has the value of every call, or the file's default.

        Raises:
            FastcamError: an input has no value, or one that does not fit; the message says how to give it.
        """
        if not self.values:
            if given:
                self._refuse_unknown(given)
            return NONE
        self._refuse_unknown(given or {})
        known = {one.name: one for one in self.about}
        every = self.texts.encoded(self._of_every_call(given or {}) | dict(given or {}))
        rows, shared = {}, {}
        for name, value in self.values.items():
            about = known.get(name)
            if name in every:
                array = self._array(value, every[name])
            elif about is not None and about.default is not None:
                array = self._array(value, np.reshape(about.default, about.default_shape))
            elif about is not None and not about.read:  # the runtime wants it, and nothing depends on it
                array = np.zeros([side if isinstance(side, int) else 1 for side in value.shape], _dtype(value))
            else:
                raise self._missing(value)
            self.texts.refuse_range(name, array)
            if self._batched(value, array, images):
                rows[name] = np.repeat(array, images, 0) if len(array) == 1 else array
            else:
                shared[name] = array
        return FurtherValues(rows, shared)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of those without a value unless a call gives one; texts that are targets are not among them."""
        known = {one.name for one in self.about if one.default is not None or not one.read} | set(self.given)
        return tuple(name for name in self.values if name not in known and not self.texts.of_all(name))

    # ---- inside

    def _of_every_call(self, given: Values) -> dict[str, Any]:
        """The values of every call, without those that follow from a text in place of which this call gives another."""
        others = {one.name for one in self.about if one.of in given}
        return {name: value for name, value in self.given.items() if name not in others}

    def _missing(self, value: Any) -> FastcamError:
        """Of an input that has no value."""
        name, said = value.name, [one.name for one in self.about if one.name == value.name]
        if self.texts.prompts == name:
            return FastcamError(
                f"{self.file} compares pictures with texts: give targets='text: a red square' (-t 'text: ...'), or "
                "prompts (--prompts)"
            )
        if self.texts.names == (name,) and said:
            return FastcamError(
                f"{self.file} needs a text for its input {_described(value)}: give text='...' (--text), or its ids, "
                f"inputs={{{name!r}: ...}}"
            )
        return FastcamError(
            f"{self.file} needs a value for its input {_described(value)}: give inputs={{{name!r}: ...}} "
            f"(--input-value {name}=...), or one for all calls at the export"
        )

    def _refuse_unknown(self, given: Values) -> None:
        typed("inputs", given, Mapping, "a dict of values by the names of inputs")
        for name in given:
            if name not in self.values:
                have = listed(map(_described, self.values.values())) or "none"
                raise FastcamError(f"{self.file} has no further input {name!r}; it has {have}")

    def _array(self, value: Any, given: Any) -> Array:
        """A value as the input takes it: its dtype, and its rank."""
        shape = list(value.shape)
        array = self._read(value, given)
        if array.ndim == 0 and shape:
            array = np.full([side if isinstance(side, int) else 1 for side in shape], array)
        elif array.ndim == len(shape) - 1:
            array = array[None]
        fits = array.ndim == len(shape) and all(
            not isinstance(side, int) or side == have for side, have in zip(shape[1:], array.shape[1:], strict=True)
        )
        if not fits or array.size == 0:
            raise FastcamError(
                f"input {_described(value)} of {self.file} got a value of shape {list(array.shape)}; give one that fits"
            )
        dtype = _dtype(value)
        cast = array.astype(dtype)
        if dtype.kind in "iub" and not np.array_equal(cast, array):
            raise FastcamError(
                f"input {_described(value)} of {self.file} takes {dtype}, and got other numbers; cast them"
            )
        return np.ascontiguousarray(cast)

    def _read(self, value: Any, given: Any) -> Array:
        """What a caller gave, as an array."""
        if is_text(given) and not self._takes_pictures(value) and not _is_file(given):
            raise FastcamError(
                f"input {_described(value)} of {self.file} takes no text; give numbers, .npy or .json (an export with "
                f"--role {value.name}=text and --tokenizer takes texts)"
            )
        several = isinstance(given, list | tuple) and given and all(map(_is_source, given))
        if several:
            return np.stack([self._one(value, each) for each in given])
        if _is_source(given):
            return self._one(value, given)
        array = images_.as_array(given)
        picture = array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] in (1, 3, 4)
        return self._picture(value, array) if picture and self._takes_pictures(value) else array

    def _one(self, value: Any, source: Any) -> Array:
        """A file, or an encoded picture."""
        if isinstance(source, str | Path) and Path(source).suffix.lower() in ARRAYS:
            return read_array(source)
        if not self._takes_pictures(value):
            raise FastcamError(f"input {_described(value)} of {self.file} is no picture; give numbers, .npy or .json")
        return self._picture(value, source)

    def _takes_pictures(self, value: Any) -> bool:
        return len(value.shape) == 4

    def _picture(self, value: Any, source: Any) -> Array:
        """A picture [C, H, W] or [H, W, C], prepared as the explained one is, in the channels of its own input."""
        if self.preprocessing is None:
            raise FastcamError(
                f"{self.file} does not say how pictures become its input; say it with preprocess (--preprocess), or "
                f"give {value.name!r} as an array"
            )
        how = replace(self.preprocessing, layout=_layout(value.shape, self.preprocessing.layout))
        channels, dtype = value.shape[3 if how.layout == "NHWC" else 1], _dtype(value).name
        if dtype == "uint8" and how.range() != (0, 255):  # which prepares its pixels itself
            how = named("raw", size=how.size, resize=how.resize, layout=how.layout)
        if CHANNELS[how.color] not in (None, channels) and channels in COLOURS:
            how = replace(how, color=COLOURS[channels])
        how = fitted(how, channels, dtype, value.name)[0]
        pixels = images_.read(source, how.color, self.reading)[1]
        tensor, _ = images_.prepare(pixels, how, _size(value.shape, how.layout) or how.size)
        return np.asarray(tensor[0])

    def _batched(self, value: Any, array: Array, images: int) -> bool:
        """Whether an array has a row for each image.

        Raises:
            FastcamError: it has rows, but not as many as there are images.
        """
        if not value.shape:
            return False
        first, batch = value.shape[0], self.image.shape[0]
        if self.texts.of_all(value.name):
            rows = False
        elif isinstance(first, int):
            rows = bool(first == batch)
        else:
            rows = first in (None, batch) or len(array) == images or not isinstance(batch, str)
        if rows and len(array) not in (1, images):
            raise FastcamError(
                f"input {_described(value)} of {self.file} got {len(array)} rows for {images} images; give one for "
                "each, or one for all"
            )
        if not rows and isinstance(first, int) and first != len(array):
            raise FastcamError(f"input {_described(value)} of {self.file} got {len(array)} rows; it takes {first}")
        return rows


def read_array(path: str | Path) -> Array:
    """The array in a .npy, .json or text file (numbers with commas or blanks between them).

    Raises:
        FastcamError: it cannot be read.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        return input_files.read_array(path, FORMS)
    text = input_files.read_text(path, FORMS, input_files.NUMBERS)
    try:
        if suffix == ".json":
            return _numbers(parse_json(text))
        plain = text.replace(",", " ").replace(";", " ")
        if not plain.strip():
            raise ValueError("it is empty")
        return np.squeeze(np.loadtxt(io.StringIO(plain), np.float64, comments=None, ndmin=2))
    except (ValueError, OverflowError) as error:
        raise FastcamError(f"{shown(path)}: no array can be read from it ({error}); {FORMS}") from error


def parsed(texts: Sequence[str], written: Sequence[str] = ()) -> dict[str, Any]:
    """``--input-value`` of the command line, "NAME=VALUE" each: numbers, JSON, or a file.

    Args:
        written: the inputs that hold a text, which may also stand there as it is written.

    Raises:
        FastcamError: one is not.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise FastcamError(f"--input-value is {text!r}; give NAME=VALUE, like age=0.4 or depth=depth.npy")
        try:
            found[name] = _value(value)
        except FastcamError:
            if name not in written:
                raise
            found[name] = value
    return found


def arrays(texts: Sequence[str]) -> dict[str, Array]:
    """The same with files read: what an export takes, which has no pictures.

    Raises:
        FastcamError: a file that holds no array.
    """
    found = parsed(texts)
    for name, value in found.items():
        if isinstance(value, Path) and value.suffix.lower() not in ARRAYS:
            raise FastcamError(
                f"{shown(value)}: a file's own value of input {name!r} is an array ({', '.join(ARRAYS)}); give "
                f"pictures to explain, with --input-value {name}={value.name}"
            )
    return {name: read_array(value) if isinstance(value, Path) else value for name, value in found.items()}


def _value(text: str) -> Any:
    if Path(text).is_file():
        return Path(text)
    try:
        return _numbers(parse_json(text if text.lstrip().startswith("[") or "," not in text else f"[{text}]"))
    except ValueError:
        raise FastcamError(f"{text}: no such file, and no numbers; give a file, or numbers like 0.4,1") from None


def _numbers(value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError("not numbers")
    return array


def _is_source(value: Any) -> bool:
    """Whether a value is a file, or an encoded picture."""
    return isinstance(value, str | Path) or images_.is_encoded(value)


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and Path(value).is_file()


def _layout(shape: Sequence[Any], of_explained: str) -> Literal["NCHW", "NHWC"]:
    """Where the channels of a picture's input lie: where there are few, else as in the explained one."""
    first, last = shape[1] in (1, 3, 4), shape[3] in (1, 3, 4)
    return "NHWC" if (last if first != last else of_explained == "NHWC") else "NCHW"


def _size(shape: Sequence[Any], layout: str) -> Size | None:
    height, width = shape[1:3] if layout == "NHWC" else shape[2:4]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _dtype(value: Any) -> Any:
    if value.type not in TYPES:
        raise FastcamError(f"input {value.name!r} is a {value.type}, which FastCAM cannot fill; make it a constant")
    return TYPES[value.type]


def _described(value: Any) -> str:
    sides = ", ".join("?" if side is None else str(side) for side in value.shape)
    return f"{value.name!r} ({value.type.removeprefix('tensor(').rstrip(')')} [{sides}])"
