"""The options of an export, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from fastcam import schema
from fastcam.errors import shown, typed
from fastcam.labels import Labels
from fastcam.schema import Emit, Engine, FastcamError, Mode, Place, Preprocessing
from fastcam_export.artifacts import engines
from fastcam_export.layers.layout import UserLayout
from fastcam_export.layers.score import OUTPUT_LAYOUTS, WANTS, OutputLayout, Want
from fastcam_export.outputs.cam import TARGETS_MODES, Targets

Check = bool | Literal["strict"]
"""Whether the check runs; "strict" refuses what it cannot confirm."""


@dataclass(frozen=True)
class ExportOptions:
    """The keyword arguments of :func:`fastcam_export.export_model`, which says what each means.

    Raises:
        FastcamError: when one is made: an option has a value that it cannot have.
    """

    layer: str | Sequence[str] = "auto"
    layout: schema.LayoutName | None = None
    prefix_tokens: int | None = None
    grid: Sequence[int] | None = None
    emit: Emit | None = None
    targets: Targets = "default"
    score: Want = "logit"
    output_name: str | Sequence[str] | None = None
    output_layout: OutputLayout | None = None
    preprocess: str | Preprocessing | Mapping[str, Any] | None = None
    resize: schema.Resize = "stretch"
    labels: Labels | None = None
    for_engine: Engine = "onnxruntime"
    input_gradient: Mode | None = None
    input_gradient_at: Place | None = None
    on_demand: bool | None = None
    head: bool = False
    frames: bool | tuple[int, int] = False
    check: Check = True
    input_name: str | None = None
    inputs: Mapping[str, Any] | None = None
    roles: Mapping[str, str] | None = None
    tokenizer: str | Path | None = None
    text_encoder: str | Path | None = None
    logit_scale: float = 1.0
    logit_bias: float = 0.0
    size: Sequence[int] | None = None
    order: str | None = None
    stop_gradient: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.check, bool):
            one_of("check", self.check, ("strict",))
        self._refuse_types()
        one_of("emit", schema.EMITS[0] if self.emit is None else self.emit, schema.EMITS)
        one_of("targets", self.targets, TARGETS_MODES)
        one_of("score", self.score, WANTS)
        one_of("output_layout", OUTPUT_LAYOUTS[0] if self.output_layout is None else self.output_layout, OUTPUT_LAYOUTS)
        one_of("for_engine", self.for_engine, schema.ENGINES)
        one_of("input_gradient", schema.MODES[0] if self.input_gradient is None else self.input_gradient, schema.MODES)
        one_of(
            "input_gradient_at",
            schema.PLACES[0] if self.input_gradient_at is None else self.input_gradient_at,
            schema.PLACES,
        )

    def _refuse_types(self) -> None:
        """Raise where an option is of a type that means nothing."""
        for name in ("layer", "output_name"):
            value = getattr(self, name)
            each = [value] if value is None or isinstance(value, str) else value
            typed(name, each, list | tuple, "a name, or a list of names")
            for one in each:
                typed(name, one, str | NoneType if name == "output_name" else str, "names")
        typed("input_name", self.input_name, str | NoneType, "the name of an input")
        typed("order", self.order, str | NoneType, "a text such as NCHW")
        typed(
            "preprocess", self.preprocess, str | Mapping | Preprocessing | NoneType, "a name, a dict or Preprocessing"
        )
        typed("inputs", self.inputs, Mapping | NoneType, "a dict of values by the names of inputs")
        typed("roles", self.roles, Mapping | NoneType, "a dict of roles by the names of inputs")
        typed("tokenizer", self.tokenizer, str | Path | NoneType, "the path of a tokenizer.json")
        typed("text_encoder", self.text_encoder, str | Path | NoneType, "the path of an ONNX file")
        for name, least in (("logit_scale", 0), ("logit_bias", -1e12)):
            number = getattr(self, name)
            typed(name, number, Real, "a number")
            if not least < number < 1e12:
                raise FastcamError(f"{name} is {number}; give {'a number above 0' if not least else 'a finite number'}")
        for name in ("size", "grid"):
            typed(name, getattr(self, name), list | tuple | NoneType, "whole numbers, such as (48, 320)")
            for side in getattr(self, name) or ():
                typed(name, side, Integral, "whole numbers, such as (48, 320)")
        typed("frames", self.frames, bool | list | tuple, "True, or (height, width)")

    @property
    def targets_input(self) -> Targets:
        """``targets``, where "default" is "required" for an engine that makes a constant of an input with a default."""
        return "required" if engines.requires_targets(self.for_engine) and self.targets == "default" else self.targets

    @property
    def cotangents(self) -> bool:
        """Whether targets are cotangents, not classes."""
        return self.targets == "cotangent"

    @property
    def user_layout(self) -> UserLayout:
        """What the user says of the layers' layout."""
        return UserLayout(self.layout, self.prefix_tokens, self.grid)

    @property
    def emitted(self) -> Emit:
        """The emit level of a plan, whose options name one."""
        assert self.emit is not None
        return self.emit

    def by_kind(self, outputs: Sequence[str]) -> ExportOptions:
        """The same for cotangents of outputs that were found out."""
        return replace(self, targets="cotangent", output_name=list(outputs))

    def of_whole_gradient(self) -> ExportOptions:
        """The same for one file that emits the whole gradient and nothing else."""
        return replace(self, emit="gradients", input_gradient=None, on_demand=False, head=False, frames=False)


def one_of(option: str, value: str, allowed: Sequence[str]) -> None:
    """Raise a FastcamError where an option has another value than those allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise FastcamError(f"{option} is {shown(repr(value))}; it must be one of: {', '.join(allowed)}")
