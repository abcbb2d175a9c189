"""Explainer: an exported file, ready to explain pictures: session, preprocessing, kernels; no state between calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import image as images_
from fastcam import kernels as kernels_
from fastcam import methods
from fastcam.explanation import Explanation, join
from fastcam.image import Float, Geometry, Size
from fastcam.schema import (
    ACTIVATIONS,
    CAM,
    CLASSES,
    GRADIENTS,
    OUTPUTS,
    PRESETS,
    TARGETS,
    WEIGHTS,
    FastcamError,
    Metadata,
    Preprocessing,
    preset,
)
from fastcam.session import (
    Model,
    Providers,
    create_session,
    model_name,
    one_line,
    onnxruntime,
    ort_errors,
    read_metadata,
)
from fastcam.targets import Targets, read_labels

NO_POSITIVE = "no_positive"

_ADDED = {name for names in OUTPUTS.values() for name in names}

_DTYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_DTYPES |= {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8}


@dataclass(frozen=True)
class _Batch:
    """One run's worth of images: the network's input, what was given, and how the one became the other."""

    tensor: NDArray[Any]
    images: tuple[NDArray[Any], ...]
    geometry: tuple[Geometry, ...]


class Explainer:
    """Explains what an exported file sees in pictures.

    Safe to share between threads: a call keeps nothing, and ONNX Runtime sessions run concurrently.

    Args:
        model: path or bytes of a file that ``fastcam export`` wrote.
        providers, threads: see :func:`fastcam.session.create_session`.
        preprocess: how pictures become the input, in place of what the file says: a name from
            :data:`fastcam.schema.PRESETS` (size, resize rule and layout stay the file's) or a Preprocessing.
        labels: class names by index, or a file with one per line, in place of the file's.
        kernels: "auto", "native" or "reference".
        batch_size: images per run where the file's batch is free; the file's own size where it is fixed.

    Raises:
        FastcamError: the file cannot be loaded or FastCAM did not export it; a setting does not fit it.
    """

    def __init__(
        self,
        model: Model,
        providers: Providers = "auto",
        threads: int | None = None,
        preprocess: Preprocessing | str | None = None,
        labels: str | Path | Sequence[str] | None = None,
        kernels: str = "auto",
        batch_size: int = 16,
    ) -> None:
        self._name = model_name(model)
        self._session = create_session(model, providers, threads)
        self._metadata = read_metadata(self._session, self._name)
        self._kernels = kernels_.get(kernels)
        if batch_size < 1:
            raise FastcamError(f"the batch size must be at least 1, got {batch_size}")
        required = {value.name: value for value in self._session.get_inputs()}
        self._free_targets = TARGETS in required or TARGETS in {
            value.name for value in self._session.get_overridable_initializers()
        }
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._check_contract(required)
        if len(self._metadata.input_shape) == 5:
            raise FastcamError(
                f"{self._name} explains videos; Explainer takes pictures: run it in ONNX Runtime directly"
            )
        self._shape: tuple[int | str | None, ...] = tuple(required[self._metadata.input].shape)
        self._dtype = _DTYPES.get(required[self._metadata.input].type, np.float32)
        self._preprocess = self._resolve_preprocessing(preprocess)
        self._metadata = replace(self._metadata, preprocessing=self._preprocess)
        if labels is not None:
            self._metadata = replace(self._metadata, labels=read_labels(labels, self._metadata.score.classes))
        self._targets = Targets(self._metadata.score.classes, self._metadata.labels)
        self._fixed_batch = self._shape[0] if self._shape and isinstance(self._shape[0], int) else None
        self._batch_size = self._fixed_batch or batch_size

    @property
    def metadata(self) -> Metadata:
        """What the file says about itself, with this Explainer's preprocessing and labels."""
        return self._metadata

    @property
    def input_shape(self) -> tuple[int | str | None, ...]:
        """Shape of the image input; free dimensions are strings or None."""
        return self._shape

    @property
    def batch_size(self) -> int:
        """Images per run."""
        return self._batch_size

    def __call__(self, images: Any, targets: Any = -1, threshold: float = 0.15, connectivity: int = 8) -> Explanation:
        """Explain one or more pictures.

        Args:
            images: a path; a picture (uint8 [h, w, 3] RGB, grey [h, w] or with alpha [h, w, 4]); a list of those; or
                a float tensor [N, C, H, W] (the model's own layout), used as it is.
            targets: a class index, a rank (-1 is the predicted class, -2 the second, ...), a class name, a list of
                those for every image, or one such list per image.
            threshold: boxes surround what reaches this share of the heatmap's maximum; 0.15 is the paper's.
            connectivity: 8 or 4 neighbours of a pixel.

        Raises:
            FastcamError: a picture or a target that cannot be used; the message says why.
        """
        if not 0 < threshold <= 1:
            raise FastcamError(f"the threshold is a fraction of the heatmap's maximum, in (0, 1], got {threshold}")
        sources, files = self._sources(images)
        resolved = self._resolve_targets(targets, len(sources))
        parts = []
        for start in range(0, len(sources), self._batch_size):
            rows = slice(start, min(start + self._batch_size, len(sources)))
            batch = self._prepare(sources[rows])
            chosen = resolved if len(resolved) == 1 else resolved[rows]
            found = self._run(batch.tensor, chosen)
            parts.append(self._explain(batch, found, files[rows], threshold, connectivity))
        return join(parts)

    # --- setting up ---------------------------------------------------------------------------------------------

    def _check_contract(self, required: dict[str, Any]) -> None:
        """The session has the inputs and outputs that its metadata promises, and needs no others."""
        wanted = {*OUTPUTS[self._metadata.emit], self._metadata.score.output}
        absent = sorted(wanted - set(self._outputs)) + [self._metadata.input] * (self._metadata.input not in required)
        if absent:
            raise FastcamError(f"{self._name} lacks {', '.join(absent)}, which its metadata promises; export it again")
        others = sorted(set(required) - {self._metadata.input, TARGETS})
        if others:
            raise FastcamError(
                f"{self._name} needs further inputs ({', '.join(others)}), which Explainer cannot fill; "
                "run it in ONNX Runtime directly"
            )

    def _resolve_preprocessing(self, given: Preprocessing | str | None) -> Preprocessing | None:
        """The preprocessing in force, with the input's own size where the model fixes it."""
        own = self._metadata.preprocessing
        if given is None:
            how = own
        elif isinstance(given, Preprocessing):
            how = given
        else:
            kept = {"resize": own.resize, "layout": own.layout} if own else {"layout": self._guessed_layout()}
            how = preset(given, size=own.size if own else None, **kept)
        if how is None:
            return None
        fixed = self._spatial(how.layout)
        if fixed is None:
            return how
        if isinstance(given, Preprocessing) and given.size not in (None, fixed):
            raise FastcamError(f"preprocess has size {given.size}, but the input of {self._name} is {fixed}; use that")
        return replace(how, size=fixed)

    def _guessed_layout(self) -> str:
        channels_last = len(self._shape) == 4 and self._shape[-1] in (1, 3) and self._shape[1] not in (1, 3)
        return "NHWC" if channels_last else "NCHW"

    def _spatial(self, layout: str) -> Size | None:
        """(H, W) where the model fixes both."""
        if len(self._shape) != 4:
            return None
        height, width = self._shape[1:3] if layout == "NHWC" else self._shape[2:4]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None

    # --- images and targets in ----------------------------------------------------------------------------------

    def _sources(self, images: Any) -> tuple[Any, list[str | None]]:
        """The images as a sequence (a checked tensor, or a list of pictures still to be read) and their paths."""
        if not isinstance(images, str | Path | list | tuple) and not hasattr(images, "convert"):
            images = images_.as_array(images)
        if isinstance(images, np.ndarray) and images.dtype.kind == "f":
            tensor = self._checked(images)
            return tensor, [None] * len(tensor)
        pictures = list(images) if isinstance(images, list | tuple) else [images]
        if not pictures:
            raise FastcamError("no images given; give at least one")
        if self._preprocess is None:
            raise FastcamError(
                f"{self._name} does not say how pictures become its input; say it with preprocess "
                f"(--preprocess, one of: {', '.join(PRESETS)}), or give a float tensor"
            )
        return pictures, [str(entry) if isinstance(entry, str | Path) else None for entry in pictures]

    def _checked(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """A float tensor that fits the model's input, in the input's dtype."""
        fits = tensor.ndim == len(self._shape) == 4 and all(
            not isinstance(want, int) or want == have
            for want, have in zip(self._shape[1:], tensor.shape[1:], strict=True)
        )
        if not fits:
            raise FastcamError(
                f"a float tensor must be [N, {', '.join(str(side) for side in self._shape[1:])}], the input of "
                f"{self._name}, got {list(tensor.shape)}; pictures must be uint8 [height, width, 3]"
            )
        if tensor.size == 0:
            raise FastcamError(f"the tensor has no elements: {list(tensor.shape)}; give at least one image")
        return np.ascontiguousarray(tensor, self._dtype)

    def _resolve_targets(self, targets: Any, count: int) -> NDArray[np.int64]:
        resolved = self._targets.resolve(targets, count)
        if not self._free_targets and not (resolved == -1).all():
            raise FastcamError(
                f"{self._name} was exported with constant targets; export it again with --targets default"
            )
        return resolved

    def _prepare(self, sources: Any) -> _Batch:
        """One run's images as the network's input."""
        if isinstance(sources, np.ndarray):
            layout = self._preprocess.layout if self._preprocess else self._guessed_layout()
            size = (sources.shape[1], sources.shape[2]) if layout == "NHWC" else (sources.shape[2], sources.shape[3])
            whole = (0, 0, size[1], size[0])
            given = tuple(sources.astype(np.float32, copy=False))
            return _Batch(sources, given, (Geometry(size, size, whole, whole),) * len(sources))
        assert self._preprocess is not None  # _sources refuses pictures without it
        pictures = tuple(images_.load(source) for source in sources)
        made = [images_.prepare(picture, self._preprocess) for picture in pictures]
        if len({tensor.shape for tensor, _ in made}) > 1:
            raise FastcamError(
                f"{self._name} takes any size, but the pictures of one call must then have the same; "
                "give them one by one, or set preprocess with a size"
            )
        tensor = np.concatenate([tensor for tensor, _ in made])
        axis = 3 if self._preprocess.layout == "NHWC" else 1
        channels = self._shape[axis] if len(self._shape) == 4 else None
        if isinstance(channels, int) and channels != tensor.shape[axis]:
            raise FastcamError(
                f"{self._name} takes {channels} channels, its preprocessing makes {tensor.shape[axis]}; set its color"
            )
        if np.issubdtype(self._dtype, np.integer):
            limits = np.iinfo(self._dtype)
            tensor = np.clip(np.rint(tensor), limits.min, limits.max)
        return _Batch(tensor.astype(self._dtype, copy=False), pictures, tuple(geometry for _, geometry in made))

    # --- the run ------------------------------------------------------------------------------------------------

    def _run(self, tensor: NDArray[Any], targets: NDArray[np.int64]) -> dict[str, Any]:
        """All outputs by name, for the images of ``tensor``; a fixed batch is filled up with its last image."""
        count = len(tensor)
        missing = (self._fixed_batch or count) - count
        feed = {self._metadata.input: _filled(tensor, missing)}
        if self._free_targets:
            feed[TARGETS] = targets if len(targets) == 1 else _filled(targets, missing)
        try:
            values = self._session.run(None, feed)
        except ort_errors(onnxruntime()) as error:
            raise FastcamError(f"{self._name}: ONNX Runtime could not run it ({one_line(error)})") from error
        found = dict(zip(self._outputs, values, strict=True))
        return {name: _rows(value, count, count + missing) for name, value in found.items()}

    def _kernel_inputs(self, found: dict[str, Any]) -> tuple[NDArray[Any], NDArray[Any] | None, list[str]]:
        """Activations and weights, or signed maps and None, from what the file emits; names of the statuses."""
        names = list(kernels_.STATUS_NAMES)
        if self._metadata.emit == "cam":
            names[kernels_.ALL_NEGATIVE] = names[kernels_.ZERO_GRADIENT] = NO_POSITIVE
            return _float(found[CAM]), None, names
        weights = methods.gradcam_weights(found[GRADIENTS]) if self._metadata.emit == "gradients" else found[WEIGHTS]
        activations = np.asarray(found[ACTIVATIONS])
        half = activations.dtype == np.float16  # which the kernels read
        return activations if half else _float(activations), _float(weights), names

    def _explain(
        self, batch: _Batch, found: dict[str, Any], files: list[str | None], threshold: float, connectivity: int
    ) -> Explanation:
        """Post-processing of one run."""
        scores = _per_class(_float(found[self._metadata.score.output]))
        classes = np.asarray(found[CLASSES], np.int64)
        if classes.min() < 0:  # how a file for another engine than ONNX Runtime says so
            raise FastcamError(f"a target is no class, or no rank, that {self._name} resolves; give a class index")
        if classes.max() >= scores.shape[1]:
            raise FastcamError(f"class {classes.max()} is out of range: the model has {scores.shape[1]} classes")
        activations, weights, names = self._kernel_inputs(found)
        size, windows = batch.geometry[0].network, np.array([each.target for each in batch.geometry], np.int32)
        explained = self._kernels.explain_maps(activations, weights, size, threshold, connectivity, windows=windows)
        assert explained.heatmaps is not None
        boxes, components = _in_original(explained, batch.geometry)
        return Explanation(
            scores=scores,
            classes=classes,
            labels=self._metadata.labels,
            maps=explained.maps,
            heatmaps=explained.heatmaps,
            boxes=boxes,
            components=components,
            status=tuple(tuple(names[code] for code in row) for row in explained.status),
            outputs={name: value for name, value in found.items() if name not in _ADDED},
            geometry=batch.geometry,
            files=tuple(files),
            images=batch.images,
            metadata=self._metadata,
            threshold=threshold,
            connectivity=connectivity,
        )


def _in_original(
    explained: kernels_.Explained, geometry: Sequence[Geometry]
) -> tuple[Float, tuple[tuple[Float, ...], ...]]:
    """Boxes [N, T, 4] and components in original pixels; no component, a box of zeros."""
    boxes = np.zeros((*explained.counts.shape, 4), np.float32)
    components: list[list[Float]] = [[] for _ in geometry]
    start = 0
    for i, t in np.ndindex(*explained.counts.shape):
        count = int(explained.counts[i, t])
        found = explained.components[start : start + count]
        parts = np.empty((count, 5), np.float32)
        parts[:, :4], parts[:, 4] = geometry[i].to_original(found[:, :4]), found[:, 4]
        if count:
            boxes[i, t] = geometry[i].to_original(explained.largest[i, t : t + 1, :4])[0]
        components[i].append(parts)
        start += count
    return boxes, tuple(map(tuple, components))


def _per_class(scores: Float) -> Float:
    """[N, classes]; what a segmenter gives at every position is summed over the positions, as it is explained."""
    return np.asarray(scores.reshape(*scores.shape[:2], -1).sum(axis=2), np.float32)


def _float(array: Any) -> Float:
    return np.ascontiguousarray(array, np.float32)


def _filled(array: NDArray[Any], missing: int) -> NDArray[Any]:
    """``array`` with its last row repeated ``missing`` times."""
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def _rows(value: Any, count: int, run: int) -> Any:
    """The first ``count`` rows of an output that has one row per image of the run; others as they are."""
    batched = isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim > 0)
    return value[:count] if batched and len(value) == run else value
