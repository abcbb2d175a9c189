"""What goes into the network: pictures, files and tensors as batches, and how pictures are preprocessed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam import input_files
from fastcam.errors import FastcamError
from fastcam.image import preprocess as images_
from fastcam.image.decode import weight
from fastcam.image.preprocess import Float, Geometry, Size, Uint8
from fastcam.image.reading import DEFAULT, Reading
from fastcam.language.tokenizer import Tokenizer, open_tokenizer
from fastcam.memory import refuse_more
from fastcam.preprocessing import fitted, named
from fastcam.runtime.inputs import uint8_frames as frames_
from fastcam.runtime.inputs.batch import Batch, Empty, empty
from fastcam.runtime.inputs.further_inputs import NONE, FurtherInputs, FurtherValues, Values
from fastcam.runtime.inputs.text_inputs import TextInputs
from fastcam.runtime.io_binding import DeviceTensor, on_device
from fastcam.runtime.session import warn_once
from fastcam.runtime.thread_pipeline import Workers
from fastcam.schema import PRESETS, Metadata, Preprocessing

_DTYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_DTYPES |= {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8}


Preprocess: TypeAlias = "Preprocessing | str | Mapping[str, Any] | None"
"""How pictures become the input: all of it, the name of a preset, or fields that are changed."""


@dataclass(frozen=True, eq=False)
class Sources:
    """The images of a call before any of them is read; ``sources[a:b]`` are some of them.

    Attributes:
        images: a checked tensor [N, ...], or a list of pictures, paths or clips.
        files: per image its path, or None.
        further: the values of the model's further inputs.
        empty: gives the array that pictures are prepared in.
    """

    images: Any
    files: Sequence[str | None]
    further: FurtherValues = NONE
    empty: Empty = empty

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> Sources:
        return Sources(self.images[rows], self.files[rows], self.further[rows])


class Inputs:
    """Turns what a user gives into batches for one exported file.

    Args:
        name: how messages call the file.
        metadata: what it says about itself.
        value: its image input, as ONNX Runtime describes it.
        preprocess: in place of what the file says, see :class:`fastcam.Explainer`.
        threads: how many pictures of a run may be read and prepared at once; by default one a core.
        further: the model's further inputs by name, as ONNX Runtime describes them.
        given: values of those for every call, by name.
        reading: how files of pictures are read.
        tokenizer: opens the tokenizer, when a text is there.

    Raises:
        FastcamError: a preprocessing that does not fit the file, or a value for an input that it does not have.
    """

    def __init__(
        self,
        name: str,
        metadata: Metadata,
        value: Any,
        preprocess: Preprocess,
        threads: int | None = None,
        further: Mapping[str, Any] | None = None,
        given: Values | None = None,
        reading: Reading = DEFAULT,
        tokenizer: Callable[[], Tokenizer] | None = None,
    ) -> None:
        self._threads = threads or os.cpu_count() or 1
        self._workers = Workers(self._threads)
        self._name, self._metadata, self._reading = name, metadata, reading
        self.shape: tuple[int | str | None, ...] = tuple(value.shape)
        self._type, self._dtype = value.type, _DTYPES.get(value.type, np.float32)
        self.preprocessing = self._resolve_preprocessing(preprocess)
        opened = tokenizer or partial(open_tokenizer, metadata.tokenizer, None, name)
        self.texts = TextInputs(name, further or {}, metadata.inputs, opened)
        how = self.preprocessing, self.texts, reading
        self._further = FurtherInputs(name, further or {}, value, metadata.inputs, given or {}, *how)

    @property
    def layout(self) -> str:
        """NCHW or NHWC."""
        return self.preprocessing.layout if self.preprocessing else self._guessed_layout()

    def _resolve_preprocessing(self, preprocess: Preprocess) -> Preprocessing | None:
        """The preprocessing in force, with the input's own size where the model fixes it."""
        own = self._metadata.preprocessing
        if self._metadata.frames:
            if preprocess is not None:
                raise FastcamError(f"{self._name} prepares its frames itself; leave preprocess out, or export without")
            return own
        if preprocess is None:
            chosen = own
        elif isinstance(preprocess, Preprocessing):
            chosen = preprocess
        elif isinstance(preprocess, Mapping) and own is not None and "preset" not in preprocess:
            changed = named(preprocess)  # fields that are said go into what the file says
            chosen = replace(own, **{name: getattr(changed, name) for name in preprocess})
        else:
            kept = {"resize": own.resize, "layout": own.layout} if own else {"layout": self._guessed_layout()}
            chosen = named(preprocess, size=own.size if own else None, **kept)
        if chosen is None:
            return None
        if chosen.stack != (own.stack if own else 1):
            raise FastcamError(
                f"how many frames the input of {self._name} stacks is said at the export (--stack), not here"
            )
        if preprocess is not None:
            chosen = self._fitted(chosen)
        fixed = self._spatial(chosen.layout)
        if fixed is None:
            return chosen
        if isinstance(preprocess, Preprocessing) and preprocess.size not in (None, fixed):
            raise FastcamError(
                f"preprocess has size {preprocess.size}, but the input of {self._name} is {fixed}; use that"
            )
        return replace(chosen, size=fixed)

    def _fitted(self, preprocessing: Preprocessing) -> Preprocessing:
        """A preprocessing that somebody else than the export chose, if it fits the input."""
        axis = 3 if preprocessing.layout == "NHWC" else 1
        channels = self.shape[axis] if len(self.shape) == 4 else None
        return fitted(preprocessing, channels, np.dtype(self._dtype).name, self._metadata.input)[0]

    def _guessed_layout(self) -> str:
        if self._metadata.order:
            return "NHWC" if self._metadata.order.endswith("C") else "NCHW"
        channels_last = len(self.shape) == 4 and self.shape[-1] in (1, 3) and self.shape[1] not in (1, 3)
        return "NHWC" if channels_last else "NCHW"

    def _spatial(self, layout: str) -> Size | None:
        """(H, W) where the model fixes both."""
        if len(self.shape) != 4:
            return None
        height, width = self.shape[1:3] if layout == "NHWC" else self.shape[2:4]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def sources(self, images: Any, inputs: Values | None = None, text: Any = None) -> Sources:
        """What a caller gave as images, as a sequence of them, with the values of the further inputs.

        Args:
            images, text: see :meth:`fastcam.Explainer.__call__`.
            inputs: values of further inputs by name.

        Raises:
            FastcamError: a tensor that does not fit the model's input, no image at all, or pictures for a file that
                does not say how they become its input; a further input without a value, or with one that does not fit.
        """
        if not isinstance(images, list | np.ndarray) and isinstance(images, Mapping):  # which takes longer to find out
            if self._metadata.input not in images:
                have = ", ".join(map(str, images))
                raise FastcamError(
                    f"{self._name} explains its input {self._metadata.input!r}, got {have}; give that too"
                )
            inputs = {name: value for name, value in images.items() if name != self._metadata.input} | dict(
                inputs or {}
            )
            images = images[self._metadata.input]
        if text is not None:
            inputs = self._with_text(inputs or {}, text)
        found = self._sources(images)
        return replace(found, further=self.further(inputs, len(found))) if inputs or self._further.values else found

    def giving(self, inputs: Values) -> Inputs:
        """The same with other values of further inputs for every call, beside those that there are."""
        other = copy(self)
        other._further = replace(self._further, given={**self._further.given, **inputs})
        return other

    def _with_text(self, inputs: Values, text: Any) -> Values:
        named = self.texts.named(text)
        twice = [name for name in named if name in inputs]
        if twice:
            raise FastcamError(f"text and a value of input {twice[0]!r} were both given; give one of the two")
        return {**inputs, **named}

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of further inputs without a value unless a call gives one."""
        return self._further.missing

    def further(self, inputs: Values | None, images: int) -> FurtherValues:
        """The values of the further inputs for so many images; see :meth:`FurtherInputs.of`."""
        return self._further.of(inputs, images)

    def _sources(self, images: Any) -> Sources:
        if on_device(images):
            tensor = self._checked(DeviceTensor(images))
            return Sources(tensor, [None] * len(tensor))
        ready = self._ready(images)
        if ready is not None:
            return ready
        if not isinstance(images, str | Path | list | tuple) and not images_.is_encoded(images):
            images = images_.as_array(images)
        if self._metadata.frames:
            images = frames_.unpacked(images, self._name)
        if isinstance(images, np.ndarray) and images.dtype.kind == "f":
            tensor = self._checked(images)
            return Sources(tensor, [None] * len(tensor))
        pictures = list(images) if isinstance(images, list | tuple) else [images]
        if not pictures:
            raise FastcamError("no images given; give at least one")
        if self.preprocessing is None:
            raise FastcamError(
                f"{self._name} does not say how pictures become its input; say it with preprocess "
                f"(--preprocess, one of: {', '.join(PRESETS)}), or give a float tensor"
            )
        return Sources(pictures, [str(entry) if isinstance(entry, str | Path) else None for entry in pictures])

    def _ready(self, images: Any) -> Sources | None:
        """Float tensors in .npy files, which are used as they are: one image each, or several; None of all else."""
        given = images if isinstance(images, list | tuple) else [images]
        if not given or not isinstance(given[0], str | Path):
            return None
        if not all(isinstance(one, str | Path) and str(one).lower().endswith(".npy") for one in given):
            return None
        arrays = [input_files.read_array(one, "give an array") for one in given]
        if not all(array.dtype.kind == "f" for array in arrays):
            return None
        tensors = [array if array.ndim == len(self.shape) else array[None] for array in arrays]
        if len({tensor.shape[1:] for tensor in tensors}) > 1:
            raise FastcamError(f"the arrays of one call of {self._name} must have one size; give them one by one")
        files = [str(one) for one, tensor in zip(given, tensors, strict=True) for _ in tensor]
        return Sources(self._checked(np.concatenate(tensors)), files)

    def _checked(self, tensor: NDArray[Any] | DeviceTensor) -> NDArray[Any] | DeviceTensor:
        """A float tensor that fits the model's input, in the input's dtype."""
        fits = tensor.ndim == len(self.shape) and all(
            not isinstance(want, int) or want == have
            for want, have in zip(self.shape[1:], tensor.shape[1:], strict=True)
        )
        if not fits:
            raise FastcamError(
                f"a float tensor must be [N, {', '.join(str(side) for side in self.shape[1:])}], the input of "
                f"{self._name}, got {list(tensor.shape)}; pictures must be uint8 [height, width, 3]"
            )
        if 0 in tensor.shape:
            raise FastcamError(f"the tensor has no elements: {list(tensor.shape)}; give at least one image")
        if isinstance(tensor, DeviceTensor):
            if tensor.dtype != self._dtype:
                raise FastcamError(
                    f"the input of {self._name} is {np.dtype(self._dtype)}, the tensor {tensor.dtype}; cast it"
                )
            return tensor
        self._refuse_range(tensor)
        return np.ascontiguousarray(tensor, self._dtype)

    def _refuse_range(self, tensor: NDArray[Any]) -> None:
        """Raise for values that the input cannot mean: fractions for whole numbers, pixels that were not normalised,
        shares of one for pixels. Of those that it is unlikely to mean, warn once."""
        high = float(tensor.max())
        if np.issubdtype(self._dtype, np.integer):
            limits = np.iinfo(self._dtype)
            if high > limits.max or tensor.min() < limits.min or not np.array_equal(tensor, np.rint(tensor)):
                raise FastcamError(
                    f"{self._name} takes {limits.dtype}, and the tensor holds other numbers than whole ones from "
                    f"{limits.min} to {limits.max}; give pixels as they are"
                )
            return
        how = self.preprocessing
        if how is None or self._metadata.frames:
            return
        least, most = how.range()
        if np.isfinite(high) and high > most + 20 * (most - least):
            raise FastcamError(
                f"the tensor holds values up to {high:.4g}, and the input of {self._name} lies in {least:.3g} to "
                f"{most:.3g}; give pictures (uint8), or normalise the tensor"
            )
        if (least, most) == (0, 255) and 0 < high <= 1 and tensor.min() >= 0:
            raise FastcamError(
                f"the tensor lies in 0 to 1, and the input of {self._name} in 0 to 255; multiply it by 255, or give "
                "pictures (uint8)"
            )
        doubt = how.doubt(float(tensor.min()), high)
        if doubt:
            warn_once(
                f"{self._name}: a float tensor {doubt}; pixels become {least:.3g} to {most:.3g} there: prepare it so, "
                "or give pictures (uint8)"
            )

    def _own_size(self, sides: Sequence[int]) -> Size:
        """The size of a picture as the model takes it, where that leaves it free: of one side alone, the other follows.

        A reader of lines of text has a height, and as much width as the line.
        """
        step = self._metadata.size_step
        own = self.shape[1:3] if self.layout == "NHWC" else self.shape[2:4]
        fixed = [side if isinstance(side, int) else None for side in own] if len(self.shape) == 4 else [None, None]
        scale = next((known / side for known, side in zip(fixed, sides) if known is not None), 1.0)
        height, width = (known or max(step, round(side * scale / step) * step) for known, side in zip(fixed, sides))
        return height, width

    def _loaded(
        self, sources: Any, preprocessing: Preprocessing, empty: Empty = empty
    ) -> tuple[Float, list[tuple[Uint8, Geometry]]]:
        """All pictures' tensor, and each picture and its geometry; several at once, as many as there are threads."""
        count = images_.CHANNELS.get(preprocessing.color) or self._channels(preprocessing.layout)
        whole = None
        if preprocessing.size is not None and count is not None:  # the shape is known: pictures are written in place
            shape = (count, *preprocessing.size) if preprocessing.layout == "NCHW" else (*preprocessing.size, count)
            refuse_more("the pictures of one run", (len(sources), *shape), 4, "give a smaller size, or a smaller batch")
            whole = empty((len(sources), *shape))

        def one(i: int) -> tuple[Uint8, tuple[Float, Geometry]]:
            picture, pixels = images_.read(sources[i], preprocessing.color, self._reading)
            self._refuse_bands(pixels, count)
            size = None if preprocessing.size is not None else self._own_size(pixels.shape[:2])
            return picture, images_.prepare(pixels, preprocessing, size, None if whole is None else whole[i : i + 1])

        if len(sources) == 1 or self._threads == 1:
            prepared = [one(i) for i in range(len(sources))]
        else:
            prepared = self._workers.map(one, range(len(sources)))
        if whole is None:
            tensors = [tensor for _, (tensor, _) in prepared]
            if len({tensor.shape for tensor in tensors}) > 1:
                raise FastcamError(
                    f"{self._name} takes any size, but the pictures of one call must then have the same; "
                    "give them one by one, or set preprocess with a size"
                )
            whole = tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
        return whole, [(picture, geometry) for picture, (_, geometry) in prepared]

    def _channels(self, layout: str) -> int | None:
        """The channels of the input, where it fixes them."""
        channels = self.shape[3 if layout == "NHWC" else 1] if len(self.shape) == 4 else None
        return channels if isinstance(channels, int) else None

    def _refuse_bands(self, pixels: NDArray[Any], count: int | None) -> None:
        """Raise where a picture of bands has another number of them than the model."""
        assert self.preprocessing is not None
        if self.preprocessing.color == "BANDS" and count not in (None, pixels.shape[2]):
            raise FastcamError(f"{self._name} takes {count} bands, the picture has {pixels.shape[2]}")

    def batches(self, sources: Sources, size: int) -> Iterator[Batch]:
        """All images, up to ``size`` a batch, read as they are asked for.

        For a file that takes frames, a batch is neighbours of one size.
        """
        if len(sources) <= size and not self._metadata.frames:
            yield self.batch(sources)
            return
        slices = (sources.images[start : start + size] for start in range(0, len(sources), size))
        start = 0
        for part in frames_.batches(sources.images, size, self._reading) if self._metadata.frames else slices:
            rows = slice(start, start + len(part))
            yield self.batch(Sources(part, sources.files[rows], sources.further[rows]))
            start += len(part)

    def weight(self, source: Any) -> int:
        """About how many bytes a picture takes on its way: its pixels, and the network's input that is made of them."""
        if isinstance(source, Mapping):
            source = source.get(self._metadata.input)
        size, pixels = self.preprocessing.size if self.preprocessing else None, weight(source)
        if size is None:  # its own size, in float32
            return pixels if self._metadata.frames else 5 * pixels
        return pixels + 4 * size[0] * size[1] * (self._channels(self.layout) or 3)

    def batch(self, sources: Sources) -> Batch:
        """One run's images as the network's input, and the values of the further inputs."""
        batch = self._batch(sources)
        return batch if sources.further is NONE else replace(batch, further=sources.further)

    def _batch(self, sources: Sources) -> Batch:
        images, files = sources.images, sources.files
        if isinstance(images, np.ndarray | DeviceTensor):
            size = (images.shape[1], images.shape[2]) if self.layout == "NHWC" else (images.shape[2], images.shape[3])
            rows = images.rows() if isinstance(images, DeviceTensor) else tuple(images.astype(np.float32, copy=False))
            return Batch(images, rows, (Geometry.unchanged(size),) * len(images), tuple(files))
        assert self.preprocessing is not None  # sources() refuses pictures without it
        if self._metadata.frames:
            return frames_.prepare(images, files, self.preprocessing, self.shape, self._name, self._reading)
        tensor, prepared = self._loaded(images, self.preprocessing, sources.empty)
        axis = 3 if self.preprocessing.layout == "NHWC" else 1
        channels = self._channels(self.preprocessing.layout)
        made = tensor.shape[axis] // self.preprocessing.stack
        if channels is not None and channels != made:
            raise FastcamError(f"{self._name} takes {channels} channels, its preprocessing makes {made}; set its color")
        if self._dtype in (np.uint8, np.int8):
            limits = np.iinfo(self._dtype)
            tensor = np.clip(np.rint(tensor), limits.min, limits.max)
        pictures, geometry = tuple(picture for picture, _ in prepared), tuple(placing for _, placing in prepared)
        return Batch(tensor.astype(self._dtype, copy=False), pictures, geometry, tuple(files))
