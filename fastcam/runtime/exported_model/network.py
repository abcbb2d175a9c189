"""The sessions of an Explainer: an export in one file, or its forward part and its explanation part."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.memory import refuse_more
from fastcam.runtime import io_binding
from fastcam.runtime.exported_model import single_images
from fastcam.runtime.exported_model.classifier_head import Head
from fastcam.runtime.exported_model.explanation_part import check_pair, explanation_part
from fastcam.runtime.exported_model.forward import Forward, TargetArrays
from fastcam.runtime.exported_model.layer_outputs import added_at
from fastcam.runtime.exported_model.promises import check_promises
from fastcam.runtime.exported_model.rows import class_rows, filled, image_rows
from fastcam.runtime.exported_model.zero_cotangents import zero_cotangents
from fastcam.runtime.inputs.further_inputs import NONE, FurtherValues
from fastcam.runtime.providers import DEFAULT, Settings, short
from fastcam.runtime.run_gate import RUNS
from fastcam.runtime.session import (
    Model,
    Providers,
    create_session,
    model_name,
    one_line,
    onnxruntime,
    open_inputs,
    ort_errors,
    read_metadata,
)
from fastcam.schema import ACTIVATIONS, CAM, COTANGENT, PREFIX, SCORES, TARGETS


class Network:
    """An exported file, or a pair of them, that runs: images in, the model's outputs and explanations out.

    Safe to share between threads: a call keeps nothing.

    Args:
        model: path or bytes of an export, or of the forward part of one in two files.
        explanation: path or bytes of the explanation part, where it is not the file beside it that ``model`` names.
        providers, threads, settings: see :func:`fastcam.runtime.session.create_session`.
        keep: what makes an array of an OrtValue, where the session runs on a GPU: activations and maps then stay there.
        head: path or bytes of what lies behind the layer, where it is not the file beside ``model`` that it names.

    Raises:
        FastcamError: a file cannot be loaded or FastCAM did not export it; half of a pair is missing, or is of another.
    """

    def __init__(
        self,
        model: Model,
        explanation: Model | None,
        providers: Providers,
        threads: int | None,
        settings: Settings = DEFAULT,
        keep: Callable[[Any], Any] | None = None,
        head: Model | None = None,
    ) -> None:
        self.name, self.threads = model_name(model), threads
        self._session = create_session(model, providers, threads, settings)
        self.metadata = read_metadata(self._session, self.name)
        if self.metadata.head is not None and self.metadata.head.part == "head":
            raise FastcamError(f"{self.name} is the head of an export; give the model, {self.metadata.head.other}")
        other = explanation_part(model, self.metadata, self.name, explanation)
        self._second = None if other is None else create_session(other, providers, threads, settings)
        if other is not None:
            check_pair(self.metadata, read_metadata(self._second, model_name(other)), self.name, model_name(other))
        self.inputs = {value.name: value for value in self._session.get_inputs()}
        known = {self.metadata.input, TARGETS, *(one.input for one in self.metadata.cotangents)}
        self.further = {name: value for name, value in self.inputs.items() if name not in known}
        self.outputs = tuple(self._session.get_outputs())
        self._outputs = [value.name for value in self.outputs]
        self._added = [name for name in self._outputs if name.startswith(PREFIX)]
        self.takes_targets = TARGETS in open_inputs(self._second or self._session)
        self._check_promises()
        self._keep = keep if io_binding.on_gpu(self._session) else None
        self._same_stream = settings.stream is not None
        open_head = partial(create_session, providers=providers, threads=threads, settings=settings)
        self._head = Head(model, head, self.metadata, self.name, open_head)
        self._replay = None
        if settings.graph and other is not None:
            raise FastcamError(f"{self.name}: a CUDA graph records one file; leave graph out, or export in one file")
        if settings.graph:
            self._replay = io_binding.Replay(self._session, io_binding.device_of(self._session))
        self._number: int | None = None
        self._kinds: tuple[dict[str, str] | None] | None = None  # of what is carried, once it was looked at
        shape = self.inputs[self.metadata.input].shape
        self.fixed_batch: int | None = shape[0] if shape and isinstance(shape[0], int) else None

    @property
    def signature(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The file's inputs and outputs as ONNX Runtime describes them; of a pair the first file's."""
        return (*self.inputs.values(),), self.outputs

    def run(self, feed: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Outputs by name of the file as it is, as any host of ONNX Runtime gets them.

        Raises:
            FastcamError: ONNX Runtime refuses the values, or could not run.
        """
        with RUNS:
            values = self._run(self._session.run, [*names], {**feed})
        return dict(zip(names, values, strict=True))

    def at(self, number: int | None) -> Network:
        """The same sessions, of which :meth:`explain` gives the layer with this number under the plain names."""
        view = copy.copy(self)
        view._number = number
        return view

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's providers that the forward pass runs on, in order of preference."""
        return tuple(self._session.get_providers())

    @property
    def on_demand(self) -> bool:
        """Whether the export is in two files, so that explaining later costs no second forward pass."""
        return self._second is not None

    def forward(
        self,
        tensor: NDArray[Any] | io_binding.DeviceTensor,
        targets: TargetArrays,
        further: FurtherValues = NONE,
    ) -> Forward:
        """Run the images of ``tensor``; a fixed batch is filled up with its last image.

        Args:
            targets: what an export in one file explains by the way.
            further: the values of the model's further inputs.
        """
        missing = (self.fixed_batch or len(tensor)) - len(tensor)
        if missing and isinstance(tensor, io_binding.DeviceTensor):
            raise FastcamError(
                f"{self.name} takes {self.fixed_batch} images per run, and {len(tensor)} on a device are not filled up"
            )
        if missing:
            self._refuse_batch(tensor)
        feed = self._feed(tensor, missing, further)
        on_demand = self._second is not None
        values, carried = self._to_carry(feed) if on_demand else (self._whole(feed, targets, missing), {})
        rows, ran = slice(0, len(tensor)), len(tensor) + missing
        own = {name: image_rows(value, rows, ran) for name, value in values.items()} if missing else values
        explained = {name: own.pop(name) for name in self._added if name in own}
        classes = class_rows(targets) if isinstance(targets, np.ndarray) else ()
        return Forward(tensor, own, explained, classes, carried, rows, ran, further)

    def received(
        self,
        tensor: NDArray[Any] | io_binding.DeviceTensor,
        outputs: Mapping[str, NDArray[Any]],
        targets: NDArray[np.int64],
    ) -> Forward:
        """What :meth:`forward` would give, of outputs that another host of the file has computed.

        Args:
            tensor: the images; of them only the shape is read.
            outputs: by name, a row for each image.
            targets: int64 [images, T], the classes that those explain.
        """
        explained = {name: value for name, value in outputs.items() if name.startswith(PREFIX)}
        own = {name: value for name, value in outputs.items() if name not in explained}
        count = len(tensor)
        return Forward(tensor, own, explained, class_rows(targets), {}, slice(0, count), count)

    def own(self, tensor: NDArray[Any], further: FurtherValues = NONE) -> dict[str, Any]:
        """The model's own outputs for images. An export in two files runs nothing else for them; one in one file also
        explains, which no run time option keeps it from."""
        missing = (self.fixed_batch or len(tensor)) - len(tensor)
        if missing:
            self._refuse_batch(tensor)
        feed = self._feed(tensor, missing, further)
        if self.metadata.cotangents and self._second is None:
            own = self._own(feed)
        else:
            if self._second is None and self.takes_targets:
                feed[TARGETS] = np.array([[-1]])
            extra = self.metadata.pair.extra if self.metadata.pair is not None else ()
            names = [name for name in self._outputs if not name.startswith(PREFIX) and name not in extra]
            own = dict(zip(names, self._run(self._session.run, names, feed), strict=True))
        return {name: image_rows(value, slice(0, len(tensor)), len(tensor) + missing) for name, value in own.items()}

    def head(self, activations: NDArray[Any], kept: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """float32 [M, classes]: the explained scores, if the layer were ``activations`` [M, K, h, w].

        Args:
            kept: what else it takes, a row for each.

        Raises:
            FastcamError: the export has no such file, or that is another's.
        """
        session = self._head.session()
        feed = {ACTIVATIONS: activations, **kept}
        fixed = next(value.shape[0] for value in session.get_inputs() if value.name == ACTIVATIONS)
        size = fixed if isinstance(fixed, int) else len(activations)
        rows = []
        for start in range(0, len(activations), size):
            part = {name: value[start : start + size] for name, value in feed.items()}
            missing = size - len(part[ACTIVATIONS])
            full = {name: np.ascontiguousarray(filled(value, missing)) for name, value in part.items()}
            rows.append(self._run(session.run, [SCORES], full)[0][: size - missing])
        return np.concatenate(rows)

    def explain(self, run: Forward, targets: TargetArrays) -> dict[str, Any]:
        """The added outputs by name, a row per image of ``run``, for targets as in :meth:`forward`.

        An export in one file runs again, unless these are the targets that it has explained already; cotangents are if
        the run has explained any.
        """
        return added_at(self._explain(run, targets), self._number, self.metadata)

    def _explain(self, run: Forward, targets: TargetArrays) -> dict[str, Any]:
        """The added outputs of all layers."""
        if run.explains(targets):
            return run.explained
        if self._second is None:
            return self.forward(run.tensor, targets, run.further).explained
        around = run.ran - run.rows.stop, run.rows.start
        added = self._values(self._second, run.carried | self._target_inputs(targets, *around))
        return {name: image_rows(_array(value), run.rows, run.ran) for name, value in added.items()}

    def alone(self, run: Forward) -> Forward:
        """One image of a run in memory of its own, for whoever keeps it.

        An export in two files then explains this image alone, where its batch is free and what the explanation takes
        can be parted. The first such call runs the model once more, to see that.
        """
        carried, rows, ran = run.carried, run.rows, run.ran
        if carried and ran > 1 and self.fixed_batch is None:
            if self._kinds is None:
                one = self._to_carry(self._feed(run.tensor, 0, run.further))[1]
                self._kinds = (single_images.kinds(carried, ran, one),)
            (of,) = self._kinds
            if of is not None:
                carried, rows, ran = single_images.part(carried, of, rows.start), slice(0, 1), 1
        copies = [
            {name: single_images.own_memory(value) for name, value in values.items()}
            for values in (run.outputs, run.explained)
        ]
        how: Any = {"carried": carried, "rows": rows, "ran": ran}
        return replace(run, tensor=single_images.own_memory(run.tensor), outputs=copies[0], explained=copies[1], **how)

    def resident(
        self,
        tensor: NDArray[Any] | io_binding.DeviceTensor,
        targets: NDArray[np.int64],
        further: FurtherValues = NONE,
    ) -> dict[str, Any]:
        """All outputs of one run by name, as arrays that lie on the device. With a stream of the user's among the
        settings they are ready when that stream is, else when this returns.

        Raises:
            FastcamError: the session is not on a GPU, replays a graph, or the export is in two files.
        """
        if self._keep is None:
            raise FastcamError(
                f"{self.name} runs on {', '.join(map(short, self.providers))}; explaining on the device needs "
                'providers "cuda" or "tensorrt" and kernels="cuda"'
            )
        if self._second is not None or self._replay is not None:
            raise FastcamError(f"{self.name}: explaining on the device takes an export in one file, and no CUDA graph")
        feed = self._feed(tensor, 0, further) | self._target_inputs(targets, 0)
        run = partial(
            io_binding.run,
            self._session,
            device=io_binding.device_of(self._session),
            stay={*self._outputs},
            same_stream=self._same_stream,
        )
        return {name: self._keep(value) for name, value in self._run(run, self._outputs, feed).items()}

    # --- inside -------------------------------------------------------------------------------------------------

    def _feed(self, tensor: Any, missing: int, further: FurtherValues) -> dict[str, Any]:
        """The model's own inputs, filled up to the images that run."""
        if further is NONE:
            return {self.metadata.input: filled(tensor, missing)}
        return {self.metadata.input: filled(tensor, missing), **further.feeds(lambda rows: filled(rows, missing))}

    def _target_inputs(self, targets: TargetArrays, after: int, before: int = 0) -> dict[str, NDArray[Any]]:
        """The inputs that say what is explained, filled up to the images that run."""
        if isinstance(targets, np.ndarray):
            return (
                {TARGETS: targets if len(targets) == 1 else filled(targets, after, before)}
                if self.takes_targets
                else {}
            )
        batched = {one.input for one in self.metadata.cotangents if one.batched}
        return {
            name: filled(array, after, before) if name in batched else array for name, array in (targets or {}).items()
        }

    def _whole(self, feed: dict[str, Any], targets: TargetArrays, missing: int) -> dict[str, Any]:
        if targets is None:
            return self._own(feed)
        feed |= self._target_inputs(targets, missing)
        values: dict[str, Any]
        if self._replay is not None:
            values = self._run(self._replay.run, self._outputs, feed)
        elif self._keep is not None or io_binding.DeviceTensor in map(type, feed.values()):
            stay = {name for name in self._outputs if self._keep is not None and name.startswith((ACTIVATIONS, CAM))}
            device = io_binding.device_of(self._session)
            values = self._run(partial(io_binding.run, self._session, device=device, stay=stay), self._outputs, feed)
            values |= {name: self._keep(values[name]) for name in stay if self._keep is not None}
        else:
            values = dict(zip(self._outputs, self._run(self._session.run, None, feed), strict=True))
        return values

    def _to_carry(self, feed: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The model's own outputs, and what the explanation part takes."""
        assert self._second is not None and self.metadata.pair is not None
        values = self._values(self._session, feed)
        own = {name: _array(value) for name, value in values.items() if name not in self.metadata.pair.extra}
        taken = [value.name for value in self._second.get_inputs() if not value.name.startswith((TARGETS, COTANGENT))]
        return own, {name: (feed | values)[name] for name in taken}

    def _values(self, session: Any, feed: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name: arrays; of an input on a device, and of bfloat16, which NumPy lacks, what the runtime holds.

        OrtValues are not copied, but cost 0.1 ms a run to be described, more than the copies of most networks' values.
        """
        outputs = session.get_outputs()
        names = [value.name for value in outputs]
        arrays = all(isinstance(value, np.ndarray) for value in feed.values())
        if arrays and not any("bfloat16" in value.type for value in outputs):
            values = self._run(session.run, names, feed)
        else:
            ort_feed = {name: io_binding.as_value(value) for name, value in feed.items()}
            values = self._run(session.run_with_ort_values, names, ort_feed)
        return dict(zip(names, values, strict=True))

    def _run(self, run: Any, names: list[str] | None, feed: dict[str, Any]) -> Any:
        try:
            return run(names, feed)
        except ort_errors(onnxruntime()) as error:
            raise FastcamError(f"{self.name}: ONNX Runtime could not run it ({one_line(error)})") from error

    def _refuse_batch(self, tensor: Any) -> None:
        """Raise where filling up a fixed batch would take more than the memory."""
        sizes = (self.fixed_batch or len(tensor), *tensor.shape[1:])
        refuse_more(f"{self.name} takes {sizes[0]} images per run, which", sizes, 4, "export it with another batch")

    def _own(self, feed: dict[str, Any]) -> dict[str, Any]:
        """The model's own outputs, of a file whose cotangents are still to be given: with one of zeros."""
        feed = feed | zero_cotangents(self.metadata, self.name, feed, self.further)
        feed = {name: np.asarray(array) for name, array in feed.items()}
        names = [name for name in self._outputs if not name.startswith(PREFIX)]
        return dict(zip(names, self._run(self._session.run, names, feed), strict=True))

    def _check_promises(self) -> None:
        """The files have the inputs and outputs that their metadata promise."""
        second = self._second.get_outputs() if self._second is not None else ()
        emitted = {*self._outputs, *(value.name for value in second)}
        taken = {*self.inputs, *(value.name for value in (self._second or self._session).get_inputs())}
        images = self.inputs[self.metadata.input].shape
        check_promises(self.metadata, self.name, images, taken, emitted)


def _array(value: Any) -> Any:
    return value.numpy() if hasattr(value, "numpy") else value
