"""From the parameters of a call to its request: targets, method and layers found in one opened file, and checked."""

from __future__ import annotations

from typing import Any

from fastcam.explain import multilayer
from fastcam.explain.opened_file import OpenedFile
from fastcam.explain.request import ExplainOptions, Request, ResolvedTargets, resolved, with_defaults
from fastcam.explain.streaming import Steps
from fastcam.methods.context import Meter
from fastcam.runtime.inputs.further_inputs import Values
from fastcam.runtime.providers import short
from fastcam.targets.resolved import CotangentSource
from fastcam.targets.spec_kinds import CotangentLike, bind

_REQUESTS = 64
"""How many ways of asking are kept, so that they need not be checked again."""


class RequestResolver:
    """Resolves what calls ask of one opened file, and keeps those requests that recur."""

    def __init__(self, file: OpenedFile) -> None:
        self._file = file
        self._known: dict[tuple[object, ...], Request] = {}

    def request(self, asks: ExplainOptions, count: int) -> Request:
        """What a call asks, resolved and checked.

        Args:
            count: for how many images there may be targets.

        Raises:
            FastcamError: a target that cannot be used, or a method that the file cannot serve.
        """
        key = None if self._file.metadata.cotangents else asks.key
        known = None if key is None else self._known.get(key)
        if known is None:
            known = self._resolve(asks, count)
            if key is not None and len(self._known) < _REQUESTS:
                self._known[key] = known
        return known

    def _resolve(self, asks: ExplainOptions, count: int) -> Request:
        asks.check()
        file, whole = self._file, self._file.whole
        targets = self.targets(asks.targets, count, asks.cotangent)
        at_one = file.view is not whole
        asked, asks = asks, with_defaults(asks, targets, whole.metadata, file.name, at_one)
        file.view.check_call(asks.fuse, asks.style)
        layers: tuple[int, ...] = ()
        if asks.layers is not None or asks.fuse is not None:
            wanted = "all" if asks.layers is None else asks.layers
            layers = multilayer.numbers(whole.metadata, wanted, file.name)
        default = whole.metadata.layer.value
        views = [file.runner.layers[number] for number in layers] or [file.view]
        name = asks.method or "gradcam"
        method, *_ = [view.served(name, asks.options, default) for view in views]  # every layer must serve it
        progress = Meter(asks.progress, count * len(views))
        by_default, how = asks.fuse != asked.fuse, (asks.style, asks.threshold, asks.connectivity)
        return Request(targets, method, layers, asks.fuse, by_default, *how, progress)

    def targets(self, targets: Any, count: int, cotangent: CotangentLike | None) -> ResolvedTargets:
        """What a call wants explained, see :func:`fastcam.explain.request.resolved`."""
        file, network = self._file, self._file.view.network
        constant = None if network.takes_targets else ", ".join(map(short, network.providers))
        return resolved(targets, cotangent, count, file.metadata, file.name, file.classes, self.question, constant)

    def question(self, cotangent: CotangentLike) -> CotangentSource:
        """See :meth:`fastcam.Explainer.question`."""
        file = self._file
        others = lambda picture: file.predict(picture).outputs, file.reading, file.texts
        return bind(cotangent, file.metadata, file.name, *others)

    def steps(self, asks: ExplainOptions, inputs: Values | None) -> Steps:
        """See :meth:`fastcam.Explainer.steps`."""
        file = self._file
        each = asks.targets if callable(asks.targets) else None
        asks = asks._replace(targets=-1) if each else asks
        same = self.request(asks, 1)

        def request(rows: list[Any] | None) -> Request:
            if rows is None:
                return same
            targets = rows if file.metadata.cotangents else _shared(rows)
            return self.request(asks._replace(targets=targets), len(rows))

        def check(own: list[Any]) -> object:
            return self.targets([own], 1, asks.cotangent)

        return file.runner.steps(request, file.view, inputs, each, check).each_within(file.limited)


def _shared(rows: list[list[Any]]) -> Any:
    """The one target that all rows have, for which the request is known from call to call; else the rows."""
    first = rows[0]
    one = len(first) == 1 and type(first[0]) in (int, str)
    return first[0] if one and all(row == first for row in rows) else rows
