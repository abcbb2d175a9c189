"""``from_torch``: a PyTorch module, exported to ONNX and rewritten so that it explains itself, in one call."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import onnx

from fastcam.errors import typed
from fastcam.schema import FastcamError, Metadata, TargetLayer
from fastcam_export.exporter import export_model
from fastcam_export.result import Export
from fastcam_export.steps.package import finish

if TYPE_CHECKING:
    import torch


def from_torch(
    module: torch.nn.Module,
    example_inputs: torch.Tensor | Sequence[torch.Tensor],
    layer: torch.nn.Module | str | list[torch.nn.Module | str] | tuple[torch.nn.Module | str, ...] = "auto",
    output: str | Path | None = None,
    *,
    dynamic_batch: bool = True,
    **options: Any,
) -> Export:
    """Export a PyTorch module: ``torch.onnx.export(dynamo=True)``, then :func:`fastcam_export.export_model`.

    Args:
        module: in inference mode; it is left as it was.
        example_inputs: a tensor [N, C, H, W], or one tensor for each argument of ``forward``; only the shapes matter.
        layer: what is explained: a submodule of ``module`` or its attribute path ("layer4.1.conv2", "blocks.11.norm1"),
            that is the tensor that it returns (of a tuple the first one; of several calls the last one's); or the name
            of a value, node or scope of the ONNX graph; or "auto", or "all"; or a list of those.
        output: file to write; None only returns the model.
        dynamic_batch: leave the first dimension of the inputs free.
        **options: the other keyword arguments of :func:`fastcam_export.export_model`.

    Returns:
        What :func:`fastcam_export.export_model` returns. The gradient is that of autograd at the module's output.

    Raises:
        FastcamError: PyTorch is missing, the module is in training mode, it cannot be exported (with PyTorch's reason),
            the layer is no part of the module or is not called, or as :func:`fastcam_export.export_model`.

    >>> from fastcam_export import from_torch
    >>> from_torch(model, images, layer=model.layer4[-1], output="model.cam.onnx")  # doctest: +SKIP
    """
    torch = _torch()
    typed("module", module, torch.nn.Module, "a torch.nn.Module")
    typed("example_inputs", example_inputs, torch.Tensor | list | tuple, "a tensor, or a list of them")
    typed("output", output, str | PathLike | NoneType, "the path of a file")
    _check_mode(module)
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    if not inputs or not all(isinstance(value, torch.Tensor) for value in inputs):
        raise FastcamError("example_inputs must be a tensor, or one tensor for each argument of the module's forward")
    asked = layer if isinstance(layer, (list, tuple)) else [layer]
    found = [_submodule(module, one) for one in asked]
    modules = {path: target for target, path in found if target is not None}
    with contextlib.ExitStack() as stack:
        calls = {path: stack.enter_context(_returned(torch, module, part, path)) for path, part in modules.items()}
        proto = _to_onnx(torch, module, inputs, dynamic_batch)
    names = {path: _take_last_output(proto, path) for path in reversed(modules)}
    made = export_model(proto, None, layer=[names.get(path, path) for _, path in found], **options)
    told = {names[path]: _reason(path, calls[path][0]) for path in modules}
    return finish(replace(made, metadata=_with_reasons(made.metadata, told)), output)


def _reason(path: str, calls: int) -> str:
    return f"the output of module {path!r}" + (f" (the last of its {calls} calls)" if calls > 1 else "")


def _with_reasons(metadata: Metadata, told: dict[str, str]) -> Metadata:
    """``metadata`` with modules in place of the values that were named, by the values' names."""

    def said(layer: TargetLayer) -> TargetLayer:
        name = layer.value
        return (
            replace(layer, reason=layer.reason.replace(f"named as value {name!r}", told[name]))
            if name in told
            else layer
        )

    return replace(metadata, layer=said(metadata.layer), layers=tuple(map(said, metadata.layers)))


def _torch() -> Any:
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it)
        import torch
    except ImportError as error:
        raise FastcamError(
            f"from_torch needs PyTorch and onnxscript ({error}); pip install torch onnxscript"
        ) from error
    return torch


def _check_mode(module: torch.nn.Module) -> None:
    training = next((name for name, part in module.named_modules() if part.training), None)
    if training is not None:
        where = f"its part {training!r} is" if training else "it is"
        raise FastcamError(f"the module cannot be exported while {where} in training mode; call module.eval() first")


def _submodule(module: torch.nn.Module, layer: torch.nn.Module | str) -> tuple[torch.nn.Module | None, str]:
    """The submodule that ``layer`` means and its attribute path; None and the name where it is none."""
    if isinstance(layer, str):
        return (None if layer in ("auto", "all") else dict(module.named_modules()).get(layer)), layer
    for path, part in module.named_modules():
        if part is layer:
            return layer, path
    raise FastcamError(
        f"the layer, a {type(layer).__name__}, is no part of the module that is exported; give one of its submodules, "
        "or an attribute path"
    )


@contextlib.contextmanager
def _returned(torch: Any, module: torch.nn.Module, target: torch.nn.Module, path: str) -> Iterator[list[int]]:
    """While this lasts, ``module`` returns what ``target`` returned last beside its own result; the number of calls.

    A copy, as a later operation may overwrite it (``ReLU(inplace=True)``).
    """
    seen: list[Any] = []
    calls = [0]
    original = module.forward
    own = "forward" in module.__dict__

    def keep(_: Any, __: Any, result: Any) -> None:
        first = next((v for v in result if isinstance(v, torch.Tensor)), None) if isinstance(result, tuple) else result
        seen.append(first.clone() if isinstance(first, torch.Tensor) else type(result).__name__)

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        seen.clear()
        result = original(*args, **kwargs)
        if target is module:
            keep(None, None, result)
        if not seen:
            raise FastcamError(f"module {path!r} is not called by the forward pass; give a layer that is")
        if isinstance(seen[-1], str):
            raise FastcamError(f"module {path!r} returns a {seen[-1]}, not a tensor; give a layer that returns one")
        calls[0] = len(seen)
        return result, seen[-1]

    hook = target.register_forward_hook(keep) if target is not module else None
    module.forward = forward
    try:
        yield calls
    finally:
        del module.forward
        if own:
            module.forward = original
        if hook is not None:
            hook.remove()


def _to_onnx(torch: Any, module: torch.nn.Module, inputs: tuple[Any, ...], dynamic_batch: bool) -> onnx.ModelProto:
    """The module as a ModelProto."""
    options: dict[str, Any] = {}
    if dynamic_batch:
        batch = inputs[0].shape[0] if inputs[0].dim() else 0
        free = [value.dim() > 0 and value.shape[0] == batch for value in inputs]
        if batch == 1:  # torch takes a size of one for a constant
            inputs = tuple(torch.cat([v, v]) if is_free else v for v, is_free in zip(inputs, free))
        dim = torch.export.Dim("N", min=1)
        options["dynamic_shapes"] = tuple({0: dim} if is_free else None for is_free in free)
    try:
        with _quiet():
            program = torch.onnx.export(module, inputs, dynamo=True, verbose=False, **options)
    except Exception as error:  # torch's exporter raises whatever the traced code raises, wrapped in its own kinds
        refused = next((cause for cause in _causes(error) if isinstance(cause, FastcamError)), None)
        if refused is not None:
            raise refused from error
        why = " ".join(str(list(_causes(error))[-1]).split())[:240]
        advice = "; if it fixes its batch, give dynamic_batch=False" if dynamic_batch else ""
        raise FastcamError(f"torch.onnx.export cannot export the module ({why}){advice}") from error
    proto: onnx.ModelProto = program.model_proto
    return proto


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporter reports its steps; what fails is told by an exception."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        stack.callback(logging.disable, level)
        yield


def _take_last_output(proto: onnx.ModelProto, path: str) -> str:
    """Remove the graph's last output, which is the layer; the name of its value: ``path``, where that is free."""
    graph = proto.graph
    name = graph.output[-1].name
    del graph.output[-1]
    kept = {value.name for value in graph.output}
    made = {output: node for node in graph.node for output in node.output}
    while name in made and made[name].op_type == "Identity" and name not in kept:
        node = made.pop(name)
        graph.node.remove(node)
        name = node.input[0]
    if not path or path in made or name not in made or name in kept:
        return str(name)
    for node in graph.node:
        node.input[:] = [path if value == name else value for value in node.input]
        node.output[:] = [path if value == name else value for value in node.output]
    for value in graph.value_info:
        value.name = path if value.name == name else value.name
    return path
